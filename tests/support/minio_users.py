"""The part of MinIO's API for users and policies that the chart's hook uses. The client's own code encrypts bodies with
the root's secret key."""

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from minio.crypto import decrypt, encrypt


class Body(io.BytesIO):
    """Bytes as the client's `decrypt` reads them."""

    def release_conn(self) -> None:
        """Nothing."""


class MinioUsers:
    """Listens on loopback. `users`: secret key and names of policies by access key. `answers`: what the next requests
    get instead of an answer."""

    access_key, secret_key = "root", "secret-of-root"

    def __init__(self) -> None:
        self.users: dict[str, tuple[str, str]] = {}
        self.policies: dict[str, Any] = {}
        self.answers: list[int] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Nothing."""

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                asked = {key: value for key, (value,) in parse_qs(parts.query).items()}
                signed = f"Credential={owner.access_key}/" in self.headers.get("Authorization", "")
                status, data = (owner.answers.pop(0), b"") if owner.answers else (200 if signed else 403, b"")
                if status == 200:
                    data = owner.answer(parts.path.removeprefix("/minio/admin/v3/"), asked, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_DELETE = _handle  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=lambda: self._server.serve_forever(0.05), daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, command: str, asked: dict[str, str], body: bytes) -> bytes:
        match command:
            case "add-canned-policy":
                self.policies[asked["name"]] = json.loads(body)
            case "add-user":
                secret = json.loads(decrypt(Body(body), self.secret_key))["secretKey"]  # type: ignore[arg-type]
                self.users[asked["accessKey"]] = (secret, self.users.get(asked["accessKey"], ("", ""))[1])
            case "set-user-or-group-policy":
                assert set(asked["policyName"].split(",")) <= self.policies.keys()
                self.users[asked["userOrGroup"]] = (self.users[asked["userOrGroup"]][0], asked["policyName"])
            case "remove-user":
                del self.users[asked["accessKey"]]
            case "list-users":
                listed = {
                    key: {"status": "enabled"} | ({"policyName": policies} if policies else {})
                    for key, (_, policies) in self.users.items()
                }
                return encrypt(json.dumps(listed).encode(), self.secret_key)
            case _:
                raise AssertionError(command)
        return b""
