"""The setting `metrics` of a plan: which metric scores the rows of each task."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from lmmpress.errors import UserError
from lmmpress.metrics.metric import Metric, check_installed
from lmmpress.metrics.registry import metric_named, parameters_of
from lmmpress.settings.faults import nearest

DEFAULT = "default"
"""The key whose metric scores the tasks that have none of their own."""

Choice = str | dict[str, dict[str, float]]
"""A metric as the plan keeps it: its name, or a mapping from its name to its parameters."""

ONLY_EXACT: dict[str, Choice] = {DEFAULT: "exact"}
"""The setting of a plan that says nothing of metrics."""


def metric_of(setting: Mapping[str, Choice], task: str) -> Metric:
    """The metric that scores the rows of a task. UserError if it is another package's and cannot be used."""
    chosen = setting.get(task, setting[DEFAULT])
    ((name, parameters),) = ((chosen, {}),) if isinstance(chosen, str) else chosen.items()
    return metric_named(name, parameters)


def metrics_of(setting: Mapping[str, Choice], tasks: Iterable[str]) -> dict[str, Metric]:
    """The metric of each task of the data. UserError if the setting names a task that the data lacks, or a package is
    missing that a metric needs."""
    found = {task: metric_of(setting, task) for task in tasks}
    for name in setting:
        if name != DEFAULT and name not in found:
            raise UserError(f"metrics.{name}: the data has no task {name!r}; {nearest(name, list(found))}")
    for metric in found.values():
        check_installed(metric)
    return found


def _by_task(given: object) -> object:
    """A metric's name alone is the metric of all tasks."""
    return {DEFAULT: given} if isinstance(given, str) else given


def _with_default(setting: dict[str, Choice]) -> dict[str, Choice]:
    return ONLY_EXACT | setting


def _choice(given: object) -> Choice:
    """A metric in the one form that the plan keeps, with all its parameters checked.

    A mapping has one key, the metric's name; its value is a mapping of parameters, or a number, which is the first
    parameter. ValueError says what is wrong.
    """
    name: object = given
    parameters: Any = {}
    if isinstance(given, dict):
        if len(given) != 1:
            raise ValueError(f"names {len(given)} metrics; a task has one, as in {{numeric: 0.05}}")
        ((name, parameters),) = given.items()
    if not isinstance(name, str):
        raise ValueError("should be the name of a metric, or one name with its parameters, as in {numeric: 0.05}")
    try:
        known = parameters_of(name)
        if not isinstance(parameters, dict):
            parameters = {known[0] if known else "value": parameters}
        for parameter, value in parameters.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name}.{parameter} should be a number")
        if known or parameters:  # another package's metric is loaded only where it scores
            metric_named(name, parameters)
    except UserError as error:
        raise ValueError(str(error)) from None
    return {name: {key: float(value) for key, value in parameters.items()}} if parameters else name


if TYPE_CHECKING:
    MetricsByTask = dict[str, Choice]
else:
    MetricsByTask = Annotated[
        dict[str, Annotated[Any, BeforeValidator(_choice)]], BeforeValidator(_by_task), AfterValidator(_with_default)
    ]
