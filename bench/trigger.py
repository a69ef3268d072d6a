"""The trigger's server under load: is a claim lost, and how much longer do answers take than a bare handler's?

    python bench/trigger.py [--rate 200] [--seconds 60] [--turns 4] [--models 20] [--repeat 3]

Deliveries come at a constant rate over ten connections, as MLflow's, whatever the server does: the time of an answer
counts from when its delivery was due. The server and the bare handler have the same core to themselves, uvicorn and
the same kind of store, and take turns of `seconds` / `turns`. The bare handler checks the signature, writes one object
and answers. The server notes the delivery, claims the new version, and carries the claim on; all models have a new
version every five seconds, and runs succeed at once. A claim is lost if a model's newest version has none in the end;
a version that has a successor before it is looked at needs none.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from common import show, spread

from lmmpress.progress.log import LogForm
from lmmpress.store import open_store
from lmmpress.trigger.claims import Claim, Claims, Sent, State
from lmmpress.trigger.engines.interface import Order, Seen
from lmmpress.trigger.registry import Release, Version
from lmmpress.trigger.server.deliveries import ID, SIGNATURE, TIMESTAMP, sign

SECRET = "bench-" + "b" * 32
CONNECTIONS = 10
EPOCH = 5.0  # seconds for which a version is the newest
SETTLED = 60.0  # seconds after a turn in which the newest versions have to be claimed
PLAN = {"model": "model", "data": "rows", "stages": {"block": {"step": 1, "max": 2}}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200, help="deliveries a second")
    parser.add_argument("--seconds", type=float, default=60, help="of load for each of the two")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--serve", choices=["bare", "server"], help="for the processes that this one starts")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.folder, arguments.models)
        return
    runs = []
    for _ in range(arguments.repeat):
        with tempfile.TemporaryDirectory(prefix="lmmpress-bench-") as name:
            runs.append(measure(Path(name), arguments))
    show({"p99_ratio": spread([run["p99_ratio"] for run in runs]), "runs": runs})


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)
    loads: dict[str, Load] = {"bare": Load(), "server": Load()}
    started = {kind: Started(kind, folder / kind, arguments.models, cores[0]) for kind in loads}
    try:
        for one in started.values():
            one.wait()
        for turn in range(arguments.turns):
            for kind in sorted(loads, reverse=turn % 2 == 1):
                started[kind].go_on()
                time.sleep(0.5)
                asyncio.run(
                    loads[kind].run(folder / kind, started[kind].port, arguments, arguments.seconds / arguments.turns)
                )
                if kind == "server":
                    settle(folder / "server", loads["server"].newest)
                started[kind].halt()
    finally:
        for one in started.values():
            one.end()
    claims = claims_in(folder / "server")
    made = {(claim.question.model, claim.question.version) for claim in claims}
    told = loads["server"].versions
    p99 = {kind: load.percentile(0.99) for kind, load in loads.items()}
    return {
        "rate": arguments.rate,
        "deliveries": {kind: len(load.seconds) for kind, load in loads.items()},
        "statuses": {kind: load.statuses for kind, load in loads.items()},
        "milliseconds": {
            kind: {f"p{100 * at:g}": round(1000 * load.percentile(at), 2) for at in (0.5, 0.95, 0.99, 0.999)}
            for kind, load in loads.items()
        },
        "cpu_milliseconds": {
            kind: round(1000 * started[kind].cpu_seconds / len(load.seconds), 2) for kind, load in loads.items()
        },
        "p99_ratio": round(p99["server"] / p99["bare"], 2),
        "versions": {"told": len(told), "claimed": len(told & made), "lost": len(loads["server"].newest - made)},
        "not_succeeded": sum(claim.state is not State.succeeded for claim in claims),
        "machine": {"cores": os.cpu_count(), "load": os.getloadavg()[0], "file_system": file_system(folder)},
    }


def file_system(folder: Path) -> str:
    """The kind of file system that a folder is on: every claim is synced to it. TMPDIR chooses another one."""
    mounted = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounted[str(at)] for at in [folder, *folder.parents] if str(at) in mounted), "")


def claims_in(folder: Path) -> list[Claim]:
    return Claims(open_store(str(folder / "store")).objects).all()


def settle(folder: Path, newest: set[tuple[str, str]]) -> None:
    """Wait until the newest version of each model is claimed and its run has ended."""
    end = time.monotonic() + SETTLED
    while time.monotonic() < end:
        ended = {(one.question.model, one.question.version) for one in claims_in(folder) if not one.is_open}
        if newest <= ended:
            return
        time.sleep(0.5)


class Started:
    """A server in a process of its own, which is halted while it has no turn."""

    def __init__(self, kind: str, folder: Path, models: int, core: int) -> None:
        folder.mkdir()
        (folder / "version").write_text("0", "utf-8")
        self._port = folder / "port"
        command = [sys.executable, __file__, "--serve", kind, "--folder", str(folder), "--models", str(models)]
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        os.sched_setaffinity(self._process.pid, {core})

    def wait(self) -> None:
        while not self._port.exists():
            if self._process.poll() is not None:
                raise SystemExit(Path(self._log.name).read_text("utf-8"))
            time.sleep(0.1)
        self.port = int(self._port.read_text("utf-8"))
        spent = psutil.Process(self._process.pid).cpu_times()
        self._before = spent.user + spent.system
        self.halt()

    def halt(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.go_on()
        spent = psutil.Process(self._process.pid).cpu_times()
        self.cpu_seconds = spent.user + spent.system - self._before
        self._process.terminate()
        self._process.wait(timeout=60)
        self._log.close()


@dataclass
class Load:
    """Deliveries and their answers."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    versions: set[tuple[str, str]] = field(default_factory=set)
    """The models and versions that were delivered and answered with 202."""

    @property
    def newest(self) -> set[tuple[str, str]]:
        """Each model with its last version."""
        last: dict[str, int] = {}
        for model, version in self.versions:
            last[model] = max(last.get(model, 0), int(version))
        return {(model, str(version)) for model, version in last.items()}

    async def run(self, folder: Path, port: int, arguments: argparse.Namespace, seconds: float) -> None:
        due: asyncio.Queue[tuple[float, str, str] | None] = asyncio.Queue()
        senders = [asyncio.create_task(self._send(port, due)) for _ in range(CONNECTIONS)]
        began = time.monotonic()
        version = -1
        for number in range(int(arguments.rate * seconds)):
            at = began + number / arguments.rate
            if (wait := at - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if (now := int(time.time() / EPOCH)) > version:
                version = now
                (folder / "version.new").write_text(str(version), "utf-8")
                (folder / "version.new").rename(folder / "version")
            due.put_nowait((at, f"model-{number % arguments.models}", str(version)))
        for _ in senders:
            due.put_nowait(None)
        await asyncio.gather(*senders)

    async def _send(self, port: int, due: "asyncio.Queue[tuple[float, str, str] | None]") -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (delivery := await due.get()) is not None:
            at, model, version = delivery
            writer.write(request(model, version))
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            self.seconds.append(time.monotonic() - at)
            status = head.split(b" ", 2)[1].decode("ascii")
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status == "202":
                self.versions.add((model, version))
        writer.close()

    def percentile(self, at: float) -> float:
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(at * len(self.seconds)))]


