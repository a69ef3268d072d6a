"""The part of Kubeflow Pipelines' API that its own client uses, over real HTTP; the test sets the states of a run."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API = "/apis/v2beta1"


class Kubeflow:
    """Answers with `states` one after the other; the last one stays. `token` is required if it is set; `faults` are the
    HTTP statuses of the next answers."""

    def __init__(self, states: list[str], token: str | None = None) -> None:
        self.states, self.token = states, token
        self.faults: list[int] = []
        self.login_page = False
        self.submitted: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.host = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

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
        if name == "/runs" and body:
            self.submitted.append(body)
            return {"run_id": "r-1", "state": "PENDING", "experiment_id": "e-1"}
        if name == "/runs/r-1":
            state = self.states[0] if len(self.states) == 1 else self.states.pop(0)
            task = {"display_name": "prepare", "state": "SUCCEEDED", "create_time": "2026-01-01T00:00:00Z"}
            driver = task | {"display_name": "prepare-driver"}
            return {"run_id": "r-1", "state": state, "run_details": {"task_details": [task, driver]}}
        return None

    def _handler(kubeflow: "Kubeflow") -> Callable[..., BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: dict[str, Any] | None) -> None:
                if kubeflow.token and self.headers.get("Authorization") != f"Bearer {kubeflow.token}":
                    return self._send(401, {"error": "token is expired"})
                if kubeflow.login_page:
                    return self._send(200, "<html>log in</html>", "text/html")
                if kubeflow.faults and "healthz" not in self.path:
                    return self._send(kubeflow.faults.pop(0), {"error": "not now"})
                found = kubeflow.answer(self.path, body)
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
