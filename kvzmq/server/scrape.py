"""`--metrics`: three pages over HTTP, `/metrics` for Prometheus, `/health` and `/ready` for a service manager.

The loop leaves what `stats` says here once a second; a thread answers from that, and never touches the table, a socket
or the disk of the server. So whoever asks holds nobody up: a connection has DEADLINE_S for all it does, a request has
HEAD_BYTES_MAX at most, the page of metrics is made once for what the loop has left, and connections are accepted so
many a second. Nothing but GET, one request a connection.

Nor does who connects and says nothing: at CONNECTIONS_MAX the connection that has waited longest gives way to a new
one. Else a service manager would take the server for stuck, and restart it, because somebody holds its port: with four
threads that each waited for one request, twenty such connections kept `/health` waiting for more than 20 s.

/health  200 while the loop turns, 503 when it has not for STALE_S: restart it
/ready   200 when requests are served and the latest write succeeded; 503 with the reason otherwise
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from kvzmq import errors
from kvzmq.server.transport.listen import listen

REFRESH_S = 1.0
"""How often the loop leaves its figures."""

STALE_S = 15.0
"""When a loop that has left nothing is taken for stuck: no single request takes so long."""

CONNECTIONS_MAX = 64
"""How many connections may be open at a time; the next one replaces the one that was accepted first."""

DEADLINE_S = 5.0
"""How long a connection may take, from its acceptance to the last byte of the answer."""

HEAD_BYTES_MAX = 8192
"""The longest request."""

ACCEPTS_MAX, ACCEPT_PAUSE_S = 16, 0.01
"""How many connections are accepted before the thread pauses, and for how long: who connects again and again is not to
take the processor from the loop, with which the thread shares it."""

_BACKLOG = 128
_WAIT_S = 0.5
_WARN_S = 60.0

SWITCH_S = 0.0005
"""How long a thread that renders keeps the loop from going on, at most; Python's own interval is ten times as long."""

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed",
            503: "Service Unavailable"}  # fmt: skip
_TEXT = "text/plain; charset=utf-8"

_log = logging.getLogger(__name__)


class _Connection:
    """One connection: until when it may take, what has come, and what is left of the answer, None before it is made."""

    __slots__ = ("answer", "deadline_s", "received", "socket")

    def __init__(self, sock: socket.socket, deadline_s: float) -> None:
        self.socket = sock
        self.deadline_s = deadline_s
        self.received = bytearray()
        self.answer: memoryview | None = None


