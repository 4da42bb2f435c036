"""One call of a client: the operations of one caller, and what became of them. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from kvzmq import errors
from kvzmq.protocol.encoding import decode_value


class Result(msgspec.Struct, array_like=True, gc=False):
    """One operation's result: a code and a payload, still encoded."""

    code: int
    payload: Raw

    def error(self) -> errors.KvzmqError:
        """Return the error of a request that was refused, with what the server says of it."""
        try:
            reason = str(decode_value(self.payload))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            reason = "the server gave no readable reason"
        return errors.error_of(self.code, reason)


class Call(msgspec.Struct, eq=False):
    """Operations of one caller, executed in order, and what became of them; to be submitted once.

    ops         encoded operations
    writes      whether any of them writes
    finish      makes the caller's value from the results; may raise
    size        bytes of `ops`
    alone       whether it must not share a request with others
    deadline_s  when the caller gives up, on the shell's clock
    done        whether there is an outcome: the caller's `value`, or an `error`
    revision    of the table when it was executed, from the reply
    on_done     called when it is done
    waiter      what `on_done` needs to wake the caller
    """

    ops: list[Raw]
    writes: bool
    finish: Callable[[list[Result]], Any]
    size: int
    alone: bool = False
    deadline_s: float = math.inf
    done: bool = False
    value: Any = None
    error: BaseException | None = None
    revision: int = 0
    on_done: Callable[[Call], None] | None = None
    waiter: Any = None

    def answer(self, revision: int, results: list[Result]) -> None:
        """End the call with what `finish` makes of its results."""
        self.revision = revision
        try:
            self.value = self.finish(results)
        except Exception as error:
            self.error = error
        self.done = True
        if self.on_done is not None:
            self.on_done(self)

    def fail(self, error: BaseException) -> None:
        """End the call with an error."""
        self.error = error
        self.done = True
        if self.on_done is not None:
            self.on_done(self)

    def too_late(self) -> errors.KvzmqError:
        """Return the error for a call that was sent and not answered in time."""
        if self.writes:
            return errors.OutcomeUnknown("no answer in time: the operation may have been executed, once, or not at all")
        return errors.Timeout("no answer in time: the server was asked and did not say anything")
