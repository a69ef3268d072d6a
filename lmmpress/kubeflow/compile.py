"""From a plan and a cluster profile to a pipeline in Kubeflow's own form."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmpress.errors import UserError
from lmmpress.host.whole_file import write_whole
from lmmpress.kubeflow.ir import ir_of, label_pods, name_tasks, pods_of, share, to_yaml
from lmmpress.kubeflow.pod_settings import place
from lmmpress.kubeflow.shorten import shorten
from lmmpress.pipelines.by_stage import by_stage
from lmmpress.pipelines.compression import compression
from lmmpress.pipelines.start import Interface, Place, here
from lmmpress.plan import Plan
from lmmpress.stages import Stage
from lmmpress.tasks.addresses import missing_addresses, unreachable
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Granularity
from lmmpress.tasks.parameters import arguments_of

if TYPE_CHECKING:
    from kfp.dsl.graph_component import GraphComponent


_PIPELINES: dict[Granularity, Callable[..., "GraphComponent"]] = {
    Granularity.step: compression,
    Granularity.stage: by_stage,
}


def make_pipeline(
    granularity: Granularity,
    arguments: dict[str, Any],
    stages: Sequence[Stage],
    put: Place = here,
    ttl: int | None = None,
    left_out: tuple[str, ...] = (),
    approve: Sequence[str] = (),
    compare: bool = False,
) -> "GraphComponent":
    """The pipeline whose parameters have these arguments as defaults, except those in `left_out`, which have none.
    After the stages in `approve` it waits for a person; with `compare` it compares the result with the original."""
    types = {key: type(value) if value is not None else str for key, value in arguments.items()}
    defaults = {key: value for key, value in arguments.items() if key not in left_out}
    return _PIPELINES[granularity](stages, Interface(types, defaults, put, ttl, approve, compare))


def compile_plan(
    plan: Plan, name: str, profile: Profile, granularity: Granularity, target: Path, submitter: str | None = None
) -> list[str]:
    """Write the compiled pipeline, whole or not at all, and return the warnings for a person.

    Paths of this machine are no addresses in a cluster: such a parameter gets no default and has to be given when the
    pipeline is run. `submitter` is who submits it, if it is compiled for one run. Raises UserError if the target cannot
    be written.
    """
    arguments = arguments_of(plan, name)
    here_only = unreachable(arguments, profile)
    warnings = profile.warnings()
    warnings += missing_addresses(arguments, profile, "the pipeline asks for it when it is run")
    pipeline = make_pipeline(
        granularity,
        arguments,
        plan.stages,
        lambda task: place(task, profile, submitter),
        profile.ttl,
        here_only,
        plan.pipeline.approve,
        plan.compare,
    )
    write_pipeline(pipeline, target)
    return warnings


def specification(pipeline: "GraphComponent") -> tuple[dict[str, Any], dict[str, Any]]:
    """A pipeline in Kubeflow's form, and the settings of its pods."""
    spec, platform = ir_of(pipeline)
    name_tasks(spec)
    label_pods(spec, platform)
    shorten(spec["deploymentSpec"]["executors"], pods_of(platform))
    share(spec, platform)
    return spec, platform


def write_pipeline(pipeline: "GraphComponent", target: Path) -> None:
    """Write a pipeline in Kubeflow's form, whole or not at all."""
    if target.suffix not in (".yaml", ".yml"):
        raise UserError(f"{target}: a compiled pipeline is a .yaml file")
    try:
        write_whole(target, to_yaml(*specification(pipeline)))
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from None
