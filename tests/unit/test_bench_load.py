"""What the measuring of `kvzmq bench` makes of latencies and of replies."""

from __future__ import annotations

import math
from collections import Counter, deque
from types import SimpleNamespace
from typing import Any

import pytest

from kvzmq import errors
from kvzmq.bench import load
from kvzmq.protocol import msgpack
from kvzmq.protocol.messages import Reply


def test_percentiles_are_values_that_occurred() -> None:
    ordered = list(range(1, 1001))
    assert [load.percentile(ordered, percent) for percent in (50, 99, 99.9, 100)] == [500, 990, 999, 1000]


def test_a_high_percentile_of_few_values_is_the_greatest() -> None:
    assert load.percentile([1, 2, 3], 99.9) == 3
    assert load.percentile([7], 50) == 7


def test_a_summary_is_in_milliseconds() -> None:
    summary = load.summarize([3_000_000, 1_000_000, 2_000_000])
    assert (summary.mean_ms, summary.min_ms, summary.p50_ms, summary.max_ms) == (2.0, 1.0, 2.0, 3.0)


def test_a_summary_of_nothing_is_not_a_number() -> None:
    assert all(map(math.isnan, load.summarize([])))


def connection(answered: int = 0) -> Any:
    return SimpleNamespace(answered=answered, sent=deque([(123, 2)]))


def test_failed_operations_are_counted_by_their_code() -> None:
    failed: Counter[int] = Counter()
    frame = msgpack.encode_reply(Reply(1, 5, msgpack.encode_results([(errors.OK, None), (1, "no key")])))
    assert load._receive(connection(), frame, failed) == (123, 2)
    assert failed == {1: 1}


def test_another_requests_reply_is_refused() -> None:
    frame = msgpack.encode_reply(Reply(1, 5, msgpack.encode_results([(errors.OK, None)])))
    with pytest.raises(load.BadReply, match="reply to request 1, where 8 was expected"):
        load._receive(connection(answered=7), frame, Counter())


def test_what_is_no_reply_is_refused() -> None:
    with pytest.raises(load.BadReply):
        load._receive(connection(), b"\xc1", Counter())
