"""Medians, ratios and verdicts: what the report is made from."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.report.targets import TARGETS, Source, Target
from benchmarks.report.testperf import level_of
from benchmarks.report.text import bars, table
from benchmarks.results import Results, Writer, ratio_of, spread


def write(directory: Path, name: str, rows: list[dict[str, object]]) -> None:
    with Writer(directory, name, list(rows[0])) as writer:
        for row in rows:
            writer.add(**row)


def test_a_spread_is_the_median_with_the_extremes() -> None:
    assert spread([3.0, 1.0, 10.0]) == (3.0, 1.0, 10.0, 3)


def test_figures_that_are_missing_do_not_count() -> None:
    assert spread([math.nan, 4.0]).median == 4.0
    assert not spread([math.nan]).known


def test_a_ratio_is_taken_within_each_round() -> None:
    # The medians' ratio would be 1: each round says otherwise.
    assert ratio_of({"1": 10.0, "2": 100.0, "3": 1.0}, {"1": 5.0, "2": 50.0, "3": 0.5}) == (2.0, 2.0, 2.0, 3)


def test_a_round_that_only_one_contender_finished_has_no_ratio() -> None:
    assert ratio_of({"1": 10.0, "2": 9.0}, {"1": 5.0}).rounds == 1


def test_rows_are_found_by_what_they_hold(tmp_path: Path) -> None:
    write(tmp_path, "clients", [
        {"round": 1, "contender": "kvzmq", "clients": 8, "ops_per_s": 100.0},
        {"round": 2, "contender": "kvzmq", "clients": 8, "ops_per_s": 300.0},
        {"round": 1, "contender": "redis", "clients": 8, "ops_per_s": 50.0},
        {"round": 2, "contender": "redis", "clients": 8, "ops_per_s": 100.0},
        {"round": 1, "contender": "redis", "clients": 64, "ops_per_s": None},
    ])  # fmt: skip
    results = Results(tmp_path)
    assert results.median("clients", "ops_per_s", contender="kvzmq", clients=8) == 200.0
    assert results.numbers("clients", "clients") == [8, 64]
    assert results.values("clients", "contender") == ["kvzmq", "redis"]
    assert math.isnan(results.median("clients", "ops_per_s", clients=64))
    ratio = results.ratio(
        "clients", "ops_per_s", {"contender": "kvzmq", "clients": 8}, {"contender": "redis", "clients": 8}
    )
    assert (ratio.median, ratio.least, ratio.greatest) == (2.5, 2.0, 3.0)


def test_a_file_is_readable_while_it_is_written(tmp_path: Path) -> None:
    with Writer(tmp_path, "limits", ("round", "what")) as writer:
        writer.add(round=1, what="one, and two")
        assert Results(tmp_path).rows("limits") == [{"round": "1", "what": "one, and two"}]


def test_what_was_not_measured_is_empty(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert not results.has("clients")
    assert not results.spread("clients", "ops_per_s").known
    assert all(target.verdict(results) == "not measured" for target in TARGETS)


@pytest.mark.parametrize(
    ("ratios", "at_most", "verdict"),
    [
        ([2.0, 2.5, 3.0], False, "met"),
        ([1.0, 2.5, 3.0], False, "met, rounds disagree"),
        ([0.5, 1.0, 1.5], False, "missed"),
        ([0.5, 1.0, 2.5], False, "missed, rounds disagree"),
        ([0.5, 1.0, 1.5], True, "met"),
        ([2.0, 2.5, 3.0], True, "missed, rounds disagree"),
    ],
)
def test_a_verdict_is_by_the_median_and_says_when_rounds_disagree(
    tmp_path: Path, ratios: list[float], at_most: bool, verdict: str
) -> None:
    target = Target("work", "against", 2.0, Source("clients", lambda results: spread(ratios)), at_most)
    assert target.verdict(Results(tmp_path)) == verdict


def test_every_aim_names_an_experiment_that_exists() -> None:
    from benchmarks.run.suite import everything

    assert {target.source.experiment for target in TARGETS} <= set(everything())


@pytest.mark.parametrize(
    ("rates", "level"),
    [
        ([(1, 10.0), (2, 19.0), (4, 20.0), (8, 18.0)], 2),
        ([(1, 10.0), (2, 20.0), (4, 40.0)], None),
        ([(1, 10.0), (2, 9.0)], 1),
        ([], None),
        ([(1, math.nan), (2, 5.0), (4, 5.0)], 2),
    ],
)
def test_sums_level_off_where_they_come_near_the_best(rates: list[tuple[int, float]], level: int | None) -> None:
    assert level_of(rates) == level


def test_a_table_is_aligned() -> None:
    assert table(("name", "n"), [["a", "1"], [], ["bcdef", "23"]]) == "\n".join(
        ["    name    n", "    -----  --", "    a       1", "", "    bcdef  23"]
    )


def test_bars_are_drawn_from_zero() -> None:
    lines = bars({"a": 50.0, "b": 100.0, "gone": math.nan}, "/s").splitlines()
    assert [line.count("#") for line in lines] == [25, 50]
