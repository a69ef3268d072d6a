"""A run in one process: makes the steps of Algorithm 1 one after the other and delivers what is left of the model."""

import os
import shutil
import time
from pathlib import Path

from lmmpress.engine import steps
from lmmpress.engine.row_checks import check_all_rows
from lmmpress.engine.run import (
    Question,
    Run,
    begin,
    check,
    check_original,
    close,
    describe,
    make_steps,
    open_run,
    question_of,
)
from lmmpress.errors import UserError
from lmmpress.files.allow_list import choose, lay_out
from lmmpress.files.digest import digest_checkpoint
from lmmpress.lmm.checkpoint import write_record
from lmmpress.lmm.fit import mend_files
from lmmpress.lmm.read_anatomy import complete, read_config
from lmmpress.lmm.record import read_record
from lmmpress.plan import Plan
from lmmpress.result import Recorder, Result, StepResult
from lmmpress.store import Store, open_store
from lmmpress.store.address import is_store

PLAN, QUESTION, RESULT, COMPRESSED = "plan.json", "question.json", "result.json", "compressed"


def compress(plan: Plan, out: Path, recorder: Recorder | None = None, resume: bool = False) -> Result:
    """Compress the plan's model and leave `result.json`, `plan.json` and `compressed/` in the folder `out`.

    With `resume` a run that `out` or the plan's store holds is carried on: every part of a step that was finished is
    found there. Raises UserError before any work where plan, model and data do not fit together, or where `out` holds
    a run of another plan, model or data.
    """
    begun = time.perf_counter()
    check_folder(out)
    teacher, _ = check(plan)
    elsewhere = open_store(plan.store) if plan.store else None
    checked = check_all_rows(plan, teacher, elsewhere or held_store(out))
    claim(out, plan, teacher, resume)
    store = elsewhere or open_store(str(out / "store"))
    if checked:
        checked.note(store)
    key, original = begin(plan, store, teacher)
    with store.run_state(key) as state:
        if recorder:
            recorder.take_over(key)
        run = open_run(plan, store, key, original)
        check_original(run)
        start = describe(run)
        if recorder:
            recorder.begin(start)

        def tell(step: StepResult) -> None:
            if recorder:
                recorder.step(step)

        result = close(run, make_steps(run, state, tell), time.perf_counter() - begun)
        deliver(run, result, out)
        if recorder:
            recorder.end(result, out / COMPRESSED)
    return result


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
        _write(out / PLAN, plan.model_dump_json(indent=1))
        _write(out / QUESTION, asked.model_dump_json(indent=1))
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
    """What another run was of that a folder holds; None where it holds the one that is asked for."""
    try:
        held = Plan.model_validate_json((out / PLAN).read_text("utf-8"))
    except ValueError:
        return "another lmmpress, or a damaged one"
    if held.key_settings() != plan.key_settings():
        return "another plan"
    question = _held_question(out)
    if isinstance(question, str):
        return None if question == asked.run_key else "another model, or of other data"
    if question is None or question == asked:
        return None
    if question.teacher != asked.teacher:
        return f"another model ({question.teacher[:12]}, this one is {asked.teacher[:12]})"
    changed = [role for role, digest in asked.data.items() if question.data.get(role) != digest]
    return f"other data (the rows to {' and to '.join(changed)} have changed)"


def _held_question(out: Path) -> Question | str | None:
    """What the run in a folder answers: the question, or only its key where an older lmmpress has finished the run, or
    None where it has not."""
    try:
        return Question.model_validate_json((out / QUESTION).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        pass
    try:
        return Result.model_validate_json((out / RESULT).read_text("utf-8")).run_key
    except (FileNotFoundError, ValueError):
        return None


def deliver(run: Run, result: Result, out: Path) -> None:
    """Leave the result of a run in its folder: the final checkpoint, which says what became of its teacher, once plain
    transformers has loaded it; and result.json. Each is there whole or not at all."""
    steps.load_as_users_do(run.materials, result.compressed.checkpoint)
    aside, target = out / f"{COMPRESSED}.new", out / COMPRESSED
    shutil.rmtree(aside, ignore_errors=True)
    try:
        # a store's files may not be written to; a user's copies may: permissions stay behind
        aside.mkdir()
        lay_out(choose(run.store.checkpoint(result.compressed.checkpoint)), aside)
        mend_files(aside, complete(read_config(aside)))  # of an original that is delivered as it is
        told = {"teacher": run.original, "plan": run.plan.model_dump(mode="json"), "run_key": run.key}
        write_record(aside, {"format": 1, "history": []} | (read_record(aside) or {}) | told)
        if target.exists():
            shutil.rmtree(target)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _write(out / RESULT, result.model_dump_json(indent=1))


def _write(path: Path, text: str) -> None:
    aside = _aside(path)
    try:
        aside.write_text(text + "\n", "utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.new")
