"""Granularity `step`: a loop for each stage, in which every part of a step is a task of its own.

The loop is bounded by the plan's number of steps and runs in order. Before each step the run's state is read: once the
stage has ended, the rest of the loop takes seconds and no GPU.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent
from kfp.dsl.pipeline_task import PipelineTask

from lmmpress.axes import Axis, axis_named
from lmmpress.components.distill import distill
from lmmpress.components.due import due
from lmmpress.components.evaluate import evaluate
from lmmpress.components.gate import gate
from lmmpress.components.importance import importance
from lmmpress.components.steps import steps
from lmmpress.errors import UserError
from lmmpress.pipelines.start import Interface, Place, pipeline
from lmmpress.stages import Stage


def compression(stages: Sequence[Stage], interface: Interface) -> GraphComponent:
    """The pipeline of these stages, in their order."""
    place = interface.place
    loops = {stage.name: _stage(stage, place) for stage in stages}

    def body(store: Any, begun: PipelineTask) -> PipelineTask:
        run = begun.outputs["run"]
        before = place(evaluate(store=store, run=run, stage="original")).set_display_name("evaluate the original")
        for name, loop in loops.items():
            before = loop(store=store, run=run).after(before).set_display_name(name)
            before = interface.approved(name, store, run, before)
        measured = place(evaluate(store=store, run=run, stage="result")).set_display_name("evaluate the result")
        return measured.after(before)

    return pipeline(stages, interface, body)


def _stage(stage: Stage, place: Place) -> GraphComponent:
    """The loop of one stage, over the numbers of its steps. It is a pipeline of its own, with the store and the run as
    parameters: the body of a loop may use nothing else from outside."""
    name = stage.name

    @dsl.pipeline(name=f"stage-{name}")
    def loop(store: str, run: str) -> None:
        numbers = place(steps(store=store, run=run, stage=name)).set_display_name(f"steps of {name}")
        with dsl.ParallelFor(items=numbers.output, parallelism=1, name=f"{name} steps") as index:
            step = {"store": store, "run": run, "stage": name, "index": index}
            asked = place(due(**step)).set_display_name(f"{name} due")
            with dsl.If(asked.output == "open", name=f"{name} step"):
                _step(stage, place, step)

    made: GraphComponent = loop
    return made


def _step(stage: Stage, place: Place, step: Mapping[str, Any]) -> None:
    """Importance (along an axis that needs scores), prune, distil, evaluate, gate, one after the other."""
    axis = axis_named(stage.axis)
    parts = {
        "importance": importance,
        "prune": pruner(axis),
        "distill": distill,
        "evaluate": evaluate,
        "gate": gate,
    }
    if not axis.needs_scores:
        del parts["importance"]
    before = None
    for part, component in parts.items():
        task = place(component(**step)).set_display_name(f"{stage.name} {part}")
        if before is not None:
            task.after(before)
        before = task


def pruner(axis: Axis) -> Any:
    """The component that cuts along an axis; UserError if it cannot be imported."""
    module, _, function = axis.component.rpartition(":")
    try:
        return getattr(importlib.import_module(module or f"lmmpress.components.{function}"), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"axis {axis.name}: its component {axis.component} cannot be imported: {error}") from error
