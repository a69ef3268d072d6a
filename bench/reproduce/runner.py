"""Makes experiments, some at a time. What is there is not made again; what was begun goes on where it was stopped."""

import time
from collections.abc import Callable, Iterable, Sequence

from reproduce.cost import seconds_of
from reproduce.experiments import Experiment, Wanted, resolved
from reproduce.form import KEPT
from reproduce.places import Places
from reproduce.process import Process, outcome_in, process_of

PAUSE = 0.2
Make = Callable[[Experiment, Places], Process]
Cost = Callable[[Wanted], float]


class Runner:
    """Makes experiments in their order, `jobs` at a time; one that is to run alone has the machine to itself."""

    def __init__(
        self,
        wanted: Iterable[Wanted],
        places: Places,
        jobs: int = 2,
        say: Callable[[str], None] = print,
        make: Make = process_of,
        cost: Cost = seconds_of,
    ) -> None:
        self.places, self.jobs, self.say, self.make, self.cost = places, jobs, say, make, cost
        self.open = list(dict.fromkeys(wanted))
        self.running: list[Process] = []
        self.failed: set[str] = set()
        self.made = 0
        self._begun = time.monotonic()
        self._expected = 0.0

    def run(self) -> bool:
        """Make all. Whether none failed; one that fails does not stop the rest. KeyboardInterrupt stops what runs."""
        try:
            while self._start() or self.running:
                time.sleep(PAUSE)
                self._collect()
        except BaseException:
            for process in self.running:
                process.stop()
            raise
        for _ in self.open:
            self.say("left out: an experiment that it follows from failed")
        return not self.failed and not self.open

    def _start(self) -> bool:
        """Start what may start now. Whether anything can still be started."""
        keys = {process.experiment.key for process in self.running}
        for wanted in list(self.open):
            experiment = resolved(wanted, self.places.known)
            if experiment is None:
                continue
            if self.places.known(experiment) is not None or experiment.key in self.failed:
                self.open.remove(wanted)
                continue
            if experiment.key in keys:
                continue  # another has asked for the same; it is known when that has ended
            alone = experiment.alone or any(process.experiment.alone for process in self.running)
            if len(self.running) >= (1 if alone else self.jobs):
                return True
            self.open.remove(wanted)
            self._expected += self.cost(experiment)
            self.running.append(self.make(experiment, self.places))
            keys.add(experiment.key)
        return any(resolved(wanted, self.places.known) for wanted in self.open)

    def _collect(self) -> None:
        for process in list(self.running):
            well = process.ended()
            if well is None:
                continue
            self.running.remove(process)
            experiment = process.experiment
            seconds = time.monotonic() - process.begun
            if well:
                self.places.keep(experiment, outcome_in(experiment, process.folder), seconds)
                self.made += 1
                self.say(f"{_title(experiment)}: {seconds:.0f} s; {self._left()}")
            else:
                self.failed.add(experiment.key)
                self.say(f"{_title(experiment)}: failed; {process.log} says why")

    def _left(self) -> str:
        """How many are open, and how long they are likely to take: as much more than expected as those before."""
        waiting = [*self.open, *(process.experiment for process in self.running)]
        if not waiting:
            return "none left"
        left = sum(map(self.cost, waiting))
        done = self._expected - sum(self.cost(process.experiment) for process in self.running)
        pace = (time.monotonic() - self._begun) / done if done > 0 else 1 / self.jobs
        return f"{len(waiting)} left, about {in_words(left * pace)}"


def in_words(seconds: float) -> str:
    """3 h 20 min."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def totals(wanted: Sequence[Wanted], jobs: int) -> str:
    """How many experiments there are, and about how long they take on this many cores."""
    every = list(dict.fromkeys(wanted))
    seconds = sum(map(seconds_of, every)) / jobs
    return f"{len(every)} experiments, about {in_words(seconds)} with {jobs} at a time"


def _title(experiment: Experiment) -> str:
    """What an experiment is, in a line: its settings beside those that all have."""
    after = experiment.settings.index(KEPT) + 1 if KEPT in experiment.settings else 0
    own = [one for one in experiment.settings[after:] if not one.startswith("evaluation.")]
    what = experiment.script or ("test split and speed of the stages" if experiment.kind == "compared" else "")
    return f"{experiment.preset}, seed {experiment.seed}, {what or ', '.join(own) or 'as it is'}"
