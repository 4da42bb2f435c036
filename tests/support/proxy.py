"""A TCP proxy that cuts, stalls, and delays: it knows bytes, not messages.

with Proxy(server_port) as proxy:
    connect(proxy.url)
    proxy.cut()             resets every connection now; new ones are made
    proxy.stall()           takes bytes and passes none on, until flow()
    proxy.refuse()          closes new connections at once, until flow()
    proxy.cut_after(n)      cuts a connection when n more bytes have come back from the server
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from types import TracebackType

_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Passes connections on to a port of this machine, in a thread of its own."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.connections = 0
        self.cuts = 0
        self._loop = asyncio.new_event_loop()
        self._flowing = True
        self._refusing = False
        self._left: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._moved = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        started = threading.Event()
        self._started = started
        self._thread.start()
        assert started.wait(60)

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self._refusing:
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            return
        finally:
            if self._refusing:
                self._reset(writer)
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self._pass(reader, far_writer, False), self._pass(far_reader, writer, True))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, far_writer):
                self._writers.discard(end)
                self._reset(end)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: bool) -> None:
        while data := await reader.read(65536):
            while not self._flowing:
                self._moved.clear()
                await self._moved.wait()
            if back and self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
            writer.write(data)
            await writer.drain()
            if self._left == 0:
                self._left = None
                self._cut()
        raise ConnectionResetError

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()

    def _cut(self) -> None:
        self.cuts += 1
        for writer in list(self._writers):
            self._reset(writer)

    def _set(self, flowing: bool, refusing: bool) -> None:
        self._flowing, self._refusing = flowing, refusing
        self._moved.set()

    def _tell(self, *call: object) -> None:
        self._loop.call_soon_threadsafe(*call)  # type: ignore[arg-type]

    def cut(self) -> None:
        self._tell(self._cut)

    def stall(self) -> None:
        self._tell(self._set, False, False)

    def refuse(self) -> None:
        self._tell(self._set, True, True)
        self._tell(self._cut)

    def flow(self) -> None:
        self._tell(self._set, True, False)

    def cut_after(self, count: int) -> None:
        self._tell(setattr, self, "_left", count)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell(self._loop.stop)
        self._thread.join(60)