def request(model: str, version: str) -> bytes:
    """A delivery, as MLflow sends it."""
    data: dict[str, Any] = {"name": model, "version": version, "source": f"models:/{model}", "run_id": None, "tags": {}}
    event = {"entity": "model_version", "action": "created", "timestamp": "2026-11-29T00:00:00+00:00", "data": data}
    body = json.dumps(event).encode("utf-8")
    identifier, stamp = str(uuid.uuid4()), str(int(time.time()))
    head = [
        "POST /webhooks/mlflow HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        f"content-length: {len(body)}",
        f"{ID}: {identifier}",
        f"{TIMESTAMP}: {stamp}",
        f"{SIGNATURE}: {sign(SECRET, identifier, stamp, body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode("ascii") + body


class Told:
    """A registry in which all models have the version that is in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def release(self, model: str, alias: str | None) -> Release:
        number = self._file.read_text("utf-8")
        return Release(model, number, f"/models/{number}", f"{int(number):064x}")

    def look_up(self, model: str, alias: str | None) -> Version | None:
        return Version(self._file.read_text("utf-8"))

    def data_digest(self, data: str) -> str:
        return "0" * 64


class Instant:
    """An engine whose runs succeed at once."""

    settles = 0.0

    def find(self, order: Order) -> list[Sent]:
        return []

    def create(self, order: Order) -> Sent:
        return Sent(order.run)

    def look(self, order: Order, sent: Sent) -> Seen:
        return Seen("succeeded")

    def cancel(self, order: Order, sent: Sent) -> None:
        pass

    def reach(self, order: Order) -> str:
        return "a bench"


def serve(kind: str, folder: Path, models: int) -> None:
    """Serve on a free port, whose number is written into the folder, until the process is ended."""
    import uvicorn

    app = bare(folder) if kind == "bare" else server(folder, models)
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, server_header=False, timeout_keep_alive=300)

    class Announced(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            (folder / "new").write_text(str(self.servers[0].sockets[0].getsockname()[1]), "utf-8")
            (folder / "new").rename(folder / "port")

    Announced(config).run()


def bare(folder: Path) -> Any:
    """What has to be done at least: check the signature, write the claim, answer."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse
    from starlette.concurrency import run_in_threadpool

    from lmmpress.trigger.server.deliveries import Delivery, open_delivery

    objects = open_store(str(folder / "store")).objects
    app = FastAPI()

    @app.post("/webhooks/mlflow")
    async def mlflow(asked: Request) -> JSONResponse:
        found = open_delivery(asked.headers, await asked.body(), [SECRET], time.time())
        assert isinstance(found, Delivery)
        claim = json.dumps({"delivery": found.id, "model": found.model, "version": found.version}).encode("utf-8")
        await run_in_threadpool(objects.write, f"claims/{found.id}.json", claim, None)
        return JSONResponse({"delivery": found.id}, 202)

    return app


def server(folder: Path, models: int) -> Any:
    from lmmpress.trigger.server import logs
    from lmmpress.trigger.server.app import make_app
    from lmmpress.trigger.server.metrics import Metrics
    from lmmpress.trigger.server.service import Service
    from lmmpress.trigger.settings import EngineName, TriggerSettings
    from lmmpress.trigger.trigger import Trigger

    (folder / "secret").write_text(SECRET, "utf-8")
    (folder / "plan.yaml").write_text(json.dumps(PLAN), "utf-8")
    plans = {"only": {"plan": str(folder / "plan.yaml"), "engine": "local"}}
    settings = TriggerSettings.model_validate(
        {
            "store": str(folder / "store"),
            "tracking": "http://127.0.0.1:9",
            "models": {f"model-{number}": {"newest": True, "plans": plans} for number in range(models)},
            "server": {"webhook_secrets": [{"file": str(folder / "secret")}]},
        }
    )
    objects = open_store(settings.store).objects
    engines = {EngineName.local: Instant()}
    trigger = Trigger(settings, objects, Claims(objects), Told(folder / "version"), engines, lambda: datetime.now(UTC))
    service = Service(trigger, Metrics())
    logs.begin(LogForm.json, service.secrets)
    return make_app(service)


if __name__ == "__main__":
    main()
