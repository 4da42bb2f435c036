"""What both shells do between two waits with a watch or a monitor: its frames over a channel. Never waits itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from kvzmq import errors
from kvzmq.client.core.channel import Channel, OpenSocket
from kvzmq.client.core.endpoints import Endpoints
from kvzmq.client.core.outgoing import REFUSED_S, REFUSED_S_MAX
from kvzmq.client.core.push_state import PushState
from kvzmq.client.core.socket import Socket, frames
from kvzmq.protocol.limits import HEARTBEAT_S, SILENCE_S_MAX

S = TypeVar("S", bound="PushState[Any]")

ATTENTION_S = 1.0
"""After a longer time without a tick nobody can tell from silence that the server is gone."""


class PushChannel(Channel, Generic[S]):
    """Moves frames between a watch or a monitor and a server.

    Args:
        state: of the watch or the monitor
        endpoints: of the servers
        open_socket: makes a socket to one of them
        note_seen: called with the revision up to which everything has come
    """

    def __init__(
        self,
        state: S,
        endpoints: Endpoints,
        open_socket: OpenSocket,
        note_seen: Callable[[int], None] = lambda revision: None,
    ) -> None:
        super().__init__(endpoints, open_socket)
        self.state = state
        self._note_seen = note_seen
        self._refusing = 0  # how many times in a row a server has refused for now
        self._changes = 0  # how many times in a row another table answered, and nobody who may have the one meant
        self._again_s = math.inf  # when to ask this one again, or the next one, after it has
        self._sent_s = 0.0
        self._heard_s = 0.0  # or, if later, when this program was busy with something else
        self._ticked_s = 0.0

    def tick(self, now_s: float) -> None:
        """Ask for it on a new connection, and again if no answer came; send heartbeats. Due every second."""
        if now_s - self._ticked_s > ATTENTION_S:
            self._heard_s = now_s
        self._ticked_s = now_s
        state, socket = self.state, self.socket
        if socket is None:
            return
        if self._poll_events(socket):
            self._heard_s = now_s
            self._again_s = math.inf
            self._send(socket, state.request(now_s), now_s)
        elif socket.connected:
            if state.refused:
                if now_s >= self._again_s and not self.endpoints.has_alternatives:
                    self._again_s = math.inf
                    state.refused = False
                    if not state.started:
                        self._send(socket, state.request(now_s), now_s)
            elif state.overdue(now_s):
                self._send(socket, state.request(now_s), now_s)
            elif (question := state.question()) is not None:
                self._send(socket, question, now_s)
            elif state.started and now_s - self._sent_s >= HEARTBEAT_S:
                self._send(socket, state.heartbeat(), now_s)

    def _send(self, socket: Socket, frame: bytes, now_s: float) -> None:
        socket.send(frame)
        self._sent_s = now_s

    def fail_over(self, now_s: float) -> bool:
        """Turn to the next server, if there is one and this one seems gone.

        Returns:
            whether it seems gone: close the channel then, and open it again
        """
        unknown = False  # whether this server may have the table that is meant
        if self.state.refused and self.endpoints.has_alternatives:
            gone = now_s >= self._again_s
        elif self.connected:
            gone = now_s - self._heard_s > SILENCE_S_MAX
            unknown = True
        else:
            gone = self.endpoints.has_alternatives and self._connects_too_long(now_s)
            unknown = not self._has_failed
        if gone:
            self.endpoints.next()
            self.state.refused = False  # of the next one nothing is known yet: it has its time to connect
            self._again_s = math.inf
            if unknown:
                self._changes = 0
        return gone

    def receive_all(self, now_s: float) -> None:
        """Take what the server has pushed."""
        if self.socket is not None:
            for frame in frames(self.socket):
                self._heard_s = now_s
                self.state.receive(frame)
            if self.state.changed is not None:
                self._note_changed(self.state.changed, now_s)
            elif self.state.refused:
                self._note_refused(now_s)
            elif self.state.started and self._heard_s == now_s:
                self._refusing = self._changes = 0
                self._note_seen(self.state.position or 0)

    def _note_changed(self, error: errors.TableChanged, now_s: float) -> None:
        """Try the other servers, once round: one of them may have the table that is meant."""
        self._changes += 1
        if not self.endpoints.has_alternatives or self._changes > self.endpoints.count:
            self.state.error = error
        else:
            self.state.changed, self.state.refused = None, True
            self._again_s = now_s

    def _note_refused(self, now_s: float) -> None:
        if self._again_s == math.inf:
            self._changes = 0
            at_once = self._refusing == 0 and self.endpoints.has_alternatives
            self._again_s = now_s + (0.0 if at_once else min(REFUSED_S * 2**self._refusing, REFUSED_S_MAX))
            self._refusing = min(self._refusing + 1, 10)
