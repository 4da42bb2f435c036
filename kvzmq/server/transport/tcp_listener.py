"""The bridge's listening socket: it accepts connections, and none for a moment when descriptors have run out.

A connection that cannot be accepted stays in the kernel's queue and keeps the socket readable: epoll has to look away
meanwhile, or the loop would spin.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
from collections.abc import Iterator

from kvzmq.server.transport.listen import listen

_ACCEPTS_MAX = 64
"""How many connections are accepted at a time."""

_PAUSE_S = 0.2
"""How long no connection is accepted when descriptors have run out."""

_WARN_S = 60.0
"""How often to say that descriptors have run out."""

_OPTIONS = (
    (socket.TCP_NODELAY, 1),
    (socket.TCP_KEEPIDLE, 4),
    (socket.TCP_KEEPINTVL, 2),
    (socket.TCP_KEEPCNT, 3),
    (socket.TCP_USER_TIMEOUT, 10_000),  # ms, also for a peer whose window stays closed
)
"""Seconds, seconds, probes, milliseconds: a peer whose machine has vanished is noticed within ten seconds."""

_log = logging.getLogger(__name__)


class Listener:
    """Accepts connections.

    Args:
        host, port: where to listen; port 0 takes a free one
        selector: reports, with no data, that connections can be accepted
        now_s: seconds that only grow

    Raises:
        CannotListen: the port is in use or the host is not of this machine
    """

    def __init__(self, host: str, port: int, selector: selectors.BaseSelector, now_s: float) -> None:
        self._socket = listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.failed = 0
        """How often a connection could not be accepted."""
        self._selector = selector
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._paused_until_s: float | None = None
        self._warn_again_s = now_s

    def accept(self, now_s: float) -> Iterator[tuple[socket.socket, str]]:
        """Yield the sockets of connections that have come, which do not block, with their addresses, HOST:PORT."""
        for _ in range(_ACCEPTS_MAX):
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause(error, now_s)
                    return
                continue  # the peer disconnected before it was accepted
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _OPTIONS:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
            yield sock, f"{address[0]}:{address[1]}"

    def _pause(self, error: OSError, now_s: float) -> None:
        self.failed += 1
        self._paused_until_s = now_s + _PAUSE_S
        self._selector.unregister(self._socket)
        if now_s >= self._warn_again_s:
            self._warn_again_s = now_s + _WARN_S
            _log.warning("cannot accept connections: %s; raise the limit of open files (ulimit -n)", error.strerror)

    def resume(self, now_s: float) -> None:
        """Accept again, if the pause is over."""
        if self._paused_until_s is not None and now_s >= self._paused_until_s:
            self._paused_until_s = None
            self._selector.register(self._socket, selectors.EVENT_READ)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
