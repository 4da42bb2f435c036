"""Servers on a log that others append to: an idle one hears them, and none hangs while the log cannot tell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.shared_log import SharedGroups, SharedLog
from support.stepped import Stepped

from kvzmq import errors
from kvzmq.server import unknown


@pytest.fixture
def shared() -> SharedGroups:
    return SharedGroups()


@pytest.fixture
def table(shared: SharedGroups) -> Iterator[Stepped]:
    with Stepped(log=SharedLog(shared)) as table:
        yield table


def test_a_watch_at_an_idle_server_sees_what_another_server_writes(shared: SharedGroups, table: Stepped) -> None:
    """Red when the log's descriptor was not in the Poller: the event came with the next request, or never."""
    with Stepped(log=SharedLog(shared)) as other:
        watcher, writer = table.zmq(), other.zmq()
        table.call(watcher, "watch", "")
        table.settle()
        requests = table.server.dispatcher.requests
        assert other.call(writer, "insert", "a", 1) == (0, None)
        assert table.server._poller.poll(60_000), "the append wakes the idle server"
        (event,) = table.events(watcher, 1)
        assert event == [0, 1, [1, 0, ["a", [1]]]]
        assert table.server.dispatcher.requests == requests and table.store.groups == 0
        assert other.call(writer, "size") == table.call(watcher, "size") == (0, 1)


@pytest.mark.parametrize("keeps", [True, False])
def test_while_the_log_cannot_tell_what_needs_it_waits_and_the_rest_is_answered(
    shared: SharedGroups, table: Stepped, keeps: bool
) -> None:
    """Guarantee 11. Red when the step was executed, or answered, before its fate was known."""
    first, second, third = table.zmq(), table.zmq(), table.zmq()
    for peer in (first, second, third):
        table.call(peer, "insert", "n", 0)
    shared.fails, shared.keeps, shared.answers = errors.AppendUnknown, keeps, False
    first.send(["increment", "n"])
    table.until(lambda: shared.fails is None)
    assert table.call(second, "ping") == (0, "pong")
    code, message = table.call(second, "insert", "b", 1)
    assert code == errors.WriteRejected.code and "not applied" in message
    assert table.call(second, "stats")[1]["requests_waiting"] == 1
    second.send(["lookup", "n"])
    first.send(["ping"])
    third.send(["lookup", "n"], ["stats"])
    table.settle()
    assert first.replies() == second.replies() == third.replies() == []
    assert table.server.describe()["requests_waiting"] == 4
    assert table.server._wait_ms(10.0) == 1000 * unknown.RESOLVE_S
    shared.answers = True
    expected = [0, 1] if keeps else errors.WriteRejected.code
    (reply, pong) = table.replies(first, 2)
    assert (reply[2][0] if keeps else reply[2][0][0]) == expected
    assert pong[2] == [[0, "pong"]]
    assert table.replies(second)[0][2] == table.replies(third)[0][2][:1] == [[0, 1 if keeps else 0]]
    assert table.call(second, "increment", "n") == (0, 2 if keeps else 1)


def test_a_copy_of_a_request_of_unknown_fate_is_not_said_to_be_refused(shared: SharedGroups, table: Stepped) -> None:
    """Guarantee 11. Red when the copy was refused as not applied, while the first was in the log."""
    first, second = table.zmq(), table.zmq()
    first.session = second.session = bytes(range(16))
    table.call(first, "open")
    shared.fails, shared.keeps, shared.answers = errors.AppendUnknown, True, False
    first.send(["increment", "n"])
    table.until(lambda: shared.fails is None)
    second.seq = 1
    second.send(["increment", "n"])
    table.settle()
    assert second.replies() == []
    shared.answers = True
    assert table.replies(first)[0][2] == table.replies(second)[0][2] == [[0, 1]]
    assert shared.last == 2


def test_what_waits_for_the_log_is_bounded(
    shared: SharedGroups, table: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guarantee 9."""
    monkeypatch.setattr(unknown, "WAITING_MAX", 10)
    peer = table.zmq()
    shared.fails, shared.keeps, shared.answers = errors.AppendUnknown, True, False
    peer.send(["insert", "a", 1])
    table.until(lambda: shared.fails is None)
    for _ in range(20):
        peer.send(["size"])
        table.step()
    table.settle()
    assert table.server.dispatcher.waiting <= 11
    assert table.server._wait_ms(10.0) > 0, "what is not taken in does not keep the loop busy"
    shared.answers = True
    assert [reply[2][0][0] for reply in table.replies(peer, 21)] == [0] * 21


def test_without_group_commit_the_requests_behind_an_unknown_one_wait_for_it(shared: SharedGroups) -> None:
    with Stepped(group_commit=False, log=SharedLog(shared)) as table:
        peer = table.zmq()
        table.call(peer, "size")
        shared.fails, shared.keeps, shared.answers = errors.AppendUnknown, True, False
        for _ in range(3):
            peer.send(["increment", "n"])
        table.gather(3)
        assert shared.last == 1 and peer.replies() == []
        shared.answers = True
        assert [reply[2] for reply in table.replies(peer, 3)] == [[[0, 1]], [[0, 2]], [[0, 3]]]
        assert shared.last == 3
