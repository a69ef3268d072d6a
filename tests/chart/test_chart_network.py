"""NetworkPolicies: which pods may connect to which servers."""

from support.chart import Object, parsed, pods, render, render_text, runtime


def selected(selector: Object, labels: dict[str, str]) -> bool:
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    return all(
        labels.get(one["key"]) in one["values"] if one["operator"] == "In" else one["key"] in labels
        for one in selector.get("matchExpressions", [])
    )


class Network:
    """The connections that the NetworkPolicies of one namespace allow between its pods. A connection passes in a
    direction when no policy selects the pod, or a rule of one that does names the other pod and the port."""

    def __init__(self, objects: list[Object]) -> None:
        self.policies = [found["spec"] for found in objects if found["kind"] == "NetworkPolicy"]

    def passes(self, source: dict[str, str], target: dict[str, str], port: int) -> bool:
        return self._side("Egress", source, target, port) and self._side("Ingress", target, source, port)

    def reaches(self, source: dict[str, str], cidr: str, port: int) -> bool:
        """Whether a pod may call an address outside of the cluster."""
        return any(
            _on(rule, port) and {"ipBlock": {"cidr": cidr}} in rule["to"]
            for policy in self.policies
            if selected(policy["podSelector"], source)
            for rule in policy.get("egress", [])
        )

    def _side(self, direction: str, pod: dict[str, str], other: dict[str, str], port: int) -> bool:
        key = direction.lower()
        mine = [
            policy
            for policy in self.policies
            if direction in policy["policyTypes"] and selected(policy["podSelector"], pod)
        ]
        return not mine or any(
            _on(rule, port)
            and any(
                "podSelector" in peer and "namespaceSelector" not in peer and selected(peer["podSelector"], other)
                for peer in rule["from" if key == "ingress" else "to"]
            )
            for policy in mine
            for rule in policy.get(key, [])
        )


def _on(rule: Object, port: int) -> bool:
    """Whether a rule is for a port; without ports it is for all."""
    return "ports" not in rule or port in [one["port"] for one in rule["ports"]]


def test_pods_reach_the_servers_they_need_and_no_others() -> None:
    objects = render("minimal")
    found = {name: pod["metadata"]["labels"] for name, pod in pods(objects).items()}
    who = {
        "pipeline": {"workflows.argoproj.io/workflow": "a-run", "pipelines.kubeflow.org/v2_component": "true"},
        "mlflow": found["press-lmmpress-mlflow"],
        "postgresql": found["press-lmmpress-postgresql"],
        "minio": found["press-lmmpress-minio"],
        "prepare": found["press-lmmpress-prepare"],
        "check": found["press-lmmpress-check-store"],
        "engine": found["press-lmmpress-check-engine"],
        "stranger": {"app": "notebook"},
    }
    ports = {
        "mlflow": 5000,
        "postgresql": 5432,
        "minio": 9000,
        "pipeline": 8080,
        "prepare": 8080,
        "check": 8080,
        "engine": 8080,
    }
    network = Network(objects)
    allowed = {
        (source, target)
        for source in who
        for target in ports
        if source != target and network.passes(who[source], who[target], ports[target])
    }
    needed = {("mlflow", "postgresql"), ("mlflow", "minio")}
    needed |= {
        (source, target) for source in ("pipeline", "prepare", "check", "engine") for target in ("mlflow", "minio")
    }
    assert allowed == needed
    # DNS, and Kubernetes' API for the pipeline alone
    for name in ("pipeline", "engine"):
        assert network.reaches(who[name], "0.0.0.0/0", 6443)
    for name in ("mlflow", "postgresql", "minio", "prepare"):
        assert not network.reaches(who[name], "0.0.0.0/0", 6443)
        assert any(
            selected(policy["podSelector"], who[name])
            and any({"port": 53, "protocol": "UDP"} in rule["ports"] for rule in policy.get("egress", []))
            for policy in network.policies
        )


def test_the_trigger_is_called_by_mlflow_and_calls_what_it_needs() -> None:
    objects = render("trigger")
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(objects).items()}
    trigger, check = labels["press-lmmpress-trigger"], labels["press-lmmpress-check-trigger"]
    mlflow, minio = labels["press-lmmpress-mlflow"], labels["press-lmmpress-minio"]
    pipeline = {"workflows.argoproj.io/workflow": "a-run"}
    network = Network(objects)
    for source in (trigger, check):
        assert network.passes(source, mlflow, 5000)
        assert network.passes(source, minio, 9000)
        assert network.passes(source, trigger, 8080)
        assert not network.passes(source, labels["press-lmmpress-postgresql"], 5432)
        assert not network.reaches(source, "0.0.0.0/0", 6443), "Kubeflow runs its pipelines"
        assert network.reaches(source, "10.4.0.0/16", 587), "further rules"
    assert network.passes(mlflow, trigger, 8080), "webhooks"
    for source in (pipeline, minio, {"app": "notebook"}):
        assert not network.passes(source, trigger, 8080)
    (policy,) = (one for one in network.policies if selected(one["podSelector"], trigger) and "ingress" in one)
    callers = [
        peer["namespaceSelector"]["matchLabels"]
        for peer in policy["ingress"][0]["from"]
        if len(peer) == 1 and "namespaceSelector" in peer
    ]
    assert [next(iter(one.values())) for one in callers] == ["ingress-nginx", "monitoring"]
    kubeflow = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kubeflow"}}}
    assert [kubeflow] in [rule["to"] for rule in policy["egress"]]

    network = Network(render("trigger-argo"))
    assert network.reaches(trigger, "0.0.0.0/0", 6443), "it makes workflows"
    assert "kubeflow" not in str(network.policies)
    assert not Network(render("minimal")).passes(mlflow, trigger, 8080), "without a trigger MLflow calls nobody"


