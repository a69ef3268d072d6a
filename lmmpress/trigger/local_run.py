"""The process of a run of engine local: what `lmmpress run --resume` does, with its lineage in the trigger's MLflow.

    python -m lmmpress.trigger.local_run FOLDER RUN

`lmmpress.trigger.local_files` says which files it reads and writes.
"""

import importlib.metadata
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from filelock import FileLock, Timeout

from lmmpress.errors import UserError
from lmmpress.host.this_machine import machine, started
from lmmpress.host.whole_file import write_whole
from lmmpress.printing.one_line import printable
from lmmpress.progress.log import log_traceback, logging_in_form
from lmmpress.trigger.local_files import BEAT, Begun, Ended, Ordered, RunFiles

_LOOK = 0.5  # seconds between two looks for the wish to cancel
_AGAIN = (
    15.0  # seconds after which a run that goes on is interrupted again: a callback or a destructor may swallow that
)
_PATIENCE = 60.0  # seconds that a run has to end by itself once that is wanted


def main(folder: str, run: str) -> None:
    """Run what is ordered, unless another process does, or it has ended."""
    files = RunFiles(Path(folder), run)
    try:
        with FileLock(files.lock, timeout=0):
            if not files.ended.exists():
                _work(files)
    except Timeout:
        print(f"another process works in {folder}", file=sys.stderr)


def _work(files: RunFiles) -> None:
    order = Ordered.model_validate_json(files.order.read_text("utf-8"))
    pid = os.getpid()
    for one in (signal.SIGINT, signal.SIGTERM):  # a background process may have been started without
        signal.signal(one, signal.default_int_handler)
    _write(files.begun, Begun(machine=machine(), pid=pid, started=started(pid)))
    imported = threading.Event()
    threading.Thread(target=_watch, args=(files, imported), daemon=True).start()
    _write(files.ended, _run(order, files, imported))


def _run(order: Ordered, files: RunFiles, imported: threading.Event) -> Ended:
    try:
        import lmmpress.engine.compression  # noqa: F401  it imports torch and transformers
        from lmmpress.api import compress
        from lmmpress.progress.terminal import on_terminal
        from lmmpress.tracking.lineage import Lineage
        from lmmpress.tracking.registry import name_of_compressed

        imported.set()
        # by the claim people find from MLflow's run who has asked for it; a pipeline's run has its engine's name
        about = {
            "version": importlib.metadata.version("lmmpress"),
            "claim": files.folder.name,
            "model": order.plan.model,
        }
        recorder = Lineage(order.tracking, name_of_compressed(order.plan.model), about=about)
        result = compress(order.plan, files.out, resume=True, recorder=recorder, progress=on_terminal())
        lost = result.original.accuracy - result.compressed.accuracy
        return Ended(state="succeeded", said=f"accuracy {result.compressed.accuracy:.4f}, lost {lost:.4f}")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end is to be written
        if files.cancel.exists():
            return Ended(state="cancelled")
        return Ended(state="failed", said="stopped by a signal; a retry carries it on")
    except UserError as error:
        return Ended(state="failed", said=error.lines[0])
    except BaseException as error:
        log_traceback(error)
        said = printable("".join(traceback.format_exception_only(error)))
        return Ended(state="failed", said=f"{said}; {files.log} has more")


def _watch(files: RunFiles, imported: threading.Event) -> None:
    """Show that this process lives, and end it if somebody wants that: as Ctrl-C does, its children too. Not while it
    imports: a module that is interrupted there may end in any error."""
    beaten, wanted, asked = time.monotonic(), 0.0, -_AGAIN
    while True:
        time.sleep(_LOOK)
        now = time.monotonic()
        if now - beaten > BEAT:
            beaten = now
            os.utime(files.begun)
        if files.cancel.exists() and not wanted:
            wanted = now
        if wanted and imported.is_set() and now - asked > _AGAIN:
            asked = now
            os.killpg(0, signal.SIGINT)  # this process is the leader of its group
        if wanted and now - wanted > _PATIENCE:
            os.killpg(0, signal.SIGKILL)


def _write(path: Path, content: Begun | Ended) -> None:
    write_whole(path, content.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    with logging_in_form():
        main(*sys.argv[1:])
