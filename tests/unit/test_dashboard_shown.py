"""What the dashboard makes of keys, values, histories and requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kvzmq.catalog.announce import TABLE_TYPES
from kvzmq.dashboard import charts, lanes
from kvzmq.dashboard.lanes import REQUESTS_MAX, Picture, of_records, of_text
from kvzmq.dashboard.servers import Listed, compare
from kvzmq.dashboard.shown import kind_of, printable, text_of
from kvzmq.protocol.monitoring import MonitoredRequest, NamedOperation
from kvzmq.tracing.interleaving import BadTraceLine

# ---- values


@pytest.mark.parametrize(
    ("value", "text", "kind"),
    [
        (None, "null", "null"),
        (True, "true", "boolean"),
        (2**64 - 1, "18446744073709551615", "number"),
        ('a"b\n', '"a\\"b\\n"', "text"),
        (b"\x00\xff", "<2 bytes 00 ff>", "2 bytes"),
        (b"", "<0 bytes>", "0 bytes"),
        ([], "[]", "list of 0"),
        ({"a": [1, {"b": b"\x01"}]}, '{"a": [1, {"b": <1 byte 01>}]}', "map of 1"),
    ],
)
def test_a_value_is_shown_as_text(value: Any, text: str, kind: str) -> None:
    assert text_of(value) == (text, True)
    assert kind_of(value) == kind


def test_a_value_is_indented_where_there_is_room() -> None:
    assert text_of({"a": [1], "b": {}}, 1000, indent=True) == ('{\n  "a": [\n    1\n  ],\n  "b": {}\n}', True)


@pytest.mark.parametrize(
    "value", ["x" * 10_000, b"x" * 10_000, list(range(10_000)), {str(n): n for n in range(10_000)}]
)
def test_what_is_long_is_cut_and_says_so(value: Any) -> None:
    """Seen red without a limit."""
    text, whole = text_of(value, 100)
    assert len(text) == 101 and text.endswith("…") and not whole


def test_what_cannot_be_seen_is_escaped() -> None:
    """Text that runs from right to left could show a key as another one. Seen red without."""
    assert printable("abc\u202edef\x00") == "abc\\u202edef\\u0000"
    assert text_of("\u202e")[0] == '"\\u202e"'
    assert printable("<script>é漢") == "<script>é漢"


# ---- lanes


def record(step: int, client: str, at_s: float, before: int, after: int, **more: Any) -> MonitoredRequest:
    fields: dict[str, Any] = {
        "step": step, "received_us": 0, "received_s": at_s, "client": client, "transport": "router",
        "operations": [NamedOperation("insert", "k")], "operation_count": 1, "code": 0, "revision_before": before,
        "revision_after": after, "request_bytes": 1, "reply_bytes": 1, "queued_s": 1e-5, "executed_s": 1e-5,
        "synced_s": 1e-3, "sent_s": 1e-4, "step_began_s": 1.0, "step_ended_s": 1.002, "sync_began_s": 1.0005,
        "sync_ended_s": 1.001,
    }  # fmt: skip
    return MonitoredRequest(**(fields | more))


def test_a_sample_becomes_lanes_bars_and_steps() -> None:
    picture = of_records(
        [record(5, "a", 1.0, 10, 11), record(5, "b", 1.00002, 11, 12), record(6, "a", 1.00005, 12, 12)]
    )
    assert picture.lanes == ["a", "b"] and (len(picture.steps), picture.shared_steps) == (2, 1)
    bar = picture.bars[1]
    assert (bar.lane, bar.step, bar.operation, bar.key, bar.changes, bar.revision) == (1, 5, "insert", "k", 1, 12)
    assert (bar.arrived_us, bar.began_us, bar.ended_us, bar.synced_us, bar.sent_us) == (
        20.0,
        30.0,
        40.0,
        1040.0,
        1140.0,
    )
    assert msgspec.to_builtins(picture.steps[0]) == [5, 0.0, 2000.0, 500.0, 1000.0]
    assert picture.fault is None


def test_requests_that_did_not_execute_alone_are_noticed() -> None:
    """Seen red with a picture that never looks."""
    overlapping = of_records([record(5, "a", 1.0, 10, 11), record(5, "b", 1.000005, 11, 12)])
    assert overlapping.fault is not None and "began before" in overlapping.fault
    mixed = of_records([record(5, "a", 1.0, 10, 11), record(5, "b", 1.00002, 10, 12)])
    assert mixed.fault is not None and "revision 11" in mixed.fault
    with_a_gap = of_records([record(5, "a", 1.0, 10, 11), record(5, "b", 1.00002, 20, 21, dropped=9)])
    assert with_a_gap.fault is None, "what was dropped proves nothing"


def test_a_request_of_several_operations_and_one_that_failed_are_told() -> None:
    many = record(5, "a", 1.0, 1, 1, operations=[NamedOperation("lookup", None)], operation_count=4, code=1)
    (bar,) = of_records([many]).bars
    assert (bar.operation, bar.key, bar.error) == ("lookup and 3 more", None, "NoSuchKey")


def test_an_empty_sample_is_an_empty_picture() -> None:
    assert of_records([]) == Picture("live", [], [], [], 0)


TRACE = "# step\n" + "".join(
    f"{number // 2}\t{number}\tzmq:{number % 2}\tinsert\t\"key{number}\"\t1\t{number * 50.0}\t20.0\n"
    for number in range(1, 5000)
)  # fmt: skip


def test_a_trace_is_drawn_from_a_step_on() -> None:
    """Seen red with the first requests whatever step was asked for."""
    picture = of_text(TRACE.splitlines(keepends=True), "trace", first_step=100)
    assert (picture.bars[0].step, len(picture.bars), picture.more) == (100, REQUESTS_MAX, True)
    assert picture.bars[0].began_us == 0.0 and picture.bars[0].arrived_us is None and picture.bars[0].key == "key200"
    assert picture.lanes == ["zmq:0", "zmq:1"] and picture.fault is None


def test_the_latest_of_a_trace_are_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "trace.tsv"
    file.write_text(TRACE)
    monkeypatch.setattr(lanes, "TRACE_BYTES_MAX", 10_000)
    picture = of_text(lanes._end_of(file), "trace", None, latest=True)
    assert picture.bars[-1].revision == 4999 and 100 < len(picture.bars) < 400, "of the last 10,000 bytes"


def test_what_is_no_trace_is_refused() -> None:
    with pytest.raises(BadTraceLine):
        of_text(["not a trace\n", "at all\n"], "file")


# ---- servers, charts


def listed(url: str, lineage: str, revision: int, asked: bool = True) -> Listed:
    return Listed("p", url, "", lineage, "", revision, 0, 0, 1.0, asked)


def test_a_server_is_behind_those_of_its_own_table() -> None:
    """And only by what they say themselves: what is announced is up to a minute old."""
    servers = [listed("a", "t1", 100), listed("b", "t1", 90), listed("c", "t2", 7), listed("d", "t1", 500, asked=False)]
    compare(servers)
    assert [server.lag for server in servers] == [0, 10, None, None]
    assert TABLE_TYPES


def test_the_charting_library_is_where_it_is_expected() -> None:
    assert (charts.directory() / charts.ENTRY).is_file()


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "find_spec", lambda name: None)
    with pytest.raises(charts.NoCharts, match=r"pip install 'kvzmq\[web\]'"):
        charts.directory()
