"""Processes that make a part together: forks (see forks.py), which have nothing to import, with the variables of
torchrun. And a main module for processes that torchrun does start, one of which kills itself, or has little memory."""

import os
import signal
import socket
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from lmmpress.distillation.learner import Learner
from lmmpress.engine.parts import models, scoring, training, worker
from lmmpress.engine.parts.worker import Job
from support.small_memory import memory_for


def together(raw: dict[str, Any], rows: int | None = None) -> None:
    """Do a job in its number of processes, the second of which has memory for so many rows at once if that is given.
    Beside its result each writes how many numbers it held, if it distils, and the error that ended it."""
    job = Job.model_validate(raw)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(job.processes):
        if (pid := os.fork()) == 0:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job.processes, "LOCAL_WORLD_SIZE": job.processes}
            os.environ.update({name: str(value) for name, value in names.items()})
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, ACCELERATE_USE_CPU="true")
            _note_what_is_held(Path(f"{job.result}.held-{rank}"))
            if rows is not None and rank == 1:
                _lend_memory_for(rows)
            try:
                worker.work(job)
            except BaseException:
                Path(f"{job.result}.error-{rank}").write_text(traceback.format_exc(), "utf-8")
                os._exit(1)
            os._exit(0)
        started.append(pid)
    if any([os.waitpid(pid, 0)[1] for pid in started]):
        os._exit(1)


def _note_what_is_held(file: Path) -> None:
    distill = training.distill

    def noting(learner: Learner, *arguments: Any) -> list[float] | None:
        if learner.is_sharded:
            held = sum(parameter.to_local().numel() for parameter in learner.parameters())  # type: ignore[attr-defined]
            file.write_text(str(held), "utf-8")
        return distill(learner, *arguments)

    setattr(training, "distill", noting)  # noqa: B010  # which mypy takes


def _lend_memory_for(rows: int) -> None:
    """From now on each model that is loaded to be scored or asked has memory for so many rows at once."""
    load = scoring.load_model

    def loaded(*arguments: Any) -> torch.nn.Module:
        model = load(*arguments)
        _limits.enter_context(memory_for(rows, model.get_submodule("language_model")))
        return model

    for module in (scoring, models):
        setattr(module, "load_model", loaded)  # noqa: B010


_limits = ExitStack()
"""Limits of memory, which end with the process."""

DIES = "LMMPRESS_TEST_DIES"
"""The variable with a file; the process that makes it kills itself in its second update."""

SMALL = "LMMPRESS_TEST_SMALL"
"""The variable with the rows for which the second process has memory while it distils."""


def _die_once(model: torch.nn.Module) -> None:
    """Kill this process when a student is run for the second time, if no process has done so yet."""
    runs = 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1
        if runs == 2 and os.environ["RANK"] == "1" and not Path(os.environ[DIES]).exists():
            Path(os.environ[DIES]).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    model.register_forward_pre_hook(count)


if __name__ == "__main__":
    really = training.distill

    def distilling(learner: Learner, *arguments: Any) -> list[float] | None:
        if DIES in os.environ:
            _die_once(learner.model)
        if os.environ["RANK"] == "1" and SMALL in os.environ:
            _limits.enter_context(memory_for(int(os.environ[SMALL]), learner.model.get_submodule("language_model")))
        return really(learner, *arguments)

    setattr(training, "distill", distilling)  # noqa: B010
    worker.work(Job.model_validate_json(Path(sys.argv[1]).read_text("utf-8")))
