"""The page of the trigger for the tests: models in every state, runs that have come somewhere, and a plain client."""

import html
import io
import re
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

from PIL import Image

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.kept import keep_comparison
from lmmpress.engine.resume import write_step
from lmmpress.evaluation.comparison import Comparison, Differing
from lmmpress.plan import Plan
from lmmpress.result import Decision, Interval, Machine, StepResult
from lmmpress.store import open_store
from lmmpress.tasks.submission import Submission, note_submission
from lmmpress.trigger import aliases
from lmmpress.trigger.claims import Cause, Claim, Claims, Sent, State
from lmmpress.trigger.made_from import Made
from lmmpress.trigger.progress import Progress, folder_of, progress_of
from lmmpress.trigger.question import Question, plan_digest
from lmmpress.trigger.registry import Release, Version
from lmmpress.trigger.settings import TriggerSettings
from lmmpress.trigger.trigger import Trigger, plan_in
from support.plans import PROFILE
from support.results import fabricated
from support.trigger_server import Answer, settings_of

NOW = datetime.now(UTC).replace(microsecond=0)
PROXY = {"X-Auth-Request-User": "li.na@example.com", "X-Auth-Request-Groups": "staff,press-operators"}
OPERATORS, VIEWERS, ADMINISTRATORS = "press-operators", "press-viewers", "press-administrators"
ORIGINAL, COMPRESSED = "a" * 64, "c" * 64
"""The digests of the checkpoints that `Pointing` has."""


@dataclass
class Lineage:
    """Which versions of compressed models the aliases name."""

    made: dict[tuple[str, str], Made] = field(default_factory=dict)

    def __call__(self, compressed: str, alias: str) -> Made | None:
        return self.made.get((compressed, alias))


@dataclass
class Pointing:
    """The aliases of the registry, by model and alias; every version is one of lmmpress's. Versions that were promoted
    are what the page sees in service."""

    lineage: Lineage

    def version_at(self, model: str, alias: str) -> str | None:
        made = self.lineage(model, alias)
        return made.version if made else None

    def about(self, model: str, version: str) -> aliases.Registered | None:
        return aliases.Registered(version, True, COMPRESSED, ORIGINAL)

    def made_of(self, model: str, checkpoint: str, original: str) -> str | None:
        return "5" if (checkpoint, original) == (COMPRESSED, ORIGINAL) else None

    def move(self, model: str, alias: str, version: str) -> None:
        others = {made.version: made for (name, _), made in self.lineage.made.items() if name == model}
        self.lineage.made[model, alias] = others.get(version) or Made(version, NOW, version)

    def tag(self, model: str, version: str, tags: Mapping[str, str]) -> None:
        pass

    def tags_of(self, model: str, version: str) -> Mapping[str, str]:
        return {}

    def untag(self, model: str, version: str, names: Iterable[str]) -> None:
        pass


@dataclass
class Registered:
    """A registry: the newest version of each model, and when it was registered."""

    newest: dict[str, tuple[int, timedelta]]

    def release(self, model: str, alias: str | None) -> Release:
        number, age = self.newest[model]
        return Release(model, str(number), f"/models/{model}/{number}", f"{number:064x}", NOW - age)

    def look_up(self, model: str, alias: str | None) -> Version | None:
        if model not in self.newest:
            return None
        found = self.release(model, alias)
        return Version(found.version, found.created)

    def data_digest(self, data: str) -> str:
        return "0" * 64


def page_settings(folder: Path, models: tuple[str, ...] = ("antgmm",), **page: Any) -> TriggerSettings:
    """Settings with a proxy on this machine that signs people in."""
    settings = settings_of(
        folder,
        models,
        page={
            "trusted_proxies": ["127.0.0.1/32"],
            "users": {"boss": "administrator"},
            "groups": {VIEWERS: "viewer", OPERATORS: "operator", ADMINISTRATORS: "administrator"},
        }
        | page,
    )
    return settings.model_copy(update={"runs": str(folder / "runs")})


def on_kubeflow(settings: TriggerSettings, folder: Path, model: str, plan: Mapping[str, Any]) -> TriggerSettings:
    """The settings with one plan for a model, which Kubeflow runs."""
    import json

    (folder / "cluster.yaml").write_text(json.dumps(PROFILE), "utf-8")
    (folder / "pipeline.yaml").write_text(json.dumps(plan), "utf-8")
    raw = settings.model_dump(mode="json")
    allowed = {"plan": str(folder / "pipeline.yaml"), "cluster": str(folder / "cluster.yaml"), "engine": "kubeflow"}
    raw["models"][model] = {"newest": True, "plans": {"gradual": allowed}}
    for other in raw["models"].values():
        if other.get("newest"):
            other.pop("alias", None)
    return TriggerSettings(**raw)


