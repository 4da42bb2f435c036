"""The core of a monitor: what a server tells of the requests it answers. No I/O."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Raw

from kvzmq import errors
from kvzmq.client.core.call import Call
from kvzmq.client.core.calls import payload_of
from kvzmq.client.core.hello import ServerInfo
from kvzmq.client.core.push_state import Pushed, PushState
from kvzmq.client.core.stream import BaseStream
from kvzmq.protocol import encoding
from kvzmq.protocol.monitoring import MonitoredRequest as MonitoredRequest
from kvzmq.protocol.monitoring import decode_records

_decode_number: Callable[[Raw], int] = msgspec.msgpack.Decoder(int).decode


class MonitorState(PushState[MonitoredRequest]):
    """One monitor through any number of connections; what was answered between two of them is not told.

    Args:
        call: asks for it
        lineage: of the table that is expected, 32 hexadecimal digits, or None for whichever answers first
    """

    another_table = "the requests to it are not those that were monitored"

    def __init__(self, call: Call, lineage: str | None = None) -> None:
        super().__init__(lineage)
        self._call = call
        self.begun = 0
        """How often a server has begun it: more than once after reconnects."""
        self._dropped_before = 0  # by the server, in earlier beginnings
        self._dropped = 0  # since the latest
        self._heartbeat = 0  # the number of the latest

    @property
    def dropped(self) -> int:
        """How many requests were not looked at, or not kept, as far as a server has told."""
        return self._dropped_before + self._dropped

    def _ops(self) -> list[Raw]:
        return self._call.ops

    def heartbeat(self) -> bytes:
        """Return the heartbeat that keeps the monitor at the server; the reply says whether it is there."""
        frame = self._frame([Raw(encoding.encode_value(("progress", self._number)))])
        self._heartbeat = self._seq
        return frame

    def _answer(self, seq: int | None, revision: int, results: Raw) -> None:
        if seq == self._heartbeat and not encoding.decode_value(payload_of(self._decode_one(results))):
            self._ask_again()  # the server has ended the monitor, and its last word is lost

    def _begin(self, revision: int, info: ServerInfo, payload: Raw) -> None:
        self._number = _decode_number(payload)
        self.lineage = info.lineage or self.lineage
        self._dropped_before, self._dropped = self.dropped, 0
        self.begun += 1

    def _take(self, revision: int, pushed: Pushed) -> None:
        if pushed.watch != self._number or not self.started:
            return  # of an earlier request
        if pushed.code == errors.WatchIdle.code:
            self._ask_again()  # this program was busy for longer than it may be, or its rights have changed
        elif pushed.code != errors.OK:
            self.error = errors.error_of(pushed.code, encoding.decode_value(pushed.payload))
        else:
            records, self._dropped = decode_records(pushed.payload)
            self.events.extend(records)


class BaseMonitor(BaseStream[MonitorState]):
    """What the blocking and the asyncio client's monitors have in common."""

    _kind = "monitor"
    _item = "request"
    _forked = "this monitor belongs to the process that made it: make one here"

    @property
    def dropped(self) -> int:
        """How many requests the server has not looked at, or not kept for this monitor, as far as it has told."""
        return self._state.dropped

    @property
    def connections(self) -> int:
        """How often a server has begun it: 1, and one more after each reconnect."""
        return self._state.begun

    def __repr__(self) -> str:
        return f"<{self._name}, {self.dropped} dropped{' closed' if self._closed else ''}>"
