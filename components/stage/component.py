"""Make all steps of a stage."""

from kfp.dsl import Markdown, Metrics, Model, Output

from lmmpress.components import component


@component
def stage(
    store: str,
    run: str,
    stage: str,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """All steps of a stage that are not made yet."""
    from lmmpress.tasks.whole_stage import compress_stage

    compress_stage(store, run, stage).show(model, metrics, summary)
