"""What is kept in the repository of a form: its settings, the outcomes of its experiments, and the machine."""

import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from reproduce.catalogue import everything
from reproduce.experiments import Experiment, Known, resolved
from reproduce.form import Form
from reproduce.outcome import Outcome

FOLDER = Path(__file__).resolve().parents[1] / "results"


class Kept(BaseModel):
    """The outcomes of a form by the keys of their experiments; `wanted` is how many there are when all are made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: Form
    wanted: int
    machine: dict[str, Any]
    outcomes: dict[str, Outcome]

    def known(self, experiment: Experiment) -> Outcome | None:
        return self.outcomes.get(experiment.key)

    def write(self, folder: Path = FOLDER) -> Path:
        """Write it as a whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.form.name}.json"
        text = json.dumps(self.model_dump(exclude_defaults=True), separators=(",", ":"), ensure_ascii=False)
        partial = path.with_suffix(".partial")
        partial.write_text(text.replace('},"', '},\n"') + "\n", "utf-8")
        partial.replace(path)
        return path


def kept_of(form: Form, known: Known, processor: Callable[[], str]) -> Kept:
    """All that is known of a form's experiments."""
    wanted = list(everything(form))
    found = {one.key: one for one in (resolved(each, known) for each in wanted) if one}
    outcomes = {key: outcome for key, one in found.items() if (outcome := known(one))}
    open_ones = sum(resolved(each, known) is None for each in wanted)
    machine = {
        "cores": os.cpu_count(),
        "processor": processor(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }
    return Kept(form=form, wanted=len(found) + open_ones, machine=machine, outcomes=outcomes)


def read_kept(folder: Path = FOLDER) -> list[Kept]:
    """All that is kept, a form after the other."""
    return [Kept.model_validate_json(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
