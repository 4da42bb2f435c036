"""A server with more to do than it can: everything else on the loop has a turn in each step; and an idle one."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from support.calls import noting
from support.shared_log import SharedGroups, SharedLog
from support.stepped import Stepped, ZmqPeer

from kvzmq.server.observer import Observer, Phases
from kvzmq.server.transport import router

LOOKUP = b'{"method": "size"}\n'
QUEUED = 30
"""Requests of the busy peer; libzmq holds `router.RECEIVED_MESSAGES_MAX` for the loop."""


@pytest.fixture
def one_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a step take in one request of the ROUTER, which so is busy as long as requests wait."""
    monkeypatch.setattr(router, "REQUESTS_MAX", 1)


def keep_busy(table: Stepped) -> ZmqPeer:
    """Return a peer of whose requests one waits in every step that follows, QUEUED of them."""
    busy = table.zmq()
    table.call(busy, "size")
    for _ in range(QUEUED):
        busy.send(["size"])
    return busy


def wait_for_request(table: Stepped) -> None:
    assert table.router._socket.poll(60_000), "libzmq has handed over the next request of the busy peer"


def test_a_busy_router_takes_no_turn_from_the_bridge(one_a_step: None) -> None:
    """Red when a step drained only the transport that had been busy in the one before."""
    with Stepped() as table:
        line = table.tcp()
        keep_busy(table)
        for _ in range(QUEUED // 3):
            line.send(LOOKUP)
            wait_for_request(table)
            assert table.step() == 2, "one of each"
            assert line.lines() == [{"status": "OK", "result": 0}]


def test_a_busy_router_takes_no_turn_from_a_timer_or_from_what_others_append(one_a_step: None) -> None:
    """Red when a busy step called no timers. What others append a busy step hears twice: by the descriptor, and by the
    log's barrier before it reads; without either it is still heard."""
    shared = SharedGroups()
    with Stepped(log=SharedLog(shared)) as table, Stepped(log=SharedLog(shared)) as other:
        writer = other.zmq()
        calls: list[float] = []
        table.server.timers.add(noting(lambda: calls.append(table.now_s), lambda: 1.0), first_s=1.0)
        keep_busy(table)
        for turn in range(1, QUEUED // 3):
            assert other.call(writer, "insert", str(turn), 1) == (0, None)
            table.now_s += 1.0
            wait_for_request(table)
            assert table.step() == 1
            assert len(calls) == turn and table.store.row_count == turn


class Resending(Observer):
    """Keeps a server busy from within: after each step the peer asks again. After some it sends the server SIGTERM."""

    def __init__(self) -> None:
        self.steps_after = -1
        self.again: Any = None

    def on_step(self, phases: Phases) -> None:
        if self.steps_after < QUEUED:
            self.again()
        if self.steps_after >= 0:
            self.steps_after += 1
        elif phases.requests:
            self.steps_after = 0
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_busy_server_stops_with_the_step_in_which_sigterm_comes(one_a_step: None) -> None:
    """Red when the loop looked for signals only when it had nothing to do."""
    observer = Resending()
    with Stepped(trace=observer) as table:
        busy = table.zmq()
        observer.again = lambda: busy.send(["size"])
        for _ in range(QUEUED):
            observer.again()
        table.server.run()
        assert observer.steps_after <= 1


def test_a_step_takes_in_more_requests_than_it_asks_for_one_by_one() -> None:
    """Red when `drain` ended where it stops to ask: a group had ASKED_MAX requests at most."""
    with Stepped() as table:
        peers = [table.zmq() for _ in range(4)]
        taken: list[int] = []

        def many_at_once() -> bool:
            for peer in peers:
                for _ in range(5):
                    peer.send(["size"])
            taken.append(len(table.router.drain()))
            return taken[-1] > router.ASKED_MAX

        table.until(many_at_once)


def test_an_idle_server_wakes_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when looking after the peers, ten times a second while there is something to do, woke the loop."""
    with Stepped() as table:
        table.call(table.zmq(), "size")
        line = table.tcp()
        line.send(LOOKUP)
        table.lines(line, 1)
        waits: list[int] = []

        def poll(timeout_ms: int) -> list[tuple[Any, int]]:
            waits.append(timeout_ms)
            table.now_s += timeout_ms / 1000
            return []

        monkeypatch.setattr(table.server, "_poller", type("Silent", (), {"poll": staticmethod(poll)}))
        for _ in range(20):
            table.server.step(1.0)
        assert waits == [1000] * 20
