"""Measure a step, the original, or the result."""

from kfp.dsl import Markdown, Metrics, Model, Output

from lmmpress.components import component


@component
def evaluate(
    store: str,
    run: str,
    stage: str,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
    index: int = 0,
) -> None:
    """Measure what a step has made; or the `original`, or the `result`, where `stage` says so."""
    from lmmpress.tasks.measuring import evaluate

    evaluate(store, run, stage, index).show(model, metrics, summary)
