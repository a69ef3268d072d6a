"""The component of the axis `tail`."""

from kfp import dsl
from kfp.dsl import Markdown, Metrics, Model, Output


@dsl.component(base_image="lmmpress", install_kfp_package=False)
def tail_prune(
    store: str,
    run: str,
    stage: str,
    index: int,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Cut the last hidden units of every FFN."""
    from lmmpress.tasks.step_parts import prune

    prune(store, run, stage, index).show(model, metrics, summary)
