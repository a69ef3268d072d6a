"""The trigger: its settings, all that it talks to, and what follows from them for a question."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from lmmpress.errors import UserError
from lmmpress.plan import Plan, read_plan
from lmmpress.store import open_store
from lmmpress.store.objects import Objects
from lmmpress.tasks.cluster_profile import Profile, read_profile
from lmmpress.tracking.registry import name_of_compressed
from lmmpress.trigger.aliases import Aliases
from lmmpress.trigger.claims import Claims
from lmmpress.trigger.engines.argo import ArgoEngine
from lmmpress.trigger.engines.interface import Engine, Order
from lmmpress.trigger.engines.kubeflow import KubeflowEngine
from lmmpress.trigger.engines.local import LocalEngine
from lmmpress.trigger.question import Question, plan_digest
from lmmpress.trigger.registry import MlflowRegistry, Registry, Release
from lmmpress.trigger.settings import EngineName, TriggerSettings


@dataclass(frozen=True)
class Trigger:
    """Everything that the trigger uses. `clock` gives the time with its zone. `aliases` are those of compressed models,
    by default in MLflow at the settings' address."""

    settings: TriggerSettings
    objects: Objects
    claims: Claims
    registry: Registry
    engines: Mapping[EngineName, Engine]
    clock: Callable[[], datetime]
    aliases: Aliases | None = None

    def release(self, model: str) -> Release:
        """The version of a watched model that is to be compressed. UserError if MLflow does not answer, or there is
        none."""
        watched = self.settings.watched(model)
        return self.registry.release(model, None if watched.newest else watched.alias)

    def question(self, model: str, plan: str | None = None) -> Question:
        """What is asked now for a model and a plan, by default the model's default plan.

        Raises UserError if the model is not watched, the plan not allowed or not valid, or MLflow does not answer.
        """
        name, allowed = self.settings.allowed(model, plan)
        asked, digest = _plan(allowed.plan, _version_of(allowed.plan))
        watches = self.settings.watched(model).policy.data == "watch"
        data = self.registry.data_digest(asked.data) if watches else None
        release = self.release(model)
        return Question(model, release.version, release.digest, data, digest, allowed.engine.value, name)

    def order(self, question: Question, attempt: int = 1) -> Order:
        """The run that answers a question.

        Raises UserError if the settings no longer name its plan, or name another engine for it.
        """
        allowed = self.settings.allowed(question.model, question.plan_name)[1]
        if allowed.engine != question.pipeline:
            raise UserError(
                f"{question.run_name(attempt)} was asked of {question.pipeline}, and the settings now name engine "
                f"{allowed.engine} for plan {question.plan_name!r} of {question.model}"
            )
        plan, digest = _plan(allowed.plan, _version_of(allowed.plan))
        version = f"models:/{question.model}/{question.version}"
        rule = self.settings.watched(question.model).promotion
        return Order(
            run=question.run_name(attempt),
            key=question.key,
            attempt=attempt,
            # what a promotion needs is made by the run itself
            plan=plan.model_copy(update={"model": version, "compare": plan.compare or rule.comparison}),
            compressed=name_of_compressed(version),
            profile=Profile() if allowed.cluster is None else profile_in(allowed.cluster),
            granularity=allowed.granularity,
            tracking=self.settings.tracking,
            as_asked=digest == question.plan,
        )

    def engine(self, question: Question) -> Engine:
        """The engine of the run that answers a question."""
        return self.engines[EngineName(question.pipeline)]


def open_trigger(settings: TriggerSettings, make: bool = True) -> Trigger:
    """The trigger with its store, MLflow and engines; nothing is asked of them yet. With `make` a store that is a
    directory is made. Raises UserError if its address cannot be one."""
    store = open_store(settings.store, make)
    engines: dict[EngineName, Engine] = {
        EngineName.kubeflow: KubeflowEngine(),
        EngineName.argo: ArgoEngine(settings.context),
        EngineName.local: LocalEngine(Path(settings.runs), settings.secret_variables),
    }
    registry = MlflowRegistry(settings.tracking, store)
    return Trigger(settings, store.objects, Claims(store.objects), registry, engines, now)


def plan_in(file: str) -> Plan:
    """The plan in a file, which is read again when it has changed. Raises UserError if it is not valid."""
    return _plan(file, _version_of(file))[0]


def profile_in(file: str) -> Profile:
    """The cluster profile in a file, which is read again when it has changed. Raises UserError if it is not valid."""
    return _profile(file, _version_of(file))


def now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


def _version_of(file: str) -> tuple[int, int, int]:
    try:
        state = Path(file).stat()
    except (OSError, ValueError):  # whoever reads it says so
        return 0, 0, 0
    return state.st_ino, state.st_size, state.st_mtime_ns


@lru_cache(maxsize=64)
def _plan(file: str, version: tuple[int, int, int]) -> tuple[Plan, str]:
    """The plan with its digest, which are always of the same text."""
    plan = read_plan(Path(file))
    return plan, plan_digest(plan)


@lru_cache(maxsize=64)
def _profile(file: str, version: tuple[int, int, int]) -> Profile:
    return read_profile(Path(file))
