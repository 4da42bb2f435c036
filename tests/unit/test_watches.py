"""Watches: events in order, resumption, and watchers that lag, leave or ask for too much."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from support.calls import noting
from support.stepped import Stepped, ZmqPeer

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.protocol.limits import HEARTBEAT_S, SILENCE_S_MAX
from kvzmq.server import watches
from kvzmq.server.transport import router_replies
from kvzmq.store import history


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


def test_events_come_after_the_reply_that_began_the_watch_and_never_before_their_change_is_committed(
    table: Stepped,
) -> None:
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
    assert table.call(peer, "watch", "", 5)[0] == errors.RevisionGone.code
    assert table.call(peer, "watch", "", 11)[0] == errors.RevisionGone.code
    assert table.call(peer, "watch", "", 6) == (0, 1)
    assert [revision for revision, *_ in changes(table, peer, 4)] == [7, 8, 9, 10]


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
    """Red without heartbeats: after 10,000 clients that watched an idle prefix nobody could watch any more."""
    peer, idle = table.zmq(), table.zmq()
    for _ in range(10):
        table.call(peer, "watch", "idle/")
    table.call(idle, "watch", "idle/")
    table.settle()
    peer.close()
    table.settle()
    assert len(table.server.dispatcher.watches) == 11

    def ended() -> bool:
        table.now_s += HEARTBEAT_S
        table.step()
        return len(table.server.dispatcher.watches) == 1

    table.until(ended)
    assert table.events(idle, 1) == [[0, 0, None]]


def test_who_has_heard_an_event_gets_no_heartbeat(table: Stepped) -> None:
    peer = table.zmq()
    table.call(peer, "watch")
    table.settle()
    peer.replies()
    table.now_s += HEARTBEAT_S - 0.1
    table.call(peer, "insert", "a", 1)
    assert len(changes(table, peer, 1)) == 1
    table.now_s += HEARTBEAT_S - 0.1
    table.settle()
    assert peer.replies() == peer.events == []


def test_a_watcher_that_lags_is_caught_up_with_later_and_misses_nothing(
    table: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when an event without room at its peer was skipped."""
    monkeypatch.setattr(router_replies, "UNSENT_BYTES_MAX", 1 << 20)
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


def test_a_watcher_that_lags_too_far_is_told_so_and_its_watch_ends(
    table: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "CHANGES_KEPT", 100)
    monkeypatch.setattr(history, "CHANGES_KEPT_MAX", 100)
    monkeypatch.setattr(router_replies, "UNSENT_BYTES_MAX", 1 << 20)
    writer = table.zmq()
    watcher = table.zmq(rcvhwm=1, rcvbuf=65_536)
    table.call(watcher, "watch")
    for number in range(400):
        table.call(writer, "insert", f"k{number}", "x" * 50_000)
    events: list[Any] = []
    table.until(
        lambda: events and events[-1][2][1] == errors.RevisionGone.code,
        first=lambda: events.extend(watcher.replies()),
    )
    revisions = [revision for _, revision, _ in events[:-1]]
    assert revisions == list(range(1, len(revisions) + 1)), "up to there nothing is missing"
    assert events[-1][1] == revisions[-1], "and it says where that is"
    assert len(table.server.dispatcher.watches) == 0


def test_the_number_of_watches_is_bounded_for_one_peer_and_for_all(
    table: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "WATCHES_OF_ONE_MAX", 3)
    monkeypatch.setattr(watches, "WATCHES_MAX", 5)
    first, second = table.zmq(), table.zmq()
    assert [table.call(first, "watch")[0] for _ in range(4)] == [0, 0, 0, errors.ResultTooLarge.code]
    assert [table.call(second, "watch")[0] for _ in range(3)] == [0, 0, errors.ResultTooLarge.code]
    table.call(first, "unwatch", 1)
    assert table.call(second, "watch")[0] == 0


class Walked(deque[Any]):
    """A deque that counts the items it is asked for."""

    count = 0  # type: ignore[assignment]

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

    count = 0  # type: ignore[assignment]

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
    assert 5 <= walked.count < 5 * 8, "those at the same place walk together"
    assert 5 <= sliced.count < 5 * 100 * 4


# ---- where a request ends, and how far a watch has come


