"""Sessions: what is kept, what is dropped, and that nothing dropped is ever executed again."""

from __future__ import annotations

from random import Random

import pytest
from support.wire import results_of
from support.witness import copy_of, dump_of, raw, request

from kvzmq import errors
from kvzmq.protocol import messages, msgpack, operations
from kvzmq.protocol.messages import Reply
from kvzmq.store import sessions
from kvzmq.store.sessions import CachedReply, Sessions
from kvzmq.store.table import Table

A, B, C = (name * 16 for name in (b"a", b"b", b"c"))


def code(reply: Reply) -> int:
    found = results_of(reply)[0][0]
    assert isinstance(found, int)
    return found


def increment(session: bytes, seq: int) -> messages.Request:
    return request(session, seq, operations.Increment("n"))


def test_a_retry_gets_the_first_result_and_changes_nothing() -> None:
    """Guarantee 5. Turned red by not keeping results."""
    table = Table()
    first = [table.execute(increment(A, seq)) for seq in (1, 2, 3)]
    before = dump_of(table)
    assert [table.execute(increment(A, seq)) for seq in (3, 1, 2)] == [first[2], first[0], first[1]]
    assert dump_of(table) == before


def test_an_error_is_kept_as_well() -> None:
    table = Table()
    remove = request(A, 1, operations.Remove("k"))
    assert code(table.execute(remove)) == errors.NoSuchKey.code
    table.execute(request(None, 1, operations.Insert("k", raw(1))))
    assert code(table.execute(remove)) == errors.NoSuchKey.code
    assert "k" in table.rows


def test_a_number_may_not_be_used_twice() -> None:
    table = Table()
    table.execute(increment(A, 1))
    assert code(table.execute(request(A, 1, operations.Increment("n", 2)))) == errors.SequenceReused.code
    assert msgpack.decode_value(table.rows["n"]) == 1


def test_reads_are_executed_anew_and_not_kept() -> None:
    table = Table()
    table.execute(increment(A, 1))
    size = request(A, 2, operations.Size())
    table.execute(size)
    table.execute(increment(A, 2))
    assert len(next(iter(table.sessions.dump()))[2]) == 2


def test_numbers_below_the_floor_are_refused_not_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 5. Turned red by a floor that is ignored."""
    monkeypatch.setattr(sessions, "CACHED_REPLIES_MAX", 4)
    table = Table()
    for seq in range(1, 11):
        table.execute(increment(A, seq))
    for turn in range(2):
        for seq in range(1, 7):
            assert code(table.execute(increment(A, seq))) == errors.SessionExpired.code, turn
        assert [code(table.execute(increment(A, seq))) for seq in range(7, 11)] == [0] * 4
        assert msgpack.decode_value(table.rows["n"]) == 10
        table = copy_of(table)


def test_numbers_may_come_in_any_order_above_the_floor() -> None:
    table = Table()
    for seq in (1, 5, 3, 9):
        assert code(table.execute(increment(A, seq))) == 0
    for seq in (9, 3, 5, 1):
        table.execute(increment(A, seq))
    assert msgpack.decode_value(table.rows["n"]) == 4


def test_an_unknown_session_begins_with_number_1_or_not_at_all() -> None:
    table = Table()
    assert code(table.execute(increment(A, 2))) == errors.SessionExpired.code
    assert code(table.execute(increment(A, 1))) == 0
    assert code(table.execute(increment(A, 2))) == 0


def test_the_session_longest_silent_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 9. Turned red by dropping the newest."""
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 2)
    table = Table()
    for session, seq in ((A, 1), (B, 1), (A, 2), (C, 1)):
        table.execute(increment(session, seq))
    assert len(table.sessions) == 2
    assert code(table.execute(increment(B, 2))) == errors.SessionExpired.code
    assert code(table.execute(increment(A, 3))) == 0
    assert code(copy_of(table).execute(increment(B, 2))) == errors.SessionExpired.code


def test_the_order_of_silence_survives_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 2)
    table = Table()
    for session, seq in ((A, 1), (B, 1), (A, 2)):
        table.execute(increment(session, seq))
    table = copy_of(table)
    table.execute(increment(C, 1))
    assert code(table.execute(increment(A, 3))) == 0


def test_results_are_bounded_in_bytes_but_the_latest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 9. Turned red by bounding the number alone."""
    monkeypatch.setattr(sessions, "CACHED_BYTES_MAX", 10_000)
    kept = Sessions()
    for seq in range(1, 20):
        kept.add(A, seq, CachedReply(0, seq, b"x" * 3000))
    ((_, floor, results),) = kept.dump()
    assert len(results) == 2 and floor == 17
    kept.add(A, 20, CachedReply(0, 20, b"x" * 50_000))
    ((_, floor, results),) = kept.dump()
    assert [result[0] for result in results] == [20] and floor == 19


def test_all_sessions_together_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 9. Turned red by bounding each session alone."""
    monkeypatch.setattr(sessions, "ALL_CACHED_BYTES_MAX", 10_000)
    kept = Sessions()
    for number in range(100):
        kept.add(number.to_bytes(16, "big"), 1, CachedReply(0, 1, b"x" * 1000))
        assert kept.bytes <= 10_000
    assert len(kept) == 10_000 // (1000 + sessions._SESSION_BYTES + sessions._REPLY_BYTES)


def test_the_count_of_bytes_is_exact_whatever_comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 5)
    monkeypatch.setattr(sessions, "CACHED_REPLIES_MAX", 3)
    monkeypatch.setattr(sessions, "CACHED_BYTES_MAX", 3000)
    monkeypatch.setattr(sessions, "ALL_CACHED_BYTES_MAX", 9000)
    random = Random(1)
    kept = Sessions()
    for seq in range(1, 3000):
        kept.add(bytes([random.randrange(8)]) * 16, seq, CachedReply(0, seq, bytes(random.randrange(2000))))
        if seq % 100 == 0:
            loaded = Sessions()
            loaded.load(list(kept.dump()))
            assert loaded.bytes == kept.bytes and list(loaded.dump()) == list(kept.dump())
            kept = loaded
