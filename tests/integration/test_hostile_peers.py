"""A steady client beside each attack of the benchmarks: its replies keep coming, the server stays within its budget.

How long it waits is a figure of benchmarks/run/hostile_peers.py; here it must only not stand still.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.servers import ServerProcess, wait_until

sys.path.append(str(Path(__file__).parents[2]))  # at the end: a planted fault's copy of the package comes first
from benchmarks.run import hostile_peers
from kvzmq.protocol.limits import REQUEST_BYTES_MAX
from kvzmq.server.transport import router_replies

WAIT_S_MAX = hostile_peers.TIMEOUT_S - 10
"""Less than what ends the waiting of who stands still, and more than what a busy machine makes of a slow one."""

SECONDS = (2.0, 20.0)
"""How long an attack lasts: longer, where a busy machine did not even let one request be answered in that time."""

GIVE_BACK = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "16384"}
"""Has glibc give back what is freed, so that the figure shows what the server holds."""

RECEIVED_BYTES_MAX = 34 << 20
"""What the server holds at most of one peer's requests, as docs/protocol.md says."""

OVERHEAD_BYTES = 64 << 20
"""What the loop itself needs: a step's requests, their values, the log's blocks, the history watches go back in."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data", bridge=True, environment=GIVE_BACK) as running:
        yield running


@pytest.fixture
def attack(server: ServerProcess, count: Callable[[str, int], None]) -> Callable[[str], hostile_peers.Outcome]:
    def run(name: str) -> hostile_peers.Outcome:
        known = hostile_peers.Server(server.url, server.port, server.pid, REQUEST_BYTES_MAX)
        for seconds in SECONDS:
            outcome = hostile_peers.measure(name, known, seconds, lambda: server.running)
            if outcome.requests > 1 or not outcome.alive:
                break
        count(f"{name}: longest wait, ms", int(outcome.longest_s * 1000))
        count(f"{name}: memory, KiB", outcome.memory_bytes >> 10)
        assert outcome.alive, server.stderr
        assert outcome.longest_s < WAIT_S_MAX and outcome.requests > 1, "it stands still"
        return outcome

    return run


@pytest.mark.parametrize("name", ["unread", "pages", "lines"])
def test_a_steady_client_is_served_beside_an_attack(attack: Callable[[str], hostile_peers.Outcome], name: str) -> None:
    assert attack(name).memory_bytes < 256 << 20


def test_peers_that_pile_up_requests_hold_no_more_than_their_budget(
    attack: Callable[[str], hostile_peers.Outcome],
) -> None:
    """Red with a high-water mark of 100 requests of 8 MiB: six peers had the server hold 5.9 GB."""
    assert attack("pile_up").memory_bytes < 6 * RECEIVED_BYTES_MAX + router_replies.UNSENT_BYTES_MAX + OVERHEAD_BYTES


def test_peers_that_stream_requests_hold_no_more_than_their_budget(
    attack: Callable[[str], hostile_peers.Outcome],
) -> None:
    """Red with a high-water mark of 100 requests of 8 MiB: twelve peers had the server hold 9.5 GB."""
    assert attack("stream").memory_bytes < 12 * RECEIVED_BYTES_MAX + OVERHEAD_BYTES


def test_peers_that_do_not_read_hold_no_more_than_their_budget(attack: Callable[[str], hostile_peers.Outcome]) -> None:
    """Each asks for one reply of 7 MB; their waiting for it holds nobody up."""
    assert attack("unread_large").memory_bytes < 190 * hostile_peers.ROWS * hostile_peers.ROW_BYTES + OVERHEAD_BYTES


def test_long_identities_are_not_kept(server: ServerProcess, attack: Callable[[str], hostile_peers.Outcome]) -> None:
    """Red when 700 connections of 8 MB of identity each left 5.3 GB: libzmq holds three of a connection's own.

    How many of them it holds at a time is up to how soon it notices that they have ended: all, on a slow machine.
    """
    before_bytes = hostile_peers.memory_bytes(server.pid)
    assert attack("identities").memory_bytes < 700 * 3 * REQUEST_BYTES_MAX + OVERHEAD_BYTES
    kept_bytes_max = 700 * REQUEST_BYTES_MAX // 5  # far from one of each; glibc keeps some 64 MiB for itself at times
    wait_until(lambda: hostile_peers.memory_bytes(server.pid) - before_bytes < kept_bytes_max)


def test_idle_connections_keep_no_newcomer_waiting(attack: Callable[[str], hostile_peers.Outcome]) -> None:
    """Red when newcomers waited for one of 5,000 to leave."""
    assert attack("idle").longest_s < WAIT_S_MAX
