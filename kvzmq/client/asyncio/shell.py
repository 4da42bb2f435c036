"""The base of the asyncio client: calls are run over a connection, and the task awaits them."""

from __future__ import annotations

from types import TracebackType
from typing import NoReturn, TypeVar

from kvzmq.client.asyncio.connection import AsyncConnection
from kvzmq.client.core.base import BaseClient
from kvzmq.client.core.call import Call
from kvzmq.client.core.procedures import Procedure

T = TypeVar("T")
Self = TypeVar("Self", bound="AsyncShell")


class AsyncShell(BaseClient[AsyncConnection]):
    """Runs calls and procedures, and awaits what they give."""

    def __init__(self, connection: AsyncConnection, prefix: str = "", *, owner: bool = True) -> None:
        super().__init__(connection, prefix, owner=owner)
        self._run = connection.run

    async def _perform(self, procedure: Procedure[T], timeout: float | None = None) -> T:
        """Run the calls of a procedure, each for `timeout` seconds at most."""
        try:
            call = next(procedure)
            while True:
                try:
                    value = await self._run(call, timeout)
                except BaseException as error:
                    call = procedure.throw(error)
                else:
                    call = procedure.send(value)
        except StopIteration as end:
            result: T = end.value
            return result

    async def close(self) -> None:
        """Drop the connection, also of the namespaces; calls that still wait end with an error.

        A namespace, or a copy, only ends itself: the client it was made from and its connection go on.
        """
        self._released = True
        self._run = self._refuse
        if self._owner:
            self._connection.close()

    async def _refuse(self, call: Call, timeout_s: float | None = None) -> NoReturn:
        raise self._closed_error()

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
