"""The first and the last tasks of every pipeline, and the pipeline's parameters."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent
from kfp.dsl.pipeline_task import PipelineTask

from lmmpress.components.approval import approval
from lmmpress.components.compare import compare
from lmmpress.components.prepare import prepare
from lmmpress.components.publish import publish
from lmmpress.stages import Stage
from lmmpress.tasks.parameters import AMOUNTS, amounts_text, as_compiled

NAME = "lmm"
"""The name of every pipeline. Argo makes host names of pods from it, which end at 63 characters:
NAME-xxxxx-metadata-0-N-retry-system-container-impl-NNNNNNNNNN leaves five for it."""
Place = Callable[[PipelineTask], PipelineTask]
"""Sets where a task runs and its resources; a task of this machine is only excluded from caching."""


@dataclass(frozen=True)
class Interface:
    """The parameters of a pipeline with their types; those in `defaults` may be left out. `place` says where its tasks
    run. The objects of a pipeline that has ended are removed after `ttl` seconds. After the stages in `approve` the
    pipeline waits for a person; with `compare` the result is compared with the original after it is published."""

    types: Mapping[str, type]
    defaults: Mapping[str, Any]
    place: Place
    ttl: int | None = None
    approve: Collection[str] = ()
    compare: bool = False

    def approved(self, stage: str, store: Any, run: Any, before: PipelineTask) -> PipelineTask:
        """The task after which the next stage begins: `before`, or one that waits for the approval of this stage."""
        if stage not in self.approve:
            return before
        waits = self.place(approval(store=store, run=run, stage=stage))
        return waits.after(before).set_display_name(f"approval of {stage}")


def here(task: PipelineTask) -> PipelineTask:
    """A task that runs in a process of this machine."""
    return task.set_caching_options(False)


def pipeline(
    stages: Sequence[Stage], interface: Interface, body: Callable[[Any, PipelineTask], PipelineTask]
) -> GraphComponent:
    """A pipeline of these stages.

    The first task takes the amounts of all stages as one text: the number of amounts depends on the plan, but the
    inputs of a component are fixed.

    `body` gets the store as a channel and the task that prepared the run, adds the tasks that make the steps and
    measure the result, and returns the last of them.
    """
    types, defaults, place = interface.types, interface.defaults, interface.place
    order = sorted(types, key=lambda key: key in defaults)
    parameters = [
        inspect.Parameter(
            key,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=defaults.get(key, inspect.Parameter.empty),
            annotation=types[key],
        )
        for key in order
    ]

    def compress(*channels: Any) -> None:
        given = dict(zip(order, channels, strict=True))
        names = [f"{stage.axis}_{key}" for stage in stages for key in AMOUNTS if f"{stage.axis}_{key}" in given]
        if names:
            given["amounts"] = amounts_text({name: given.pop(name) for name in names})
        compiled = as_compiled(stages, interface.approve, interface.compare)
        begun = place(prepare(compiled=compiled, **given)).set_display_name("prepare")
        about = {"store": given["store"], "run": begun.outputs["run"]}
        last = body(given["store"], begun)
        published = place(publish(**about)).after(last).set_display_name("publish")
        if interface.compare:
            place(compare(**about)).after(published).set_display_name("compare")

    compress.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    names = ", ".join(stage.name for stage in stages)
    described = f"Compresses a multimodal model by {names}; every step is kept only within alpha."
    config = dsl.PipelineConfig(ttl_seconds_after_finished=interface.ttl)
    made: GraphComponent = dsl.pipeline(name=NAME, description=described, pipeline_config=config)(compress)
    return made
