"""Which granularity a run has, and whether Argo can hold it."""

from dataclasses import dataclass

from lmmpress.errors import UserError
from lmmpress.kubeflow.compile import make_pipeline, specification
from lmmpress.kubeflow.estimate import LIMIT, SAFE, Size, estimate
from lmmpress.kubeflow.pod_settings import place
from lmmpress.plan import Plan
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Choice, Granularity, refuse_jumps
from lmmpress.tasks.parameters import arguments_of
from lmmpress.tasks.reached_model import numbers_where_known

_STILL = "above 1 MiB Kubeflow's pages and its API show nothing new until the run ends"


@dataclass(frozen=True)
class Fit:
    """The granularity of a run, and why, for a person. `warning` says what will be missed."""

    granularity: Granularity
    said: str
    warning: str | None = None


def fit(plan: Plan, profile: Profile, choice: Choice = Choice.auto) -> Fit:
    """Choose the granularity of a plan's pipeline; UserError if Argo could not hold the run's object.

    The object grows with each task. Every step of the plan counts as made, and one task in ten as tried twice.
    """
    plan = numbers_where_known(plan)
    by_step = choice == Choice.step or (choice == Choice.auto and not plan.start_from)
    granularity = Granularity.step if by_step else Granularity.stage
    refuse_jumps(plan, granularity)
    size = size_of(plan, profile, granularity)
    if choice == Choice.auto and by_step and size.raw > LIMIT:
        by_stage = size_of(plan, profile, Granularity.stage)
        _refuse_too_large(by_stage, Granularity.stage)
        return Fit(
            Granularity.stage,
            f"by stage: by step the run's object in Argo may grow to {_mib(size.raw)}, and {_STILL}",
        )
    _refuse_too_large(size, granularity)
    said = f"by {granularity}: the run's object in Argo grows to {_mib(size.raw)} at most"
    if size.raw <= LIMIT:
        return Fit(granularity, said)
    instead = "; --granularity stage avoids that" if granularity == Granularity.step else ""
    return Fit(granularity, said, f"{said}: {_STILL}{instead}")


def size_of(plan: Plan, profile: Profile, granularity: Granularity) -> Size:
    """The size of a run's object in Argo, if every step of the plan is made."""
    arguments = arguments_of(plan, "estimated")
    pipeline = make_pipeline(
        granularity,
        arguments,
        plan.stages,
        lambda task: place(task, profile),
        profile.ttl,
        approve=plan.pipeline.approve,
        compare=plan.compare,
    )
    return estimate(*specification(pipeline), {stage.name: plan.most_steps(stage) for stage in plan.stages})


def _refuse_too_large(size: Size, granularity: Granularity) -> None:
    if size.stored > SAFE * LIMIT:
        instead = (
            "--granularity stage needs little" if granularity == Granularity.step else "give the plan fewer stages"
        )
        raise UserError(
            f"by {granularity} the run's object in Argo may grow to {_mib(size.stored)} compressed, which is more than "
            f"{SAFE:.0%} of the 1 MiB at which Argo gives up; {instead}"
        )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.2f} MiB"
