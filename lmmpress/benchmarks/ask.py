"""Has a harness measure a checkpoint on its tasks.

The checkpoint is laid out for the harness as lmmpress loads it: the files of the allow list, nothing that names code.
The harness runs in the folder of the user's own tasks, or in an empty one, and never imports from the folder that the
user is in. Names of tasks are arguments of its command line, never of a shell.
"""

import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lmmpress.benchmarks.harness import command, find, harness_for, variables
from lmmpress.benchmarks.process import reason_of, run_logged
from lmmpress.benchmarks.records import Benchmark
from lmmpress.benchmarks.results import read_results, results_in
from lmmpress.errors import UserError
from lmmpress.files.allow_list import choose, lay_out
from lmmpress.lmm.families.registry import family_of
from lmmpress.lmm.read_anatomy import read_config
from lmmpress.printing.one_line import printable
from lmmpress.progress import doing, say

_NAME = re.compile(r"\w[\w.:+*?-]*")
_FILE = re.compile(r".*\.(ya?ml|py|json)", re.IGNORECASE)
_MOST_TASKS = 1000


@dataclass(frozen=True)
class Asked:
    """What a harness shall measure: the names of its tasks, groups or tags (`*` stands for anything); the folder of the
    user's own tasks; how many solved rows stand before each, by default as many as the task says; the interpreter that
    has the harness."""

    tasks: tuple[str, ...]
    include_path: Path | None = None
    few_shot: int | None = None
    python: Path | None = None
    batch_size: int = 1


def asked_for(
    tasks: str | Iterable[str],
    include_path: Path | str | None,
    few_shot: int | None,
    python: Path | str | None,
    batch_size: int,
) -> Asked:
    """What was asked for, checked. Raises UserError for what are no names of tasks, and for a folder that is none."""
    listed = [tasks] if isinstance(tasks, str) else list(tasks)
    names = tuple(dict.fromkeys(name.strip() for text in listed for name in str(text).split(",")))
    for name in names:
        if not _NAME.fullmatch(name) or _FILE.fullmatch(name):
            raise UserError(f"--tasks: {printable(name)!r} is no name of a task; own tasks are named by --include-path")
    if not 0 < len(names) <= _MOST_TASKS:
        raise UserError(f"--tasks: {len(names)} names; at least 1 and at most {_MOST_TASKS} are allowed")
    if few_shot is not None and few_shot < 0:
        raise UserError(f"--few-shot: {few_shot} is no number of rows")
    folder = Path(include_path).resolve() if include_path is not None else None
    if folder is not None and not folder.is_dir():
        raise UserError(f"--include-path: {include_path} is no folder")
    return Asked(names, folder, few_shot, Path(python) if python is not None else None, batch_size)


def ask(checkpoint: Path, asked: Asked) -> list[Benchmark]:
    """The numbers of a checkpoint on the tasks, from the harness for its kind.

    Raises UserError, in one line that says where the whole log of the harness lies, if the harness fails. The log stays
    only then.
    """
    scratch = Path(tempfile.mkdtemp(prefix="lmmpress-benchmarks-"))
    log = scratch / "harness.log"
    try:
        numbers = _measured(checkpoint, asked, scratch, log)
    except BaseException as error:
        if log.exists() and isinstance(error, UserError):
            for folder in ("checkpoint", "results", "empty"):
                shutil.rmtree(scratch / folder, ignore_errors=True)
            raise UserError(f"{error}; the whole log is {log}") from None
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(scratch, ignore_errors=True)
    return numbers


def _measured(checkpoint: Path, asked: Asked, scratch: Path, log: Path) -> list[Benchmark]:
    config = read_config(checkpoint)
    harness = harness_for(family_of(config).auto_class)
    for name in ("checkpoint", "results", "empty"):
        (scratch / name).mkdir()
    if re.search(r"[,=\s]", str(scratch)):
        raise UserError(
            f"{scratch.parent}: {harness.name} takes no path with spaces, commas or =; TMPDIR names another"
        )
    found = find(harness, asked.python, scratch / "empty")
    lay_out(choose(checkpoint), scratch / "checkpoint", link=True)
    line = command(found, scratch / "checkpoint", config, scratch / "results") + _arguments(asked)
    name = f"{harness.name} {found.version}"
    say(f"{name} measures {', '.join(asked.tasks)}; its log is {log}")
    with doing(f"{name}: {', '.join(asked.tasks)}"):
        code = run_logged(line, asked.include_path or scratch / "empty", variables(), log)
    file = results_in(scratch / "results")
    if code or file is None:  # lmms-eval exits with 0 when it has failed
        raise UserError(f"{name} failed: {reason_of(log, code)}")
    return read_results(file, harness.name, found.version)


def _arguments(asked: Asked) -> list[str]:
    """What to measure, as arguments that both harnesses know."""
    arguments = ["--tasks", ",".join(asked.tasks), "--batch_size", str(asked.batch_size)]
    if asked.include_path is not None:
        arguments += ["--include_path", str(asked.include_path)]
    if asked.few_shot is not None:
        arguments += ["--num_fewshot", str(asked.few_shot)]
    return arguments
