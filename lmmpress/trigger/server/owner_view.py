"""What the page shows to the owner of a model: how fresh the model in service is, what runs, what a run would take."""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import Any, Literal, TypeVar

from lmmpress.engine.kept import kept_disagreements, kept_result, why_uncompared
from lmmpress.errors import UserError
from lmmpress.following.run_in_store import RunInStore
from lmmpress.reporting import comparison_page
from lmmpress.reporting.page import render, render_untrusted, report_html
from lmmpress.result import StepResult
from lmmpress.store.objects import UnreadableError
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.trigger.claims import Claim, State
from lmmpress.trigger.comparisons import Comparison, Kept, part_to_keep
from lmmpress.trigger.drift import Table
from lmmpress.trigger.made_from import Made, MadeFrom, source_of
from lmmpress.trigger.progress import Progress, folder_of, progress_of
from lmmpress.trigger.promotion import Serving, Waiting, compressed_of, in_service, obstacles_of
from lmmpress.trigger.promotion_rule import Candidate, read_candidate
from lmmpress.trigger.registry import Version
from lmmpress.trigger.run_comparison import comparison_of
from lmmpress.trigger.server.service import Service
from lmmpress.trigger.settings import WatchedModel
from lmmpress.trigger.texts import Text
from lmmpress.trigger.trigger import Trigger

Freshness = Literal["current", "stale", "ready", "none", "untold", "unknown"]
"""Of the compressed model in service: made from the version to compress; from an older one; from an older one, and a
newer one is compressed already; there is none; its origin is not known; the registry does not answer."""
Activity = Literal["working", "waits", "failed", "lost"]
_COMPRESSED = "compressed"
"""The alias that lineage gives to the newest compressed version."""
_FRESH = 3.0
"""Seconds for which an answer of the registry or of a store is shown again."""
_MOST_KEPT = 500
_EARLIER = 3
"""Earlier runs that an expectation is the mean of."""
T = TypeVar("T")


@dataclass(frozen=True)
class PlanShown:
    """A plan that may be used for a model, and what its earlier runs took: seconds and GPU hours as means over `runs`
    of them; None where none is known. `answered`: the version was compressed with it already."""

    name: str
    runs: int
    seconds: float | None
    gpu_hours: float | None
    answered: bool


@dataclass(frozen=True)
class ModelShown:
    """A watched model. `release` is the version to compress, `compressed` the newest compressed version."""

    name: str
    watched: WatchedModel
    newest: Version | None
    release: Version | None
    in_service: Made | None
    compressed: Made | None
    claims: list[Claim]
    """Newest first."""
    missing: str | None
    """The stage after which the open run waits for an approval."""
    fault: str = ""
    """Why the registry did not answer, or the claims cannot be read."""

    @property
    def freshness(self) -> Freshness:
        """How fresh the compressed model in service is."""
        if self.fault:
            return "unknown"
        if self.in_service is None:
            return "none"
        if self.in_service.source is None:
            return "untold"
        if self.behind <= 0:
            return "current"
        made = self.compressed.source if self.compressed else None
        return "ready" if made is not None and int(made) > int(self.in_service.source) else "stale"

    @property
    def latest(self) -> Version | None:
        """What the one in service may be behind: the version to compress, or the newest where the alias names none."""
        return self.release or self.newest

    @property
    def behind(self) -> int:
        """By how many versions the one in service is behind."""
        source = self.in_service.source if self.in_service else None
        return int(self.latest.version) - int(source) if self.latest and source else 0

    @property
    def running(self) -> Claim | None:
        """The claim that is worked on."""
        return next((claim for claim in self.claims if claim.is_open), None)

    @property
    def last(self) -> Claim | None:
        """The claim that changed last."""
        return max(self.claims, key=lambda claim: claim.events[-1].at, default=None)

    @property
    def activity(self) -> tuple[Activity, Claim] | None:
        """What a person should know of beside the freshness: a run at work, or the last one where it went wrong."""
        if running := self.running:
            return ("waits" if self.missing else "working"), running
        if (last := self.last) and last.state in (State.failed, State.lost):
            return ("failed" if last.state is State.failed else "lost"), last
        return None

    @property
    def needs_attention(self) -> bool:
        """Whether a person may want to do something."""
        kinds = self.activity[0] if self.activity else ""
        return self.freshness != "current" or kinds in ("waits", "failed", "lost")


@dataclass(frozen=True)
class CandidateShown:
    """A version that is not in service; `obstacles` are why this person may not promote it now."""

    version: str
    obstacles: tuple[Text, ...]


@dataclass(frozen=True)
class ServiceShown:
    """What may be done about the compressed model in service. `candidates` are the version that waits for a second
    person and the newest compressed version, as far as they are not in service. `compared` is the comparison of the
    first candidate, or else of the version in service, with its original: the one that the rule goes by, or the newest
    where none counts, which `counts` says; `compared_version` is that version, and `compared_run` the claim whose run
    has made the comparison, if a run has. `fault` is why none of this can be said."""

    serving: Serving | None = None
    candidates: tuple[CandidateShown, ...] = ()
    compared: Kept | None = None
    counts: bool = False
    compared_version: str = ""
    compared_run: Claim | None = None
    waiting: Waiting | None = None
    fault: str = ""


