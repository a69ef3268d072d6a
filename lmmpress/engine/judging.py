"""Which metric scores the rows of each task of a run, and whether plan and rows go with it."""

from collections.abc import Iterable, Mapping

from lmmpress.data import Row, Split
from lmmpress.errors import UserError
from lmmpress.metrics import Metric, check_answers, metric_of, metrics_of
from lmmpress.metrics.setting import DEFAULT
from lmmpress.plan import Plan
from lmmpress.result import MetricInfo, Metrics, Role, scale_of
from lmmpress.settings.faults import nearest

LEARNING: tuple[Role, ...] = ("score", "distill")
"""The roles whose answers are learned."""


def metrics_in(plan: Plan, tasks: Iterable[str]) -> dict[str, Metric]:
    """The metric of each of these tasks."""
    return {task: metric_of(plan.metrics, task) for task in tasks}


def only_exact(plan: Plan, tasks: Iterable[str]) -> bool:
    """Whether the rows of all these tasks are right or wrong to the last token."""
    return all(plan.metrics.get(task, plan.metrics[DEFAULT]) == "exact" for task in tasks)


def metric_infos(plan: Plan, tasks: Iterable[str]) -> Metrics:
    """The metric of each of these tasks, as results say it."""
    return {task: _info(plan, task, metric) for task, metric in metrics_in(plan, tasks).items()}


def _info(plan: Plan, task: str, metric: Metric) -> MetricInfo:
    chosen, (low, high) = plan.metrics.get(task, plan.metrics[DEFAULT]), metric.bounds
    parameters = {} if isinstance(chosen, str) else chosen[metric.name]
    return MetricInfo(
        name=metric.name, parameters=parameters, better=metric.better, is_share=metric.is_share, low=low, high=high
    )


def check_judging(plan: Plan, splits: Mapping[Role, Split]) -> None:
    """Raise UserError, in one line, if the plan's metrics do not go with each other, with alpha or with the rows that
    they score, and if rows to learn from have no answer and `labels` are `given`."""
    measured: list[Role] = list(dict.fromkeys([plan.tolerance.split, "test"]))
    tasks = {role: sorted({row.task for row in split.rows}) for role, split in splits.items()}
    metrics = metrics_of(plan.metrics, sorted(set().union(*tasks.values())))
    _check_alphas(plan, metric_infos(plan, sorted({task for role in measured for task in tasks[role]})))
    _check_guards(plan, metric_infos(plan, tasks[plan.tolerance.split]))
    open_rows = plan.reading.unlabelled  # else whoever reads them has seen to it that each has an answer
    if open_rows or any(metric.fault for metric in metrics.values()):
        for role in measured:
            for row in splits[role].rows:
                _check_scored(metrics[row.task], row, splits[role])
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


def _check_scored(metric: Metric, row: Row, split: Split) -> None:
    if metric.needs not in ("tokens", "text"):
        return
    if not row.answer:
        raise UserError(
            f"{split.place(row)}: the row has no answer, and metric {metric.name!r} of task {row.task!r} needs one; "
            "write it, or let agreement or kl score the task"
        )
    if metric.fault is not None:
        check_answers(metric, row.answers, split.place(row))
