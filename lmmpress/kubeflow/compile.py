"""From a plan and a cluster profile to a pipeline in Kubeflow's own form."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmpress.errors import UserError
from lmmpress.kubeflow.ir import ir_of, share, to_yaml
from lmmpress.kubeflow.pod_settings import place
from lmmpress.pipelines.by_stage import by_stage
from lmmpress.pipelines.compression import compression
from lmmpress.pipelines.start import Interface, Place, here
from lmmpress.plan import ADDRESSES, Plan, Stage
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
) -> "GraphComponent":
    """The pipeline whose parameters are these arguments, all of which are defaults but those to be `left_out`."""
    types = {key: type(value) if value is not None else str for key, value in arguments.items()}
    defaults = {key: value for key, value in arguments.items() if key not in left_out}
    return _PIPELINES[granularity](stages, Interface(types, defaults, put, ttl))


def compile_plan(plan: Plan, name: str, profile: Profile, granularity: Granularity, target: Path) -> list[str]:
    """Write the compiled pipeline, whole or not at all, and return what a person should be warned of.

    Paths of this machine are no addresses in a cluster: such a parameter gets no default and has to be given when the
    pipeline is run. Raises UserError where the target cannot be written.
    """
    arguments = arguments_of(plan, name)
    here_only = tuple(key for key in ADDRESSES if not _reachable(arguments[key], profile))
    warnings = profile.warnings()
    for key in here_only:
        told = arguments[key] or "not set"
        warnings.append(f"{key} ({told}) is no address that pods reach: the pipeline asks for it when it is run")
    pipeline = make_pipeline(
        granularity, arguments, plan.stages, lambda task: place(task, profile), profile.ttl, here_only
    )
    write_pipeline(pipeline, target)
    return warnings


def reachable_arguments(plan: Plan, name: str, profile: Profile) -> dict[str, Any]:
    """The arguments of a plan for a cluster; UserError where it names what pods cannot reach."""
    arguments = arguments_of(plan, name)
    for key in ADDRESSES:
        if not _reachable(arguments[key], profile):
            raise UserError(
                f"{key} is {arguments[key] or 'not set'}, which pods cannot reach: give s3://bucket/prefix, or a path "
                "on one of the profile's volumes"
            )
    return arguments


def write_pipeline(pipeline: "GraphComponent", target: Path) -> None:
    """Write a pipeline in Kubeflow's form, whole or not at all."""
    if target.suffix not in (".yaml", ".yml"):
        raise UserError(f"{target}: a compiled pipeline is a .yaml file")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            aside = Path(folder) / target.name
            spec, platform = ir_of(pipeline)
            share(spec, platform)
            aside.write_text(to_yaml(spec, platform), "utf-8")
            aside.replace(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from None


def _reachable(address: str | None, profile: Profile) -> bool:
    return address is not None and (address.startswith(("s3://", "models:/")) or profile.holds(address))
