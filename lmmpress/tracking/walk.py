"""Walks MLflow from a registered version back to its original: the run that made it, the steps, and the data.

Only what lmmpress has recorded is read; whatever is missing is None or left out, since anybody may change tags.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from lmmpress.tracking.runs import steps_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

T = TypeVar("T")
_NONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How MLflow says that it has no such run or model, or that nothing of its own can have such an id."""


@dataclass(frozen=True)
class WalkedStep:
    """A step that MLflow has: from which checkpoint it went to which, by their digests; None if it was rolled back."""

    name: str
    decision: str
    reason: str
    parent: str
    checkpoint: str | None
    accuracy: float | None


@dataclass(frozen=True)
class WalkedData:
    """A split of the data, what it was used for, and the digest of its rows."""

    split: str
    roles: str
    digest: str
    rows: int | None


@dataclass(frozen=True)
class Way:
    """The way from a version back. `steps` lead from its checkpoint to its original, the last one first; `is_whole` if
    they reach it. `aside` are the steps that were rolled back. `tags` are lmmpress's tags of the run."""

    run: str
    status: str
    ended: datetime | None
    steps: tuple[WalkedStep, ...]
    is_whole: bool
    aside: tuple[WalkedStep, ...]
    data: tuple[WalkedData, ...]
    tags: dict[str, str]


def way_back(client: "MlflowClient", version: "ModelVersion") -> Way | None:
    """The way from a version that lmmpress has registered; None if it names no run, or one that is gone."""
    run = _there(lambda: client.get_run(str(version.run_id))) if version.run_id else None
    if run is None:
        return None
    found = [_step(client, one) for one in steps_of(client, run.info.experiment_id, run.info.run_id).values()]
    makers = {step.checkpoint: step for step in found if step.checkpoint}
    digest, original = version.tags.get("lmmpress.checkpoint"), version.tags.get("lmmpress.original")
    steps: list[WalkedStep] = []
    while digest != original and digest in makers and makers[digest] not in steps:
        steps.append(makers[digest])
        digest = makers[digest].parent
    ended = run.info.end_time
    return Way(
        run=str(run.info.run_id),
        status=str(run.info.status),
        ended=datetime.fromtimestamp(ended / 1000, UTC) if ended else None,
        steps=tuple(steps),
        is_whole=original is not None and digest == original,
        aside=tuple(step for step in found if step.checkpoint is None),
        data=tuple(_data(run)),
        tags={name: text for name, text in run.data.tags.items() if name.startswith("lmmpress.")},
    )


def _there(ask: Callable[[], T]) -> T | None:
    """What MLflow is asked for; None where it is no longer there: whoever cleans up removes runs and models for good,
    and a version may name any."""
    from mlflow import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in _NONE:
            return None
        raise


def _step(client: "MlflowClient", run: "Run") -> WalkedStep:
    tags = run.data.tags
    outputs = run.outputs.model_outputs if run.outputs else []
    model = _there(lambda: client.get_logged_model(outputs[0].model_id)) if outputs else None
    return WalkedStep(
        name=tags.get("lmmpress.step", ""),
        decision=tags.get("lmmpress.decision", ""),
        reason=tags.get("lmmpress.reason", ""),
        parent=tags.get("lmmpress.parent", ""),
        checkpoint=model.tags.get("lmmpress.checkpoint") if model else None,
        accuracy=run.data.metrics.get("accuracy"),
    )


def _data(run: "Run") -> "list[WalkedData]":
    found = []
    for used in run.inputs.dataset_inputs if run.inputs else []:
        tags = {tag.key: tag.value for tag in used.tags}
        try:
            rows = json.loads(used.dataset.profile or "{}").get("num_rows")
        except (ValueError, AttributeError, RecursionError):
            rows = None
        digest = tags.get("lmmpress.digest", str(used.dataset.digest))
        found.append(WalkedData(str(used.dataset.name), tags.get("mlflow.data.context", ""), digest, rows))
    return found
