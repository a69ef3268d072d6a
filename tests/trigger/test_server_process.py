"""`lmmpress trigger serve` as a process: how it begins, what it logs, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.trigger_server import OLD_SECRET, SECRET, TOKENS, asked, delivery_headers, event, settings_of, until


def write_settings(folder: Path, **server: Any) -> Path:
    raw = settings_of(folder, port=0, **server).model_dump(mode="json", exclude_none=True)
    for model in raw["models"].values():
        del model["alias"]
    file = folder / "trigger.yaml"
    file.write_text(yaml.safe_dump(raw), "utf-8")
    return file


@contextmanager
def serving(file: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    log = file.with_name("log")
    with log.open("wb") as output:
        command = [sys.executable, "-m", "lmmpress.cli", "trigger", "serve", "--settings", str(file), *more]
        server = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | {"NO_COLOR": "1"})
        try:
            yield server
        finally:
            server.kill()
            server.wait()


def lines(file: Path) -> list[dict[str, Any]]:
    text = file.with_name("log").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def address(file: Path, server: subprocess.Popen[bytes]) -> str:
    def found() -> list[Any]:
        assert server.poll() is None, file.with_name("log").read_text("utf-8")
        return [line["address"] for line in lines(file) if line["event"] == "listening"]

    until(found, 120)
    return str(found()[0])


def deliver(at: str) -> int:
    body = json.dumps(event()).encode("utf-8")
    return asked(urllib.request.Request(f"{at}/webhooks/mlflow", body, delivery_headers(body))).status


def test_it_serves_until_it_is_told_to_stop_and_logs_no_secret(tmp_path: Path) -> None:
    file = write_settings(tmp_path)
    with serving(file, "--log", "json") as server:
        at = address(file, server)
        assert deliver(at) == 202
        for token in (TOKENS["vera"], "wrong-" + "w" * 32):
            headers = {"Authorization": f"Bearer {token}"}
            asked(urllib.request.Request(f"{at}/api/v1/claims?token={token}", headers=headers))
        until(lambda: any("MLflow" in str(line.get("error")) for line in lines(file)), 60)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    text = file.with_name("log").read_text("utf-8")
    assert lines(file)[-1]["event"] == "stopped"
    assert len(lines(file)) == len(text.splitlines())
    assert [(line["route"], line["status"], line.get("by")) for line in lines(file) if line["event"] == "request"] == [
        ("/webhooks/mlflow", 202, None),
        ("/api/v1/claims", 422, "vera"),
        ("other", 401, None),
    ]
    for secret in (*TOKENS.values(), SECRET, OLD_SECRET, "w" * 32):
        assert secret not in text


def test_a_request_that_has_begun_is_answered_before_the_end(tmp_path: Path) -> None:
    file = write_settings(tmp_path)
    with serving(file, "--log", "json") as server:
        host, port = address(file, server).removeprefix("http://").split(":")
        body = json.dumps(event()).encode("utf-8")
        headers = delivery_headers(body) | {"host": "x", "content-length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(f"POST /webhooks/mlflow HTTP/1.1\r\n{head}\r\n".encode() + body[:5])
            time.sleep(0.5)
            server.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            connection.sendall(body[5:])
            assert connection.recv(100).startswith(b"HTTP/1.1 202")
        assert server.wait(30) == 0


def test_what_a_killed_server_has_answered_is_not_lost(tmp_path: Path) -> None:
    file = write_settings(tmp_path)
    with serving(file, "--log", "json") as server:
        assert deliver(address(file, server)) == 202
        server.kill()
        server.wait()
    (hint,) = (tmp_path / "store" / "hints").iterdir()
    assert json.loads(hint.read_text("utf-8"))["model"] == "antgmm"
    with serving(file, "--log", "json") as server:
        address(file, server)
        until(lambda: any(line.get("what") == "antgmm" for line in lines(file)), 60)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens": [{"name": "mei", "role": "viewer", "file": "/nowhere/token"}]}, "/nowhere/token: cannot be read"),
        ({"tokens": [{"name": "mei", "role": "owner", "env": "X"}]}, "server.tokens.0.role: input should be 'viewer'"),
        ({"limits": {"deliverys": 1}}, "did you mean 'deliveries'?"),
        ({"port": 1}, "cannot be listened on"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    file = write_settings(tmp_path)
    raw = yaml.safe_load(file.read_text("utf-8"))
    raw["server"] |= change
    if "port" in change:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            raw["server"]["port"] = taken.getsockname()[1]
            done = failed(file, raw)
    else:
        done = failed(file, raw)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def failed(file: Path, raw: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    file.write_text(yaml.safe_dump(raw), "utf-8")
    command = [sys.executable, "-m", "lmmpress.cli", "trigger", "serve", "--settings", str(file)]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=False, env=os.environ | {"COLUMNS": "400"}
    )
