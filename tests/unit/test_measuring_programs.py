"""The figures of TestPerf and TestOutliers, how copies meet, and what a faulty table looks like to TestBasics."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
import unicodedata
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.fake_table_server import FakeTableServer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients"))

import Figures
import PerfStages
import TestBasics
import TestOutliers
import TestPerf
from PerfStages import NS_PER_S, STAGES, Row, Window, Work
from StageBarrier import CopyFailed, StageBarrier

MS = 1_000_000


# ---- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "percent", "wanted"),
    [
        ([7], 50, 7),
        ([7], 99, 7),
        ([1, 2], 50, 1),
        ([1, 2], 51, 2),
        (range(1, 101), 99, 99),
        (range(1, 102), 99, 100),
    ],
)
def test_a_percentile_is_a_value_that_occurred(values: Any, percent: float, wanted: int) -> None:
    assert Figures.percentile(values, percent) == wanted


def test_latencies_are_summarized_in_milliseconds_whatever_their_order() -> None:
    latency = Figures.summarize([3 * MS, MS, 2 * MS, 10 * MS])
    assert latency == Figures.Latency(min_ms=1, mean_ms=4, p50_ms=2, p99_ms=10, max_ms=10)


def test_no_latencies_are_no_numbers() -> None:
    assert all(math.isnan(figure) for figure in Figures.summarize([]))
    assert Figures.format_ms(math.nan) == Figures.format_rate(math.nan) == "-"


def test_a_table_keeps_columns_apart_and_empty_rows_empty() -> None:
    table = Figures.format_table(["what", "n"], [["insert", "1"], [], ["size", "1,000"]])
    assert table == "what        n\ninsert      1\n\nsize    1,000"


# ---- the window that counts -----------------------------------------------------------------------


def test_the_common_window_is_from_the_last_beginning_to_the_first_end() -> None:
    runs = [{"start_ns": 5, "end_ns": 90}, {"start_ns": 10, "end_ns": 70}, {"start_ns": 0, "end_ns": 100}]
    assert PerfStages.find_common_window(runs) == Window(10, 70)


def test_operations_outside_of_the_window_count_neither_as_done_nor_for_latency() -> None:
    """The tail of the slowest client runs against fewer rivals; seen red when all operations counted."""
    stamps = [0, 10, 30, 60, 100]
    assert list(PerfStages.latencies_within(stamps, Window(10, 60))) == [20, 30]
    assert list(PerfStages.latencies_within(stamps, Window(0, 100))) == [10, 20, 30, 40]


def test_clients_that_never_ran_at_the_same_time_have_no_rate() -> None:
    window = PerfStages.find_common_window([{"start_ns": 0, "end_ns": 10}, {"start_ns": 20, "end_ns": 30}])
    row = PerfStages.make_row("bridge", 2, "size", "1", window, PerfStages.latencies_within([0, 10], window), 1)
    assert (row.operations, row.seconds) == (0, 0) and math.isnan(row.ops_per_s) and row.done == 1


def test_a_rate_is_what_was_counted_over_the_window() -> None:
    row = PerfStages.make_row("bridge", 1, "size", "1", Window(0, NS_PER_S // 2), [MS] * 100, 120)
    assert (row.operations, row.ops_per_s, row.p50_ms, row.done) == (100, 200, 1, 120)
    assert row.end_s - row.start_s == pytest.approx(0.5, abs=1e-3)


def test_a_timed_stage_notes_its_beginning_and_every_end() -> None:
    called: list[tuple[int, ...]] = []
    stamps = PerfStages.time_calls(lambda *args: called.append(args), iter([(1, 2), (3, 4)]), None)
    assert called == [(1, 2), (3, 4)]
    assert len(stamps) == 3 and sorted(stamps) == list(stamps)


def test_a_stage_of_given_length_ends_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 10 * NS_PER_S, NS_PER_S))
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(ticks))
    endless = iter(lambda: (), None)
    assert list(PerfStages.time_calls(lambda: None, endless, 3)) == [0, NS_PER_S, 2 * NS_PER_S, 3 * NS_PER_S]


# ---- the work -------------------------------------------------------------------------------------


def test_each_stage_has_as_many_operations_as_asked_for() -> None:
    work = Work(10)
    for stage in STAGES:
        arguments = list(work.arguments(stage))
        assert len(arguments) == 10
        work.note_done(stage, 10)
    assert work.inserted == work.removed == 10


def test_lookups_and_queries_ask_for_own_rows_only() -> None:
    work = Work(10)
    rows = dict(work.arguments("insert"))
    work.note_done("insert", 10)
    assert {key for (key,) in work.arguments("lookup")} == set(rows)
    assert {name for _, name in work.arguments("query")} == {value["name"] for value in rows.values()}
    assert {key for (key,) in work.arguments("remove")} == set(rows)


def test_a_query_has_few_matches() -> None:
    names = [value["name"] for _, value in Work(40).arguments("insert")]
    assert {names.count(name) for name in names} == {PerfStages.MATCHES}


def test_two_clients_have_no_key_in_common() -> None:
    first, second = (dict(Work(100).arguments("insert")) for _ in range(2))
    assert not first.keys() & second.keys()


class LossyTable(dict[str, Any]):
    """Be a table that does everything, but one thing wrongly."""

    wrong = ""

    def insert(self, key: str, value: Any) -> None:
        self[key] = {} if self.wrong == "lookup" and not key.endswith("warm") else value

    def lookup(self, key: str) -> Any:
        return self[key]

    def size(self) -> int:
        return 0 if self.wrong == "size" else len(self)

    def query(self, subkey: str, subvalue: Any) -> list[Any]:
        return [] if self.wrong == "query" else [(k, v) for k, v in self.items() if v.get(subkey) == subvalue]

    def remove(self, key: str) -> None:
        del self[key]

    def close(self) -> None:
        pass


def run_alone(table: LossyTable, seconds: float | None = None) -> list[Row]:
    barrier = StageBarrier(None, 1, "1")
    items = None if seconds else 10
    return PerfStages.run_client(table, barrier, transport="bridge", client="1", items=items, seconds=seconds)


@pytest.mark.parametrize("wrong", ["lookup", "size", "query"])
def test_a_table_that_answers_wrongly_is_not_measured(wrong: str) -> None:
    table = LossyTable()
    table.wrong = wrong
    with pytest.raises(PerfStages.WrongResult):
        run_alone(table)
    assert table == {}


@pytest.mark.parametrize("seconds", [None, 0.01])
def test_a_run_has_a_row_for_each_stage_and_leaves_no_rows_behind(seconds: float | None) -> None:
    table = LossyTable()
    table["others"] = {}
    rows = run_alone(table, seconds)
    assert [row.operation for row in rows] == list(STAGES)
    assert all(row.operations == row.done > 0 for row in rows)
    assert table == {"others": {}}


def test_rows_that_there_was_no_time_to_remove_are_removed_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 0

    def tick(passed_ns: int = MS) -> int:
        nonlocal now_ns
        now_ns += passed_ns
        return now_ns

    monkeypatch.setattr(time, "monotonic_ns", tick)

    class SlowToRemove(LossyTable):
        def remove(self, key: str) -> None:
            tick(300 * MS)
            super().remove(key)

    table = SlowToRemove()
    inserted, *_, removed = run_alone(table, 0.2)
    assert removed.done < inserted.done
    assert table == {}


# ---- several clients ------------------------------------------------------------------------------


def make_row(clients: int, operation: str, client: str, rate: float) -> Row:
    return Row("bridge", clients, operation, client, 10, 1.0, rate, 1, 1, 1, 1, 100.0, 101.0, 12)


def test_a_sum_adds_operations_and_merges_latencies(tmp_path: Path) -> None:
    barriers = [StageBarrier(tmp_path, 2, copy) for copy in "12"]
    window = Window(0, NS_PER_S)
    rows = []
    for barrier, latencies in zip(barriers, ([MS] * 98, [5 * MS] * 2), strict=True):
        barrier.leave("size-latencies", array("q", latencies).tobytes())
        rows.append(PerfStages.make_row("bridge", 2, "size", barrier.copy, window, latencies, len(latencies) + 1))
    total = PerfStages.add_up(rows, barriers[0], "sum")
    assert (total.client, total.clients, total.operations, total.done) == ("sum", 2, 100, 102)
    assert (total.ops_per_s, total.p50_ms, total.p99_ms) == (100, 1, 5)
    assert (total.start_s, total.end_s) == (rows[0].start_s, rows[0].end_s)


@pytest.mark.parametrize(
    ("rates", "level"),
    [
        ([(1, 100), (2, 190), (4, 300), (8, 310), (16, 305)], 4),
        ([(1, 100), (2, 99), (4, 98)], 1),
        ([(1, 100), (2, 200), (4, 400)], None),
        ([(4, 310), (1, 100), (2, 300)], 2),
        ([(1, math.nan), (2, 100), (4, 101)], 2),
        ([(1, math.nan)], None),
        ([], None),
    ],
)
def test_a_sum_levels_off_where_more_clients_bring_little(rates: Any, level: int | None) -> None:
    assert TestPerf.find_level(rates) == level


def test_a_sweep_s_sums_are_laid_out_by_number_of_clients() -> None:
    rates = {1: 1000.0, 2: 2000.0, 4: 2010.0}
    rows = [
        make_row(clients, stage, client, rate)
        for clients, rate in rates.items()
        for stage in STAGES
        for client in ("1", "sum")
    ]
    lines = [line.split() for line in TestPerf.format_sums(rows).splitlines()]
    assert lines == [
        ["clients", *STAGES],
        ["1", *["1,000"] * 5],
        ["2", *["2,000"] * 5],
        ["4", *["2,010"] * 5],
        [],
        ["levels", "off", "at", *["2"] * 5],
    ]


def test_a_stage_too_short_for_the_clients_to_meet_in_it_is_named() -> None:
    """10 of 12 operations counted is the tail of any run; 5 of 12 says the clients hardly met."""
    rows = [make_row(2, stage, client, 1.0) for stage in ("insert", "query") for client in ("1", "2", "sum")]
    assert TestPerf.find_thin_figures(rows) == []
    rows[5] = rows[5]._replace(operations=5)
    assert TestPerf.find_thin_figures(rows) == [
        "query: only 5 of 12 operations fell into the time in which all clients ran"
    ]


# ---- how copies meet ------------------------------------------------------------------------------


def test_copies_go_on_when_all_have_come_and_know_each_other_s_notes(tmp_path: Path) -> None:
    def meet(copy: str) -> list[Any]:
        return StageBarrier(tmp_path / "made", 3, copy).meet("here", {"copy": copy})

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(meet, "abc")) == [[{"copy": copy} for copy in "abc"]] * 3


def test_nobody_goes_on_before_the_last_has_come(tmp_path: Path) -> None:
    """Seen red with a barrier that let the last but one through."""
    order: list[str] = []
    waiting = threading.Semaphore(0)

    def early(copy: str) -> None:
        StageBarrier(tmp_path, 3, copy, pause=lambda _: waiting.release()).meet("here")
        order.append(copy)

    with ThreadPoolExecutor(2) as pool:
        pool.map(early, "ab")
        for _ in range(4):
            assert waiting.acquire(timeout=60)
        order.append("c comes")
        StageBarrier(tmp_path, 3, "c").meet("here")
    assert order[0] == "c comes" and len(order) == 3


def test_a_single_copy_waits_for_nobody_and_leaves_nothing() -> None:
    barrier = StageBarrier(None, 1, "1", pause=lambda _: pytest.fail("it waited"))
    assert barrier.meet("here", {"a": 1}) == [{"a": 1}]
    barrier.leave("rows", b"")
    barrier.fail("anything")
    assert barrier.failures() == []


def test_several_copies_need_a_place_to_meet() -> None:
    with pytest.raises(ValueError, match="directory"):
        StageBarrier(None, 2, "1")


def test_a_copy_that_fails_ends_the_waiting_of_the_others(tmp_path: Path) -> None:
    StageBarrier(tmp_path, 2, "a").fail("KeyError: 'k'")
    with pytest.raises(CopyFailed, match="a: KeyError: 'k'"):
        StageBarrier(tmp_path, 2, "b", wait_max_s=0.5).meet("here")


def test_a_copy_that_never_comes_is_waited_for_a_bounded_time(tmp_path: Path) -> None:
    now = [0.0]

    def pause(_: float) -> None:
        now[0] += 1
        assert now[0] < 100, "waits for ever"

    barrier = StageBarrier(tmp_path, 2, "a", wait_max_s=30, clock=lambda: now[0], pause=pause)
    with pytest.raises(CopyFailed, match="only 1 of 2 copies came to here in 30 s"):
        barrier.meet("here")


def test_a_directory_of_an_earlier_run_is_noticed(tmp_path: Path) -> None:
    for copy in "ab":
        StageBarrier(tmp_path, 2, copy).leave("here", b"{}")
    with pytest.raises(CopyFailed, match="used before"):
        StageBarrier(tmp_path, 2, "c").meet("here")


# ---- TestOutliers ---------------------------------------------------------------------------------


def test_outliers_are_reported_with_their_place_in_the_series() -> None:
    stamps = [0]
    for place in range(100):
        stamps.append(stamps[-1] + (50 * MS if place == 37 else 9 * MS if place == 80 else MS))
    figures = TestOutliers.report(stamps)
    assert figures["slowest"][0] == {"place": 37, "method": "remove", "ms": 50, "at_s": 0.037}
    assert figures["slowest"][1]["place"] == 80
    assert len(figures["slowest"]) == TestOutliers.SLOWEST
    assert figures["fastest"]["ms"] == 1
    assert figures["operations"] == 100
    assert figures["percentiles_ms"] == {"p50": 1, "p90": 1, "p99": 9, "p99.9": 50}
    assert [part["max_ms"] for part in figures["parts"]] == [1, 1, 1, 50, 1, 1, 1, 1, 9, 1]
    assert json.loads(json.dumps(figures)) == figures


def test_a_short_series_has_no_parts_but_a_report() -> None:
    text = TestOutliers.format_report(TestOutliers.report([0, MS, 3 * MS]))
    assert "fastest: 1.000 ms, insert, operation 0" in text
    assert "slowest: 2.000 ms, remove, operation 1" in text


# ---- TestBasics against tables that are wrong -----------------------------------------------------


class Normalizes(FakeTableServer):
    def do_insert(self, request: dict[str, Any]) -> None:
        self.rows[unicodedata.normalize("NFC", request["key"])] = request["value"]


class KeepsFirst(FakeTableServer):
    def do_insert(self, request: dict[str, Any]) -> None:
        self.rows.setdefault(request["key"], request["value"])


class GivesOldValue(FakeTableServer):
    def do_remove(self, request: dict[str, Any]) -> Any:
        return self.rows.pop(request["key"])


class RemovesTwice(FakeTableServer):
    def do_remove(self, request: dict[str, Any]) -> None:
        self.rows.pop(request["key"], None)


class CountsWrites(FakeTableServer):
    writes = 0

    def do_insert(self, request: dict[str, Any]) -> None:
        super().do_insert(request)
        self.writes += 1

    def do_size(self, request: dict[str, Any]) -> int:
        return self.writes


class StaleQuery(FakeTableServer):
    def do_query(self, request: dict[str, Any]) -> list[list[Any]]:
        key = request["subkey"], json.dumps(request["subvalue"])
        self.answers: dict[Any, list[list[Any]]] = getattr(self, "answers", {})
        return self.answers.setdefault(key, super().do_query(request))


class LooseQuery(FakeTableServer):
    def do_query(self, request: dict[str, Any]) -> list[list[Any]]:
        wanted = request["subkey"], str(request["subvalue"])
        maps = [(key, value) for key, value in self.rows.items() if isinstance(value, dict)]
        return [[key, value] for key, value in maps if (wanted[0], str(value.get(wanted[0]))) == wanted]


class RoundsNumbers(FakeTableServer):
    def do_insert(self, request: dict[str, Any]) -> None:
        value = request["value"]
        self.rows[request["key"]] = float(value) if type(value) is int else value


class ExecutesAgain(FakeTableServer):
    def execute(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._apply(request)


class HangsUpOnNonsense(FakeTableServer):
    def _answer(self, line: bytes) -> bytes | None:
        reply = super()._answer(line)
        return None if reply and b"Invalid" in reply else reply


def run_all_checks(server: FakeTableServer) -> dict[str, tuple[str, str]]:
    bench = TestBasics.Bench(server.name, 0.5)
    try:
        return {check.sentence: TestBasics.run_check(check, bench) for check in TestBasics.CHECKS}
    finally:
        bench.clean_up()


def failures(results: dict[str, tuple[str, str]]) -> Iterator[str]:
    return (sentence for sentence, (verdict, _) in results.items() if verdict == "FAIL")


def test_a_right_table_passes_every_check_and_is_left_as_it_was() -> None:
    with FakeTableServer() as server:
        server.rows = {"others": 1}
        assert {verdict for verdict, _ in run_all_checks(server).values()} == {"ok"}
        assert server.rows == {"others": 1}


def test_a_server_without_sessions_passes_but_for_what_needs_them() -> None:
    with FakeTableServer(sessions=False) as server:
        results = run_all_checks(server)
    assert [sentence for sentence, (verdict, _) in results.items() if verdict != "ok"] == [
        "a write sent again within its session is executed once"
    ]
    assert not list(failures(results))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Normalizes, "a key with accents, decomposed"),
        (KeepsFirst, "insert overwrites, whatever was there"),
        (GivesOldValue, "insert and remove have no result, not even the old value"),
        (RemovesTwice, "remove of a missing key is a KeyError"),
        (CountsWrites, "size stays when a key is overwritten"),
        (StaleQuery, "query follows overwriting and removing"),
        (LooseQuery, "query tells text, number, null and nothing apart"),
        (RoundsNumbers, "a value: 2^53 + 1, which a float cannot hold"),
        (ExecutesAgain, "a write sent again within its session is executed once"),
        (
            HangsUpOnNonsense,
            "an incomplete or unreadable request is an InvalidRequest, and the connection stays",
        ),
    ],
)
def test_a_wrong_table_fails_the_check_that_is_about_it(kind: type[FakeTableServer], sentence: str) -> None:
    with kind() as server:
        assert sentence in failures(run_all_checks(server))


def test_a_row_of_somebody_s_under_the_empty_key_is_left_alone() -> None:
    with FakeTableServer() as server:
        server.rows[""] = "somebody's"
        verdict, reason = run_all_checks(server)["the empty key"]
        assert (verdict, server.rows) == ("skip", {"": "somebody's"})
        assert "somebody" in reason


def test_what_a_killed_run_left_under_the_empty_key_is_replaced_and_removed() -> None:
    with FakeTableServer() as server:
        server.rows[""] = {"by": "TestBasics-killed-"}
        assert run_all_checks(server)["the empty key"] == ("ok", "")
        assert server.rows == {}


def test_a_size_that_others_change_all_the_time_is_not_judged() -> None:
    """Other clients insert between any two requests: growth by two is then no fault."""

    class Busy(FakeTableServer):
        others = 0

        def do_size(self, request: dict[str, Any]) -> int:
            self.others += 2
            return len(self.rows) + self.others

    with Busy() as server:
        results = run_all_checks(server)
    assert results["size grows by one with a new key"][0] == "skip"
    assert not list(failures(results))
