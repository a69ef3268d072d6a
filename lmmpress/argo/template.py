"""From a plan to a WorkflowTemplate of Argo.

    main: prepare ─ run, under a mutex of the run:
            original ─ block ─ wait-for-approval ─ ffn ─ ... ─ result ─ publish ─ compare, if the plan asks for it

By stage, `block` is one pod. By step it is a template that calls itself while a step is due:

    stage-block: due: which step is the stage's next?
                 if there is one:  step-block: importance ─ prune ─ distill ─ evaluate ─ gate,
                                   then stage-block again

The recursion asks where the run stands, so it begins at the first step that is not decided. If the workflow fails, a
last task notes why, ends the run in MLflow and gives the run's lease back.
"""

import importlib.metadata
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hera.workflows import DAG, Container, Parameter, Suspend, Task, WorkflowTemplate
from hera.workflows.models import (
    ArchiveStrategy,
    Artifact,
    LocalObjectReference,
    Mutex,
    NoneStrategy,
    PodDisruptionBudgetSpec,
    PodGC,
    Synchronization,
    TTLStrategy,
    WorkflowMetadata,
)

from lmmpress.argo.pod_settings import COMPARISON, REPORT, container, pod_security, restricted_patch
from lmmpress.axes import axis_named
from lmmpress.host.pod import SUBMITTER
from lmmpress.plan import Plan
from lmmpress.stages import Stage
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Granularity
from lmmpress.tasks.parameters import AMOUNTS, as_compiled

VERSION = importlib.metadata.version("lmmpress")
DEEPEST = 90
"""Steps of one stage. Argo follows at most 100 templates that call each other."""
MEASURE = "measure"
"""The template that measures the original and the result."""
WAIT = "wait-for-approval"
"""The suspended template at which a workflow waits for a person."""
CONTROLLER = "workflows.argoproj.io/controller-instanceid"
"""The label that says which controller a workflow is for, where controllers have instance ids."""
_MOST_BYTES = 63 - len("-xxxxx-attention-prune-0000000000")
_RUN_OUT = "prepared"
_STORE = "'store': workflow.parameters.store"
_OF_RUN = f"{_STORE}, 'run': inputs.parameters.run"
_OF_STAGE = f"{_OF_RUN}, 'stage': inputs.parameters.stage"
_OF_STEP = f"{_OF_STAGE}, 'index': int(inputs.parameters.index)"


def workflow_template(
    plan: Plan,
    arguments: dict[str, Any],
    profile: Profile,
    granularity: Granularity,
    left_out: tuple[str, ...] = (),
    submitter: str | None = None,
) -> WorkflowTemplate:
    """The template whose parameters have these arguments as defaults, except those in `left_out`, which have none."""
    parts = _Parts(profile, submitter)
    stages = _by_step(plan, parts) if granularity is Granularity.step else [parts.stage()]
    ends = [parts.evaluate()] if granularity is Granularity.step else []
    approvals = [parts.approval(), _wait(), _approve()] if plan.pipeline.approve else []
    one: Any = 1  # hera's models take a number here, which their types do not say
    templates: list[Any] = [
        _main(),
        _run(plan, granularity),
        parts.prepare(plan, arguments),
        *ends,
        *stages,
        *approvals,
        parts.publish(),
        *([parts.compare()] if plan.compare else []),
        _on_exit(),
        parts.end(),
    ]
    return WorkflowTemplate(
        name=workflow_name(str(arguments["name"])),
        namespace=profile.argo.namespace,
        labels={"app.kubernetes.io/name": "lmmpress", "app.kubernetes.io/version": VERSION, **_instance(profile)},
        annotations={
            "workflows.argoproj.io/title": f"lmmpress {arguments['name']} by {granularity}",
            "workflows.argoproj.io/description": "Compresses a multimodal model by "
            f"{', '.join(stage.name for stage in plan.stages)}; every step is kept only within alpha.",
        },
        workflow_metadata=WorkflowMetadata(labels={"app.kubernetes.io/name": "lmmpress", **_instance(profile)}),
        entrypoint="main",
        on_exit="on-exit",
        arguments=[
            Parameter(name=name) if name in left_out else Parameter(name=name, value=text_of(value))
            for name, value in arguments.items()
        ],
        templates=templates,
        service_account_name=profile.service_account,
        image_pull_secrets=[LocalObjectReference(name=name) for name in profile.pull_secrets] or None,
        security_context=pod_security(profile),
        pod_spec_patch=restricted_patch(),
        pod_priority_class_name=profile.argo.priority_class,
        active_deadline_seconds=profile.argo.deadline,
        ttl_strategy=TTLStrategy(seconds_after_completion=profile.ttl) if profile.ttl is not None else None,
        # failed pods stay, with their logs, as long as their workflow
        pod_gc=PodGC(strategy="OnPodSuccess", delete_delay_duration="600s"),
        # one pod works at a time: a node is drained when it has ended
        pod_disruption_budget=PodDisruptionBudgetSpec(min_available=one),
    )


