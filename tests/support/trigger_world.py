"""A world for the trigger in memory: store, registry, engine and clock, and processes that are interleaved, halted and
killed at every point at which they talk to one of them.

Each process is a greenlet, and one runs at a time. Before and after everything that leaves a process it stops at a
point, where the world decides by chance what happens next: it goes on, another goes on, it is killed, time passes.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from greenlet import getcurrent, greenlet

from lmmpress.errors import UserError
from lmmpress.store.kinds import CLAIMS
from lmmpress.store.objects import ChangedError, Entry, Found
from lmmpress.trigger.carry_on import REQUEST
from lmmpress.trigger.claims import OPEN, Claims, Sent
from lmmpress.trigger.engines.interface import Order, Phase, Seen
from lmmpress.trigger.registry import Release, Version
from lmmpress.trigger.settings import EngineName, TriggerSettings
from lmmpress.trigger.trigger import Trigger

BEGIN = datetime(2026, 11, 29, tzinfo=UTC).timestamp()
MODEL = "AntGMM"


class KilledError(BaseException):
    """The process ends here: it runs no handler that the operating system would not run."""


class Process(greenlet):
    """A process that does one thing. `result` is what it returned, or the UserError that it raised."""

    def __init__(self, world: "World", act: Callable[[], Any]) -> None:
        super().__init__()
        self.world, self.act = world, act
        self.killed = self.ended = False
        self.result: Any = None

    def run(self) -> None:
        try:
            if not self.killed:
                self.result = self.act()
        except KilledError:
            pass
        except UserError as error:
            self.result = error
        finally:
            self.ended = True


@dataclass
class World:
    """`seed` decides; without one, whoever runs goes on, and all goes well."""

    seed: int | None = None
    time: float = BEGIN
    processes: list[Process] = field(default_factory=list)
    calm: bool = False
    points: int = 0
    kill_at: int | None = None

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def choose(self, options: int) -> int:
        return 0 if self.calm or self.seed is None else self._random.randrange(options)

    def point(self) -> None:
        """Where a process may be halted or killed."""
        process = getcurrent()
        if isinstance(process, Process):
            if not process.killed:
                process.parent.switch()
            if process.killed:
                raise KilledError

    def happens(self, chance: int = 16) -> bool:
        """Whether something rare happens now."""
        return self.choose(chance) == chance - 1

    def start(self, act: Callable[[], Any]) -> Process:
        process = Process(self, act)
        self.processes.append(process)
        return process

    def turn(self) -> bool:
        """Let one process run to its next point; whether there is one."""
        at_work = [one for one in self.processes if not one.ended]
        if not at_work:
            return False
        decision = self.choose(64)
        if 32 <= decision < 56:
            at_work = at_work[self.choose(len(at_work)) :]
        if decision in (56, 57):
            self.time += (30, 100, 250)[self.choose(3)]
        self.points += 1
        if decision >= 62 or self.points == self.kill_at:
            at_work[0].killed = True
        at_work[0].parent = getcurrent()
        at_work[0].switch()
        return True

    def settle(self) -> None:
        """Let all processes come to their ends."""
        while self.turn():
            pass

    def run(self, act: Callable[[], Any]) -> Any:
        """Do something as a process, until all processes have ended."""
        process = self.start(act)
        self.settle()
        return process.result


@dataclass
class MemoryObjects:
    """The small objects of a store, by compare-and-swap. An answer may be lost after the write."""

    world: World
    kept: dict[str, Found] = field(default_factory=dict)
    watch: Callable[[str, bytes], None] = lambda name, data: None
    address: str = "memory"
    workspace: Path = Path("/nowhere")

    def now(self) -> float:
        return self.world.time

    def read(self, name: str) -> Found | None:
        self.world.point()
        found = self.kept.get(name)
        self.world.point()
        return found

    def write(self, name: str, data: bytes, tag: str | None) -> None:
        self.world.point()
        found = self.kept.get(name)
        if (found.tag if found else None) != tag:
            raise ChangedError(name)
        self.watch(name, data)
        self.kept[name] = Found(data, str(int(found.tag) + 1 if found else 1), self.world.time)
        self.world.point()
        if self.world.happens(32):
            raise UserError("the store gave no answer")

    def delete(self, name: str) -> None:
        self.kept.pop(name, None)

    def entries(self, prefix: str) -> Iterator[Entry]:
        self.world.point()
        found = [Entry(name, len(one.data), one.modified) for name, one in self.kept.items() if name.startswith(prefix)]
        self.world.point()
        return iter(found)


@dataclass
class MemoryRegistry:
    """A registry whose alias is moved by the test."""

    world: World
    version: int = 1
    newest: int = 1
    up: bool = True

    def release(self, model: str, alias: str | None) -> Release:
        self.world.point()
        if not self.up:
            raise UserError("MLflow gives no answer")
        version = str(self.version)
        self.world.point()
        return Release(model, version, f"/models/{version}", version * 64)

    def look_up(self, model: str, alias: str | None) -> Version | None:
        return Version(str(self.version if alias else self.newest))

    def data_digest(self, data: str) -> str:
        return "0" * 64


@dataclass
class MadeRun:
    """A run that an engine has made."""

    order: Order
    id: str
    phase: Phase
    shown: float


@dataclass
class MemoryEngine:
    """An engine. Its answers get lost, its list lags by `settles` seconds at most, and where that is 0 a name is
    unique."""

    world: World
    settles: float
    runs: list[MadeRun] = field(default_factory=list)
    up: bool = True
    asked: int = 0
    lag: float | None = None

    def find(self, order: Order) -> list[Sent]:
        self._ask()
        found = [Sent(one.id) for one in self._named(order) if one.shown <= self.world.time]
        self.world.point()
        return found

    def create(self, order: Order) -> Sent:
        sent_at = self.world.time
        self.asked += 1
        self._ask()
        if self.world.time - sent_at > REQUEST:
            raise UserError("the request did not arrive in time")
        made = self._named(order)[:1] if self.settles == 0 else []
        if not made:
            lag = self.settles * (0, 0.3, 1)[self.world.choose(3)] if self.lag is None else self.lag
            made = [MadeRun(order, f"r-{len(self.runs)}", "waiting", self.world.time + lag)]
            self.runs += made
        self.world.point()
        if self.world.happens(8):
            raise UserError("the engine gave no answer")
        return Sent(made[0].id)

    def look(self, order: Order, sent: Sent) -> Seen:
        self._ask()
        found = [one for one in self.runs if one.id == sent.id]
        self.world.point()
        return Seen(found[0].phase if found else "gone")

    def cancel(self, order: Order, sent: Sent) -> None:
        self._ask()
        for one in self.runs:
            if one.id == sent.id and one.phase in ("waiting", "running"):
                one.phase = "cancelled"
        self.world.point()

    def reach(self, order: Order) -> str:
        return "in memory"

    def progress(self, number: int) -> None:
        """A run goes on: it begins, and then ends well, or not."""
        if at_work := [one for one in self.runs if one.phase in ("waiting", "running")]:
            run = at_work[number % len(at_work)]
            run.phase = "running" if run.phase == "waiting" else ("succeeded", "failed")[number % 2]

    def _ask(self) -> None:
        self.world.point()
        if not self.up:
            raise UserError("the engine gives no answer")

    def _named(self, order: Order) -> list[MadeRun]:
        return [one for one in self.runs if one.order.run == order.run]


@dataclass
class Scene:
    """A world with a trigger in it; `replica` is another process' view of the same."""

    world: World
    trigger: Trigger
    objects: MemoryObjects
    registry: MemoryRegistry
    engine: MemoryEngine

    @property
    def replica(self) -> Trigger:
        """The trigger as a process of its own has it, which has read nothing yet."""
        return replace(self.trigger, claims=Claims(self.objects))  # type: ignore[arg-type]


def scene(settings: TriggerSettings, seed: int | None = None, settles: float = 60.0) -> Scene:
    """A new world. All engines of the settings are one engine."""
    world = World(seed)
    objects = MemoryObjects(world, watch=_one_at_a_time)
    registry, engine = MemoryRegistry(world), MemoryEngine(world, settles)
    trigger = Trigger(
        settings=settings,
        objects=objects,  # type: ignore[arg-type]
        claims=Claims(objects),  # type: ignore[arg-type]
        registry=registry,
        engines=dict.fromkeys(EngineName, engine),
        clock=lambda: datetime.fromtimestamp(world.time, UTC),
    )
    return Scene(world, trigger, objects, registry, engine)


def _one_at_a_time(name: str, data: bytes) -> None:
    """Whatever is ever written about a model keeps the rule of one run at a time."""
    if CLAIMS.has(name):
        at_work = [one for one in json.loads(data)["claims"] if one["state"] in OPEN]
        assert len(at_work) <= 1, at_work
