"""The trigger on one machine: a new version of a model is registered in MLflow, and is compressed by itself.

python examples/trigger_demo.py OUT

Starts an MLflow server and `lmmpress trigger serve`, tells MLflow to send its webhooks there, registers two versions of
the sample model, releases the second one, and follows the claim to its end. All files are in OUT.
"""

import argparse
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient

from lmmpress import as_plan

NAME = "antgmm"


def say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)


def short_plan() -> dict[str, Any]:
    """The sample's plan, cut short: four of twelve blocks in one step. `make sample` is the whole run."""
    whole = as_plan("sample").model_dump(mode="json")
    return whole | {
        "stages": {"block": {"step": 4, "max": 4}},
        "distillation": whole["distillation"] | {"rows": 1000},
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(name: str, command: list[str], health: str, folder: Path, **variables: str) -> Iterator[None]:
    """A server until the block ends; what it prints is in a file."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=folder, env=os.environ | variables, stdout=output, stderr=output, start_new_session=True
        )
        try:
            while True:
                if server.poll() is not None:
                    sys.exit(f"{name} has ended:\n{log.read_text('utf-8', 'replace')[-2000:]}")
                with suppress(OSError), urllib.request.urlopen(health, timeout=5):
                    break
                time.sleep(0.5)
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                server.wait(timeout=30)


def write_settings(out: Path, plan: dict[str, Any], tracking: str, port: int) -> Path:
    """The trigger's settings, as an administrator writes them; tokens and secrets are in files of their own."""
    for name in ("viewer.token", "operator.token", "webhook.secret"):
        if not (out / name).exists():
            (out / name).touch(mode=0o600)
            (out / name).write_text(f"{secrets.token_hex(32)}\n", "utf-8")
    (out / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False), "utf-8")
    settings = {
        "store": "store",
        "tracking": tracking,
        "runs": "runs",
        "models": {NAME: {"alias": "release", "plans": {"short": {"plan": "plan.yaml", "engine": "local"}}}},
        "server": {
            "port": port,
            "tokens": [
                {"name": "vera", "role": "viewer", "file": "viewer.token"},
                {"name": "otto", "role": "operator", "file": "operator.token"},
            ],
            "webhook_secrets": [{"file": "webhook.secret"}],
        },
    }
    file = out / "trigger.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return file


def register(client: MlflowClient, checkpoint: Path, note: str, work: Path) -> str:
    """Register a version of the model. Its README differs, as its weights would, so it is another checkpoint."""
    folder = work / note
    shutil.copytree(checkpoint, folder)
    with (folder / "README.md").open("a", encoding="utf-8") as readme:
        readme.write(f"\n{note}\n")
    logged = client.create_logged_model("0", NAME)
    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    shutil.rmtree(folder)
    made = client.create_model_version(NAME, f"models:/{logged.model_id}", model_id=logged.model_id)
    return str(made.version)


def ask(address: str, path: str, token: Path, **asked: str) -> Any:
    """Ask the trigger for something; have it do something where `asked` has its reason."""
    headers = {"Authorization": f"Bearer {token.read_text('utf-8').strip()}", "Content-Type": "application/json"}
    body = json.dumps(asked).encode("utf-8") if asked else None
    with urllib.request.urlopen(urllib.request.Request(f"{address}{path}", body, headers), timeout=60) as answer:
        return json.load(answer)


def claim_of(address: str, token: Path, version: str) -> dict[str, Any]:
    claims = ask(address, f"/api/v1/claims?model={NAME}", token)["claims"]
    return next((claim for claim in claims if claim["version"] == version), {})


def follow(address: str, token: Path, version: str) -> dict[str, Any]:
    """Wait for the claim of a version, tell each of its states, and give it in the end."""
    shown = None
    while True:
        found = claim_of(address, token, version)
        if found and found["state"] != shown:
            shown = found["state"]
            cause = f", asked by {found['by']} ({found['cause']})" if shown == "claimed" else ""
            say(f"claim {found['run']}: {shown}{cause}{'; ' + found['note'] if found['note'] else ''}")
        if shown in ("succeeded", "failed", "cancelled", "lost"):
            return found
        time.sleep(1)


