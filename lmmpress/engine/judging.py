"""Whether the plan and the rows of a run go with the metrics that score them."""

from collections.abc import Mapping

from lmmpress.data import Split
from lmmpress.errors import UserError
from lmmpress.evaluation.metrics_by_task import check_scored, metric_infos
from lmmpress.metrics import metrics_of
from lmmpress.plan import Plan
from lmmpress.result import Metrics, Role, scale_of
from lmmpress.settings.faults import nearest

LEARNING: tuple[Role, ...] = ("score", "distill")
"""The roles whose answers are learned."""


def check_judging(plan: Plan, splits: Mapping[Role, Split]) -> None:
    """Raise UserError, in one line, if the plan's metrics do not go with each other, with alpha or with the rows that
    they score, and if rows to learn from have no answer and `labels` are `given`."""
    measured: list[Role] = list(dict.fromkeys([plan.tolerance.split, "test"]))
    tasks = {role: sorted({row.task for row in split.rows}) for role, split in splits.items()}
    metrics = metrics_of(plan.metrics, sorted(set().union(*tasks.values())))
    _check_alphas(plan, metric_infos(plan.metrics, sorted({task for role in measured for task in tasks[role]})))
    _check_guards(plan, metric_infos(plan.metrics, tasks[plan.tolerance.split]))
    open_rows = plan.reading.unlabelled  # else whoever reads them has seen to it that each has an answer
    if open_rows or any(metric.fault for metric in metrics.values()):
        for role in measured:
            check_scored(metrics, splits[role])
    if open_rows and plan.labels == "given":
        for role in LEARNING:
            for row in splits[role].rows:
                if not row.answer:
                    where = splits[role].place(row)
                    raise UserError(f"{where}: the row has no answer to learn; write one, or set labels: teacher")


def _check_alphas(plan: Plan, metrics: Metrics) -> None:
    scale, alpha = scale_of(metrics), plan.tolerance.alpha
    if not alpha < scale.width:
        names = ", ".join(sorted({one.title for one in metrics.values()}))
        raise UserError(f"tolerance.alpha is {alpha:g}, but by {names} no drop is above {scale.width:g}; lower it")


def _check_guards(plan: Plan, metrics: Metrics) -> None:
    if not isinstance(plan.tolerance.per_task, dict):
        return
    for task, alpha in plan.tolerance.per_task.items():
        where = f"tolerance.per_task.{task}"
        if task not in metrics:
            raise UserError(f"{where}: the gate's split has no task {task!r}; {nearest(task, list(metrics))}")
        if not alpha < (width := metrics[task].scale.width):
            raise UserError(f"{where} is {alpha:g}, but by {metrics[task].title} no drop is above {width:g}; lower it")
