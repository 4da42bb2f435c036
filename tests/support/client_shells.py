"""Both clients over both transports with one face, so that one suite tests all: the asyncio one made to look blocking.

with open_shell("asyncio", server.url) as table:
    table.insert("a", 1)                    awaits in a loop of its own thread
    with table.pipeline() as p: ...         an `async with` there
    list(table.keys())                      an `async for` there
    next(table.watch())                     likewise
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import kvzmq
from support.servers import PATIENCE_S

SHELLS = ("blocking", "asyncio", "blocking-pyzmq", "asyncio-pyzmq")
"""Each client over its plain socket, and over libzmq's DEALER."""

WAIT_S = PATIENCE_S


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="event loop", daemon=True)
        self._thread.start()

    def run(self, awaitable: Any) -> Any:
        async def wait() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(wait(), self.loop).result(WAIT_S)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()


class Blocking:
    """An asyncio object whose methods wait."""

    def __init__(self, wrapped: Any, thread: LoopThread) -> None:
        self._wrapped = wrapped
        self._thread = thread

    def _wrap(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            return self._wrap(self._thread.run(value))
        if isinstance(value, (kvzmq.AsyncClient, kvzmq.AsyncWatch)):
            return Blocking(value, self._thread)
        if hasattr(value, "__aenter__"):
            return self._entered(value)
        if hasattr(value, "__anext__"):
            return self._iterate(value)
        return value

    def _iterate(self, iterator: Any) -> Iterator[Any]:
        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield self._thread.run(iterator.__anext__())

    @contextlib.contextmanager
    def _entered(self, manager: Any) -> Iterator[Any]:
        entered = self._thread.run(manager.__aenter__())
        try:
            yield entered
        except BaseException as error:
            if not self._thread.run(manager.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self._thread.run(manager.__aexit__(None, None, None))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._wrapped, name)
        if not callable(value):
            return value

        def call(*args: Any, **options: Any) -> Any:
            async def on_the_loop() -> Any:
                return value(*args, **options)

            found = self._thread.run(on_the_loop())
            if name in ("watch", "watch_query"):
                self._thread.run(found.start())
            return self._wrap(found)

        return call

    def __iter__(self) -> Any:
        return self._iterate(self._wrapped.__aiter__())

    def __next__(self) -> Any:
        try:
            return self._thread.run(self._wrapped.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __repr__(self) -> str:
        return repr(self._wrapped)

    def __enter__(self) -> Blocking:
        self._thread.run(self._wrapped.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._thread.run(self._wrapped.__aexit__(*error))


def shell_of(kind: str) -> tuple[str, str]:
    """Return which client, blocking or asyncio, and which transport one of SHELLS is."""
    client, _, transport = kind.partition("-")
    return client, transport or "plain"


@contextlib.contextmanager
def open_shell(kind: str, url: str | None = None, timeout: float | None = 60.0) -> Iterator[Any]:
    """Connect a client of one of SHELLS, as a blocking one."""
    client, transport = shell_of(kind)
    if client == "blocking":
        with kvzmq.connect(url, timeout, transport=transport) as table:
            yield table
        return
    thread = LoopThread()
    try:
        with Blocking(kvzmq.connect_async(url, timeout, transport=transport), thread) as wrapped:
            yield wrapped
    finally:
        thread.close()