def events_of(table: Stepped, peer: ZmqPeer, count: int) -> list[Any]:
    """Return `count` events as `(revision, payload, more)`."""
    return [(revision, payload, bool(more)) for _, revision, (_, _, payload, *more) in table.events(peer, count)]


def test_the_events_of_one_request_say_that_others_follow(table: Stepped) -> None:
    """Red when a follower was shown half a request, or was never told that it had all of it."""
    watcher, writer = table.zmq(), table.zmq()
    assert table.call(watcher, "watch", "a/", None, None)[0] == 0
    table.call(writer, "insert", "a/0", 0)
    table.call(writer, "insert_many", {"a/1": 1, "b/1": 1, "a/2": 2})
    table.call(writer, "insert_many", {"a/3": 3, "b/2": 2})
    table.call(writer, "transaction", [], [["insert", "a/4", 4], ["remove", "a/1"]])
    assert events_of(table, watcher, 7) == [
        (1, ["a/0", [0]], False),
        (2, ["a/1", [1]], True), (4, ["a/2", [2]], False),
        (5, ["a/3", [3]], True), (6, None, False),
        (7, ["a/4", [4]], True), (8, ["a/1", []], False),
    ]  # fmt: skip


def test_several_operations_of_one_message_are_one_request(table: Stepped) -> None:
    watcher = table.zmq()
    table.call(watcher, "watch", "", None, None)
    watcher.send(["insert", "a", 1], ["lookup", "a"], ["increment", "n"])
    table.settle()
    assert [more for _, _, more in events_of(table, watcher, 3)[1:]] == [True, False]


def test_a_watch_from_within_a_request_goes_on_with_the_rest_of_it(table: Stepped) -> None:
    peer = table.zmq()
    table.call(peer, "insert_many", {"a": 1, "b": 2, "c": 3})
    table.call(peer, "watch", "", 1, None)
    assert events_of(table, peer, 2) == [(2, ["b", [2]], True), (3, ["c", [3]], False)]


def test_progress_is_told_when_everything_before_it_was(table: Stepped) -> None:
    """Red when the answer overtook events that still waited for room at the peer."""
    watcher, writer = table.zmq(), table.zmq()
    table.call(watcher, "watch", "a/")
    table.call(writer, "insert", "a/1", 1)
    table.call(writer, "insert", "b/1", 1)
    assert table.call(watcher, "progress", 1) == (0, True)
    assert events_of(table, watcher, 2) == [(1, ["a/1", [1]], False), (2, None, False)]
    assert table.call(watcher, "progress", 1) == (0, True)
    assert events_of(table, watcher, 1) == [(2, None, False)], "also when nothing has changed"
    assert table.call(watcher, "progress", 7) == (0, False)
    assert table.call(writer, "progress", 1) == (0, False), "a watch of somebody else"


# ---- heartbeats


def hello(table: Stepped, peer: ZmqPeer, heartbeat_s: float) -> None:
    """Promise heartbeats and watch, in one request."""
    peer.send(["hello", {"heartbeat_s": heartbeat_s}], ["watch", "idle/"])
    (reply,) = table.replies(peer)
    assert [code for code, _ in reply[2]] == [0, 0]


def test_the_watch_of_who_breaks_the_promise_of_heartbeats_ends_and_says_so(table: Stepped) -> None:
    """Red without it: a stopped process keeps its watches for as long as its connection stands."""
    silent, talking, old = table.zmq(), table.zmq(), table.zmq()
    hello(table, silent, HEARTBEAT_S)
    hello(table, talking, HEARTBEAT_S)
    table.call(old, "watch", "idle/")
    for _ in range(4):
        table.now_s += SILENCE_S_MAX / 3.5
        table.call(talking, "ping")
    table.until(lambda: len(table.server.dispatcher.watches) == 2)
    heard: list[Any] = []
    table.until(lambda: any(event[2] is not None for event in heard), first=lambda: heard.extend(silent.replies()))
    assert [event[2][:2] for event in heard if event[2] is not None] == [[1, errors.WatchIdle.code]]
    table.now_s += SILENCE_S_MAX * 2
    table.until(lambda: len(table.server.dispatcher.watches) == 1)


def test_a_promise_without_a_watch_is_not_remembered(table: Stepped) -> None:
    peer = table.zmq()
    assert table.call(peer, "hello", {"heartbeat_s": 5})[0] == 0
    assert not table.server.dispatcher.watches._peers


