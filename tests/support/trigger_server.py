"""The trigger's server for the tests: the real one on a free port, with a registry and an engine that tests control."""

import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any

import uvicorn

from lmmpress.errors import UserError
from lmmpress.store import open_store
from lmmpress.trigger.aliases import Aliases, MlflowAliases
from lmmpress.trigger.claims import Claims, Sent
from lmmpress.trigger.engines.interface import Order, Seen
from lmmpress.trigger.made_from import MadeFrom
from lmmpress.trigger.registry import Registry, Release, Version
from lmmpress.trigger.server.app import make_app
from lmmpress.trigger.server.deliveries import ID, SIGNATURE, TIMESTAMP, sign
from lmmpress.trigger.server.metrics import Metrics
from lmmpress.trigger.server.service import Service
from lmmpress.trigger.server.work import Rounds
from lmmpress.trigger.settings import EngineName, TriggerSettings
from lmmpress.trigger.trigger import Trigger
from support.plans import tiny_plan

SECRET, OLD_SECRET = "new-" + "s" * 32, "old-" + "s" * 32
TOKENS = {"vera": "viewer-" + "v" * 32, "otto": "operator-" + "o" * 32, "ada": "administrator-" + "a" * 32}
ROLES = {"vera": "viewer", "otto": "operator", "ada": "administrator"}


@dataclass
class Versions:
    """A registry: the newest version of each model."""

    newest: dict[str, int] = field(default_factory=dict)
    fault: str = ""

    def release(self, model: str, alias: str | None) -> Release:
        if self.fault:
            raise UserError(self.fault)
        number = self.newest.get(model, 1)
        return Release(model, str(number), f"/models/{model}/{number}", f"{number:064x}", datetime.now(UTC))

    def look_up(self, model: str, alias: str | None) -> Version | None:
        if alias is not None and alias != "serving":
            return None
        return Version(self.release(model, None).version if alias is None else "1", datetime(2026, 11, 1, tzinfo=UTC))

    def data_digest(self, data: str) -> str:
        return "0" * 64


@dataclass
class Runs:
    """An engine: the phase of each run by its name."""

    phases: dict[str, Any] = field(default_factory=dict)
    settles: float = 0
    fault: str = ""

    def find(self, order: Order) -> list[Sent]:
        return [Sent(order.run)] if order.run in self.phases else []

    def create(self, order: Order) -> Sent:
        if self.fault:
            raise UserError(self.fault)
        self.phases.setdefault(order.run, "running")
        return Sent(order.run, f"https://pages/{order.run}")

    def look(self, order: Order, sent: Sent) -> Seen:
        return Seen(self.phases.get(sent.id, "gone"))

    def cancel(self, order: Order, sent: Sent) -> None:
        self.phases[sent.id] = "cancelled"

    def reach(self, order: Order) -> str:
        return "a test"


@dataclass
class Tags(MlflowAliases):
    """The registry of MLflow at the settings' address, which does not answer; tags of versions are kept here."""

    kept: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def tag(self, model: str, version: str, tags: Mapping[str, str]) -> None:
        self.kept.setdefault((model, version), {}).update(tags)

    def tags_of(self, model: str, version: str) -> Mapping[str, str]:
        return self.kept.get((model, version), {})

    def untag(self, model: str, version: str, names: Iterable[str]) -> None:
        for name in names:
            del self.kept[model, version][name]


def settings_of(folder: Path, models: tuple[str, ...] = ("antgmm",), **server: Any) -> TriggerSettings:
    """Settings with a token of each role, and two webhook secrets."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**TOKENS, "new": SECRET, "old": OLD_SECRET}.items():
        (folder / name).write_text(text, "utf-8")
    (folder / "plan.yaml").write_text(json.dumps(tiny_plan(Path("model"), Path("rows"))), "utf-8")
    allowed = {"plan": str(folder / "plan.yaml"), "engine": "local"}
    return TriggerSettings.model_validate(
        {
            "store": str(folder / "store"),
            "tracking": "http://127.0.0.1:9",
            "models": {model: {"newest": True, "plans": {"fast": allowed, "small": allowed}} for model in models},
            "server": {
                "tokens": [{"name": name, "role": ROLES[name], "file": str(folder / name)} for name in TOKENS],
                "webhook_secrets": [{"file": str(folder / "new")}, {"file": str(folder / "old")}],
                "reconcile_seconds": 3600,
            }
            | server,
        }
    )


def trigger_of(settings: TriggerSettings, registry: Registry, runs: Runs, aliases: Aliases | None = None) -> Trigger:
    """A trigger on a real store."""
    objects = open_store(settings.store).objects
    return Trigger(
        settings=settings,
        objects=objects,
        claims=Claims(objects),
        registry=registry,
        engines=dict.fromkeys(EngineName, runs),
        clock=lambda: datetime.now(UTC),
        aliases=aliases or Tags(settings.tracking),
    )


@dataclass(frozen=True)
class Answer:
    """What a server has answered."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A server that runs."""

    address: str
    service: Service
    versions: Versions
    runs: Runs

    def ask(
        self, method: str, path: str, by: str | None = None, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask for something as one of the people in TOKENS."""
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        if by is not None:
            sent["authorization"] = f"Bearer {TOKENS.get(by, by)}"
        data = body
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body).encode("utf-8")
        if data is not None:
            sent.setdefault("content-type", "application/json")
        return asked(urllib.request.Request(self.address + path, data, sent, method=method))

    def deliver(self, body: Any, secret: str = SECRET, identifier: str | None = None, **changed: str) -> Answer:
        """Deliver an event as MLflow does; with headers that were changed."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode("utf-8")
        headers = delivery_headers(data, secret, identifier)
        headers |= {name.replace("_", "-"): value for name, value in changed.items()}
        return self.ask("POST", "/webhooks/mlflow", body=data, headers=headers)

    def metric(self, name: str, **labels: str) -> float:
        return self.service.metrics.registry.get_sample_value(f"lmmpress_trigger_{name}", labels) or 0.0


def asked(request: urllib.request.Request) -> Answer:
    """The answer of a server, whatever its status."""
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())


def event(model: str = "antgmm", version: str = "2", entity: str = "model_version") -> dict[str, Any]:
    """The body of a delivery."""
    return {"entity": entity, "action": "created", "timestamp": "", "data": {"name": model, "version": version}}


def delivery_headers(
    body: bytes, secret: str = SECRET, identifier: str | None = None, at: float | None = None
) -> dict[str, str]:
    """The headers of a delivery as MLflow makes them."""
    identifier, stamp = identifier or str(uuid.uuid4()), str(int(time.time() if at is None else at))
    signature = sign(secret, identifier, stamp, body)
    return {"content-type": "application/json", ID: identifier, TIMESTAMP: stamp, SIGNATURE: signature}


@contextmanager
def running(
    settings: TriggerSettings,
    registry: Registry | None = None,
    runs: Runs | None = None,
    reconciles: bool = False,
    made_from: MadeFrom | None = None,
    aliases: Aliases | None = None,
    port: int = 0,
) -> Iterator[Running]:
    """The real server on that port or a free one, in a thread of this process; its reconciler only works with
    `reconciles`."""
    versions, runs = Versions(), runs or Runs()
    if isinstance(registry, Versions):
        versions = registry
    service = Service(trigger_of(settings, registry or versions, runs, aliases), Metrics())
    if not reconciles:
        service._rounds = Rounds(lambda: None, 3600)
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(service, made_from),
            port=port,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert server.started
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    try:
        yield Running(f"http://{host}:{port}", service, versions, runs)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def until(what: Callable[[], object], seconds: float = 20) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.01)
