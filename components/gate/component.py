"""Decide a step, and record it."""

from kfp import dsl
from kfp.dsl import Markdown, Metrics, Model, Output


@dsl.component(base_image="lmmpress", install_kfp_package=False)
def gate(
    store: str,
    run: str,
    stage: str,
    index: int,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Decide a step whose parts are in the store, and record it in the run's state and in MLflow."""
    from lmmpress.tasks.step_parts import gate

    gate(store, run, stage, index).show(model, metrics, summary)
