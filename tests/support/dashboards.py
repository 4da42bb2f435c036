"""`kvzmq dashboard` in a process of its own, for tests.

with DashboardProcess(server.url) as dashboard:
    dashboard.url           http://127.0.0.1:PORT/
    dashboard.get("/api/clients", Host="evil.example")
"""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

from support.servers import KVZMQ, PATIENCE_S, START_TIMEOUT_S, STOP_TIMEOUT_S, end_with_the_tests, hold_port


class Answer(NamedTuple):
    """What the dashboard has answered; `headers` by name in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes


class DashboardProcess:
    """One dashboard; it may be killed and started again, on the same port, which nobody else is given meanwhile.

    Args:
        table_url: the server that it shows
        options: further options of `kvzmq dashboard`
        global_options: of `kvzmq`
    """

    def __init__(self, table_url: str, *options: str, global_options: Sequence[str] = ()) -> None:
        self._command = [*KVZMQ, "-c", table_url, *global_options, "dashboard", *options]
        self._held = hold_port()
        self._bind = f"127.0.0.1:{self._held.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self.url = ""
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        found = urlsplit(self.url).port
        assert found is not None
        return found

    @property
    def stderr(self) -> str:
        return os.pread(self._stderr.fileno(), 1 << 20, 0).decode(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it says where it listens."""
        self._process = subprocess.Popen(
            [*self._command, "--bind", self._bind], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self._stderr, preexec_fn=end_with_the_tests,
        )  # fmt: skip
        assert self._process.stdout is not None
        seen, deadline_s = b"", time.monotonic() + START_TIMEOUT_S
        while (found := re.search(rb"(http://\S+)\s*\n", seen)) is None:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline_s - time.monotonic()))
            data = os.read(self._process.stdout.fileno(), 4096) if ready else b""
            assert data, f"the dashboard did not start: {seen!r} {self.stderr}"
            seen += data
        self.url = found[1].decode()

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def terminate(self) -> int:
        """Ask it to stop by SIGTERM; return the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(STOP_TIMEOUT_S)

    def get(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """Ask for something; a header's name may have underscores for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STOP_TIMEOUT_S)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            status, found = response.status, {name.lower(): value for name, value in response.getheaders()}
            endless = found.get("content-type", "").startswith("text/event-stream")
            return Answer(status, found, b"" if endless else response.read())
        finally:
            connection.close()

    def follow(self, receive_bytes: int = 0) -> socket.socket:
        """Return a connection that has asked for the events; the kernel takes `receive_bytes` of them unread."""
        connection = socket.socket()
        connection.settimeout(PATIENCE_S)
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())
        return connection

    def points_kept(self) -> int:
        """Return how many points of figures it keeps: what the first event has."""
        with self.follow() as connection:
            seen = b""
            while b"\n\n" not in seen.partition(b"event: hello")[2]:
                data = connection.recv(1 << 16)
                assert data, seen
                seen += data
        found = re.search(rb"event: hello\s+data: (.*)\n", seen)
        assert found is not None
        return len(json.loads(found[1])["fine"]["times"])

    def close(self) -> None:
        self.kill()
        self._held.close()
        self._stderr.close()

    def __enter__(self) -> DashboardProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.stderr:
            print(f"---- standard error of the dashboard\n{self.stderr}")
        self.close()
