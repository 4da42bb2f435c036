"""The core of a watch: where it is in the table's history, and how it goes on after a reconnect. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from kvzmq import codec, errors
from kvzmq.client.operations import payload_of
from kvzmq.client.session import Call, Result

RESEND_S = 2.0
"""When to ask for the watch again if no answer came."""


class Event(NamedTuple):
    """A change of one row.

    revision  of the table, after the change
    key       the row's
    value     its new value; None if it was removed
    removed   whether it was removed, or, for a watched query, no longer matches
    """

    revision: int
    key: str
    value: Any
    removed: bool


_PROGRESS = b"\xc0"
"""The payload, null, of an event that only tells how far the watch has come."""


class _Message(msgspec.Struct, array_like=True, gc=False):
    seq: int | None
    revision: int
    rest: Raw


class _Pushed(msgspec.Struct, array_like=True, gc=False):
    watch: int
    code: int
    payload: Raw


_decode_message: Callable[[bytes], _Message] = msgspec.msgpack.Decoder(_Message).decode
_decode_results: Callable[[Raw], list[Result]] = msgspec.msgpack.Decoder(list[Result]).decode
_decode_pushed: Callable[[Raw], _Pushed] = msgspec.msgpack.Decoder(_Pushed).decode


class Watching:
    """One watch through any number of connections.

    Args:
        make_call: makes the request from the revision to go on after, or None for now
        prefix: taken off the keys
        from_revision: where to begin, or None for now
    """

    def __init__(self, make_call: Callable[[int | None], Call], prefix: str, from_revision: int | None) -> None:
        self._make_call = make_call
        self._prefix = prefix
        self.position = from_revision
        """The revision up to which everything was received."""
        self.started = False
        """Whether the server has agreed, on this connection."""
        self.events: deque[Event] = deque()
        self.error: errors.KvzmqError | None = None
        """Why the watch has ended."""
        self._seq = 0
        self._number = 0
        self._asked_s = 0.0

    @property
    def seen(self) -> int | None:
        """The revision up to which everything was received and taken out of `events`."""
        return self.events[0].revision - 1 if self.events else self.position

    def request(self, now_s: float) -> bytes:
        """Return the frame that starts the watch on a new connection, after what was seen already."""
        self.started = False
        self._asked_s = now_s
        self._seq += 1
        return codec.encode_request(None, self._seq, self._make_call(self.position).ops)

    def overdue(self, now_s: float) -> bool:
        """Say whether to ask again."""
        return not self.started and now_s - self._asked_s > RESEND_S

    def receive(self, frame: bytes) -> None:
        """Take a reply or an event; see `events` and `error` then."""
        try:
            message = _decode_message(frame)
            if message.seq == 0:
                self._take(message.revision, _decode_pushed(message.rest))
            elif message.seq == self._seq:
                self._start(message.revision, _decode_results(message.rest)[0])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # not of this protocol

    def _start(self, revision: int, result: Result) -> None:
        try:
            self._number = codec.decode_value(payload_of(result))
        except errors.KvzmqError as error:
            self.error = error
            return
        self.started = True
        if self.position is None:
            self.position = revision

    def _take(self, revision: int, pushed: _Pushed) -> None:
        """Take an event, of this connection or of the one before.

        What a lost connection had received still comes, among what the new one brings, and a server that
        was started again counts its watches from 1 again. So events are taken from the old watch until
        the new one has begun: each of the two tells everything after `position`, and nothing twice.
        """
        if pushed.watch != self._number:
            return  # of an earlier request
        if pushed.code != errors.OK:
            if self.started:
                self.error = errors.error_of(pushed.code, codec.decode_value(pushed.payload))
            return
        if self.position is not None and revision <= self.position:
            return
        self.position = revision
        if bytes(pushed.payload) == _PROGRESS:
            return
        key, value = codec.decode_value(pushed.payload)
        if key.startswith(self._prefix):
            self.events.append(Event(revision, key[len(self._prefix) :], value[0] if value else None, not value))