class Scrape:
    """The pages, and the thread that serves them.

    Args:
        host, port: where to listen; port 0 takes a free one
        render: makes the page of metrics from the figures
        content_type: that page's
        token: what a request for the metrics has to show as its bearer token, or None
        open_to_others: whether it may be an address that other machines reach: anybody there can read the figures
        clock: seconds that only grow

    Raises:
        CannotListen: the port is in use, the host is not of this machine, or other machines reach it
    """

    def __init__(
        self,
        host: str,
        port: int,
        render: Callable[[Mapping[str, Any]], bytes],
        content_type: str,
        token: bytes | None = None,
        open_to_others: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._render = render
        self._content_type = content_type
        self._token = token
        self._clock = clock
        self._figures: Mapping[str, Any] | None = None
        self._left_s = clock()
        self._closing = False
        self._listener = listen(host, port, "--metrics")
        address = self._listener.getsockname()
        if not open_to_others and not ipaddress.ip_address(address[0]).is_loopback:
            self._listener.close()
            raise errors.CannotListen(
                f"--metrics {host}:{port} is open to whoever reaches it, and is not encrypted: use 127.0.0.1 and have "
                "the monitoring's agent run on this machine"
            )
        self.endpoint = f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}/metrics"
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._connections: dict[socket.socket, _Connection] = {}  # the one that was accepted first at the beginning
        self._warn_again_s = float("-inf")
        self._rendered: tuple[Mapping[str, Any] | None, bytes] = None, b""
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        self._thread = threading.Thread(target=self._serve, name="kvzmq-metrics", daemon=True)
        self._thread.start()

    # ---- the loop's side

    def refresh(self, figures: Mapping[str, Any]) -> None:
        """Leave what `stats` says now."""
        self._figures = figures
        self._left_s = self._clock()

    def close(self) -> None:
        """Stop listening, without waiting for open connections."""
        self._closing = True
        self._listener.close()

    # ---- the thread's side

    def _serve(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(_WAIT_S):
                if key.data is None:
                    self._accept()
                else:
                    self._go_on(cast(_Connection, key.data))
            self._drop_overdue()
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._selector.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_MAX):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if not self._closing:
                    self._warn(f"cannot accept a connection for metrics: {error.strerror}")
                    time.sleep(_WAIT_S)
                return
            if len(self._connections) >= CONNECTIONS_MAX:
                self._drop(next(iter(self._connections.values())))
            sock.setblocking(False)
            connection = self._connections[sock] = _Connection(sock, self._clock() + DEADLINE_S)
            self._selector.register(sock, selectors.EVENT_READ, connection)
            self._go_on(connection)  # most send their request at once: it is answered before it could have to give way
        time.sleep(ACCEPT_PAUSE_S)

    def _warn(self, message: str) -> None:
        if self._clock() >= self._warn_again_s:
            self._warn_again_s = self._clock() + _WARN_S
            _log.warning("%s", message)

    def _go_on(self, connection: _Connection) -> None:
        """Do for a connection what can be done without waiting."""
        if connection.socket not in self._connections:
            return  # it has given way to another in the same turn
        try:
            if connection.answer is None:
                if not self._receive(connection):
                    return
                connection.answer = memoryview(_response(*self._page(bytes(connection.received))))
                self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
            connection.answer = connection.answer[connection.socket.send(connection.answer) :]
            if connection.answer:
                return
            connection.socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:
            pass  # it has gone
        self._drop(connection)

    def _receive(self, connection: _Connection) -> bool:
        """Take in what has come; True if that is the head of a request, or as much of it as is read.

        Raises:
            OSError: nothing has come, or the peer has gone
        """
        data = connection.socket.recv(HEAD_BYTES_MAX)
        if not data:
            raise ConnectionResetError
        connection.received += data
        return b"\r\n\r\n" in connection.received or len(connection.received) >= HEAD_BYTES_MAX

    def _drop_overdue(self) -> None:
        now_s = self._clock()
        for connection in list(self._connections.values()):
            if connection.deadline_s > now_s:
                return  # those behind it were accepted later
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        del self._connections[connection.socket]
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _page(self, head: bytes) -> tuple[int, str, bytes]:
        lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
        words = lines[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return 400, _TEXT, b"this is a page over HTTP\n"
        if words[0] != b"GET":
            return 405, _TEXT, b"only GET\n"
        path = words[1].partition(b"?")[0]
        if path == b"/health":
            return self._health()
        if path == b"/ready":
            return self._ready()
        if path != b"/metrics":
            return 404, _TEXT, b"there are /metrics, /health and /ready\n"
        if self._token is not None and not hmac.compare_digest(_bearer(lines[1:]), self._token):
            return 401, _TEXT, b"this needs the bearer token\n"
        figures = self._figures
        if figures is None:
            return 503, _TEXT, b"not ready: the log is being read\n"
        if self._rendered[0] is not figures:  # once for what the loop has left, however often it is asked for
            self._rendered = figures, self._render(figures)
        return 200, self._content_type, self._rendered[1]

    def _health(self) -> tuple[int, str, bytes]:
        silent_s = self._clock() - self._left_s
        if self._figures is not None and silent_s > STALE_S:
            return 503, _TEXT, f"stuck: the loop has not turned for {silent_s:.0f} s\n".encode()
        return 200, _TEXT, b"ok\n"

    def _ready(self) -> tuple[int, str, bytes]:
        if self._figures is None:
            return 503, _TEXT, b"not ready: the log is being read\n"
        if self._figures.get("storage_trouble"):
            return 503, _TEXT, b"not ready: the latest write failed; `kvzmq ping` says why\n"
        return self._health()


def _bearer(lines: list[bytes]) -> bytes:
    for line in lines:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"authorization" and value.strip()[:7].lower() == b"bearer ":
            return value.strip()[7:].strip()
    return b""


def _response(code: int, kind: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n"
    )
    return head.encode() + (b"WWW-Authenticate: Bearer\r\n" if code == 401 else b"") + b"\r\n" + body
