"""Decide a step, and write the decision to the run's state."""

from kfp.dsl import Markdown, Metrics, Model, Output

from lmmpress.components import component


@component
def gate(
    store: str,
    run: str,
    stage: str,
    index: int,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Decide a step that was measured, and write the decision to the run's state."""
    from lmmpress.tasks.gating import gate

    gate(store, run, stage, index).show(model, metrics, summary)
