"""Let what was cut learn from the teacher."""

from kfp.dsl import Markdown, Metrics, Model, Output

from lmmpress.components import component


@component
def distill(
    store: str,
    run: str,
    stage: str,
    index: int,
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Let what a step has cut learn from the teacher (Eq. 5)."""
    from lmmpress.tasks.step_parts import distill

    distill(store, run, stage, index).show(model, metrics, summary)
