"""The pipeline on this machine: Kubeflow's own local runner starts each task as a process, as a cluster starts pods."""

import io
import os
import re
import tempfile
import time
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import TextIO

from lmmpress.cluster.compile import Granularity, make_pipeline, write_pipeline
from lmmpress.compression import claim, deliver
from lmmpress.errors import UserError
from lmmpress.parameters import arguments_of
from lmmpress.plan import Plan
from lmmpress.progress import console
from lmmpress.result import Result
from lmmpress.run import begin, check, close, known_steps, open_run
from lmmpress.store import open_store
from lmmpress.tracking.client import local_store

LOG = "tasks.log"


def compress_in_tasks(plan: Plan, name: str, out: Path, granularity: Granularity, resume: bool = False) -> Result:
    """What `lmmpress.compression.compress` does, by the tasks of the compiled pipeline, one process each.

    What they print goes to `tasks.log` in the folder `out`. Raises UserError before any task where plan, model and
    data do not fit together, and where a task fails, with its own words.
    """
    from kfp import local
    from kfp.components import load_component_from_file

    begun = time.perf_counter()
    teacher, _ = check(plan)
    claim(out, plan, resume)
    plan = plan.model_copy(update={"store": plan.store or str(out.resolve() / "store")})
    assert plan.store is not None
    arguments = arguments_of(plan, name)
    pipeline = make_pipeline(granularity, arguments, [axis.value for axis in plan.stages])
    os.environ["MLFLOW_TRACKING_URI"] = local_store(out)  # the tasks inherit it
    with tempfile.TemporaryDirectory() as folder, (out / LOG).open("a", encoding="utf-8") as file:
        log, compiled = _Log(file), Path(folder) / "pipeline.yaml"
        write_pipeline(pipeline, compiled)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            local.init(local.SubprocessRunner(use_venv=False), pipeline_root=folder)
            try:
                with redirect_stdout(log), console.status("starting") as shown:
                    log.show = shown.update
                    load_component_from_file(str(compiled))(**arguments)
            except RuntimeError:
                raise UserError(
                    f"task {log.failed} failed: {log.fault or f'see {out / LOG}'}; carry on with --resume"
                ) from None
    store = open_store(plan.store)
    key, original = begin(plan, store, teacher)
    with store.run(key) as state:
        run = open_run(plan, store, key, original, makes=frozenset())
        result = close(run, known_steps(run, state), time.perf_counter() - begun)
        deliver(run, result, out)
    return result


class _Log(io.TextIOBase):
    """Where Kubeflow's runner prints: keeps everything in a file, and shows people which task works, what became of
    each step, and why one failed."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._line = file, ""
        self.failed, self.fault = "", ""
        self._told: set[str] = set()
        self.show = lambda text: None

    def write(self, text: str) -> int:
        self._file.write(text)
        self._line += text
        *lines, self._line = self._line.split("\n")
        for line in lines:
            self._read(re.sub(r"\x1b\[[0-9;]*m", "", line).strip())
        return len(text)

    def flush(self) -> None:
        self._file.flush()

    def _read(self, line: str) -> None:
        if found := re.search(r"Executing task '([^']+)'", line):
            self.show(found[1])
        elif found := re.search(r"Task '([^']+)' finished with status FAILURE", line):
            self.failed = self.failed or found[1]  # those after the first only find that their step is not due
        elif line.startswith("error: ") and not self.fault:
            self.fault = line.removeprefix("error: ")
        elif re.match(r"step \d+/\d+ ", line) and line not in self._told:
            self._told.add(line)
            console.print(line, highlight=False)