def without_comparison(settings: TriggerSettings) -> TriggerSettings:
    """The settings with models whose versions may be promoted without a comparison."""
    models = {
        name: watched.model_copy(update={"promotion": watched.promotion.model_copy(update={"comparison": False})})
        for name, watched in settings.models.items()
    }
    return settings.model_copy(update={"models": models})


PLAN: dict[str, Any] = {
    "model": "model",
    "data": "rows",
    "tolerance": {"alpha": 0.02},
    "stages": {
        "block": {"step": 2, "max": 12},
        "ffn": {"step": 256, "max": 1024},
        "attention": {"step": 64, "max": 256},
    },
}


def steps_for(plan: Plan, original: str, decisions: str) -> list[StepResult]:
    """Steps as the plan has them: accepted (a), rolled back (r) or kept (k)."""
    steps: list[StepResult] = []
    accuracy, size = 0.842, 12_400_000
    for number, letter in enumerate(decisions):
        planned = next_step(plan, original, steps)
        assert isinstance(planned, Planned)
        decision: Decision = {"a": "accepted", "r": "rolled back", "k": "kept"}[letter]  # type: ignore[assignment]
        measured = accuracy - {"a": 0.002 + 0.001 * (number % 3), "r": 0.031, "k": 0.02}[letter]
        size = round(size * 0.93)
        machine = Machine(node="gpu-1", gpu="NVIDIA A100")
        seconds = {"importance": 240.0, "prune": 12.0, "distill": 2400.0 + 120 * number, "evaluate": 300.0}
        steps.append(
            StepResult(
                stage=planned.stage.name,
                index=planned.index,
                tower="language",
                removed=planned.removed,
                decision=decision,
                reason="drop against alpha 0.0200",
                parent=planned.parent,
                checkpoint=None if letter == "r" else f"{number + 1:064x}",
                address=None,
                parameters=size,
                parameters_by_tower={"language": size},
                accuracy_pruned=measured - 0.05 - 0.01 * (number % 3),
                accuracy=measured,
                accuracy_by_task={"advert": measured},
                reference=0.842,
                drop=0.842 - measured,
                drop_interval=Interval(low=0.0, high=0.04, confidence=0.9),
                score_reliability=0.93,
                loss=[2.0, 1.0],
                seconds=seconds,
                machines=dict.fromkeys(("importance", "distill", "evaluate"), machine),
            )
        )
        if letter != "r":
            accuracy = measured
    return steps


def claimed(trigger: Trigger, model: str, version: str, state: State, *, began: datetime, **changes: Any) -> Claim:
    """A claim that came to a state, an hour after the one before."""
    name, allowed = trigger.settings.allowed(model)
    question = Question(
        model, version, version * 64, None, plan_digest(plan_in(allowed.plan)), allowed.engine.value, name
    )
    claims = Claims(trigger.objects)
    why, by = changes.pop("why", ""), changes.pop("by", "li.na@example.com")
    found = claims.create(question, by=by, cause=Cause.page, why=why, now=began)
    assert isinstance(found, Claim)
    order = [State.submitted, State.running, State.succeeded]
    path = [*order[: order.index(state) + 1]] if state in order else [State.submitted, State.running, state]
    note = changes.pop("note", "")
    for number, one in enumerate(path if state is not State.claimed else []):
        at = began + timedelta(minutes=1 if one is State.submitted else 3 if one is State.running else 60 * 7 * number)
        sent = Sent(f"run-{found.key[:6]}-{version}", "https://kubeflow.example.com/#/runs/details/1")
        said = note if one is path[-1] else ""
        found = claims.move(found, one, by="trigger-0 17", now=at, note=said, sent=sent, **changes)
    return found


def begin_in_folder(trigger: Trigger, claim: Claim, decisions: str, ended: bool = False) -> None:
    """A run of engine local in the folder of its claim, with these steps."""
    out = folder_of(trigger, claim)
    assert out is not None
    out.mkdir(parents=True)
    plan, key, original = Plan.model_validate(PLAN), "c" * 64, "a" * 64
    (out / "plan.json").write_text(plan.model_dump_json(), "utf-8")
    (out / "question.json").write_text(f'{{"run_key": "{key}", "teacher": "{original}", "data": {{}}}}', "utf-8")
    _write_steps(str(out / "store"), key, steps_for(plan, original, decisions))
    (out / "store" / "blobs").mkdir(exist_ok=True)
    if ended:
        (out / "result.json").write_text(fabricated().model_dump_json(), "utf-8")


def begin_on_kubeflow(trigger: Trigger, claim: Claim, decisions: str) -> None:
    """A run of Kubeflow's in the store of its plan, with these steps."""
    plan, key, original = trigger.order(claim.question, claim.attempt).plan, "d" * 64, "a" * 64
    assert plan.store is not None
    assert claim.sent is not None
    _write_steps(plan.store, key, steps_for(plan, original, decisions))
    about = {"pipeline_run": claim.sent.id}
    name = f"{key[:12]}-01234567"
    note_submission(
        open_store(plan.store), name, Submission(plan=plan, name="m", key=key, original=original, about=about)
    )


