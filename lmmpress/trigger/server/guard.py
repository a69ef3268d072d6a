"""What surrounds every request: an id, a line in the log, metrics, and limits on how much comes at a time.

Written for ASGI itself, since a webhook's answer has to be quick.
"""

import asyncio
import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmmpress.trigger.server.logs import note
from lmmpress.trigger.server.metrics import Metrics
from lmmpress.trigger.server.secrets import Person, Tokens
from lmmpress.trigger.server_settings import Limits

_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"}
PROBES = {"/healthz", "/readyz", "/metrics"}
"""Paths that are not logged."""
API = "/api/"
_UPLOADS = re.compile(r"/api/v1/models/[^/]+/(comparisons|online)")
"""Paths whose bodies may be larger, from people who may send them."""
_HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}


class RefusedError(Exception):
    """A request that is answered with `status` and not worked on."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.headers = status, dict(headers or {})


class Slots:
    """At most `most` of something at a time. Only for use in one event loop."""

    def __init__(self, most: int, what: str, retry_after: int) -> None:
        self._most, self._what, self._retry_after = most, what, retry_after
        self.taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take a slot for the block; RefusedError where none is free."""
        if self.taken >= self._most:
            raise RefusedError(
                429, f"too many {self._what} at a time; try again later", {"retry-after": str(self._retry_after)}
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


async def body_of(headers: Mapping[str, str], receive: Receive, most: int, seconds: float) -> bytes:
    """The body of a request, whole; RefusedError where it is larger than `most` bytes, or takes too long to come."""
    too_large = RefusedError(413, f"the body has more than {most} bytes")
    length = headers.get("content-length", "")
    if length.isdigit() and (len(length) > 12 or int(length) > most):
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RefusedError(400, "the body ended too early")
                part = message.get("body", b"")
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise RefusedError(408, f"the body did not arrive within {seconds:g} s") from None


class Guard:
    """The outermost layer of the server."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, tokens: Tokens) -> None:
        self._app, self._limits, self._metrics, self._tokens = app, limits, metrics, tokens
        self._requests = Slots(limits.requests, "requests", limits.retry_after)
        self._uploads = Slots(limits.uploads, "uploads", limits.retry_after)
        metrics.working.set_function(lambda: self._requests.taken)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.perf_counter()
        status = 500
        request = uuid.uuid4().hex[:16]
        scope.setdefault("state", {})["request_id"] = request

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._sign_in(scope)
            await self._within_limits(scope, receive, sending)
        except RefusedError as error:
            await refuse(error, sending)
        finally:
            self._note(scope, status, time.perf_counter() - began, request)

    def _sign_in(self, scope: Scope) -> None:
        """Find out who asks for something below /api/, before anything else of the request is read."""
        if not scope["path"].startswith(API):
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = given[0].decode("latin-1").partition(" ") if len(given) == 1 else ("", "", "")
        person = self._tokens.person(token.strip()) if scheme.lower() == "bearer" else None
        if person is None:
            raise RefusedError(401, "give a token: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})
        scope["state"]["person"] = person
        scope["state"]["by"] = person.name

    async def _within_limits(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(API):
            # nobody has signed in, so nobody is waited for, and no place is taken; the webhook has limits of its own
            return await self._app(scope, receive, send)
        person: Person | None = scope["state"].get("person")
        uploads = scope["method"] == "POST" and _UPLOADS.fullmatch(scope["path"]) and person and person.may("operator")
        with self._requests.one(), self._uploads.one() if uploads else nullcontext():
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            most = self._limits.upload_bytes if uploads else self._limits.request_bytes
            body = await body_of(headers, receive, most, self._limits.body_seconds)
            given = False

            async def receiving() -> Message:
                nonlocal given
                if given:
                    return await receive()
                given = True
                return {"type": "http.request", "body": body, "more_body": False}

            await self._app(scope, receiving, send)

    def _note(self, scope: Scope, status: int, seconds: float, request: str) -> None:
        # the path of the route, not of the request: what strangers ask for must not make new metrics
        route = getattr(scope.get("route"), "path", None) or "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if scope["path"] in PROBES:
            return
        state = scope.get("state", {})
        fields: dict[str, Any] = {"request": request, "method": method, "route": route, "status": status}
        fields |= {
            "milliseconds": round(1000 * seconds, 1),
            "by": state.get("by"),
            "from": (scope["client"] or [None])[0],
        }
        note("request", **fields)


async def refuse(error: RefusedError, send: Send) -> None:
    """Answer a request that is not worked on. The rest of its body is not read, so the connection ends."""
    body = json.dumps({"error": str(error)}).encode("utf-8")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode("ascii"))]
    headers += [(name.encode("ascii"), value.encode("ascii")) for name, value in error.headers.items()]
    if error.status in (400, 408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
