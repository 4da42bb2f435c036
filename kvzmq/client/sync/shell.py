"""The base of the blocking client: calls are run over a connection, and the thread waits for them."""

from __future__ import annotations

from types import TracebackType
from typing import NoReturn, TypeVar

from kvzmq.client.core.base import BaseClient
from kvzmq.client.core.call import Call
from kvzmq.client.core.procedures import Procedure
from kvzmq.client.sync.connection import Connection

T = TypeVar("T")
Self = TypeVar("Self", bound="Shell")


class Shell(BaseClient[Connection]):
    """Runs calls and procedures, and waits for what they give."""

    def __init__(self, connection: Connection, prefix: str = "", *, owner: bool = True) -> None:
        super().__init__(connection, prefix, owner=owner)
        self._run = connection.run

    def _perform(self, procedure: Procedure[T], timeout: float | None = None) -> T:
        """Run the calls of a procedure, each for `timeout` seconds at most."""
        try:
            call = next(procedure)
            while True:
                try:
                    value = self._run(call, timeout)
                except BaseException as error:
                    call = procedure.throw(error)
                else:
                    call = procedure.send(value)
        except StopIteration as end:
            result: T = end.value
            return result

    def close(self) -> None:
        """Drop the connection, also of the namespaces; calls of other threads end with an error.

        A namespace, or a copy, only ends itself: the client it was made from and its connection go on.
        """
        self._released = True
        self._run = self._refuse
        if self._owner:
            self._connection.close()

    def _refuse(self, call: Call, timeout_s: float | None = None) -> NoReturn:
        raise self._closed_error()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
