"""Signals and the loop: each ends one poll, and no more than that."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from support.stepped import Stepped


@pytest.fixture
def table() -> Iterator[Stepped]:
    with Stepped() as running:
        yield running


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """A program around the server, which handles SIGUSR1 itself; returns the signals it has seen."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    yield seen
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGCHLD])
def test_the_loop_rests_again_after_a_signal_whoever_handles_it(
    table: Stepped, handled: list[int], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Seen red: Python writes a byte for the program's signal, too, nobody read it, and no poll waited any more."""
    server, step = table.server, table.server.step
    woken: list[bool] = []

    def turn(timeout_s: float) -> int:
        woken.append(bool(server._poller.poll(0)))
        if len(woken) == 1:
            signal.raise_signal(number)
        elif len(woken) == 4:
            server.stop()
        return step(0.0)

    monkeypatch.setattr(server, "step", turn)
    server.run()
    assert handled == ([number] if number == signal.SIGUSR1 else [])
    assert woken == [False] * 4


def test_a_signal_among_requests_is_read_with_the_first_step_that_has_none(
    table: Stepped, handled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen red like the one above."""
    server, step, peer = table.server, table.server.step, table.zmq()
    peer.send(["size"])
    taken: list[int] = []
    woken: list[bool] = []

    def turn(timeout_s: float) -> int:
        if not taken:
            assert table.router._socket.poll(60_000)
            signal.raise_signal(signal.SIGUSR1)
        elif len(taken) == 3:
            woken.append(bool(server._poller.poll(0)))
            server.stop()
        taken.append(step(0.0))
        return taken[-1]

    monkeypatch.setattr(server, "step", turn)
    server.run()
    assert handled == [signal.SIGUSR1] and taken == [1, 0, 0, 0] and woken == [False]
