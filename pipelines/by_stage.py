"""Granularity `stage`: one task for each stage, which makes all its steps and can be started again at any moment."""

from collections.abc import Sequence
from typing import Any

from kfp.dsl.graph_component import GraphComponent
from kfp.dsl.pipeline_task import PipelineTask

from lmmpress.components.stage import stage as whole_stage
from lmmpress.pipelines.start import Interface, pipeline
from lmmpress.stages import Stage


def by_stage(stages: Sequence[Stage], interface: Interface) -> GraphComponent:
    """The pipeline of these stages, in their order. The first task measures the original, the last the result."""

    def body(store: Any, begun: PipelineTask) -> PipelineTask:
        before = begun
        for stage in stages:
            made = whole_stage(store=store, run=begun.outputs["run"], stage=stage.name)
            before = interface.place(made).after(before).set_display_name(stage.name)
            before = interface.approved(stage.name, store, begun.outputs["run"], before)
        return before

    return pipeline(stages, interface, body)
