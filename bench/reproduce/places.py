"""Where the experiments of a form lie, and what is known of them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from reproduce.experiments import Experiment
from reproduce.outcome import Outcome


@dataclass(frozen=True)
class Places:
    """A folder of experiments: a folder each, and one store for all, so that steps that two have in common are made
    once."""

    folder: Path

    def store(self, experiment: Experiment) -> Path:
        return self.folder / f"store-{experiment.preset}"

    def data(self, experiment: Experiment) -> Path:
        """The small copy of the preset's data."""
        return self.folder / f"data-{experiment.preset}"

    def of(self, experiment: Experiment) -> Path:
        return self.folder / "runs" / experiment.key

    def result(self, experiment: Experiment) -> Path:
        return self.of(experiment) / "result.json"

    def known(self, experiment: Experiment) -> Outcome | None:
        """The outcome of an experiment that was made before; None of one that was not."""
        try:
            kept = json.loads(self.result(experiment).read_text("utf-8"))
        except FileNotFoundError:
            return None
        return Outcome.model_validate(kept["outcome"])

    def keep(self, experiment: Experiment, outcome: Outcome, seconds: float) -> None:
        """Write the outcome as a whole or not at all."""
        kept = {"experiment": asdict(experiment), "seconds": round(seconds, 1), "outcome": outcome.model_dump()}
        path = self.result(experiment)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")
        partial.replace(path)
