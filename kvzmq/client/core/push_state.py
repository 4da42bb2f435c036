"""The core of what a server pushes over a connection of its own: asked for, kept alive, asked for again. No I/O.

WatchState makes changes of it, MonitorState records; `push_channel` moves its frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec
from msgspec import Raw

from kvzmq import errors
from kvzmq.client.core.call import Result
from kvzmq.client.core.calls import payload_of
from kvzmq.client.core.hello import ServerInfo, decode_server_info
from kvzmq.protocol import encoding
from kvzmq.protocol.limits import HEARTBEAT_S

T = TypeVar("T")

RESEND_S = 2.0
"""When to ask again if no answer came."""

NOTHING = b"\xc0"
"""The payload, null, of an event that only tells how far a watch has come; and of a heartbeat."""


class _Message(msgspec.Struct, array_like=True, gc=False):
    seq: int | None
    revision: int
    rest: Raw


class Pushed(msgspec.Struct, array_like=True, gc=False):
    """What an event tells: of which watch or monitor, a code, a payload; whether its request has made more changes; the
    epoch in which the table is, if another server has begun it."""

    watch: int
    code: int
    payload: Raw
    more: bool = False
    epoch: str | None = None


_HELLO = Raw(encoding.encode_value(("hello", {"heartbeat_s": HEARTBEAT_S})))
_PING = Raw(encoding.encode_value(("ping",)))

_decode_message: Callable[[bytes], _Message] = msgspec.msgpack.Decoder(_Message).decode
_decode_results: Callable[[Raw], list[Result]] = msgspec.msgpack.Decoder(list[Result]).decode
_decode_pushed: Callable[[Raw], Pushed] = msgspec.msgpack.Decoder(Pushed).decode


class PushState(Generic[T]):
    """What is pushed, through any number of connections.

    Args:
        lineage: of the table that is expected, 32 hexadecimal digits, or None for whichever answers first
    """

    another_table = ""
    """What it means that another table answers, for the error."""

    position: int | None = None
    """The revision up to which everything was received, where it is revisions that are told."""

    def __init__(self, lineage: str | None = None) -> None:
        self.started = False
        """Whether the server has agreed, on this connection."""
        self.events: deque[T] = deque()
        """What has come."""
        self.error: errors.KvzmqError | None = None
        """Why nothing more will come."""
        self.refused = False
        """Whether the server of this connection cannot do it for now: another may, or this one later."""
        self.changed: errors.TableChanged | None = None
        """That another table answers on this connection: the end, unless another server has the one that is meant."""
        self.lineage = lineage
        self._seq = 0
        self._started_by = -1  # the number of the request that starts it on this connection
        self._number = 0  # that the server has given it
        self._asked_s = 0.0

    # ---- out

    def _ops(self) -> list[Raw]:
        """Return the operations that ask for it."""
        raise NotImplementedError

    def request(self, now_s: float) -> bytes:
        """Return the frame that asks for it on a new connection."""
        self.started = self.refused = False
        self.changed = None
        self._asked_s = now_s
        frame = self._frame([_HELLO, *self._ops()])
        self._started_by = self._seq
        return frame

    def overdue(self, now_s: float) -> bool:
        """Return whether to ask again."""
        return not self.started and now_s - self._asked_s > RESEND_S

    def heartbeat(self) -> bytes:
        """Return the heartbeat that keeps it at the server."""
        return self._frame([_PING])

    def question(self) -> bytes | None:
        """Return the frame of something else that the server is to be asked now, or None."""
        return None

    def _frame(self, ops: list[Raw]) -> bytes:
        self._seq += 1
        return encoding.encode_request(None, self._seq, ops)

    # ---- in

    def receive(self, frame: bytes) -> None:
        """Take a reply or an event; see `events` and `error` then."""
        try:
            message = _decode_message(frame)
            if message.seq == 0:
                if bytes(message.rest) != NOTHING:
                    self._take(message.revision, _decode_pushed(message.rest))
            elif message.seq == self._started_by:
                self._start(message.revision, _decode_results(message.rest))
            else:
                self._answer(message.seq, message.revision, message.rest)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # not of this protocol

    def _start(self, revision: int, results: list[Result]) -> None:
        try:
            info = decode_server_info(payload_of(results[0]))
            self._check_lineage(info)
            self._begin(revision, info, payload_of(results[1]))
        except errors.Unavailable:
            self.refused = True
        except errors.TableChanged as error:
            self.changed = error
        except errors.KvzmqError as error:
            self.error = error
        else:
            self.started = True

    def _check_lineage(self, info: ServerInfo) -> None:
        if self.lineage is not None and info.lineage not in (None, self.lineage):
            raise errors.TableChanged(
                f"another table answers here now (lineage {str(info.lineage)[:8]}, not {self.lineage[:8]}): "
                f"{self.another_table}. If that is what you want, connect anew"
            )

    def _begin(self, revision: int, info: ServerInfo, payload: Raw) -> None:
        """Take the reply that says it has begun."""
        raise NotImplementedError

    def _take(self, revision: int, pushed: Pushed) -> None:
        """Take an event, of this connection or of the one before."""
        raise NotImplementedError

    def _answer(self, seq: int | None, revision: int, results: Raw) -> None:
        """Take the reply to something else."""

    def _decode_one(self, results: Raw) -> Result:
        return _decode_results(results)[0]

    def _ask_again(self) -> None:
        self.started = False
        self._asked_s = -RESEND_S