def _write_steps(address: str, key: str, steps: list[StepResult]) -> None:
    store = open_store(address)
    with store.run_state(key) as state:
        for number, step in enumerate(steps):
            state.decide(number, write_step(step))


@dataclass
class Browser:
    """A client that keeps cookies and sends forms as a browser does, and nothing else. `headers` are those that a proxy
    adds."""

    address: str
    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Answer:
        return self._ask("GET", path, None, headers)

    def text(self, path: str, **headers: str) -> str:
        """The HTML of a page, which is there."""
        answer = self.get(path, **headers)
        assert answer.status == 200, answer.body
        return answer.body.decode("utf-8")

    def post(self, path: str, fields: Mapping[str, str], **headers: str) -> Answer:
        """Send fields as a form of the page does, from its origin."""
        data = urllib.parse.urlencode(fields).encode("ascii")
        sent = {"content_type": "application/x-www-form-urlencoded", "origin": self.address} | headers
        return self._ask("POST", path, data, {name: value for name, value in sent.items() if value})

    def form_token(self, path: str = "/history") -> str:
        """The token in the forms of the page, or of its sign-in."""
        found = re.search(r'name="form" value="([0-9a-f]{64})"', self.text(path))
        assert found, path
        return found[1]

    def _ask(self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]) -> Answer:
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        request = urllib.request.Request(self.address + path, data, sent, method=method)
        answer = asked_once(request)
        for header in answer.headers.get_all("set-cookie", []):
            for name, morsel in SimpleCookie(header).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return answer


class _Stays(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


def asked_once(request: urllib.request.Request) -> Answer:
    opener = urllib.request.build_opener(_Stays)
    try:
        with opener.open(request, timeout=30) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())


def words_of(page: str) -> str:
    """What a page says, without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def compared(a: str = ORIGINAL, b: str = COMPRESSED, lost: float = 0.01, **changed: Any) -> dict[str, Any]:
    """A whole comparison.json, as `lmmpress compare` writes it."""
    speed = {"batch_size": 8, "samples_per_second": 10.0, "latency_ms": {"p50": 9.0, "p95": 12.0}, "tokens": 3.0}
    side = {"address": "x", "parameters_by_tower": {}, "speed": speed, "energy": None}
    side |= {"memory": {"process": None, "gpu": None, "batch_size": 8}}
    interval = {"low": lost - 0.005, "high": lost + 0.005, "confidence": 0.95}
    answers = {"rows": 1000, "both": 970, "lost": 20, "gained": 10, "neither": 0, "same_answer": 960}
    gain = {"median": 2.5, "low": 2.25, "high": 2.75, "count": 5}
    found = {
        "format": 1,
        "a": side | _accuracy(0.99) | {"checkpoint": a, "parameters": 8_000_000, "bytes": 16_000},
        "b": side | _accuracy(0.99 - lost) | {"checkpoint": b, "parameters": 2_000_000, "bytes": 5_000},
        "data": {"address": "d", "split": "test", "digest": "d" * 64, "rows": 1000, "images": 500, "tasks": []},
        "all": answers | {"drop": lost, "drop_interval": interval, "p": 0.1},
        "by_task": {"<i>advert</i>": answers | {"drop": lost, "drop_interval": interval, "p": 0.1}},
        "turns": {"together": True, "samples_per_second": gain, "latency": gain},
        "differing": [],
        "environment": {},
        "seconds": 3.0,
    }
    return Comparison.model_validate(found | changed).model_dump(mode="json")


def _accuracy(value: float) -> dict[str, Any]:
    return {"accuracy": value, "accuracy_by_task": {"<i>advert</i>": value}}


ENDED = "aararr"
"""Decisions after which all stages of PLAN have ended."""


def pair_of(progress: Progress) -> tuple[str, str]:
    """Original and result of a run whose stages have ended."""
    final = next_step(progress.plan, progress.original, progress.steps)
    assert isinstance(final, str)
    return progress.original, final


def compare_in_store(trigger: Trigger, claim: Claim, **changed: Any) -> Comparison:
    """What a run whose stages have ended leaves in its store when it has compared them."""
    progress = progress_of(trigger, claim)
    assert progress is not None
    a, b = pair_of(progress)
    found = Comparison.model_validate(compared(**({"a": a, "b": b} | changed)))
    said = {"right": False, "ended": True, "log_probability": -1.0}
    row = {"kind": "lost", "line": 3, "file_name": "a.png", "task": "advert", "question": "<b>q</b>", "wanted": "红色"}
    rows = [Differing.model_validate(row | {"a": said | {"text": "红色"}, "b": said | {"text": "<script>x</script>"}})]
    drawn = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(drawn, "PNG")
    rows[0] = rows[0].model_copy(update={"picture": drawn.getvalue()})
    found = found.model_copy(update={"differing": rows})
    keep_comparison(progress.store, progress.key, found)
    return found
