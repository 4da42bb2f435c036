"""Watches: events in order, resumption, and watchers that lag, leave or ask for too much."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from stepped import Stepped, ZmqPeer

from kvzmq import errors, watches
from kvzmq.store import history
from kvzmq.transport import router


@pytest.fixture
def table() -> Iterator[Stepped]:
    with Stepped() as table:
        yield table


def changes(table: Stepped, peer: ZmqPeer, count: int) -> list[Any]:
    """Return `count` events as `(revision, key, value)`."""
    found = []
    for seq, revision, (_, code, payload) in table.events(peer, count):
        assert (seq, code) == (0, 0)
        key, value = payload
        found.append((revision, key, *value))
    return found


def test_a_watch_tells_every_change_of_its_prefix_in_order_and_no_other(table: Stepped) -> None:
    watcher, writer = table.zmq(), table.zmq()
    assert table.call(watcher, "watch", "a/") == (0, 1)
    table.call(writer, "insert", "a/1", 1)
    table.call(writer, "insert_many", {"a/2": 2, "b/1": 3, "a/3": 4})
    table.call(writer, "remove", "a/2")
    table.call(writer, "transaction", [], [["insert", "a/4", 5], ["remove", "a/1"]])
    assert changes(table, watcher, 6) == [
        (1, "a/1", 1), (2, "a/2", 2), (4, "a/3", 4), (5, "a/2"), (6, "a/4", 5), (7, "a/1"),
    ]  # fmt: skip
    table.settle()
    assert watcher.replies() == []


def test_events_come_after_the_reply_that_began_the_watch_and_never_before_their_change_is_committed(table: Stepped) -> None:
    watcher = table.zmq()
    watcher.send(["insert", "a", 1])
    watcher.send(["watch", "", 0])
    watcher.send(["insert", "b", 2])
    table.gather(3)
    received = table.replies(watcher, 5)
    assert [message[0] for message in received] == [1, 2, 3, 0, 0]
    assert received[1][2] == [[0, 1]]


def test_a_transaction_that_failed_tells_nothing(table: Stepped) -> None:
    watcher = table.zmq()
    table.call(watcher, "watch")
    assert table.call(watcher, "transaction", [], [["insert", "a", 1], ["remove", "ghost"]])[0] == errors.NoSuchKey.code
    table.settle()
    assert watcher.replies() == []


def test_expired_rows_are_told_as_removed(table: Stepped) -> None:
    watcher = table.zmq()
    table.call(watcher, "watch")
    table.call(watcher, "insert", "brief", 1, 1.0)
    assert changes(table, watcher, 1) == [(1, "brief", 1)]
    table.now_us += 1_000_000
    assert changes(table, watcher, 1) == [(2, "brief")]


def test_a_watch_from_a_revision_tells_what_came_after_it(table: Stepped) -> None:
    writer = table.zmq()
    for number in range(1, 11):
        table.call(writer, "insert", f"k{number}", number)
    watcher = table.zmq()
    assert table.call(watcher, "watch", "", 7) == (0, 1)
    assert changes(table, watcher, 3) == [(8, "k8", 8), (9, "k9", 9), (10, "k10", 10)]
    other = table.zmq()
    assert table.call(other, "watch", "k1", 0) == (0, 2)
    assert changes(table, other, 2) == [(1, "k1", 1), (10, "k10", 10)]


def test_history_that_is_gone_or_still_to_come_is_refused(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "CHANGES_KEPT", 4)
    monkeypatch.setattr(history, "CHUNK_CHANGES", 1)
    peer = table.zmq()
    for number in range(10):
        table.call(peer, "insert", "k", number)
    assert table.call(peer, "watch", "", 4)[0] == errors.RevisionGone.code
    assert table.call(peer, "watch", "", 11)[0] == errors.RevisionGone.code
    assert table.call(peer, "watch", "", 5) == (0, 1)
    assert [revision for revision, *_ in changes(table, peer, 5)] == [6, 7, 8, 9, 10]


def test_a_query_watch_tells_rows_that_enter_change_within_and_leave_its_matches(table: Stepped) -> None:
    peer = table.zmq()
    table.call(peer, "insert", "before", {"name": "fred"})
    assert table.call(peer, "watch_query", "name", "fred") == (0, 1)
    table.call(peer, "insert", "a", {"name": "fred", "n": 1})
    table.call(peer, "insert", "b", {"name": "mary"})
    table.call(peer, "insert", "a", {"name": "fred", "n": 2})
    table.call(peer, "insert", "a", {"name": "mary"})
    table.call(peer, "insert", "a", [1])
    table.call(peer, "remove", "before")
    assert changes(table, peer, 4) == [
        (2, "a", {"name": "fred", "n": 1}), (4, "a", {"name": "fred", "n": 2}), (5, "a"), (7, "before"),
    ]  # fmt: skip
    table.settle()
    assert peer.replies() == []


def test_unwatch_ends_ones_own_watch_alone(table: Stepped) -> None:
    peer, other = table.zmq(), table.zmq()
    assert table.call(peer, "watch") == (0, 1)
    assert table.call(other, "unwatch", 1) == (0, None)
    assert len(table.server.dispatcher.watches) == 1
    assert table.call(peer, "unwatch", 1) == (0, None)
    assert table.call(peer, "unwatch", 1) == (0, None)
    table.call(other, "insert", "a", 1)
    table.settle()
    assert peer.replies() == [] and len(table.server.dispatcher.watches) == 0


def test_the_watch_of_a_peer_that_has_gone_ends_at_the_next_change(table: Stepped) -> None:
    peer, writer = table.zmq(), table.zmq()
    table.call(peer, "watch")
    peer.close()
    table.until(lambda: (table.call(writer, "increment", "n"), not len(table.server.dispatcher.watches))[1])
    assert table.call(writer, "size") == (0, 1)


def test_watches_of_peers_that_have_gone_do_not_pile_up_where_nothing_changes(table: Stepped) -> None:
    """Red without signs of life: after 10,000 clients that watched an idle prefix nobody could watch any more."""
    peer, idle = table.zmq(), table.zmq()
    for _ in range(10):
        table.call(peer, "watch", "idle/")
    table.call(idle, "watch", "idle/")
    table.settle()
    peer.close()
    table.settle()
    assert len(table.server.dispatcher.watches) == 11

    def ended() -> bool:
        table.now_us += int(watches.QUIET_S * 1e6)
        table.step()
        return len(table.server.dispatcher.watches) == 1

    table.until(ended)
    assert table.events(idle, 1) == [[0, 0, None]]


def test_who_has_heard_an_event_gets_no_sign_of_life(table: Stepped) -> None:
    peer = table.zmq()
    table.call(peer, "watch")
    table.settle()
    peer.replies()
    table.call(peer, "insert", "a", 1)
    assert len(changes(table, peer, 1)) == 1
    table.now_us += int(watches.QUIET_S * 1e6)
    table.settle()
    assert peer.replies() == peer.events == []


def test_a_watcher_that_lags_is_caught_up_with_later_and_misses_nothing(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when an event without room at its peer was skipped."""
    monkeypatch.setattr(router, "UNSENT_BYTES_MAX", 1 << 20)
    writer = table.zmq()
    watcher = table.zmq(rcvhwm=1, rcvbuf=65_536)
    table.call(watcher, "watch")
    for number in range(400):
        table.call(writer, "insert", f"k{number}", "x" * 50_000)
    assert table.server.dispatcher.watches.behind
    assert table.server._wait_ms(1.0) <= 20, "it has to try again soon"
    for _ in range(10):
        table.server.step(0)
    assert table.server._wait_ms(1.0) == 20, "but not all the time while there is no room"
    revisions = [revision for revision, *_ in changes(table, watcher, 400)]
    assert revisions == list(range(1, 401))
    table.settle()
    assert not table.server.dispatcher.watches.behind


