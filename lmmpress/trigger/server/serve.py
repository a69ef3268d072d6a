"""Serves until the process is told to stop: a socket, uvicorn, and the signals that end it."""

import signal
import socket

import uvicorn

from lmmpress.errors import UserError
from lmmpress.progress.log import LogForm
from lmmpress.trigger.server import logs
from lmmpress.trigger.server.app import make_app
from lmmpress.trigger.server.metrics import Metrics
from lmmpress.trigger.server.service import Service
from lmmpress.trigger.trigger import Trigger

_BACKLOG = 2048


def serve(trigger: Trigger, form: LogForm = LogForm.text) -> None:
    """Serve until SIGTERM or SIGINT. Requests that have begun are answered, and the threads come to a stop.

    Raises UserError where a secret cannot be read, or the address is taken.
    """
    settings = trigger.settings.server
    service = Service(trigger, Metrics())
    logs.begin(form, service.secrets)
    listening = _listen(settings.host, settings.port)
    config = uvicorn.Config(
        make_app(service),
        log_config=None,
        access_log=False,
        proxy_headers=False,  # whoever connects could claim to be anybody
        server_header=False,
        timeout_graceful_shutdown=settings.stop_seconds,
        lifespan="on",
    )
    # uvicorn raises the signal again when it has stopped, which would end the process as if it had been killed
    before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        host, port = listening.getsockname()[:2]
        logs.note("listening", address=f"http://{f'[{host}]' if ':' in host else host}:{port}")
        if not settings.webhook_secrets:
            logs.note("no webhook secret is set, so no delivery is taken; the reconciler finds new versions by itself")
        uvicorn.Server(config).run(sockets=[listening])
        logs.note("stopped")
    finally:
        listening.close()
        for one, handler in before.items():
            signal.signal(one, handler)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise UserError(f"{host}:{port}: cannot be listened on: {error.strerror or error}") from None
