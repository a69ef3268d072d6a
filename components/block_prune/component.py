"""Cut the last blocks."""

from kfp.dsl import Markdown, Metrics, Model, Output

from lmmpress.components import component


@component
def block_prune(
    store: str,
    run: str,
    stage: str,
    index: int,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Cut the last blocks: step `index` of a stage along axis block."""
    from lmmpress.tasks.step_parts import prune

    prune(store, run, stage, index).show(model, metrics, summary)
