"""Cut the least important head dimensions."""

from kfp.dsl import Markdown, Metrics, Model, Output

from lmmpress.components import component


@component
def attention_prune(
    store: str,
    run: str,
    stage: str,
    index: int,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Cut the least important head dimensions: step `index` of a stage along axis attention."""
    from lmmpress.tasks.step_parts import prune

    prune(store, run, stage, index).show(model, metrics, summary)
