"""Make all steps of a stage."""

from kfp import dsl
from kfp.dsl import Markdown, Metrics, Model, Output


@dsl.component(base_image="lmmpress", install_kfp_package=False)
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
