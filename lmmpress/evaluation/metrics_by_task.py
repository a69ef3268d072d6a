"""Which metric scores the rows of each task, and whether the rows have what their metrics need."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from lmmpress.data import Row, Split
from lmmpress.errors import UserError
from lmmpress.metrics import Metric, check_answers, metric_of
from lmmpress.metrics.measured import WITHOUT_ANSWERS
from lmmpress.metrics.scale import names_in
from lmmpress.metrics.setting import DEFAULT, ONLY_EXACT, Choice, MetricsByTask
from lmmpress.plan import Template
from lmmpress.result import MetricInfo, Metrics
from lmmpress.settings.base import Settings
from lmmpress.settings.faults import faults_of, lines_of

Setting = Mapping[str, Choice]


class Judging(Settings):
    """How a checkpoint alone is judged, outside of a run: `metrics` and `template` are as in a plan."""

    metrics: MetricsByTask = ONLY_EXACT
    template: Template = "auto"


BY_EXACT_ANSWERS = Judging()
"""How a checkpoint is judged if nobody says it."""


def judging_of(metrics: Any, template: str) -> Judging:
    """How a checkpoint alone is judged. Raises UserError, with a line for each fault, also for a metric that compares
    with a teacher."""
    try:
        found = Judging.model_validate({"metrics": metrics, "template": template})
    except ValidationError as error:
        raise UserError(*lines_of(faults_of(error, Judging), "evaluate")) from None
    for name in sorted(names_in(found.metrics) & WITHOUT_ANSWERS):
        raise UserError(
            f"evaluate: metric {name!r} compares a model with its teacher, and this measures one checkpoint alone; "
            "lmmpress run measures it, by metrics in its plan"
        )
    return found


def only_exact(setting: Setting, tasks: Iterable[str]) -> bool:
    """Whether the rows of all these tasks are right or wrong to the last token."""
    return all(setting.get(task, setting[DEFAULT]) == "exact" for task in tasks)


def metrics_in(setting: Setting, tasks: Iterable[str]) -> dict[str, Metric]:
    """The metric of each of these tasks."""
    return {task: metric_of(setting, task) for task in tasks}


def metric_infos(setting: Setting, tasks: Iterable[str]) -> Metrics:
    """The metric of each of these tasks, as results say it."""
    return {task: _info(setting, task, metric) for task, metric in metrics_in(setting, tasks).items()}


def _info(setting: Setting, task: str, metric: Metric) -> MetricInfo:
    chosen, (low, high) = setting.get(task, setting[DEFAULT]), metric.bounds
    parameters = {} if isinstance(chosen, str) else chosen[metric.name]
    return MetricInfo(
        name=metric.name, parameters=parameters, better=metric.better, is_share=metric.is_share, low=low, high=high
    )


def tasks_of_data(split: Split) -> list[str]:
    """The tasks of the data set that a split is of: a setting may name one that another split has."""
    if split.index is None:
        return sorted({row.task for row in split.rows})
    return sorted({task for name in split.index.splits() for task in split.index.tasks(name)})


def check_scored(metrics: Mapping[str, Metric], split: Split) -> None:
    """Raise UserError for the first row whose metric cannot score it: it has no answer, or none that the metric
    takes."""
    for row in split.rows:
        _check_scored(metrics[row.task], row, split)


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
