"""Granularity `step`: a loop for each stage, whose every part of a step is a task of its own.

The loop is bounded by the plan's number of steps and runs in order. Before each step the run's state is read: once the
gate has closed, what is left of the loop passes in seconds without a GPU.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent
from kfp.dsl.pipeline_task import PipelineTask

from lmmpress.components.attention_prune import attention_prune
from lmmpress.components.block_prune import block_prune
from lmmpress.components.distill import distill
from lmmpress.components.due import due
from lmmpress.components.evaluate import evaluate
from lmmpress.components.ffn_prune import ffn_prune
from lmmpress.components.gate import gate
from lmmpress.components.importance import importance
from lmmpress.components.io_prune import io_prune
from lmmpress.pipelines.start import Place, here, pipeline

PRUNERS = {"block": block_prune, "ffn": ffn_prune, "attention": attention_prune, "io": io_prune}


def compression(
    stages: Sequence[str],
    defaults: Mapping[str, Any],
    types: Mapping[str, type],
    place: Place = here,
    ttl: int | None = None,
) -> GraphComponent:
    """The pipeline of these stages, in their order."""
    loops = {stage: _stage(stage, place) for stage in stages}

    def body(store: Any, begun: PipelineTask) -> PipelineTask:
        run = begun.outputs["run"]
        before = place(evaluate(store=store, run=run, stage="original")).set_display_name("evaluate the original")
        for stage, loop in loops.items():
            before = loop(store=store, run=run, steps=begun.outputs[stage]).after(before).set_display_name(stage)
        measured = place(evaluate(store=store, run=run, stage="result")).set_display_name("evaluate the result")
        return measured.after(before)

    return pipeline("lmmpress-compression", stages, defaults, types, place, ttl, body)


def _stage(stage: str, place: Place) -> GraphComponent:
    """The loop of one stage. A pipeline of its own, so that what an earlier task gives is a parameter inside it: a
    loop's body may use nothing else from outside."""

    @dsl.pipeline(name=f"stage-{stage}")
    def loop(store: str, run: str, steps: list[int]) -> None:  # with a bare list its items would be texts
        with dsl.ParallelFor(items=steps, parallelism=1, name=f"{stage} steps") as index:
            step = {"store": store, "run": run, "index": index}
            asked = place(due(stage=stage, **step)).set_display_name(f"is a {stage} step due")
            with dsl.If(asked.output == "open", name=f"{stage} step"):
                _step(stage, place, step)

    made: GraphComponent = loop
    return made


def _step(stage: str, place: Place, step: Mapping[str, Any]) -> None:
    """Importance, prune, distil, evaluate, gate, one after the other. Blocks go from the last and need no scores."""
    scored = [] if stage == "block" else [(importance(stage=stage, **step), "importance")]
    rest = [
        (PRUNERS[stage](**step), "prune"),
        (distill(stage=stage, **step), "distill"),
        (evaluate(stage=stage, **step), "evaluate"),
        (gate(stage=stage, **step), "gate"),
    ]
    before = None
    for task, part in scored + rest:
        place(task).set_display_name(f"{stage} {part}")
        if before is not None:
            task.after(before)
        before = task