@dataclass(frozen=True)
class RunShown:
    """A run: its claim, and how far it is; `fault` is why that cannot be read."""

    claim: Claim
    progress: Progress | None
    fault: str


@dataclass(frozen=True)
class EndShown:
    """What a run that has succeeded has left: whether its report can be shown here; what its comparison with the
    original has found, or else why it was not compared, if that is known."""

    report: bool
    compared: Comparison | None = None
    uncompared: str = ""


class OwnerView:
    """Reads what the page shows. Answers are kept for seconds, since pages that follow a run ask all the time."""

    def __init__(self, service: Service, made_from: MadeFrom) -> None:
        self._service, self._made_from = service, made_from
        self._kept: dict[Hashable, tuple[float, Any]] = {}
        self._runs: dict[str, RunInStore] = {}
        self._lock = threading.Lock()

    @property
    def trigger(self) -> Trigger:
        return self._service.trigger

    def model(self, name: str) -> ModelShown:
        """A watched model. UnknownError where it is not watched. Where its claims cannot be read, `fault` says why, so
        that the other models are shown all the same."""
        fault, claims = "", list[Claim]()
        try:
            claims = self._service.claims(name)
        except UnreadableError as error:
            fault = "; ".join(error.lines)
        watched = self.trigger.settings.models[name]
        registry, compressed = self.trigger.registry, compressed_of(name)
        running = next((claim for claim in claims if claim.is_open), None)
        missing = (self.run(running).progress if running else None) or None
        found: list[Any] = [None] * 4
        try:
            newest = self._fresh(("newest", name), lambda: registry.look_up(name, None))
            found = [
                newest,
                newest
                if watched.newest
                else self._fresh(("release", name), lambda: registry.look_up(name, watched.alias)),
                self._fresh(("serving", name), lambda: self._made(compressed, watched.serving, claims)),
                self._fresh(("compressed", name), lambda: self._made(compressed, _COMPRESSED, claims)),
            ]
        except UserError as error:
            fault = "; ".join(error.lines)
        newest, release, in_service, made = found
        return ModelShown(
            name=name,
            watched=watched,
            newest=newest,
            release=release,
            in_service=in_service,
            compressed=made,
            claims=claims,
            missing=missing.missing if missing else None,
            fault=fault,
        )

    def models(self) -> list[ModelShown]:
        """All watched models."""
        return [self.model(name) for name in self.trigger.settings.models]

    def plans(self, model: ModelShown) -> list[PlanShown]:
        """The plans that may be used for a model, the default one first."""
        default = model.watched.default_plan
        return [self._plan(model, name) for name in sorted(model.watched.plans, key=lambda name: name != default)]

    def service(self, model: ModelShown, by: str) -> ServiceShown:
        """What a person may do about the compressed model in service."""
        compressed = compressed_of(model.name)
        try:
            now, rule = in_service(self.trigger, compressed), model.watched.promotion
            there = now.serving.version if now.serving else ""
            wanted = [one.version for one in (now.waiting, model.compressed) if one and one.version != there]
            read = [read_candidate(self.trigger, compressed, version, rule) for version in dict.fromkeys(wanted)]
            candidates = [CandidateShown(one.version, obstacles_of(one, now, rule, by=by)) for one in read]
            if not read and there:
                read = [read_candidate(self.trigger, compressed, there, rule)]
            shown = self._compared(model, read[0] if read else None)
            return replace(shown, serving=now.serving, waiting=now.waiting, candidates=tuple(candidates))
        except UserError as error:
            return ServiceShown(fault="; ".join(error.lines))

    def online(self, model: ModelShown) -> Table | None:
        """The last seven days in production; None where the store does not tell them."""
        try:
            return self._fresh(("online", model.name), lambda: self._service.online(model.name))
        except UserError:
            return None

    def run(self, claim: Claim) -> RunShown:
        """A run by its claim."""
        progress, fault = None, ""
        key = ("run", claim.key, claim.revision)
        try:
            progress = self._fresh(key, lambda: progress_of(self.trigger, claim, self._runs), claim.is_open)
        except (UserError, OSError) as error:
            fault = "; ".join(error.lines) if isinstance(error, UserError) else error.strerror or "it cannot be read"
        return RunShown(claim, progress, fault)

    def end(self, claim: Claim) -> EndShown | None:
        """What a run has left; None if it has not succeeded."""
        if claim.state is not State.succeeded:
            return None
        return self._fresh(("end", claim.key, claim.revision), lambda: self._end(claim))

    def report(self, claim: Claim) -> str | None:
        """The report of a run that has succeeded, as HTML: from the folder of engine local, or from the store of the
        run. None if there is none. UserError if it cannot be read."""
        if claim.state is not State.succeeded:
            return None
        if (folder := self._folder(claim)) is not None:
            return report_html(folder)
        progress = self.run(claim).progress
        result = kept_result(progress.store, progress.key) if progress else None
        if progress is None or result is None:
            return None
        rows = kept_disagreements(progress.store, progress.key)
        return render_untrusted(lambda: render(result, progress.plan, rows=rows), progress.store.root_address)

    def comparison(self, claim: Claim) -> str | None:
        """The whole comparison that a run has made, as HTML; None if it has made none. UserError if it cannot be
        read."""
        progress = self.run(claim).progress if claim.state is State.succeeded else None
        found = comparison_of(progress) if progress else None
        if progress is None or found is None:
            return None
        return render_untrusted(lambda: comparison_page.render(found), progress.store.root_address)

    def claims(self) -> list[Claim]:
        """All claims of watched models that can be read, newest first."""
        found = self.trigger.claims.all(damaged=lambda error: None)[::-1]  # the page of its model says so
        return [claim for claim in found if claim.question.model in self.trigger.settings.models]

    def _end(self, claim: Claim) -> EndShown:
        report = False
        try:
            progress = self.run(claim).progress
            report = self._folder(claim) is not None or bool(progress and kept_result(progress.store, progress.key))
            if progress is None:
                return EndShown(report)
            if found := comparison_of(progress):
                return EndShown(report, part_to_keep(found))
            return EndShown(report, uncompared=why_uncompared(progress.store, progress.key))
        except (UserError, OSError) as error:
            said = "; ".join(error.lines) if isinstance(error, UserError) else error.strerror or ""
            return EndShown(report, uncompared=said)

    def _folder(self, claim: Claim) -> Path | None:
        """The folder of a run of engine local that has a result."""
        folder = folder_of(self.trigger, claim)
        return folder if folder is not None and (folder / "result.json").is_file() else None

    def _compared(self, model: ModelShown, candidate: Candidate | None) -> ServiceShown:
        if candidate is None:
            return ServiceShown()
        version, all_of_them = candidate.version, candidate.comparisons
        if not all_of_them:
            return ServiceShown(compared_version=version)
        kept, counts = next((one for one in reversed(all_of_them) if one[1]), all_of_them[-1])
        run = next((claim for claim in model.claims if claim.run == kept.by), None)
        return ServiceShown(compared=kept, counts=counts, compared_version=version, compared_run=run)

    def _made(self, compressed: str, alias: str, claims: list[Claim]) -> Made | None:
        """The version that an alias of a compressed model names, and what it was made from."""
        made = self._made_from(compressed, alias)
        if made is None or made.source is not None:
            return made
        return replace(made, source=source_of(made, claims, self._run_key))

    def _run_key(self, claim: Claim) -> str | None:
        progress = self.run(claim).progress
        return progress.key if progress else None

    def _plan(self, model: ModelShown, name: str) -> PlanShown:
        done = [one for one in model.claims if one.state is State.succeeded and one.question.plan_name == name]
        done = sorted(done, key=lambda one: one.at[State.succeeded], reverse=True)[:_EARLIER]
        seconds = [time for one in done if (time := seconds_of(one)) is not None]
        hours = [used for one in done if (used := self._gpu_hours(one)) is not None]
        release = model.release.version if model.release else None
        return PlanShown(
            name=name,
            runs=len(seconds),
            seconds=mean(seconds) if seconds else None,
            gpu_hours=mean(hours) if hours else None,
            answered=any(one.question.version == release for one in done),
        )

    def _gpu_hours(self, claim: Claim) -> float | None:
        progress = self.run(claim).progress
        if progress is None:
            return None
        try:
            profile = self.trigger.order(claim.question, claim.attempt).profile
        except UserError:  # the plan is no longer in the settings
            return None
        return gpu_hours(progress.steps, profile)

    def _fresh(self, key: Hashable, ask: Callable[[], T], again: bool = True) -> T:
        """An answer, asked for again after some seconds; kept for good where `again` is false."""
        now = time.monotonic()
        with self._lock:
            at, answer = self._kept.get(key, (-_FRESH, None))
            if key in self._kept and (not again or now - at < _FRESH):
                return answer  # type: ignore[no-any-return]
        new = ask()
        with self._lock:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = (now, new)
        return new

    def forget(self) -> None:
        """Ask for everything again: a person has just changed something."""
        with self._lock:
            self._kept.clear()


def seconds_of(claim: Claim) -> float | None:
    """How long the run of a claim took, from its submission to its end; None where it has not succeeded."""
    begins: datetime | None = claim.at.get(State.submitted) or claim.at.get(State.running)
    ended = claim.at.get(State.succeeded)
    return (ended - begins).total_seconds() if begins and ended and ended >= begins else None


def gpu_hours(steps: list[StepResult], profile: Profile) -> float:
    """The GPU hours of the parts of these steps. How many GPUs a part had is what the cluster profile gives its pods;
    parts that ran without a GPU count for nothing."""
    seconds = 0.0
    for step in steps:
        for part, took in step.seconds.items():
            if part in step.machines and step.machines[part].gpu:
                pod = profile.pod(part)
                seconds += took * max(1, pod.gpus or 0) * (pod.nodes or 1)
    return seconds / 3600
