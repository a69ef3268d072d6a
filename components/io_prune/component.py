"""Cut the least important dimensions of the residual stream."""

from kfp.dsl import Markdown, Metrics, Model, Output

from lmmpress.components import component


@component
def io_prune(
    store: str,
    run: str,
    stage: str,
    index: int,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Cut the least important dimensions of the residual stream: step `index` of a stage along axis io."""
    from lmmpress.tasks.step_parts import prune

    prune(store, run, stage, index).show(model, metrics, summary)
