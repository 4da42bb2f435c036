"""`--metrics`: three pages over HTTP, `/metrics` for Prometheus, `/health` and `/ready` for a service manager.

The loop leaves what `stats` says here once a second; threads answer from that, and never touch the table, a socket
or the disk of the server. So whoever asks holds nobody up: CONNECTIONS_MAX connections are served at a time, each has
DEADLINE_S for all it does, and a request has HEAD_BYTES_MAX at most. Nothing but GET, one request a connection.

/health  200 while the loop turns, 503 when it has not for STALE_S: restart it
/ready   200 when requests are served and the latest write succeeded; 503 with the reason otherwise
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from kvzmq import errors
from kvzmq.server.transport.listen import listen

REFRESH_S = 1.0
"""How often the loop leaves its figures."""

STALE_S = 15.0
"""When a loop that has left nothing is taken for stuck: no single request takes so long."""

CONNECTIONS_MAX = 4
"""How many connections are served at a time; some more wait for their turn."""

DEADLINE_S = 5.0
"""How long a connection may take, from its acceptance to the last byte of the answer."""

HEAD_BYTES_MAX = 8192
"""The longest request."""

_BACKLOG = 16
_WAIT_S = 0.5

SWITCH_S = 0.0005
"""How long a thread that renders keeps the loop from going on, at most; Python's own interval is ten times as long."""

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed",
            503: "Service Unavailable"}  # fmt: skip
_TEXT = "text/plain; charset=utf-8"

_log = logging.getLogger(__name__)


class Scrape:
    """The pages, and the threads that serve them.

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
        self._listener.settimeout(_WAIT_S)  # so that a thread sees that it is to end
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        self._threads = [
            threading.Thread(target=self._serve, name=f"kvzmq-metrics-{number}", daemon=True)
            for number in range(CONNECTIONS_MAX)
        ]
        for thread in self._threads:
            thread.start()

    # ---- the loop's side

    def refresh(self, figures: Mapping[str, Any]) -> None:
        """Leave what `stats` says now."""
        self._figures = figures
        self._left_s = self._clock()

    def close(self) -> None:
        """Stop listening, without waiting for open connections."""
        self._closing = True
        self._listener.close()

    # ---- the threads' side

    def _serve(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if not self._closing:
                    _log.warning("cannot accept a connection for metrics: %s", error.strerror)
                    time.sleep(_WAIT_S)
                continue
            with connection:
                self._answer(connection, self._clock() + DEADLINE_S)

    def _answer(self, connection: socket.socket, deadline_s: float) -> None:
        try:
            head = self._receive(connection, deadline_s)
            if head is not None:
                code, kind, body = self._page(head)
                connection.settimeout(max(0.001, deadline_s - self._clock()))
                connection.sendall(_response(code, kind, body))
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it has gone, or was too slow

    def _receive(self, connection: socket.socket, deadline_s: float) -> bytes | None:
        """Return the head of a request, None if there was none in time."""
        received = b""
        while b"\r\n\r\n" not in received and len(received) < HEAD_BYTES_MAX:
            connection.settimeout(max(0.001, deadline_s - self._clock()))
            data = connection.recv(HEAD_BYTES_MAX)
            if not data:
                return None
            received += data
        return received

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
        if self._figures is None:
            return 503, _TEXT, b"not ready: the log is being read\n"
        return 200, self._content_type, self._render(self._figures)

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
