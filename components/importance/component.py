"""Score the checkpoint that a step cuts."""

from kfp.dsl import Markdown, Metrics, Model, Output

from lmmpress.components import component


@component
def importance(
    store: str,
    run: str,
    stage: str,
    index: int,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Score the checkpoint that a step cuts (Eq. 1-4)."""
    from lmmpress.tasks.step_parts import importance

    importance(store, run, stage, index).show(model, metrics, summary)
