"""The pipeline on this machine: Kubeflow's own local runner starts each task as a process, as a cluster starts pods."""

import io
import json
import os
import re
import tempfile
import time
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import TextIO

from lmmpress.engine.compression import check_folder, claim, deliver, held_store
from lmmpress.engine.row_checks import check_all_rows
from lmmpress.engine.run import begin, check, close, known_steps, open_run
from lmmpress.errors import UserError
from lmmpress.host.processes import inherited
from lmmpress.kubeflow.compile import Granularity, make_pipeline, write_pipeline
from lmmpress.plan import Plan
from lmmpress.printing.terminal import fit
from lmmpress.progress import NOTES, console
from lmmpress.result import Result
from lmmpress.store import open_store
from lmmpress.tasks.parameters import arguments_of
from lmmpress.tracking.client import local_store

LOG = "tasks.log"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_RUNNER = re.compile(r"\d\d:\d\d:\d\d\.\d{3} - (?:INFO|ERROR) - (.*)")


def compress_in_tasks(plan: Plan, name: str, out: Path, granularity: Granularity, resume: bool = False) -> Result:
    """What `lmmpress.engine.compression.compress` does, by the tasks of the compiled pipeline, one process each.

    What they print goes to `tasks.log` in the folder `out`. Raises UserError before any task where plan, model and
    data do not fit together, and where a task fails, with its own words.
    """
    from kfp import local
    from kfp.components import load_component_from_file

    begun = time.perf_counter()
    check_folder(out)
    teacher, _ = check(plan)
    elsewhere = open_store(plan.store) if plan.store else None
    checked = check_all_rows(plan, teacher, elsewhere or held_store(out))
    claim(out, plan, teacher, resume)
    plan = plan.model_copy(update={"store": plan.store or str(out.resolve() / "store")})
    assert plan.store is not None
    if checked:
        checked.note(open_store(plan.store))
    arguments = arguments_of(plan, name)
    pipeline = make_pipeline(granularity, arguments, [stage.name for stage in plan.stages])
    os.environ["MLFLOW_TRACKING_URI"] = local_store(out)  # the tasks inherit it
    with tempfile.TemporaryDirectory() as folder, (out / LOG).open("a", encoding="utf-8") as file:
        notes, compiled = Path(folder) / "notes.jsonl", Path(folder) / "pipeline.yaml"
        os.environ[NOTES] = str(notes)
        log = _Log(file, notes)
        write_pipeline(pipeline, compiled)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            local.init(local.SubprocessRunner(use_venv=False), pipeline_root=folder)
            try:
                with redirect_stdout(log), console.status("starting") as shown, inherited():
                    log.show = shown.update
                    load_component_from_file(str(compiled))(**arguments)
            except RuntimeError:
                raise UserError(
                    f"task {log.failed} failed: {log.fault or f'see {out / LOG}'}; carry on with --resume"
                ) from None
            finally:
                os.environ.pop(NOTES, None)
    store = open_store(plan.store)
    key, original = begin(plan, store, teacher)
    with store.run(key) as state:
        run = open_run(plan, store, key, original, makes=frozenset())
        result = close(run, known_steps(run, state), time.perf_counter() - begun)
        deliver(run, result, out)
    return result


class _Log(io.TextIOBase):
    """Where Kubeflow's runner prints: keeps everything in a file, and shows people which task works, what became of
    each step, and why one failed. Control characters and secrets do not get into that file.

    What tasks print may hold texts of strangers, so nothing is believed of it: tasks write what they have to say into
    the file `notes` too, and the runner's own lines are told by their form from those of tasks, which it indents.
    """

    def __init__(self, file: TextIO, notes: Path) -> None:
        self._file, self._line = file, ""
        self._notes, self._read_up_to = notes, 0
        self.failed, self.fault = "", ""
        self._told: set[str] = set()
        self.show = lambda text: None

    def write(self, text: str) -> int:
        self._line += text
        *lines, self._line = self._line.split("\n")
        for line in lines:
            plain = fit(_COLOURS.sub("", line))
            self._file.write(plain + "\n")
            self._read(plain)
        return len(text)

    def flush(self) -> None:
        self._file.flush()

    def _read(self, line: str) -> None:
        self._read_notes()
        if not (found := _RUNNER.match(line)):
            return
        if task := re.fullmatch(r"Executing task '([^']+)'", found[1]):
            self.show(task[1])
        elif task := re.fullmatch(r"Task '([^']+)' finished with status FAILURE", found[1]):
            self.failed = self.failed or task[1]  # those after the first only find that their step is not due

    def _read_notes(self) -> None:
        if not self._notes.is_file():
            return
        with self._notes.open("rb") as file:
            file.seek(self._read_up_to)
            whole = file.read().rpartition(b"\n")[0]  # without a line that is just being written
        self._read_up_to += len(whole) + 1 if whole else 0
        for one in map(json.loads, whole.splitlines()):
            self.fault = self.fault or one.get("error", "")
            if (step := one.get("step")) and step not in self._told:
                self._told.add(step)
                console.print(step)