def cancel(address: str, out: Path, version: str) -> None:
    """End a run that nobody waits for any more: it is a process of its own."""
    claim = claim_of(address, out / "viewer.token", version)
    if claim:
        say("the run is cancelled")
        ask(
            address,
            f"/api/v1/claims/{claim['key']}/cancel",
            out / "operator.token",
            why="the demonstration was stopped",
        )
        time.sleep(5)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--plan", type=Path, help="a plan of your own, with a model that is a directory")
    parser.add_argument("--keep", action="store_true", help="leave both servers there until Ctrl-C")
    asked = parser.parse_args()
    out = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    plan = yaml.safe_load(asked.plan.read_text("utf-8")) if asked.plan else short_plan()
    checkpoint = Path(plan["model"])

    mlflow_port, port = free_port(), free_port()
    tracking, address = f"http://127.0.0.1:{mlflow_port}", f"http://127.0.0.1:{port}"
    settings = write_settings(out, plan, tracking, port)
    mlflow = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow_port)]
    mlflow += ["--workers", "1", "--backend-store-uri", f"sqlite:///{out}/mlflow.db"]
    mlflow += ["--artifacts-destination", str(out / "artifacts")]
    trigger = [sys.executable, "-m", "lmmpress.cli", "trigger", "serve", "--settings", str(settings)]
    webhooks = {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",  # on one machine; MLflow's default is https to public addresses
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "0",  # else it may take a minute until a new webhook is used
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "bG1tcHJlc3MtZGVtby1vbmx5LWxtbXByZXNzLWRlbW8=",  # has to be fixed
    }
    os.environ["LMMPRESS_CACHE"] = str(out / "cache")
    with started("mlflow", mlflow, f"{tracking}/health", out, **webhooks):
        say(f"MLflow is at {tracking}")
        client = MlflowClient(tracking)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        with suppress(Exception):  # it is there after an earlier demonstration
            client.create_registered_model(NAME)
        with started("trigger", trigger, f"{address}/readyz", out):
            say(f"the trigger is at {address}; its page takes the token in {out / 'operator.token'}")
            secret = (out / "webhook.secret").read_text("utf-8").strip()
            for webhook in client.list_webhooks():  # of an earlier demonstration, on another port
                client.delete_webhook(webhook.webhook_id)
            url, events = f"{address}/webhooks/mlflow", ["model_version.created", "model_version_alias.created"]
            hook = client.create_webhook("lmmpress", url, events, secret=secret)  # type: ignore[arg-type]
            said = client.test_webhook(hook.webhook_id)
            say(f"MLflow delivers to the trigger: {'yes' if said.success else said.error_message}")

            stamp = time.strftime("%Y%m%d%H%M%S")
            first = register(client, checkpoint, f"first-{stamp}", out)
            say(f"version {first} of {NAME} is registered; without the alias, nothing follows")
            second = register(client, checkpoint, f"second-{stamp}", out)
            client.set_registered_model_alias(NAME, "release", second)
            say(f"version {second} of {NAME} is registered and released")
            try:
                claim = follow(address, out / "viewer.token", second)
            except (KeyboardInterrupt, SystemExit):
                cancel(address, out, second)
                raise
            say(f"the report: {claim['link']}")
            model = ask(address, f"/api/v1/models/{NAME}", out / "viewer.token")
            say(f"newest version: {model['newest']['version']}; last claim: {model['claim']['state']}")
            if asked.keep:
                say("both servers stay until Ctrl-C")
                with suppress(KeyboardInterrupt):
                    signal.pause()
    sys.exit(0 if claim["state"] == "succeeded" else 1)


if __name__ == "__main__":
    main()
