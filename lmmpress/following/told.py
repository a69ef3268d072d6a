"""What a person is told of a run that is followed: a line for each part and each decision; steps count from 1."""

import time
from collections.abc import Callable
from statistics import fmean

from lmmpress.engine.remaining import most_steps_after, step_name
from lmmpress.errors import UserError
from lmmpress.following.run_in_store import RunInStore
from lmmpress.plan import Plan
from lmmpress.pods.seen_pods import PodSeen
from lmmpress.printing.numbers import in_time
from lmmpress.result import StepResult

Tell = Callable[[str], None]
_UNTOLD = ("", "steps", "due", "gate")  # pods that only read, or whose decision is told
_STEP_PARTS = ("importance", "distill", "evaluate")


class Told:
    """Tells what is new at each look. Where the store cannot be read from here, parts are told without decisions."""

    def __init__(self, plan: Plan, tell: Tell, store: RunInStore | None) -> None:
        self._plan, self._tell, self._store = plan, tell, store
        self._pods: set[str] = set()
        self._before: dict[str, int] | None = None  # decisions of each stage when this pipeline began
        self._decided = 0
        self._ends = 0
        self._last = time.monotonic()
        self._took: list[float] = []  # seconds between decisions, as they were seen
        self._read = False

    def look(self, pods: list[PodSeen]) -> bool:
        """Tell what is new; whether anything was."""
        self._look_into_store()
        new = [
            pod for pod in pods if pod.phase == "Succeeded" and pod.part not in _UNTOLD and pod.name not in self._pods
        ]
        steps = self._steps
        decided = self._decided
        for pod in sorted(new, key=lambda one: one.ended):
            self._pods.add(pod.name)
            number = self._number(pod, pods)
            if number:
                self._tell_decisions(steps, before=(pod.stage, number))
            elif pod.part == "stage":
                self._tell_decisions(steps)
            self._tell(f"{self._named(pod, number)}: done ({in_time(pod.ended - pod.began)}){self._about(pod)}")
        self._tell_decisions(steps)
        return bool(new) or self._decided > decided

    @property
    def reads_store(self) -> bool:
        """Whether decisions are told."""
        return self._store is not None

    @property
    def _steps(self) -> list[StepResult]:
        return self._store.steps if self._store else []

    def _look_into_store(self) -> None:
        if self._store is None:
            return
        try:
            self._store.look()
        except (UserError, OSError) as error:
            if not self._read:  # later faults are waited for
                self._tell(
                    f"the store {self._store.address} cannot be read from here, so decisions are not told: {error}"
                )
                self._store = None
            return
        self._read = True
        if self._before is None and self._store.submission is not None:
            self._plan = self._store.submission.plan  # in whole numbers
            self._before = {}
            for step in self._store.steps:
                self._before[step.stage] = self._before.get(step.stage, 0) + 1
            self._decided = len(self._store.steps)
            self._last = time.monotonic()
            done = f", carries on after {self._decided}" if self._decided else ""
            self._tell(f"run {self._store.submission.key[:12]}: at most {self._most()} steps{done}")

    def _number(self, pod: PodSeen, pods: list[PodSeen]) -> int:
        """Which step of its stage a pod worked on, counted from 1; 0 where it worked on no single step."""
        if not pod.stage or not (pod.part in _STEP_PARTS or pod.part.endswith("_prune")):
            return 0
        same = [one for one in pods if (one.part, one.stage) == (pod.part, pod.stage) and one.phase == "Succeeded"]
        earlier = sum(one.began < pod.began for one in same)
        return (self._before or {}).get(pod.stage, 0) + earlier + 1

    def _named(self, pod: PodSeen, number: int) -> str:
        part = "prune" if pod.part.endswith("_prune") else pod.part
        if number:
            return f"{self._step(pod.stage, number)}: {part}"
        if pod.part == "stage":
            return f"stage {pod.stage}"
        if part != "evaluate":
            return part
        self._ends += 1  # the original is measured before all steps, the result after them
        return f"evaluate the {'original' if self._ends == 1 else 'result'}"

    def _step(self, stage: str, number: int) -> str:
        return step_name(self._plan, stage, number)

    def _about(self, pod: PodSeen) -> str:
        if pod.part != "stage" or not (own := [step for step in self._steps if step.stage == pod.stage]):
            return ""
        return f", {sum(step.decision == 'accepted' for step in own)} of {len(own)} steps accepted"

    def _tell_decisions(self, steps: list[StepResult], before: tuple[str, int] | None = None) -> None:
        """Tell decisions that are not told yet; with `before` only those of earlier steps."""
        while self._decided < len(steps):
            step = steps[self._decided]
            if before and (step.stage, step.index + 1) == before:
                return
            self._decided += 1
            accuracy = "" if step.accuracy is None else f", accuracy {step.accuracy:.4f}"
            left = "" if self._decided < len(steps) else self._left(steps)
            self._tell(f"{self._step(step.stage, step.index + 1)}: {step.decision}{accuracy}: {step.reason}{left}")

    def _left(self, steps: list[StepResult]) -> str:
        """The time that is left if the gate accepts every step, by the times between decisions as they were seen; at
        first by what the steps computed."""
        self._took.append(time.monotonic() - self._last)
        self._last += self._took[-1]
        if self._plan.start_from:
            return ""
        computed = fmean(sum(step.seconds.values()) for step in steps)
        last, stage = steps[-1], self._plan.stage(steps[-1].stage)
        ended = last.decision != "accepted"
        rest = most_steps_after(self._plan, last.stage, self._plan.most_steps(stage) - 1 if ended else last.index)
        if not rest:
            return ""
        return f"; at most {in_time(rest * max(computed, fmean(self._took)))} left"

    def _most(self) -> int:
        return sum(map(self._plan.most_steps, self._plan.stages))
