"""The part of MLflow's server that the doctor uses, over real HTTP, for answers that a real one seldom gives."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REGISTRY = "/api/2.0/mlflow/registered-models/search"


class Mlflow:
    """Answers a status and a body by path."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str]] = {
            "/health": (200, "OK"),
            "/version": (200, "3.17.2"),
            REGISTRY: (200, "{}"),
        }
        self.headers: list[dict[str, str]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            wbufsize = -1

            def do_GET(self) -> None:
                stub.headers.append({name.title(): value for name, value in self.headers.items()})
                status, body = stub.answers.get(self.path.partition("?")[0], (404, "not found"))
                data = body.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=lambda: self._server.serve_forever(0.05), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