def test_the_pods_of_a_training_reach_each_other_the_store_and_names() -> None:
    objects = render("trainer")
    labels = {name.removeprefix("press-lmmpress-"): pod["metadata"]["labels"] for name, pod in pods(objects).items()}
    training = runtime(objects)["spec"]["template"]["metadata"]["labels"]
    pipeline = {"workflows.argoproj.io/workflow": "a-run", "lmmpress/part": "distill"}
    network = Network(objects)
    for port in (29500, 1, 65535):
        assert network.passes(training, training, port), "NCCL and gloo take any port"
    assert network.passes(training, labels["minio"], 9000)
    assert dns_peers(network, training)
    for name in ("mlflow", "postgresql", "prepare", "check-store"):
        for port in (5000, 5432, 9000, 29500):
            assert not network.passes(training, labels[name], port)
    for source in (pipeline, {"app": "notebook"}, *labels.values()):
        assert not network.passes(source, training, 29500), "nothing else calls them"
    assert not network.reaches(training, "0.0.0.0/0", 6443), "they have no token for Kubernetes"
    assert network.reaches(pipeline, "0.0.0.0/0", 6443), "the task that makes the training calls Kubernetes"
    for source in (training, pipeline):
        assert network.reaches(source, "10.6.0.0/16", 443), "further rules"
    outside = {"minio": {"enabled": False}, "objectStorage": {"external": {"endpoint": "https://s3.example.org:8443"}}}
    network = Network(parsed(render_text(outside | {"trainer": {"enabled": True}})))
    assert network.reaches(training, "0.0.0.0/0", 8443)
    assert not network.reaches(training, "0.0.0.0/0", 443)
    without = Network(render("minimal"))
    assert not without.passes(training, training, 29500)
    assert not without.passes(training, labels["minio"], 9000)


def test_outside_servers_are_reached_on_their_ports() -> None:
    pipeline = {"workflows.argoproj.io/workflow": "a-run"}
    network = Network(render("external"))
    assert network.reaches(pipeline, "10.1.0.0/16", 8443)
    assert not network.reaches(pipeline, "10.1.0.0/16", 443)
    assert network.reaches(pipeline, "0.0.0.0/0", 443)
    objects = render("database")
    server = pods(objects)["press-lmmpress-mlflow"]["metadata"]["labels"]
    network = Network(objects)
    assert network.reaches(server, "10.2.0.0/16", 6432)
    assert network.reaches(pipeline, "0.0.0.0/0", 9000)
    assert not network.reaches(pipeline, "10.2.0.0/16", 6432)


def dns_peers(network: Network, pod: dict[str, str]) -> list[tuple[Object, list[int]]]:
    """Whom a pod may ask for names, and on which ports."""
    return [
        (peer, [one["port"] for one in rule["ports"] if one.get("protocol") == "UDP"])
        for policy in network.policies
        if selected(policy["podSelector"], pod)
        for rule in policy.get("egress", [])
        for peer in rule["to"]
        if {"UDP"} & {one.get("protocol") for one in rule.get("ports", [])}
    ]


def test_names_are_asked_of_the_resolvers_of_most_clusters() -> None:
    network = Network(render("minimal"))
    for pod in (
        {"workflows.argoproj.io/workflow": "a-run"},
        pods(render("minimal"))["press-lmmpress-mlflow"]["metadata"]["labels"],
    ):
        said = dns_peers(network, pod)
        assert all(ports == [53, 5353] for _, ports in said)
        peers = [peer for peer, _ in said]
        assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in peers, "NodeLocal DNSCache"
        named = {
            peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
            for peer in peers
            if "podSelector" in peer
        }
        assert named == {"kube-system", "openshift-dns"}
        assert all(peer["podSelector"] for peer in peers if "podSelector" in peer), "no pod of those namespaces but DNS"


def mlflows_callers(values: dict[str, object]) -> list[Object]:
    (policy,) = (
        one
        for one in parsed(render_text(values))
        if one["metadata"]["name"] == "press-lmmpress-mlflow" and one["kind"] == "NetworkPolicy"
    )
    return [peer for rule in policy["spec"]["ingress"] for peer in rule["from"]]


def test_a_plugin_that_is_set_up_by_hand_may_call_mlflow() -> None:
    kubeflow = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kubeflow"}}}
    assert kubeflow not in mlflows_callers({})
    for how in ("enabled", "byHand"):
        assert kubeflow in mlflows_callers({"kubeflow": {"mlflowPlugin": {how: True}}})
    by_hand = parsed(render_text({"kubeflow": {"mlflowPlugin": {"byHand": True}}}))
    assert "kfp-launcher" not in [one["metadata"]["name"] for one in by_hand if one["kind"] == "ConfigMap"]


def test_without_kubeflow_nothing_of_it_is_reached() -> None:
    pipeline = {"workflows.argoproj.io/workflow": "a-run"}
    assert "kubeflow" not in str(Network(render("argo")).policies)
    assert Network(render("argo")).reaches(pipeline, "0.0.0.0/0", 6443), "Argo's executor reports to Kubernetes"


def test_a_controller_in_a_namespace_that_denies_everything_still_works() -> None:
    controller = {"app": "workflow-controller"}
    for system, works in (("team", True), ("argo", False)):
        values = {"engine": "argo", "argo": {"namespace": system}, "networkPolicy": {"scope": "namespace"}}
        network = Network(parsed(render_text(values)))
        assert network.reaches(controller, "0.0.0.0/0", 443) == works
        assert bool(dns_peers(network, controller)) == works
