"""The pipeline on this machine: Kubeflow's own local runner starts each task as a process, as a cluster starts pods."""

import io
import json
import re
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

from lmmpress.engine.delivery import deliver
from lmmpress.engine.final_result import close
from lmmpress.engine.run import begin, known_steps, open_run
from lmmpress.engine.run_folder import take_folder
from lmmpress.errors import UserError
from lmmpress.host.processes import inherited
from lmmpress.kubeflow.compile import make_pipeline, write_pipeline
from lmmpress.plan import Pipeline, Plan
from lmmpress.printing.terminal import fit
from lmmpress.progress import NOTES, doing, say
from lmmpress.progress.relay import RELAY, from_started
from lmmpress.result import Result
from lmmpress.tasks.granularity import Granularity, refuse_jumps
from lmmpress.tasks.parameters import arguments_of

LOG = "tasks.log"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_RUNNER = re.compile(r"\d\d:\d\d:\d\d\.\d{3} - (?:INFO|ERROR) - (.*)")


def compress_in_tasks(
    plan: Plan,
    name: str,
    out: Path,
    granularity: Granularity,
    resume: bool = False,
    tracking_uri: str | None = None,
    force: bool = False,
) -> Result:
    """Do what `lmmpress.engine.compression.compress` does, by the tasks of the compiled pipeline, one process each.

    Their output goes to `tasks.log` in the folder `out`, their lineage to MLflow's store at `tracking_uri`, if
    there is one. Raises UserError before any task if plan, model and data do not fit together, and if a task fails,
    with the task's message.
    """
    from kfp import local
    from kfp.components import load_component_from_file

    refuse_jumps(plan, granularity)
    started = time.perf_counter()
    folder = take_folder(plan, out, resume, force)
    # nobody is waited for here: an approval between stages is for pipelines on a cluster
    plan = folder.plan.model_copy(update={"pipeline": Pipeline(), "store": plan.store or str(out.resolve() / "store")})
    arguments = arguments_of(plan, name)
    pipeline = make_pipeline(granularity, arguments, plan.stages, compare=plan.compare)
    with tempfile.TemporaryDirectory() as aside, (out / LOG).open("a", encoding="utf-8") as file:
        notes, events, compiled = (Path(aside) / name for name in ("notes.jsonl", "events.jsonl", "pipeline.yaml"))
        given = {NOTES: str(notes), RELAY: str(events), "MLFLOW_TRACKING_URI": tracking_uri or ""}
        log = _Log(file, notes)
        write_pipeline(pipeline, compiled)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            local.init(local.SubprocessRunner(use_venv=False), pipeline_root=aside)
            try:
                with (
                    redirect_stdout(log),
                    doing("starting") as show,
                    from_started(events, log.outside),
                    inherited(**given),
                ):
                    log.show = show
                    load_component_from_file(str(compiled))(**arguments)
            except RuntimeError:
                raise UserError(
                    f"task {log.failed} failed: {log.fault or f'see {out / LOG}'}; continue with --resume"
                ) from None
    begun = begin(plan, folder.store, folder.teacher)
    with folder.store.run_state(begun.key) as state:
        run = open_run(plan, folder.store, begun.key, begun.original, makes=frozenset())
        result = close(run, known_steps(run, state), time.perf_counter() - started)
        deliver(run, result, out)
    return result


class _Log(io.TextIOBase):
    """The output of Kubeflow's runner. All of it is kept in a file, without control characters and secrets. People see
    which task runs, the decision of each step, and why a task failed.

    The output of tasks may hold untrusted texts, so it is only kept, never interpreted: tasks also write their results
    into the file `notes`. The runner indents the lines of tasks, so its own lines can be recognised.
    """

    def __init__(self, file: TextIO, notes: Path) -> None:
        self._file, self._line = file, ""
        self._notes, self._read_up_to = notes, 0
        self.failed, self.fault = "", ""
        self._shown: set[str] = set()
        self._stdout = sys.stdout
        self._outside: set[int] = set()  # the threads that call a listener
        self.show: Callable[[str], None] = lambda text: None

    def write(self, text: str) -> int:
        if threading.get_ident() in self._outside:
            return self._stdout.write(text)
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
            with self.outside():
                self.show(task[1])
        elif task := re.fullmatch(r"Task '([^']+)' finished with status FAILURE", found[1]):
            self.failed = self.failed or task[1]  # later ones only find that their step is not due

    def _read_notes(self) -> None:
        if not self._notes.is_file():
            return
        with self._notes.open("rb") as file:
            file.seek(self._read_up_to)
            whole = file.read().rpartition(b"\n")[0]  # without a line that is not complete yet
        self._read_up_to += len(whole) + 1 if whole else 0
        for one in map(json.loads, whole.splitlines()):
            self.fault = self.fault or one.get("error", "")
            if (step := one.get("step")) and step not in self._shown:
                self._shown.add(step)
                with self.outside():
                    say(step)

    @contextmanager
    def outside(self) -> Iterator[None]:
        """In this thread events are sent to a listener: what that prints does not go into this log."""
        thread = threading.get_ident()
        self._outside.add(thread)
        try:
            yield
        finally:
            self._outside.discard(thread)
