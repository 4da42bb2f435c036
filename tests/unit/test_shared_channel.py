"""How the threads of one process take turns at a channel, over a scripted socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from support.scripted_socket import ScriptedSocket
from support.servers import PATIENCE_S, wait_until

from kvzmq.client.core.call import Call
from kvzmq.client.core.calls import Calls
from kvzmq.client.core.endpoints import Endpoints
from kvzmq.client.core.session_channel import SessionChannel
from kvzmq.client.core.socket import Change
from kvzmq.client.core.targets import Target
from kvzmq.client.sync.connection import _SharedChannel
from kvzmq.protocol import msgpack

URL = "tcp://a:1"


class AnsweringSocket(ScriptedSocket):
    """Answers what was sent, one request a look, and calls `meanwhile` before it answers the first lookup."""

    meanwhile: Callable[[], None] | None = None

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.happen(Change.MADE)
        self._answered = 0

    def receive(self, timeout_s: float = 0.0) -> bytes | None:
        if self._answered == len(self.sent):
            return None
        _, seq, ((method, *_),) = msgpack.decode_value(self.sent[self._answered])
        self._answered += 1
        if method == "lookup" and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return msgpack.encode_value((seq, 7, [(0, {"lineage": "0a" * 16} if method == "hello" else 1)]))


def lookup() -> Call:
    call = Calls().lookup("k")
    call.deadline_s = time.monotonic() + PATIENCE_S
    return call


def test_who_came_while_another_thread_was_answered_is_sent_and_reads() -> None:
    """It waits for its turn, and nobody else may come. Seen red with a turn that ended with the call."""
    socket = AnsweringSocket(URL)
    shared = _SharedChannel(SessionChannel(Endpoints([Target(URL)]), lambda target: socket))
    first, second = lookup(), lookup()
    other = threading.Thread(target=lambda: shared.run(second, time.monotonic()))

    def come() -> None:
        other.start()
        wait_until(lambda: second in shared._waiting)

    socket.meanwhile = come
    shared.run(first, time.monotonic())
    try:
        assert first.value == 1
        assert shared.reader is second or second.done
    finally:
        if shared.reader is None and not second.done:
            shared.close()
        other.join(PATIENCE_S)
    assert second.value == 1 and shared.reader is None
    assert socket.asked() == ["hello", "lookup", "lookup"]
    shared.close()
