"""Argo's workflows in a cluster: make, read, watch and change them; and what is known of the controller."""

from collections.abc import Iterator

from lmmpress.errors import UserError
from lmmpress.pods.argo_controller import OLDEST, find_controller
from lmmpress.pods.cluster_reader import Cluster, NoClusterError, Node, UnseenError, at, mapping, text
from lmmpress.pods.cluster_reader import connect as connect_cluster
from lmmpress.pods.waiting import ENDED, phase_of
from lmmpress.tasks.cluster_profile import Profile

GROUP = "/apis/argoproj.io/v1alpha1"
_EXISTS = 409
_INVALID = (400, 413, 422)
_TRIES = 10


class RefusedError(UserError):
    """The API refuses an object for what it is: the same would be refused again."""


class Workflows:
    """The workflows of a namespace. What the API refuses or does not answer is an UnseenError."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def create(self, workflow: Node) -> str:
        """Make a workflow; its name. One that names itself and is there already is not made again. Raises UserError if
        the cluster has no Argo, RefusedError among them if it refuses this object."""
        host = self.cluster.host
        try:
            return text(at(self.cluster.post(self._path(), workflow), "metadata", "name"))
        except UnseenError as error:
            if error.status == _EXISTS and (name := text(at(workflow, "metadata", "name"))):
                return name
            if error.status == 404:
                raise UserError(
                    f"{host} knows no workflows: Argo Workflows is not installed there, or its CRD "
                    f"workflows.argoproj.io is missing, or there is no namespace {self.namespace}"
                ) from None
            kind = RefusedError if error.status in _INVALID else UserError
            raise kind(f"{host} takes no workflow in namespace {self.namespace}: {error}") from None

    def get(self, name: str) -> Node | None:
        """A workflow; None if it was deleted."""
        return self.cluster.find(self._path(name))

    def replace(self, workflow: Node) -> None:
        """Write a workflow that was read; UnseenError with status 409 if it was changed since then."""
        self.cluster.put(self._path(text(at(workflow, "metadata", "name"))), workflow)

    def having(self, labels: str) -> list[Node]:
        """The workflows with these labels."""
        return self.cluster.items(self._path(), labelSelector=labels)

    def end(self, name: str) -> None:
        """Ask the controller to end a workflow at once; nothing happens if it has ended, or was deleted."""
        for _ in range(_TRIES):
            workflow = self.get(name)
            if workflow is None or is_shut_down(workflow) or phase_of(workflow) in ENDED:
                return
            try:
                return self.replace({**workflow, "spec": {**mapping(workflow.get("spec")), "shutdown": "Terminate"}})
            except UnseenError as error:
                if error.status != _EXISTS:
                    raise
        raise UnseenError(_EXISTS, f"workflow {name} changes all the time")

    def watch(self, workflow: Node, seconds: int) -> Iterator[tuple[str, Node]]:
        """The changes of a workflow since it was read, with their kinds, for so many seconds at most."""
        return self.cluster.watch(
            self._path(),
            seconds,
            resourceVersion=text(at(workflow, "metadata", "resourceVersion")),
            fieldSelector=f"metadata.name={at(workflow, 'metadata', 'name')}",
        )

    def _path(self, name: str = "") -> str:
        return f"{GROUP}/namespaces/{self.namespace}/workflows" + (f"/{name}" if name else "")


def is_shut_down(workflow: Node) -> bool:
    """Whether somebody has asked for its end."""
    return bool(text(at(workflow, "spec", "shutdown")))


def connect(profile: Profile, context: str | None = None) -> Workflows:
    """The workflows of the kubeconfig's cluster; UserError if there is none."""
    try:
        cluster = connect_cluster(context)
    except NoClusterError as error:
        raise UserError(f"where is the cluster? {error}") from None
    return workflows_in(cluster, profile)


def workflows_in(cluster: Cluster, profile: Profile) -> Workflows:
    """The workflows of the profile's namespace, else of the one that the kubeconfig's context names."""
    return Workflows(cluster, profile.argo.namespace or cluster.namespace or "default")


def controller_version(workflows: Workflows, profile: Profile) -> tuple[int, int] | None:
    """The version of Argo's controller; None if it is not shown to us.

    Raises UserError if the version is older than workflows can be made for, and if the controller does not look at the
    namespace, or at workflows without its instance id.
    """
    system, namespace = profile.argo.system, workflows.namespace
    try:
        controller = find_controller(workflows.cluster, (system, namespace))
    except UnseenError:
        return None
    if controller is None:
        return None
    if controller.watched not in (None, namespace):
        raise UserError(
            f"Argo's controller in {controller.namespace} looks at namespace {controller.watched} only: a workflow in "
            f"{namespace} would never begin; set argo.namespace: {controller.watched} in the cluster profile, or "
            "--managed-namespace at the controller"
        )
    if controller.instance and controller.instance != profile.argo.instance:
        raise UserError(
            f"Argo's controller in {controller.namespace} takes only workflows of its instance {controller.instance}: "
            f"set argo.instance: {controller.instance} in the cluster profile"
        )
    version = controller.version
    if version and version < OLDEST:
        raise UserError(
            f"Argo {version[0]}.{version[1]} is too old: retries by cause need {OLDEST[0]}.{OLDEST[1]} or newer"
        )
    return version


def check_account(workflows: Workflows, profile: Profile) -> None:
    """Raise UserError if the pods' service account may not report results, without which Argo takes every pod as
    failed."""
    account = profile.service_account or "default"
    for verb in ("create", "patch"):
        if _may(workflows, account, verb, "workflowtaskresults") is False:
            raise UserError(
                f"service account {account} in {workflows.namespace} may not {verb} workflowtaskresults.argoproj.io, "
                "so Argo would learn no result of a pod: give it the Role of docs/argo.md, or name another one in "
                "service_account"
            )


def _may(workflows: Workflows, account: str, verb: str, resource: str) -> bool | None:
    """Whether a service account may do something with a resource of Argo's; None if that is not told to us."""
    namespace, serving = workflows.namespace, "system:serviceaccounts"
    about = {"namespace": namespace, "group": "argoproj.io", "resource": resource, "verb": verb}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "LocalSubjectAccessReview",
        "metadata": {"namespace": namespace},
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{account}",
            "groups": [serving, f"{serving}:{namespace}", "system:authenticated"],
            "resourceAttributes": about,
        },
    }
    path = f"/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews"
    try:
        allowed = at(workflows.cluster.post(path, review), "status", "allowed")
    except UnseenError:
        return None
    return allowed if isinstance(allowed, bool) else None
