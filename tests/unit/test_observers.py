"""What observers of a server are told, and what it costs when there is none."""

from __future__ import annotations

import pytest
from support.calls import noting
from support.shared_log import SharedGroups, SharedLog
from support.stepped import Stepped

from kvzmq.server.observer import Commit, Executed, Observer, Phases


class Listener(Observer):
    def __init__(self) -> None:
        self.executed: list[Executed] = []
        self.commits: list[Commit] = []
        self.phases: list[Phases] = []
        self.replayed: list[tuple[int, int]] = []
        self.expired: list[tuple[int, int]] = []

    def on_execute(self, executed: Executed) -> None:
        self.executed.append(executed)

    def on_commit(self, commit: Commit) -> None:
        self.commits.append(commit)

    def on_step(self, phases: Phases) -> None:
        self.phases.append(phases)

    def on_replay(self, requests: int, revision: int) -> None:
        self.replayed.append((requests, revision))

    def on_expire(self, rows: int, revision: int) -> None:
        self.expired.append((rows, revision))


def test_an_observer_is_told_who_asked_what_and_how_long_each_part_took() -> None:
    listener = Listener()
    with Stepped(trace=listener) as table:
        peer, bridge = table.zmq(), table.tcp()
        table.call(peer, "insert", "a", 1)
        bridge.send(b'{"method": "lookup", "key": "a"}\nrubbish\n')
        table.lines(bridge, 2)
        assert [found.arrival.transport for found in listener.executed] == [table.router, table.bridge]
        insert, lookup = listener.executed
        assert insert.arrival.peer != lookup.arrival.peer and insert.request.writes and not lookup.request.writes
        assert (insert.revision_before, insert.revision_after, insert.reply.revision) == (0, 1, 1)
        for found in listener.executed:
            assert found.received_ns <= found.began_ns <= found.ended_ns
        (commit,) = listener.commits
        assert (commit.requests, commit.bytes) == (1, len(table.log.groups[0]))
        assert commit.append_ns >= 0 and commit.sync_ns >= 0
        assert sum(phases.requests for phases in listener.phases) == 3, "refused ones, too"
        assert all(part >= 0 for phases in listener.phases for part in phases)
        assert listener.phases[0].commit_ns == commit.append_ns + commit.sync_ns


def test_an_observer_is_told_of_rows_that_expire_and_not_of_retries() -> None:
    listener = Listener()
    with Stepped(trace=listener) as table:
        peer = table.zmq()
        peer.session = bytes(16)
        table.call(peer, "open")
        table.call(peer, "insert", "a", 1, 5.0)
        peer.seq = 1
        table.call(peer, "insert", "a", 1, 5.0)
        assert len(listener.executed) == 2 and len(listener.commits) == 2
        table.now_us += 10_000_000
        table.until(lambda: listener.expired)
        assert listener.expired == [(1, 2)] and listener.commits[2].requests == 0


def test_an_observer_is_told_what_others_have_appended() -> None:
    listener, shared = Listener(), SharedGroups()
    with Stepped(trace=listener, log=SharedLog(shared)) as table, Stepped(log=SharedLog(shared)) as other:
        other.call(other.zmq(), "insert", "a", 1)
        table.until(lambda: listener.replayed)
        assert listener.replayed == [(1, 1)] and not listener.commits and not listener.executed


def test_nothing_is_timed_when_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when the clock was asked for each commit all the same."""
    with Stepped() as table:
        peer = table.zmq()
        table.call(peer, "size")
        asked: list[int] = []
        monkeypatch.setattr("time.perf_counter_ns", noting(lambda: asked.append(1), lambda: 0))
        table.call(peer, "insert", "a", 1)
        table.call(peer, "lookup", "a")
        assert not asked
