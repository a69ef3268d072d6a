"""What befalls runs on a cluster: pods deleted by force, a controller that restarts, MLflow and the store away."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from support.cluster.helpers_in_cluster import Helpers
from support.cluster.kubectl import kubectl, wait_for
from support.cluster.release import NAME
from support.cluster.runs import Run
from support.cluster.watched import Seen


@dataclass
class Disturbances:
    """What was done to runs, and when; threads of their own do it."""

    done: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    away: list[tuple[float, float]] = field(default_factory=list)  # when the store went, and when it was back
    _threads: list[threading.Thread] = field(default_factory=list)

    def delete_a_pod_of_each_part(self, run: Run) -> None:
        """Delete by force the first pod of each part, once its task has begun."""
        deleted: set[str] = set()

        def tell(seen: Seen) -> None:
            if (
                seen.part
                and seen.part not in deleted
                and run.is_running()
                and run.known()
                and seen.workflow in run.workflows
            ):
                deleted.add(seen.part)
                self._do(f"pod of {seen.part} deleted", run, lambda: delete(seen.name, run.watched.namespace))

        run.watched.when_running(tell)

    def restart_controller(self, run: Run, system: str, after: str) -> None:
        """Delete Argo's controller by force, once a pod of this part has ended."""

        def act() -> None:
            reached(run, lambda: any(one.part == after and one.ended for one in run.pods))
            delete_all("app=workflow-controller", system)

        self._do("controller restarted", run, act)

    def stop_mlflow(self, namespace: str, run: Run, part: str, seconds: float) -> None:
        """Scale MLflow to zero for some time, once a pod of this part runs."""

        def act() -> None:
            reached(run, lambda: any(one.part == part for one in run.pods))
            scale = ["scale", f"deployment/{NAME}-mlflow", "-n", namespace]
            kubectl(*scale, "--replicas=0")
            try:
                time.sleep(seconds)
            finally:
                kubectl(*scale, "--replicas=1")

        self._do(f"MLflow away for {seconds:.0f} s", run, act)

    def stop_store(self, helpers: Helpers, run: Run, part: str, stage: str, seconds: float) -> None:
        """Cut pipelines off from the store for some time, once a pod of this part and stage runs."""

        def act() -> None:
            reached(run, lambda: any((one.part, one.stage) == (part, stage) and one.began for one in run.pods))
            helpers.cut_off(seconds)

        self._do(f"store away for {seconds:.0f} s", run, act)

    def stop_store_at_each_part(self, helpers: Helpers, runs: list[Run], seconds: float) -> None:
        """Cut pipelines off from the store for some time at each part of each run, until the runs end.

        What takes longer is cut off in the middle, what is brief from its beginning on; a run's first task once it has
        reached the store, since a first contact is not waited for.
        """

        def act() -> None:
            while any(run.is_running() for run in runs):
                known = [run for run in runs if helpers.has_served(run.name)]
                if any(one.part not in self.outlived(run) for run in known for one in working(run)):
                    gone = time.time()
                    helpers.cut_off(seconds)
                    self.away.append((gone, time.time()))
                time.sleep(1)

        self._do(f"store away for {seconds:.0f} s at each part", runs[0], act)

    def outlived(self, run: Run) -> set[str]:
        """The parts of a run whose pod has worked for five seconds or more without the store, and went on when it was
        back."""
        return {
            one.part
            for one in run.pods
            for _, back in self.away
            if one.part and one.began and one.began < back - 5 and (one.ended is None or one.ended > back)
        }

    def wait(self, seconds: float) -> None:
        """Wait until all has been done."""
        end = time.monotonic() + seconds
        for one in list(self._threads):
            one.join(max(0.0, end - time.monotonic()))
            assert not one.is_alive(), f"{one.name} did not end"

    def of(self, run: Run) -> list[str]:
        return [str(one["what"]) for one in self.done if one["run"] == run.label]

    def _do(self, what: str, run: Run, act: Callable[[], None]) -> None:
        def work() -> None:
            try:
                act()
                self.done.append({"what": what, "run": run.label, "seconds": round(time.time() - run.began)})
            except Exception as error:
                self.failed.append(f"{what}: {error}")

        thread = threading.Thread(target=work, name=what, daemon=True)
        self._threads.append(thread)
        thread.start()


BRIEF = {"steps", "due", "gate", "publish", "end"}
"""Parts that end within seconds: nobody can catch them in the middle."""


def working(run: Run) -> list[Seen]:
    """The pods of a run that work on a part; brief ones as soon as they are there."""
    return [one for one in run.pods if one.part and not one.ended and (one.began or one.part in BRIEF)]


def delete(pod: str, namespace: str) -> None:
    kubectl("delete", "pod", pod, "-n", namespace, "--force", "--grace-period=0", "--ignore-not-found", "--wait=false")


def delete_all(selector: str, namespace: str) -> None:
    kubectl("delete", "pod", "-l", selector, "-n", namespace, "--force", "--grace-period=0", "--wait=false")


def reached(run: Run, state: Callable[[], object], seconds: float = 1500) -> None:
    """Wait for a state of a run; AssertionError if the run ends without it."""
    wait_for(f"a state of {run.label}", lambda: state() or not run.is_running(), seconds, 1)
    assert state(), f"{run.label} ended before"
