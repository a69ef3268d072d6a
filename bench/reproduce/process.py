"""An experiment as processes: the commands that make it, one after the other, and what they leave."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from lmmpress.plan import parse_plan
from lmmpress.presets import preset
from lmmpress.result import Result
from reproduce.experiments import Experiment
from reproduce.form import small_copy
from reproduce.outcome import Outcome, outcome_of_comparisons, outcome_of_run
from reproduce.places import Places

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0
"""Seconds that a process has to end itself."""


@dataclass
class Process:
    """An experiment in the making. Each command's output is a file; one that is there is not made again."""

    experiment: Experiment
    places: Places
    commands: list[tuple[list[str], Path]]
    begun: float = field(default_factory=time.monotonic)
    _running: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        return self.places.of(self.experiment)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def ended(self) -> bool | None:
        """Whether the experiment has ended well; None while it goes on. Starts the next command if it is time."""
        if self._running is not None:
            status = self._running.poll()
            if status is None:
                return None
            self._running = None
            _, output = self.commands[0]
            if status:
                return False
            with suppress(FileNotFoundError):  # a command may write its file itself
                output.with_suffix(".partial").replace(output)
        while self.commands and self.commands[0][1].exists():
            self.commands.pop(0)
        if not self.commands:
            return True
        command, output = self.commands[0]
        with self.log.open("ab") as log, output.with_suffix(".partial").open("wb") as out:
            self._running = subprocess.Popen(
                command, stdout=out, stderr=log, env=_environment(), cwd=ROOT, process_group=0
            )
        return None

    def stop(self) -> None:
        """Interrupt it; what it has made so far stays, and it goes on from there the next time."""
        running = self._running
        if running is None or running.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGINT)
        try:
            running.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def process_of(experiment: Experiment, places: Places) -> Process:
    """The processes of an experiment, in a folder of its own."""
    folder = places.of(experiment)
    folder.mkdir(parents=True, exist_ok=True)
    raw = preset(experiment.preset) | {"store": str(places.store(experiment).resolve())}
    if experiment.small:
        raw["data"] = str(small_copy(Path(raw["data"]), places.data(experiment)).resolve())
    plan = folder / "plan.yaml"
    plan.write_text(yaml.safe_dump(raw, allow_unicode=True, sort_keys=False), "utf-8")
    return Process(experiment, places, _commands(experiment, folder.resolve(), raw))


def outcome_in(experiment: Experiment, folder: Path) -> Outcome:
    """The outcome that its processes left in its folder; all but that is removed."""
    if experiment.kind == "run":
        outcome = outcome_of_run(Result.model_validate_json((folder / "run/result.json").read_text("utf-8")))
        shutil.rmtree(folder / "run")
        (folder / "printed.json").unlink(missing_ok=True)
    elif experiment.kind == "script":
        outcome = Outcome.model_validate_json((folder / "steps.json").read_text("utf-8"))
    else:
        (original, _), *others = experiment.checkpoints
        files = {name: folder / f"{digest[:12]}.json" for name, digest in others}
        compared = {name: json.loads(file.read_text("utf-8")) for name, file in files.items()}
        outcome = outcome_of_comparisons(original, compared)
    return outcome


def _commands(experiment: Experiment, folder: Path, raw: dict[str, object]) -> list[tuple[list[str], Path]]:
    settings = [f"seed={experiment.seed}", *experiment.settings]
    changes = [word for setting in settings for word in ("--set", setting)]
    plan = str(folder / "plan.yaml")
    lmmpress = [sys.executable, "-m", "lmmpress.cli"]
    if experiment.kind == "run":
        run = [*lmmpress, "run", plan, "--out", str(folder / "run"), "--resume", "--json", *changes]
        return [(run, folder / "printed.json")]
    if experiment.kind == "script":
        return [([sys.executable, "-m", experiment.script, plan, *changes], folder / "steps.json")]
    batch = parse_plan(dict(raw)).evaluation.batch_size
    seconds = 5 if experiment.small else 60
    options = ["--data", str(raw["data"]), "--batch-size", str(batch), "--seconds", str(seconds), "--json"]
    (_, original), *others = experiment.checkpoints
    held = f"{raw['store']}/checkpoints"
    return [
        ([*lmmpress, "compare", f"{held}/{original}", f"{held}/{digest}", *options], folder / f"{digest[:12]}.json")
        for _, digest in others
    ]


def _environment() -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "bench"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
