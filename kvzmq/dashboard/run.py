"""Listens, and serves the dashboard until SIGTERM or Ctrl-C.

uvicorn waits without end for the head of a request, and for a peer that does not read; so CONNECTIONS_MAX peers that do
nothing would keep everybody else out. Here each has a time for both, and gives way when all places are taken.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from kvzmq import errors
from kvzmq.catalog import is_loopback

_BACKLOG = 128
_STOP_S = 1
"""How long browsers have to take note of the end."""

HEAD_BYTES_MAX = 1 << 20
"""How long a request may be without its body: the longest key, each character of it as three bytes in hexadecimal."""

CONNECTIONS_MAX = 256
"""How many connections there may be at once. One more takes the place of the one that has waited for its peer the
longest, or is answered 503 if none waits."""

HEAD_S_MAX = 10.0
"""How long the head of a request may take, or the next request."""

READ_S_MAX = 20.0
"""How long a peer may read nothing of its answer."""


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
        raise errors.CannotListen(
            f"cannot listen on {host}:{port}: {error.strerror or error}; --bind takes another, and port 0 a free one"
        ) from error
    return listening


def is_open_to_others(host: str) -> bool:
    """Say whether other machines may reach what listens there."""
    return not is_loopback(host)


class PatientProtocol(H11Protocol):
    """A connection whose peer has a time to ask, and to read what it asked for."""

    _since_s = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # an asyncio.Transport; uvicorn narrows it as well
        super().connection_made(transport)
        self._wait_for_peer(HEAD_S_MAX)
        if len(self.connections) > CONNECTIONS_MAX:
            waiting = [
                each for each in self.connections
                if isinstance(each, PatientProtocol) and each is not self and each.is_waiting
            ]  # fmt: skip
            if waiting:
                min(waiting, key=lambda each: each._since_s).give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_no_more()
        self._wait_for_peer(READ_S_MAX)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wait_no_more()
        self._look()

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its peer: to ask, or to read."""
        return self._timer is not None

    def give_up(self) -> None:
        """End the connection, whatever is left to send."""
        self._wait_no_more()
        self.connections.discard(self)
        self.transport.abort()

    def _look(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_peer(HEAD_S_MAX)
        elif not self.flow.write_paused:
            self._wait_no_more()  # it is answered

    def _wait_for_peer(self, timeout_s: float) -> None:
        if self._timer is None:
            self._since_s = self.loop.time()
            self._timer = self.loop.call_later(timeout_s, self.give_up)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


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
        log_level="error",  # a warning for each malformed request would let anybody fill the log
        server_header=False,
        date_header=False,
        lifespan="on",
        ws="none",
        http=PatientProtocol,
        loop="asyncio",
        limit_concurrency=CONNECTIONS_MAX + 1,
        timeout_graceful_shutdown=_STOP_S,
        proxy_headers=False,
        backlog=_BACKLOG,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
    )
    Server(config).run(sockets=[listening])