def test_a_watcher_that_lags_too_far_is_told_so_and_its_watch_ends(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "CHANGES_KEPT", 100)
    monkeypatch.setattr(router, "UNSENT_BYTES_MAX", 1 << 20)
    writer = table.zmq()
    watcher = table.zmq(rcvhwm=1, rcvbuf=65_536)
    table.call(watcher, "watch")
    for number in range(400):
        table.call(writer, "insert", f"k{number}", "x" * 50_000)
    events: list[Any] = []
    table.until(lambda: (events.extend(watcher.replies()), events and events[-1][2][1] == errors.RevisionGone.code)[1])
    revisions = [revision for _, revision, _ in events[:-1]]
    assert revisions == list(range(1, len(revisions) + 1)), "up to there nothing is missing"
    assert events[-1][1] == revisions[-1], "and it says where that is"
    assert len(table.server.dispatcher.watches) == 0


def test_the_number_of_watches_is_bounded_for_one_peer_and_for_all(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "WATCHES_OF_ONE_MAX", 3)
    monkeypatch.setattr(watches, "WATCHES_MAX", 5)
    first, second = table.zmq(), table.zmq()
    assert [table.call(first, "watch")[0] for _ in range(4)] == [0, 0, 0, errors.ResultTooLarge.code]
    assert [table.call(second, "watch")[0] for _ in range(3)] == [0, 0, errors.ResultTooLarge.code]
    table.call(first, "unwatch", 1)
    assert table.call(second, "watch")[0] == 0


class Walked(deque[Any]):
    """A deque that counts the items it is asked for."""

    count = 0

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            self.count += 1
            yield item

    def __reversed__(self) -> Iterator[Any]:
        for item in super().__reversed__():
            self.count += 1
            yield item


class Sliced(list[Any]):
    """A list that counts the items of its slices."""

    count = 0

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        self.count += len(found)
        return found


def test_many_watchers_cost_a_step_only_what_is_new(table: Stepped) -> None:
    """Red when every watcher walked the whole history to reach its end: 0.4 ms each."""
    peer = table.zmq(rcvhwm=0)
    table.call(peer, "insert_many", {f"k{number}": number for number in range(10_000)})
    for _ in range(100):
        table.call(peer, "watch", "other/")
    kept = table.server.store.table.history
    walked = kept._chunks = Walked(kept._chunks)
    sliced = kept._open.keys = Sliced(kept._open.keys)
    assert len(walked) > 8 and len(sliced) > 700
    for _ in range(5):
        table.call(peer, "insert", "k", 1)
    assert 5 * 100 <= walked.count < 5 * 100 * 4
    assert 5 * 100 <= sliced.count < 5 * 100 * 4
