"""Timers of the loop: who is due is called, once a turn, in the order of their times."""

from __future__ import annotations

import math

import pytest
from support.calls import noting
from support.stepped import Stepped

from kvzmq.server.timers import Timers


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_timer_is_called_again_when_it_says_so(clock: Clock) -> None:
    timers, calls = Timers(clock), []

    def once_a_second() -> float | None:
        calls.append(clock.now_s)
        return 1.0 if len(calls) < 3 else None

    timers.add(once_a_second, first_s=0.5)
    for _ in range(100):
        timers.run()
        clock.now_s += 0.125
    assert calls == [100.5, 101.5, 102.5]


def test_a_late_timer_is_called_once_and_takes_no_turn_from_the_others(clock: Clock) -> None:
    """Red when a turn called only the first that was due: one that is always due kept the others from ever running."""
    timers, calls = Timers(clock), []
    timers.add(noting(lambda: calls.append("always"), lambda: 0.0))
    timers.add(noting(lambda: calls.append("rarely"), lambda: 10.0), first_s=1.0)
    timers.add(noting(lambda: calls.append("often"), lambda: 1.0), first_s=0.5)
    clock.now_s += 7.0
    timers.run()
    assert calls == ["always", "often", "rarely"], "each once, the one that is due longest first"
    timers.run()
    assert calls[3:] == ["always"]
    clock.now_s += 1.0
    timers.run()
    assert calls[4:] == ["always", "often"]


def test_an_idle_loop_waits_until_the_next_timer_that_wakes_it(clock: Clock) -> None:
    timers = Timers(clock)
    assert timers.wait_s(math.inf) == math.inf and timers.wait_s(5.0) == 5.0
    timers.add(lambda: 1.0, first_s=0.5, wakes=False)
    assert timers.wait_s(5.0) == 5.0
    timers.add(lambda: 3.0, first_s=2.0)
    assert timers.wait_s(5.0) == 2.0 and timers.wait_s(1.0) == 1.0
    clock.now_s += 4.0
    assert timers.wait_s(5.0) == 0.0, "it is late"
    timers.run()
    assert timers.wait_s(5.0) == 3.0


def test_the_loop_calls_a_timer_in_time_and_late_ones_beside_requests() -> None:
    with Stepped() as table:
        calls: list[float] = []
        table.server.timers.add(noting(lambda: calls.append(table.now_s), lambda: 60.0), first_s=60.0)
        peer = table.zmq()
        table.call(peer, "size")
        assert not calls and table.server._wait_ms(100.0) == 60_000
        table.now_s += 90.0
        assert table.server._wait_ms(100.0) == 0
        table.call(peer, "size")
        assert calls == [table.now_s]
