"""Check what is asked and note it in the store."""

from typing import Any, NamedTuple

from kfp.dsl import Markdown, Metrics, Model, Output

from lmmpress.components import component


@component
def prepare(
    model: str,
    data: str,
    store: str,
    name: str,
    compiled: list[dict[str, Any]],
    stages: list[dict[str, Any]],
    settings: dict[str, Any],
    alpha: float,
    seed: int,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    teacher: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
    amounts: str = "",
) -> NamedTuple("Prepared", [("run", str)]):  # type: ignore[valid-type]  # kfp's way to name outputs
    """Check what is asked of the pipeline, take the teacher into the store and note what is to be done."""
    asked = {key: value for key, value in locals().items() if key not in ("teacher", "metrics", "summary")}
    from lmmpress.tasks.preparation import prepare

    prepared = prepare(**asked)
    prepared.outcome.show(teacher, metrics, summary)
    return (prepared.run,)
