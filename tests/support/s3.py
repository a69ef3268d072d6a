"""S3 servers for the tests: real processes on real sockets, and a proxy that breaks connections on purpose."""

import math
import os
import selectors
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class Server(Protocol):
    endpoint: str
    access_key: str
    secret_key: str

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def stop(self) -> None: ...


def start_server(kind: str, folder: Path) -> Server:
    """An S3 server that keeps its objects in a folder: `ministack` or `radosgw`."""
    folder.mkdir()
    server: Server
    if kind == "radosgw":
        from support.radosgw import RadosGateway

        server = RadosGateway(folder, free_port())
    else:
        server = MiniStack(folder, free_port())
    server.start()
    return server


class MiniStack:
    """The default: starts in a second, keeps objects on the disk over a restart, checks no secret."""

    access_key, secret_key = "tester", "not a secret"

    def __init__(self, folder: Path, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self._folder, self._port = folder, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self._port),
            "SERVICES": "s3",
            # its own keys: it refuses signed addresses of others
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self._folder),
            "LOG_LEVEL": "WARNING",
        }
        with (self._folder.parent / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ministack"], env=environment, stdout=log, stderr=log, cwd=self._folder.parent
            )
        wait_for(self.endpoint)

    def kill(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    stop = kill


def wait_for(endpoint: str, seconds: float = 60) -> None:
    """Wait until a server answers."""
    for _ in range(int(seconds * 20)):
        try:
            urllib.request.urlopen(endpoint, timeout=5)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"no answer from {endpoint}")


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


class _Front:
    """Listens on loopback and serves each connection in a thread."""

    scheme = "http"

    def __init__(self, target: str) -> None:
        self._target = ("127.0.0.1", int(target.rsplit(":", 1)[1]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"{self.scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Serve one connection."""


class Proxy(_Front):
    """Stands before a server. What it does to those who pass is set at any time:

    `reset_after`   cut each connection, hard, after so many bytes in both directions together
    `answers`       the next requests get these bytes instead of the server's answer
    `instead`       the same for requests of a method whose first line has a word in it
    `silent`        take requests and never answer
    `silent_after`  the same, from so many requests on
    `flip`          change a byte, after so many, of the next answer that is as long
    `swallow`       pass on so many requests and cut the connection when they are answered
    """

    def __init__(self, target: str) -> None:
        self.reset_after: int | None = None
        self.answers: list[bytes] = []
        self.instead: dict[tuple[str, str], list[bytes]] = {}
        self.silent = False
        self.silent_after: int | None = None
        self.flip: int | None = None
        self.swallow = 0
        self.requests: list[str] = []
        self.sent = 0
        self.resets = 0
        super().__init__(target)

    def _serve(self, client: socket.socket) -> None:
        """Pass on bytes in both directions; each request starts with a new read."""
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        passed = answered = 0
        # not select(), which cannot wait for a descriptor above 1023
        with client, server, selectors.DefaultSelector() as sides, suppress(OSError):
            sides.register(client, selectors.EVENT_READ)
            sides.register(server, selectors.EVENT_READ)
            while True:
                for source in [client if key.fileobj is client else server for key, _ in sides.select()]:
                    data = source.recv(1 << 18)
                    if not data:
                        return
                    if source is client:
                        first = data.split(b"\r\n", 1)[0]
                        if first.endswith(b"HTTP/1.1"):
                            answered = 0
                            self.requests.append(first.decode().removesuffix(" HTTP/1.1"))
                            while self.silent or len(self.requests) > (self.silent_after or math.inf):
                                time.sleep(0.05)
                            if told := self._told_instead(first.decode()):
                                self._answer(client, data, told.pop(0))
                                return
                        self.sent += len(data)
                    else:
                        if self.flip is not None and answered <= self.flip < answered + len(data):
                            at = self.flip - answered
                            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                            self.flip = None
                        answered += len(data)
                        if self.swallow:
                            self.swallow -= 1
                            self._reset(client)
                            return
                    passed += len(data)
                    if self.reset_after is not None and passed > self.reset_after:
                        self.resets += 1
                        self._reset(client)
                        return
                    (server if source is client else client).sendall(data)

    def _told_instead(self, first: str) -> list[bytes]:
        for (word, method), told in self.instead.items():
            if told and first.startswith(method) and word in first:
                return told
        return self.answers

    def _reset(self, client: socket.socket) -> None:
        # linger of no time: the other side sees a reset and not an end
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _answer(self, client: socket.socket, data: bytes, told: bytes) -> None:
        """Read the request to its end, so that the client sees the answer and not a broken pipe."""
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        left = int(lengths[0].split(b":")[1]) - len(body) if lengths else 0
        client.settimeout(10)
        with suppress(OSError):
            while left > 0 and (more := client.recv(1 << 16)):
                left -= len(more)
            client.sendall(told)


def answer(status: str, code: str, message: str = "told so by the test") -> bytes:
    """An error as S3 servers send it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


class TlsFront(_Front):
    """A TLS proxy before a server, with a given certificate."""

    scheme = "https"

    def __init__(self, target: str, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(target)

    def _serve(self, raw: socket.socket) -> None:
        with suppress(OSError), self._context.wrap_socket(raw, server_side=True) as client:
            server = socket.create_connection(self._target)
            threading.Thread(target=_pump, args=(server, client), daemon=True).start()
            _pump(client, server)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
