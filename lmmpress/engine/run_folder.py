"""The folder of a run: which run it holds, and whether another may have it."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lmmpress.engine.row_checks import check_all_rows
from lmmpress.engine.run import Question, check, question_of
from lmmpress.errors import UserError
from lmmpress.files.digest import digest_checkpoint
from lmmpress.plan import Plan
from lmmpress.result import Result
from lmmpress.store import Store, open_store
from lmmpress.store.address import is_store

PLAN, QUESTION, RESULT, COMPRESSED = "plan.json", "question.json", "result.json", "compressed"


@dataclass(frozen=True)
class RunFolder:
    """A folder that is a run's: the directory of the teacher, and the run's store."""

    teacher: Path
    store: Store


def take_folder(plan: Plan, out: Path, resume: bool) -> RunFolder:
    """Check the plan with its model and all of its rows, and make `out` the folder of the run.

    The store is the plan's, or lies in the folder. Raises UserError, and leaves the folder as it is, where anything
    does not fit together.
    """
    check_folder(out)
    teacher = check(plan).teacher
    elsewhere = open_store(plan.store) if plan.store else None
    checked = check_all_rows(plan, teacher, elsewhere or held_store(out))
    claim(out, plan, teacher, resume)
    store = elsewhere or open_store(str(out / "store"))
    if checked:
        checked.note(store)
    return RunFolder(teacher, store)


def held_store(out: Path) -> Store | None:
    """The store that a run's folder holds already; None where there is none, and none is made."""
    address = str(out / "store")
    return open_store(address) if is_store(address) else None


def claim(out: Path, plan: Plan, teacher: Path, resume: bool) -> None:
    """Make the run's folder, with the plan and the question in it that it answers of the teacher and the data.

    UserError, and nothing in the folder is touched, where it holds another run, or this one and it is not to be
    resumed.
    """
    asked = question_of(plan, teacher, digest_checkpoint(teacher))
    try:
        if (out / PLAN).is_file():
            if difference := _difference(out, plan, asked):
                raise UserError(
                    f"{out} holds a run of {difference}, and keeps it; choose another folder with --out (a store may "
                    "hold both runs)"
                )
            if not resume:
                raise UserError(f"{out} holds this run already; add --resume to carry it on, or choose another --out")
        check_folder(out)
        out.mkdir(parents=True, exist_ok=True)
        write(out / PLAN, plan.model_dump_json(indent=1))
        write(out / QUESTION, asked.model_dump_json(indent=1))
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"{out} cannot be used as the run's folder: {error.strerror}") from None


def check_folder(out: Path) -> None:
    """Raise UserError where no run can have that folder: where it is a file or below one, may not be written to, or
    holds something and no run.

    It takes no time, so it is asked before rows and weights are read.
    """
    try:
        there = next(place for place in (out, *out.absolute().parents) if place.exists())
        if not there.is_dir():
            raise UserError(f"{out} cannot be used as the run's folder: {there} is no directory")
        if not os.access(there, os.W_OK | os.X_OK):
            raise UserError(f"{out} cannot be used as the run's folder: {there} may not be written to")
        if (out / PLAN).is_file() or there != out:
            return
        if any(entry.name not in ("mlflow.db", _aside(out / PLAN).name) for entry in out.iterdir()):
            raise UserError(f"{out} is not empty and holds no run; choose an empty or new folder with --out")
    except PermissionError as error:
        raise UserError(f"{out} cannot be used as the run's folder: {error.strerror}") from None


def _difference(out: Path, plan: Plan, asked: Question) -> str | None:
    """What the run in a folder is of, where that is not what is asked; None where it is."""
    held = _held_run(out)
    if held is None:
        return "another lmmpress, or a damaged one"
    if held.plan.key_settings() != plan.key_settings():
        return "another plan"
    if held.question is None:
        return None if held.run_key in (None, asked.run_key) else "another model, or of other data"
    if held.question == asked:
        return None
    if held.question.teacher != asked.teacher:
        return f"another model ({held.question.teacher[:12]}, this one is {asked.teacher[:12]})"
    changed = [role for role, digest in asked.data.items() if held.question.data.get(role) != digest]
    return f"other data (the rows to {' and to '.join(changed)} have changed)"


@dataclass(frozen=True)
class HeldRun:
    """The run that a folder holds. An older lmmpress has left no `question`, and a `run_key` only where it has finished
    the run."""

    plan: Plan
    question: Question | None
    run_key: str | None


def _held_run(out: Path) -> HeldRun | None:
    """The run in a folder with a plan; None where the plan cannot be read."""
    try:
        plan = Plan.model_validate_json((out / PLAN).read_text("utf-8"))
    except ValueError:
        return None
    question = run_key = None
    with suppress(FileNotFoundError, ValueError):
        question = Question.model_validate_json((out / QUESTION).read_text("utf-8"))
    if question is None:
        with suppress(FileNotFoundError, ValueError):
            run_key = Result.model_validate_json((out / RESULT).read_text("utf-8")).run_key
    return HeldRun(plan, question, run_key)


def write(path: Path, text: str) -> None:
    """Write a file of the folder, whole or not at all."""
    aside = _aside(path)
    try:
        aside.write_text(text + "\n", "utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.new")