def workflow_name(name: str) -> str:
    """The name of a template: short, since Argo puts it before the names of pods, which hosts cut at 63 characters."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower())
    return f"lmmpress-{plain}"[:_MOST_BYTES].strip("-")


def text_of(value: Any) -> str:
    """The value of a parameter: Argo's are all texts."""
    return value if isinstance(value, str) else json.dumps(value)


class _Parts:
    """The containers of all parts, with a profile's settings."""

    def __init__(self, profile: Profile, submitter: str | None) -> None:
        self._profile, self._submitter = profile, submitter

    def prepare(self, plan: Plan, arguments: dict[str, Any]) -> Container:
        """The amounts of all stages go to the task as one text, as in a pipeline of Kubeflow."""
        amounts = [name for stage in plan.stages for key in AMOUNTS if (name := f"{stage.axis}_{key}") in arguments]
        given = [f"'{name}': workflow.parameters.{name}" for name in arguments if name not in amounts]
        if amounts:
            text = " + ' ' + ".join(f"'{name}=' + workflow.parameters.{name}" for name in amounts)
            given.append(f"'amounts': {text}")
        compiled = json.dumps(as_compiled(plan.stages, plan.pipeline.approve, plan.compare))
        given += [f"'compiled': {compiled}", "'in_line': true"]
        environment = {SUBMITTER: self._submitter} if self._submitter else {}
        given_as = ", ".join(given)
        return self._made(
            "prepare", "prepare", given_as, (), environment=environment, has_result=True, global_name=_RUN_OUT
        )

    def due(self) -> Container:
        return self._made("due", "due", _OF_STAGE, ("run", "stage"), has_result=True)

    def of_step(self, part: str) -> Container:
        return self._made(part, part, _OF_STEP, ("run", "stage", "index"), has_result=part == "gate")

    def evaluate(self) -> Container:
        return self._made(MEASURE, "evaluate", _OF_STAGE, ("run", "stage"), part_label="evaluate")

    def stage(self) -> Container:
        return self._made("stage", "stage", _OF_STAGE, ("run", "stage"))

    def approval(self) -> Container:
        arguments = f"{_OF_STAGE}, 'resumed': inputs.parameters.resumed == 'yes'"
        return self._made("approval", "approval", arguments, ("run", "stage", "resumed"), has_result=True)

    def publish(self) -> Container:
        made = self._made("publish", "publish", f"{_OF_RUN}, 'report': '{REPORT}'", ("run",))
        self._keep_page(made, Artifact(name="report", path=REPORT))
        return made

    def compare(self) -> Container:
        """The page is optional: a comparison that cannot be made fails no workflow."""
        made = self._made("compare", "compare", f"{_OF_RUN}, 'page': '{COMPARISON}'", ("run",))
        self._keep_page(made, Artifact(name="comparison", path=COMPARISON, optional=True))
        return made

    def _keep_page(self, made: Container, page: Artifact) -> None:
        if self._profile.argo.report:
            page.archive = ArchiveStrategy(none=NoneStrategy())
            made.outputs = [page]

    def end(self) -> Container:
        arguments = f"{_OF_RUN}, 'status': workflow.status, 'failures': workflow.failures"
        return self._made("end", "due", arguments, ("run",))

    def _made(
        self,
        name: str,
        component: str,
        arguments: str,
        inputs: tuple[str, ...],
        part_label: str | None = None,
        **more: Any,
    ) -> Container:
        return container(
            name,
            component,
            self._profile,
            "{" + arguments + "}",
            inputs,
            command=("--compiled-by", VERSION),
            task=part_label or name,
            **more,
        )


def _main() -> DAG:
    """The run's parameters come from prepare: its submission's name, which begins with the run key. The same run in
    another store is none of this one's business, so the key of the mutex has the store in it."""
    run = _result("prepare", "run")
    key = f"sprig.trunc(12, {run}) + '-' + sprig.trunc(8, sprig.sha256sum(workflow.parameters.store))"
    return DAG(
        name="main",
        tasks=[
            Task(name="prepare", template="prepare"),
            Task(
                name="run",
                template="run",
                depends="prepare",
                arguments={"run": "{{=" + run + "}}", "key": "{{=" + key + "}}"},
            ),
        ],
    )


def _run(plan: Plan, granularity: Granularity) -> DAG:
    """All stages in their order, and what comes before and after them. Two workflows of one run wait in line for the
    mutex, instead of for the run's lease."""
    by_step = granularity is Granularity.step
    order: list[tuple[str, str, dict[str, str]]] = []
    if by_step:
        order.append(("original", MEASURE, {"stage": "original"}))
    for stage in plan.stages:
        order.append((stage.name, _stage_template(stage) if by_step else "stage", {"stage": stage.name}))
        if stage.name in plan.pipeline.approve:
            order.append((f"approve-{stage.name}", "approve", {"stage": stage.name}))
    if by_step:
        order.append(("result", MEASURE, {"stage": "result"}))
    order.append(("publish", "publish", {}))
    if plan.compare:
        order.append(("compare", "compare", {}))
    return DAG(
        name="run",
        inputs=[Parameter(name="run"), Parameter(name="key")],
        synchronization=Synchronization(mutexes=[Mutex(name="lmmpress-{{inputs.parameters.key}}")]),
        tasks=_in_order([Task(name=name, template=made, arguments=_of_run(more)) for name, made, more in order]),
    )


