"""Cut the least important hidden dimensions of every FFN."""

from kfp.dsl import Markdown, Metrics, Model, Output

from lmmpress.components import component


@component
def ffn_prune(
    store: str,
    run: str,
    stage: str,
    index: int,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Cut the least important hidden dimensions of every FFN: step `index` of a stage along axis ffn."""
    from lmmpress.tasks.step_parts import prune

    prune(store, run, stage, index).show(model, metrics, summary)
