"""Checks which run a folder holds, and claims the folder for a run."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lmmpress.engine.room import check_room
from lmmpress.engine.row_checks import check_all_rows
from lmmpress.engine.run import RunIdentity, check, identity_of
from lmmpress.engine.warm import warmed
from lmmpress.errors import UserError
from lmmpress.files.digest import digest_checkpoint
from lmmpress.host.whole_file import draft_of, write_whole
from lmmpress.plan import Plan
from lmmpress.result import Result
from lmmpress.store import Store, open_store
from lmmpress.store.address import is_store

PLAN, IDENTITY, RESULT, COMPRESSED = "plan.json", "question.json", "result.json", "compressed"


@dataclass(frozen=True)
class RunFolder:
    """A folder that was claimed for a run: the directory of the teacher, the store of the run, and its plan, in
    whole numbers and with the schedule that was found for a warm run."""

    teacher: Path
    store: Store
    plan: Plan


def take_folder(plan: Plan, out: Path, resume: bool, force: bool = False) -> RunFolder:
    """Check the plan, its model and all of its rows, then make `out` the folder of the run. With `force` it need not
    fit into this machine's memory.

    The store is the plan's, or by default `store/` in the folder. If a check fails, raises UserError and leaves the
    folder unchanged.
    """
    check_folder(out)
    fits = check(plan)
    plan, teacher = fits.plan, fits.teacher
    if not force:
        check_room(plan, fits.anatomy, fits.sizes)
    plan_store = open_store(plan.store) if plan.store else None
    known = plan_store or held_store(out)
    checked = check_all_rows(plan, teacher, known)
    warm = warmed(plan, known, teacher)
    claim(out, warm.plan, teacher, resume, known)
    store = plan_store or open_store(str(out / "store"))
    warm.note(store)
    if checked:
        checked.note(store)
    return RunFolder(teacher, store, warm.plan)


def plan_in(out: Path) -> Plan:
    """The plan of the run that was claimed in a folder."""
    return Plan.model_validate_json((out / PLAN).read_text("utf-8"))


def held_store(out: Path) -> Store | None:
    """The store in a run's folder; None if there is none. Creates nothing."""
    address = str(out / "store")
    return open_store(address) if is_store(address) else None


def claim(out: Path, plan: Plan, teacher: Path, resume: bool, store: Store | None = None) -> None:
    """Create the run's folder and write plan.json and question.json into it. `store` is the run's, if it is there.

    Raises UserError, and changes nothing in the folder, if it holds another run, or this run without `resume`.
    """
    identity = identity_of(plan, teacher, digest_checkpoint(teacher), store)
    try:
        if (out / PLAN).is_file():
            if difference := _difference(out, plan, identity):
                raise UserError(
                    f"{out} holds a run of {difference}, and is not changed; choose another folder with --out (one "
                    "store may hold both runs)"
                )
            if not resume:
                raise UserError(f"{out} already holds this run; add --resume to continue it, or choose another --out")
        check_folder(out)
        out.mkdir(parents=True, exist_ok=True)
        write(out / PLAN, plan.model_dump_json(indent=1))
        write(out / IDENTITY, identity.model_dump_json(indent=1))
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"{out} cannot be used as the run's folder: {error.strerror}") from None


def check_folder(out: Path) -> None:
    """Raise UserError if no run can use the folder: it is a file or below a file, is not writable, or has other content
    than a run.

    This check is fast, so it comes before rows and weights are read.
    """
    try:
        existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
        if not existing.is_dir():
            raise UserError(f"{out} cannot be used as the run's folder: {existing} is no directory")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise UserError(f"{out} cannot be used as the run's folder: {existing} is not writable")
        if (out / PLAN).is_file() or existing != out:
            return
        if any(entry.name not in ("mlflow.db", draft_of(out / PLAN).name) for entry in out.iterdir()):
            raise UserError(f"{out} is not empty and holds no run; choose an empty or new folder with --out")
    except PermissionError as error:
        raise UserError(f"{out} cannot be used as the run's folder: {error.strerror}") from None


def _difference(out: Path, plan: Plan, identity: RunIdentity) -> str | None:
    """How the run in a folder differs from this plan and identity; None if it is the same run."""
    held = _held_run(out)
    if held is None:
        return "another version of lmmpress, or a damaged run"
    if held.plan.key_settings() != plan.key_settings():
        return "another plan"
    if held.identity is None:
        return None if held.run_key in (None, identity.run_key) else "another model, or of other data"
    if held.identity == identity:
        return None
    if held.identity.teacher != identity.teacher:
        return f"another model ({held.identity.teacher[:12]}, this one is {identity.teacher[:12]})"
    changed = [role for role, digest in identity.data.items() if held.identity.data.get(role) != digest]
    return f"other data (the rows to {' and to '.join(changed)} have changed)"


@dataclass(frozen=True)
class HeldRun:
    """The run in a folder. Older versions of lmmpress wrote no `identity`; of them `run_key` is known only if the run
    was finished."""

    plan: Plan
    identity: RunIdentity | None
    run_key: str | None


def _held_run(out: Path) -> HeldRun | None:
    """The run in a folder with a plan; None if the plan cannot be read."""
    try:
        plan = plan_in(out)
    except ValueError:
        return None
    identity = run_key = None
    with suppress(FileNotFoundError, ValueError):
        identity = RunIdentity.model_validate_json((out / IDENTITY).read_text("utf-8"))
    if identity is None:
        with suppress(FileNotFoundError, ValueError):
            run_key = Result.model_validate_json((out / RESULT).read_text("utf-8")).run_key
    return HeldRun(plan, identity, run_key)


def write(path: Path, text: str) -> None:
    """Write a file of the folder atomically."""
    write_whole(path, text + "\n")
