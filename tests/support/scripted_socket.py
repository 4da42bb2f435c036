"""A client's socket that does what a test says: events to happen, frames to arrive, and a list of what was sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from kvzmq.client.core.socket import Change, ConnectionEvent
from kvzmq.protocol import msgpack


class ScriptedSocket:
    """Does what it is told, and remembers what it was given."""

    due_s = math.inf
    on_closing: Callable[[int], None] | None = None
    reconnects_itself = True
    reconnect_s_min = 0.0

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.connected = False
        self.closed = False
        self.takes = True
        self.descriptors: Mapping[int, int] = {}
        self.events: list[ConnectionEvent] = []
        self.sent: list[bytes] = []
        self.received: list[bytes] = []

    def happen(self, change: Change, reason: str = "") -> None:
        self.events.append(ConnectionEvent(change, reason))

    @property
    def has_events(self) -> bool:
        return bool(self.events)

    def poll_events(self) -> list[ConnectionEvent]:
        events, self.events = self.events, []
        for event in events:
            self.connected = event.change is Change.MADE
        return events

    @property
    def readable(self) -> bool:
        return bool(self.received)

    def send(self, frame: bytes) -> bool:
        if self.connected and self.takes:
            self.sent.append(frame)
        return self.connected and self.takes

    def receive(self, timeout_s: float = 0.0) -> bytes | None:
        return self.received.pop(0) if self.received else None

    def wait(self, timeout_s: float) -> None: ...

    def close(self) -> None:
        self.closed = True

    def forget(self) -> None: ...

    def asked(self) -> list[str]:
        """What was sent: the first method of each request."""
        return [msgpack.decode_value(frame)[2][0][0] for frame in self.sent]
