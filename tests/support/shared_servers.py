"""Several servers of one table in one process: each a thread with real sockets, on one log in memory.

with SharedServers(3) as servers:
    kvzmq.connect(servers.url)                  all of them, separated by commas
    servers[0].kill()                           its connections break
    servers[1].log.is_cut_off = True            it hears nothing of the log, and cannot append
    servers[2].stop_stepping()                  as a process that is stopped
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

import zmq

from kvzmq.protocol.limits import REQUEST_BYTES_MAX
from kvzmq.server.loop import Server
from kvzmq.server.transport.router import RouterTransport
from kvzmq.store.store import Store
from support.servers import PATIENCE_S
from support.shared_log import SharedGroups, SharedLog

STEP_S = 0.02
END_S = PATIENCE_S


class SharedServer:
    """One server, in a thread of its own until it is killed."""

    def __init__(self, shared: SharedGroups, time_us: int, endpoint: str = "tcp://127.0.0.1:0") -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.log = SharedLog(shared)
        self.store = Store(self.log)
        self.store.recover()
        self.store.begin_epoch(time_us)
        self.router = RouterTransport(self.context, [endpoint], REQUEST_BYTES_MAX)
        self.server = Server(self.store, [self.router])
        self.url = self.router.endpoints[0]
        self.failure: BaseException | None = None
        self._ended = threading.Event()
        self._steps = threading.Event()
        self._steps.set()
        self._thread = threading.Thread(target=self._run, name=f"server {self.url}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                self._steps.wait()
                self.server.step(STEP_S)
        except BaseException as failure:
            self.failure = failure
        finally:
            self.server.close()
            self.context.destroy(linger=0)

    def stop_stepping(self) -> None:
        """Answer nothing, with all connections there."""
        self._steps.clear()

    def go_on(self) -> None:
        self._steps.set()

    def kill(self) -> None:
        """End it, and break its connections."""
        self._ended.set()
        self._steps.set()
        self._thread.join(END_S)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure


class SharedServers(list[SharedServer]):
    """Servers of one table."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.shared = SharedGroups()
        for _ in range(count):
            self.add()

    def add(self) -> SharedServer:
        server = SharedServer(self.shared, 1_000_000)
        self.append(server)
        return server

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self)

    def __enter__(self) -> SharedServers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self:
            server.kill()
