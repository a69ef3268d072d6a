"""A step whose parts are done and that awaits the gate's decision, and the decision.

The task that measures a step notes it in the store, so that the gate reads a few small records and needs neither the
rows nor torch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from lmmpress.data.facts import Marks, SplitFacts, Values
from lmmpress.engine.algorithm import Planned
from lmmpress.engine.run_splits import noted_splits
from lmmpress.errors import UserError
from lmmpress.evaluation.gate import TaskRows, decide
from lmmpress.host.energy_use import Energy
from lmmpress.metrics.scale import SHARE_OF_RIGHT
from lmmpress.plan import Plan, digest_of
from lmmpress.result import Machine, Metrics, StepResult, scale_of
from lmmpress.settings.economy import Economy
from lmmpress.settings.schedule import ScheduledStep
from lmmpress.store import Store
from lmmpress.store.records import MEASURED, OF, Digest, Subjects


class Measured(BaseModel):
    """All that the parts of a step found. Fields are those of StepResult.

    `pruned` is the digest before distilling. `answers` and `reference_answers` are the names of the records of
    evaluate that the gate compares; `answers` is None if the loss was not finite. `metrics` are those of the tasks of
    the gate's split: the gate needs no package that one of them is of.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    index: int
    tower: str
    removed: int
    parent: Digest
    pruned: Digest
    checkpoint: Digest | None
    parameters: int
    parameters_by_tower: dict[str, int]
    accuracy_pruned: float
    accuracy: float | None
    accuracy_by_task: dict[str, float]
    reference: float
    metrics: Metrics = {}
    score_reliability: float | None
    loss: list[float]
    seconds: dict[str, float]
    machines: dict[str, Machine] = {}
    energy: dict[str, Energy] = {}
    answers: str | None
    reference_answers: str
    learning_rate: float | None = None
    economy: Economy | None = None


def decided(
    measured: Measured,
    plan: Plan,
    facts: SplitFacts,
    reference: Values,
    values: Values | None,
    store: Store,
    jump: Sequence[ScheduledStep] = (),
) -> StepResult:
    """The result of a measured step, with the gate's decision. `reference` and `values` [rows] are what the rows are
    worth to the model to compare with, and to the step's; `facts` are those of the gate's rows. A `jump` that breaks
    alpha is rolled back, whatever the plan says of steps: a shorter one is tried."""
    tolerance = plan.tolerance.model_copy(update={"on_violation": "rollback"}) if jump else plan.tolerance
    metrics = measured.metrics
    tasks = {
        task: TaskRows(rows, metrics[task].scale if task in metrics else SHARE_OF_RIGHT)
        for task, rows in facts.rows_by_task().items()
    }
    verdict = decide(reference, values, facts.owners(), tolerance, scale_of(metrics), tasks)
    kept = measured.model_dump(exclude={"pruned", "answers", "reference_answers"})
    return StepResult(
        **kept,
        decision=verdict.decision,
        reason=verdict.reason,
        drop=verdict.drop,
        drop_interval=verdict.interval,
        drop_by_task=verdict.by_task,
        address=store.address(measured.checkpoint) if measured.checkpoint else None,
        jump=list(jump),
    )


def note_measured(store: Store, key: str, planned: Planned, measured: Measured) -> None:
    """Keep a measured step of the run `key` in the store."""
    checkpoints = {measured.parent, measured.pruned, measured.checkpoint or measured.pruned}
    of = Subjects(checkpoints=sorted(checkpoints))
    # older versions do not know them
    left_out = {name for name in ("learning_rate", "economy") if getattr(measured, name) is None}
    noted = measured.model_dump(mode="json", exclude=left_out)
    store.write_record(_name_of(key, planned), noted | {OF: of.model_dump()})


def noted_decision(store: Store, key: str, plan: Plan, planned: Planned) -> StepResult:
    """The gate's decision on a step that was measured, from the store.

    Raises UserError if the step is not measured yet.
    """
    record = store.read_record(_name_of(key, planned))
    splits = noted_splits(store, key)
    if record is None or splits is None:
        raise UserError(f"{store.root_address}: evaluate is not done yet; another task of the run does it")
    try:
        measured = Measured.model_validate({name: value for name, value in record.items() if name != OF})
        if (measured.parent, measured.stage, measured.index, measured.removed) != (
            planned.parent,
            planned.stage.name,
            planned.index,
            planned.removed,
        ):
            raise ValueError("it is of another step")
    except ValueError:
        raise UserError(
            f"{store.root_address}: records/{_name_of(key, planned)}.json is no measured step of this run; remove it"
        ) from None
    facts = splits.facts[plan.tolerance.split]
    answers = _answers(store, facts)
    return decided(
        measured,
        plan,
        facts,
        answers(measured.reference_answers),
        answers(measured.answers) if measured.answers else None,
        store,
    )


def values_in(values: Values) -> dict[str, Any]:
    """What rows are worth, as a record keeps it: a text of 0 and 1 if each is right or wrong, else numbers."""
    if values.dtype == np.bool_:
        return {"right": "".join("1" if hit else "0" for hit in values.tolist())}
    return {"values": values.tolist()}


def values_of(record: Mapping[str, Any]) -> Values:
    """What rows are worth [rows], from a record; empty if it holds nothing of the kind."""
    try:
        if "values" in record:
            numbers: Values = np.array(record["values"], dtype=np.float64).reshape(-1)
            return numbers if bool(np.isfinite(numbers).all()) else numbers[:0]
    except (TypeError, ValueError):
        return np.zeros(0)
    marks: Marks = np.frombuffer(str(record.get("right", "")).encode(), dtype=np.uint8) == ord("1")
    return marks


def _answers(store: Store, facts: SplitFacts) -> Callable[[str], Values]:
    def read(name: str) -> Values:
        values = values_of(store.read_record(name) or {})
        if len(values) != facts.rows:
            raise UserError(f"{store.root_address}: records/{name}.json does not hold the answers to {facts.rows} rows")
        return values

    return read


def _name_of(key: str, planned: Planned) -> str:
    inputs = {"run": key, "stage": planned.stage.name, "index": planned.index, "parent": planned.parent}
    return f"{MEASURED}{digest_of(inputs)}"
