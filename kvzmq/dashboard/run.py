"""Listens, and serves the dashboard until SIGTERM or Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from kvzmq import errors
from kvzmq.catalog import is_loopback

_BACKLOG = 128
_STOP_S = 1
"""How long browsers have to take note of the end."""

HEAD_BYTES_MAX = 1 << 20
"""How long a request may be without its body: the longest key, each character of it as three bytes in hexadecimal."""

CONNECTIONS_MAX = 256
"""How many connections there may be at once; the ones beyond are answered 503."""


class CannotListen(errors.KvzmqError):
    """The address is in use, or is not one of this machine."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        CannotListen: it cannot
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise CannotListen(
            f"cannot listen on {host}:{port}: {error.strerror or error}; --bind takes another, and port 0 a free one"
        ) from error
    return listening


def is_open_to_others(host: str) -> bool:
    """Say whether other machines may reach what listens there."""
    return not is_loopback(host)


def serve(
    app: ASGIApp,
    listening: socket.socket,
    ready: Callable[[], None] = lambda: None,
    stopping: Callable[[], None] = lambda: None,
) -> None:
    """Serve an app until SIGTERM or Ctrl-C. What is asked for is in no log: a token may be in it, once.

    Args:
        app: answers
        listening: what `listen` returned
        ready: called when it serves
        stopping: called when it is to stop; what goes on without end has to end then
    """

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            stopping()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        lifespan="on",
        ws="none",
        http="h11",
        loop="asyncio",
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=_STOP_S,
        proxy_headers=False,
        backlog=_BACKLOG,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
    )
    Server(config).run(sockets=[listening])