def test_hello_tells_what_a_client_has_to_know(table: Stepped) -> None:
    peer = table.zmq()
    table.call(peer, "insert", "a", 1)
    code, told = table.call(peer, "hello")
    assert code == 0
    assert set(told) == {
        "version",
        "lineage",
        "epoch",
        "revision",
        "request_bytes_max",
        "heartbeat_s",
        "seen",
        "shared",
    }
    assert told["revision"] == 1 and told["heartbeat_s"] == HEARTBEAT_S


# ---- what is kept for those who read


def test_a_step_of_any_size_is_told_to_who_was_up_to_date(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when the history was cut while the step was executed: one large request ended every watch."""
    monkeypatch.setattr(history, "CHANGES_KEPT", 1000)
    monkeypatch.setattr(history, "CHANGES_KEPT_MAX", 2000)
    watcher, writer = table.zmq(rcvhwm=0), table.zmq()
    table.call(watcher, "watch")
    table.call(writer, "insert_many", {f"k{number}": number for number in range(20_000)})
    revisions = [revision for revision, *_ in changes(table, watcher, 20_000)]
    assert revisions == list(range(1, 20_001))
    table.call(writer, "insert", "k", 1)
    table.call(writer, "insert", "k", 2)
    assert len(table.server.store.table.history._chunks) <= 3, "and it is let go when all have it"


def test_who_reads_is_caught_up_before_the_history_lets_go(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "CHANGES_KEPT", 1000)
    monkeypatch.setattr(history, "CHANGES_KEPT_MAX", 100_000)
    watcher, writer = table.zmq(rcvhwm=50, rcvbuf=4096), table.zmq()
    table.call(watcher, "watch")
    for part in range(10):
        table.call(writer, "insert_many", {f"k{part}-{number}": number for number in range(1000)})
    assert [revision for revision, *_ in changes(table, watcher, 10_000)] == list(range(1, 10_001))


class TickingClock:
    """A clock that moves on by itself, each time it is looked at."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.001
        return self.now_s


def test_a_step_spends_a_bounded_time_on_watches_and_all_get_their_turn(table: Stepped) -> None:
    """Red without the bound: a thousand watches from far back held everybody up for seconds."""
    clock = TickingClock()
    table.server.dispatcher.watches._clock = clock
    writer = table.zmq()
    table.call(writer, "insert_many", {f"k{number}": number for number in range(3000)})
    peers = [table.zmq(rcvhwm=0) for _ in range(20)]
    for peer in peers:
        table.call(peer, "watch", "none/", 0)
    began_s, steps = clock.now_s, 0
    spent_s = []
    while table.server.dispatcher.watches.behind:
        before_s = clock.now_s
        table.server.dispatcher.watches.pump()
        spent_s.append(clock.now_s - before_s)
        steps += 1
        assert steps < 10_000
    assert steps > 1 and max(spent_s) < 3 * watches.PUMP_S, (began_s, max(spent_s))


def test_a_value_is_decoded_once_for_all_watched_queries(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when each watch decoded every row for itself: a large row times a thousand watches took 12 s."""
    peer = table.zmq(rcvhwm=0)
    for number in range(200):
        table.call(peer, "watch_query", f"s{number % 20}", number)
    decoded: list[bytes] = []
    decode = msgpack.decode_value
    monkeypatch.setattr(msgpack, "decode_value", noting(lambda data: decoded.append(bytes(data)), decode))
    table.call(peer, "insert", "a", {"s0": 0, "s1": 1, "s2": [7]})
    table.call(peer, "insert", "a", {"s0": 1})
    table.settle()
    assert len(decoded) == 1 + 2, "the first value, then the first and the second"


def test_the_end_of_a_request_is_told_to_a_watch_that_goes_on_within_it(table: Stepped) -> None:
    """Seen red: a follower that had lost its connection inside a request waited for the rest of it for ever."""
    peer = table.zmq()
    table.call(peer, "transaction", [], [["insert", "a", 1], ["insert", "b", 1]])
    table.call(peer, "watch", "a", 1, None)
    assert events_of(table, peer, 1) == [(2, None, False)]
    table.call(peer, "watch", "a", 2, None)
    table.settle()
    assert peer.replies() == peer.events == [], "nothing is owed after the end of a request"
