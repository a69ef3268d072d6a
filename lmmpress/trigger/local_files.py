"""The files of the runs of engine local, which the trigger and the run's process share.

FOLDER/KEY/out             the folder of `lmmpress run`; all attempts at a question use it, so that each carries on
FOLDER/KEY/lock            held by the process that works there
FOLDER/KEY/RUN.order.json  what is to be run
FOLDER/KEY/RUN.json        which process has begun; its time shows that the process lives
FOLDER/KEY/RUN.cancel      somebody wants the end of the run
FOLDER/KEY/RUN.end.json    how it ended
FOLDER/KEY/RUN.log         what it printed
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lmmpress.plan import Plan

BEAT, SILENT = 15.0, 300.0
"""How often a process shows that it lives, and after how many seconds without that it does not, where it cannot be
looked for because it is on another machine."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Ordered(_File):
    """What is to be run."""

    plan: Plan
    tracking: str


class Begun(_File):
    """Which process runs it."""

    machine: str
    pid: int
    started: str


class Ended(_File):
    """How it ended."""

    state: Literal["succeeded", "failed", "cancelled"]
    said: str = ""


class RunFiles:
    """The files of one run in the folder of its question."""

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self.out, self.lock = folder, folder / "out", folder / "lock"
        self.order, self.begun = folder / f"{run}.order.json", folder / f"{run}.json"
        self.cancel, self.ended, self.log = folder / f"{run}.cancel", folder / f"{run}.end.json", folder / f"{run}.log"
