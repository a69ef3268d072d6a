"""Every task by its name, with its arguments and its result as JSON: what pods run where no engine has components of
ours, such as those of Argo Workflows.

Names and arguments are those of the components, and stable. An argument may come as text, because engines put texts
together: `index` as "3".
"""

import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from lmmpress.axes import axes
from lmmpress.errors import UserError
from lmmpress.host.whole_file import write_whole
from lmmpress.settings.faults import nearest
from lmmpress.tasks.approval import approval
from lmmpress.tasks.comparing import compare
from lmmpress.tasks.due_steps import due, next_due, steps
from lmmpress.tasks.ending import end
from lmmpress.tasks.gating import gate
from lmmpress.tasks.measuring import evaluate
from lmmpress.tasks.outcome import Outcome
from lmmpress.tasks.preparation import prepare
from lmmpress.tasks.publication import publish
from lmmpress.tasks.step_parts import distill, importance, prune
from lmmpress.tasks.training_manifest import TASK
from lmmpress.tasks.training_node import distill_node
from lmmpress.tasks.tries import counted
from lmmpress.tasks.whole_stage import compress_stage

Result = dict[str, Any]


@dataclass(frozen=True)
class _Task:
    """A task: what makes it, its required arguments, and those that it may have. `prepare` has any."""

    make: Callable[[dict[str, Any]], Result]
    needs: tuple[str, ...]
    may_have: tuple[str, ...] | None = ()


def run_task(name: str, arguments: Mapping[str, Any], compiled_by: str | None = None) -> Result:
    """Make a task; its result has `outputs`, and for most tasks `address`, `facts`, `metrics` and `summary`.

    `compiled_by` is the version of lmmpress that made the workflow. Raises UserError if there is no such task, if an
    argument is missing or unknown, and if that version does not fit this one. A task that fails ends this process, see
    exit_codes.py.
    """
    check_version(compiled_by)
    known = _tasks()
    if name not in known:
        raise UserError(f"there is no task {name!r}; {nearest(name, list(known))}")
    task = known[name]
    if missing := [one for one in task.needs if one not in arguments]:
        raise UserError(f"task {name}: the arguments lack {', '.join(missing)}")
    if task.may_have is not None:
        allowed = [*task.needs, *task.may_have]
        if unknown := [one for one in arguments if one not in allowed]:
            raise UserError(f"task {name} has no argument {unknown[0]!r}; {nearest(unknown[0], allowed)}")
    given = dict(arguments)
    if "index" in given:
        given["index"] = _whole(name, given["index"])
    step = [given[key] for key in ("stage", "index") if key in given]
    with counted(str(given["store"]), str(given.get("run", "")), name, *step):
        return task.make(given)


def read_arguments(text: str) -> dict[str, Any]:
    """Arguments from JSON, or from a file of JSON; UserError if they are no object of JSON."""
    try:
        source = text if text.lstrip().startswith("{") else Path(text).read_text("utf-8")
        arguments = json.loads(source)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"--arguments is neither JSON nor a file of JSON: {reason}") from None
    if not isinstance(arguments, dict):
        raise UserError('--arguments is no object of JSON, such as {"store": "s3://bucket/store"}')
    return arguments


def write_result(result: Result, target: Path) -> None:
    """Write a result, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, json.dumps(result, indent=1) + "\n")


def check_version(compiled_by: str | None) -> None:
    """Raise UserError if a workflow was made by a version of lmmpress whose tasks may differ from these: another one
    before the second dot."""
    own = importlib.metadata.version("lmmpress")
    if not compiled_by:
        return
    try:
        theirs = Version(compiled_by).release[:2]
    except InvalidVersion:
        raise UserError(f"the workflow was made by lmmpress {compiled_by!r}, which is no version") from None
    if theirs != Version(own).release[:2]:
        raise UserError(
            f"the workflow was made by lmmpress {compiled_by}, and the image has {own}; compile the plan anew with "
            f"{own}, or name an image of {compiled_by} in the cluster profile"
        )


def _tasks() -> dict[str, _Task]:
    one_step = ("store", "run", "stage", "index")
    pruners = {axis.component_name: _Task(_outcome_of(prune), one_step) for axis in axes()}
    return {
        "prepare": _Task(_prepare, ("name", "store"), None),
        "steps": _Task(lambda given: {"outputs": {"steps": steps(**given)}}, ("store", "run", "stage")),
        "due": _Task(_due, ("store", "run", "stage"), ("index",)),
        "importance": _Task(_outcome_of(importance), one_step),
        **pruners,
        "distill": _Task(_outcome_of(distill), one_step),
        TASK: _Task(_outcome_of(distill_node), one_step),
        "evaluate": _Task(_outcome_of(evaluate), ("store", "run", "stage"), ("index",)),
        "gate": _Task(_outcome_of(gate), one_step),
        "stage": _Task(_outcome_of(compress_stage), ("store", "run", "stage")),
        "approval": _Task(
            lambda given: {"outputs": {"approval": approval(**given)}}, ("store", "run", "stage"), ("resumed",)
        ),
        "publish": _Task(_outcome_of(publish), ("store", "run", "report")),
        "compare": _Task(_outcome_of(compare), ("store", "run", "page")),
        "end": _Task(_outcome_of(end), ("store", "run", "status"), ("failures",)),
    }


def _prepare(given: dict[str, Any]) -> Result:
    prepared = prepare(**given)
    return _shown(prepared.outcome, run=prepared.run)


def _due(given: dict[str, Any]) -> Result:
    if "index" in given:
        return {"outputs": {"due": due(**given), "index": given["index"]}}
    index = next_due(**given)
    return {"outputs": {"due": "closed" if index is None else "open", "index": -1 if index is None else index}}


def _outcome_of(task: Callable[..., Outcome]) -> Callable[[dict[str, Any]], Result]:
    """Make a task that has no outputs beside its outcome."""
    return lambda given: _shown(task(**given))


def _shown(outcome: Outcome, **outputs: Any) -> Result:
    return {"outputs": outputs} | outcome.as_json()


def _whole(task: str, value: Any) -> int:
    try:
        number = float(value)
        if number != int(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"task {task}: index {value!r} is no whole number") from None
    return int(number)
