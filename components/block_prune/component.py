"""Cut the last blocks."""

from kfp import dsl
from kfp.dsl import Markdown, Metrics, Model, Output


@dsl.component(base_image="lmmpress", install_kfp_package=False)
def block_prune(
    store: str,
    run: str,
    index: int,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Cut the last blocks: step `index` of stage block."""
    from lmmpress.tasks.step_parts import prune

    prune(store, run, "block", index).show(model, metrics, summary)
