"""Check what is asked and note it in the store."""

from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import Markdown, Metrics, Model, Output


@dsl.component(base_image="lmmpress", install_kfp_package=False)
def prepare(
    model: str,
    data: str,
    store: str,
    name: str,
    stages: list[str],
    settings: dict[str, Any],
    alpha: float,
    seed: int,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    teacher: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
    block_step: int = 0,
    block_max: int = 0,
    ffn_step: int = 0,
    ffn_max: int = 0,
    attention_step: int = 0,
    attention_max: int = 0,
    io_step: int = 0,
    io_max: int = 0,
) -> NamedTuple(  # type: ignore[valid-type]  # kfp's way to name outputs
    "Prepared", [("run", str), ("block", list[int]), ("ffn", list[int]), ("attention", list[int]), ("io", list[int])]
):
    """Check what is asked of the pipeline, take the teacher into the store and note what is to be done."""
    asked = {key: value for key, value in locals().items() if key not in ("teacher", "metrics", "summary")}
    from lmmpress.tasks.preparation import prepare

    prepared = prepare(**asked)
    prepared.outcome.show(teacher, metrics, summary)
    return (prepared.run, *(prepared.steps.get(axis, []) for axis in ("block", "ffn", "attention", "io")))
