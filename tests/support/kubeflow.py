"""The part of Kubeflow Pipelines' API that its client uses, over real HTTP; a test sets the states of a run."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API = "/apis/v2beta1"


def _around(name: str) -> list[dict[str, Any]]:
    """What the API tells of a task: the nodes of Argo for it."""
    time = "2026-01-01T00:00:00Z"
    named = [f"{name}{kind}{again}" for kind in ("", "-driver") for again in ("", "(0)")]
    return [
        {"display_name": one, "state": "SUCCEEDED", "create_time": time, "start_time": time}
        for one in [*named, "executor", "executor(0)", "root", "lmm-xyz(0)"]
    ]


class Kubeflow:
    """Answers with `states` one after the other; the last one stays. `token`, where it is set, is required; `faults`
    are the HTTP statuses of the next answers. With `keeps`, runs are many, and listed by their names; `mute` makes them
    without an answer."""

    def __init__(self, states: list[str], token: str | None = None) -> None:
        self.states, self.token = states, token
        self.faults: list[int] = []
        self.login_page = False
        self.keeps = self.mute = False
        self.terminated: list[str] = []
        self.deleted = False
        self.tasks: list[dict[str, Any]] = _around("prepare")
        self.runs: list[dict[str, Any]] = []
        self.submitted: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.host = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=lambda: self._server.serve_forever(0.05), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: dict[str, Any] | None) -> dict[str, Any] | None:
        self.asked.append(path)
        name = path.partition("?")[0].removeprefix(API)
        if name == "/healthz":
            return {"multi_user": False}
        if name == "/experiments":
            return {"experiment_id": "e-1", "display_name": "lmmpress"} if body else {}
        if name == "/runs" and body is None:
            return {"runs": self.runs}
        if self.keeps and (found := self._kept(name, body)) is not None:
            return found
        if name == "/runs" and body:
            self.submitted.append(body)
            return {"run_id": "r-1", "state": "PENDING", "experiment_id": "e-1"}
        if name == "/runs/r-1":
            if self.deleted:
                return None
            state = self.states[0] if len(self.states) == 1 else self.states.pop(0)
            return {"run_id": "r-1", "state": state, "run_details": {"task_details": self.tasks}}
        return None

    def _kept(self, name: str, body: dict[str, Any] | None) -> dict[str, Any] | None:
        if name == "/runs" and body:
            self.submitted.append(body)
            run = {"run_id": f"r-{len(self.runs)}", "display_name": body["display_name"], "state": "PENDING"}
            self.runs.append(run)
            return run
        run_id, _, verb = name.removeprefix("/runs/").partition(":")
        found = [run for run in self.runs if run["run_id"] == run_id]
        if found and verb == "terminate":
            self.terminated.append(run_id)
            found[0]["state"] = "CANCELED"
            return {}
        return found[0] if found else None

    def _handler(kubeflow: "Kubeflow") -> Callable[..., BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))

            def _answer(self, body: dict[str, Any] | None) -> None:
                if kubeflow.token and self.headers.get("Authorization") != f"Bearer {kubeflow.token}":
                    return self._send(401, {"error": "token is expired"})
                if kubeflow.login_page:
                    return self._send(200, "<html>log in</html>", "text/html")
                if kubeflow.faults and "healthz" not in self.path:
                    return self._send(kubeflow.faults.pop(0), {"error": "not now"})
                found = kubeflow.answer(self.path, body)
                if kubeflow.mute and body and "/runs" in self.path:
                    self.connection.close()
                    return
                self._send(404 if found is None else 200, found or {})

            def _send(self, status: int, body: Any, kind: str = "application/json") -> None:
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
