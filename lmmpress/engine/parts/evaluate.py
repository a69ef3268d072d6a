"""The part `evaluate`: measures what each row is worth, by the metric of its task, to a checkpoint."""

from dataclasses import dataclass
from typing import Any

from lmmpress.data.facts import Values
from lmmpress.engine.materials import Materials
from lmmpress.engine.measured import values_in, values_of
from lmmpress.engine.parts.judging import worth_of
from lmmpress.engine.parts.launch import judge_in_processes
from lmmpress.engine.parts.once import Inputs, Record, once, unreadable
from lmmpress.evaluation.metrics_by_task import only_exact
from lmmpress.result import Role


@dataclass(frozen=True)
class Evaluated:
    """What each row is worth [rows]: booleans if each is right or wrong, else numbers; the seconds that measuring took,
    and the record of both."""

    values: Values
    record: Record

    @property
    def seconds(self) -> float:
        return self.record.seconds

    @property
    def accuracy(self) -> float:
        """The mean over the rows: the share of right ones, or what their metrics give."""
        return float(self.values.mean())


def evaluate(materials: Materials, checkpoint: str, role: Role) -> Evaluated:
    """What the rows of a role are worth to a checkpoint, measured in as many processes as the plan says.

    Raises UserError if the store's record has a different number of rows.
    """
    tasks, plan = materials.facts(role).tasks, materials.plan
    inputs: Inputs = {
        "checkpoint": checkpoint,
        "data": materials.digest(role),
        "dtype": str(materials.dtype),
    } | materials.rounded
    if len(materials.ends) > 1:  # a single end token is the one in every answer, so the name need not include it
        inputs["ends"] = sorted(materials.ends)
    if not only_exact(plan.metrics, tasks):
        inputs["metrics"] = {task: plan.metrics.get(task, plan.metrics["default"]) for task in tasks}
        inputs["teacher"], inputs["longest"] = materials.original, plan.evaluation.max_new_tokens

    def work(_: int) -> dict[str, Any]:
        if plan.evaluation.processes > materials.accelerator.num_processes:
            return values_in(judge_in_processes(materials, checkpoint, role))
        return values_in(worth_of(materials, checkpoint, role))

    record = once(materials, "evaluate", inputs, work)
    values = values_of(record.values)
    if len(values) != materials.facts(role).rows:
        raise unreadable(materials, record, "has a different number of rows than the data")
    return Evaluated(values, record)