def _by_step(plan: Plan, parts: _Parts) -> list[DAG | Container]:
    """The templates of all stages: one pair for each axis, and the containers that they share."""
    found: dict[str, DAG | Container] = {"due": parts.due()}
    for stage in plan.stages:
        for part in _parts_of(stage):
            found.setdefault(part, parts.of_step(part))
    for stage in plan.stages:
        found.setdefault(_stage_template(stage), _stage(stage))
        found.setdefault(_step_template(stage), _step(stage))
    return list(found.values())


def _stage(stage: Stage) -> DAG:
    """A step of the stage if one is due, and then this template again."""
    given = {"stage": "{{inputs.parameters.stage}}"}
    is_due = "{{=" + _result("due", "due") + " == 'open'}}"
    index = "{{=string(int(" + _result("due", "index") + "))}}"
    own = _stage_template(stage)
    return DAG(
        name=own,
        inputs=[Parameter(name="run"), Parameter(name="stage")],
        tasks=_in_order(
            [
                Task(name="due", template="due", arguments=_of_run(given)),
                Task(
                    name="step",
                    template=_step_template(stage),
                    arguments=_of_run(given | {"index": index}),
                    when=is_due,
                ),
                Task(name="next", template=own, arguments=_of_run(given), when=is_due),
            ]
        ),
    )


def _step(stage: Stage) -> DAG:
    inputs = ("run", "stage", "index")
    given = {name: f"{{{{inputs.parameters.{name}}}}}" for name in inputs}
    parts = [part.replace("_", "-") for part in _parts_of(stage)]
    tasks = [Task(name=part, template=part, arguments=given) for part in parts]
    return DAG(name=_step_template(stage), inputs=[Parameter(name=name) for name in inputs], tasks=_in_order(tasks))


def _parts_of(stage: Stage) -> Sequence[str]:
    """The parts of a step, by the names of their components."""
    axis = axis_named(stage.axis)
    scored = ("importance",) if axis.needs_scores else ()
    return (*scored, axis.component_name, "distill", "evaluate", "gate")


def _approve() -> DAG:
    """Ask the store, and wait for a person unless the approval is there; whoever resumes the workflow has approved."""
    given = {"stage": "{{inputs.parameters.stage}}"}
    is_open = "{{=" + _result("asked", "approval") + " == 'missing'}}"
    return DAG(
        name="approve",
        inputs=[Parameter(name="run"), Parameter(name="stage")],
        tasks=_in_order(
            [
                Task(name="asked", template="approval", arguments=_of_run(given | {"resumed": "no"})),
                Task(name="wait", template=WAIT, arguments=_of_run(given), when=is_open),
                Task(name="noted", template="approval", arguments=_of_run(given | {"resumed": "yes"}), when=is_open),
            ]
        ),
    )


def _wait() -> Suspend:
    return Suspend(name=WAIT, inputs=[Parameter(name="run"), Parameter(name="stage")])


def _on_exit() -> DAG:
    """Nothing where all is well: publish has ended the run."""
    # an expression with workflow.status is evaluated at the end; the outputs are missing where prepare has failed
    prepared = f"workflow.outputs?.parameters?.{_RUN_OUT}"
    run = f"workflow.status == '' || {prepared} == nil ? '' : jsonpath({prepared}, '$.outputs.run')"
    return DAG(
        name="on-exit",
        tasks=[
            Task(
                name="end",
                template="end",
                arguments={"run": "{{=" + run + "}}"},
                when="{{workflow.status}} != Succeeded",
            )
        ],
    )


def _in_order(tasks: list[Task]) -> list[Any]:
    """Each task after the one before."""
    for before, task in pairwise(tasks):
        task.depends = before.name
    return tasks


def _of_run(more: dict[str, str]) -> dict[str, str]:
    return {"run": "{{inputs.parameters.run}}"} | more


def _result(task: str, output: str) -> str:
    """An expression for one output in the result of a task of the same template."""
    return f"jsonpath(tasks.{task}.outputs.parameters.result, '$.outputs.{output}')"


def _stage_template(stage: Stage) -> str:
    return f"stage-{stage.axis}"


def _step_template(stage: Stage) -> str:
    return f"step-{stage.axis}"


def _instance(profile: Profile) -> dict[str, str]:
    return {CONTROLLER: profile.argo.instance} if profile.argo.instance else {}
