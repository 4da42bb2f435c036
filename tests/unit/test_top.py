"""`kvzmq top` without a terminal: what keys choose, and the lines of a picture."""

from __future__ import annotations

from typing import Any

import pytest

from kvzmq.cli.top.drawing import BLOCKS, PLAIN, Size, picture, sparkline, whole
from kvzmq.cli.top.gathering import Gathered
from kvzmq.cli.top.view import CLIENT_ORDERS, FILTER_CHARS_MAX, HELP, INTERVALS_S, View, keys_in
from kvzmq.observing.prefixes import PREFIXES_MAX, HotPrefixes, prefix_of
from kvzmq.observing.rates import Snapshot
from kvzmq.observing.recent import FIGURES, Recent
from kvzmq.server.histogram import TIMES_NS, Histogram
from kvzmq.units import brief, rate


def times(*values_ns: int) -> dict[str, Any]:
    found = Histogram()
    found.add_all(values_ns)
    return found.describe_s()


def snapshot(uptime_s: float, clients: int = 3, name: str = "zmq:", **figures: Any) -> Snapshot:
    stats = {
        "pid": 1, "lineage": "a", "epoch": "b", "version": "0.2.0", "uptime_s": uptime_s, "keys": 1234567,
        "requests": int(uptime_s * 1000), "operations": int(uptime_s * 1000), "revision": int(uptime_s * 100),
        "resident_bytes": 1 << 30, "log_bytes": 1 << 29, "checkpoint_bytes": 1 << 28, "compactions": 12,
        "bounds": {"times_s": [bound / 1e9 for bound in TIMES_NS]},
        "step": {phase: times(*(100_000,) * int(uptime_s)) for phase in ("receive", "execute", "commit", "send")},
        "by_operation": {
            name: {"count": int(uptime_s * share), "errors": {}, "request_bytes": 0,
                   "latency": times(*(took_ns,) * int(uptime_s))}
            for name, share, took_ns in (("insert", 100, 2_000_000), ("lookup", 900, 40_000), ("size", 0, 0))
        },
    }  # fmt: skip
    listed = tuple(
        {
            "name": f"{name}{number:08x}", "transport": "router", "address": f"127.0.0.1:{40000 + number}",
            "connected_s": 10.0 * number, "requests": int(uptime_s) * (number + 1) * 10,
            "received_bytes": None, "taken_bytes": 5,
            "unread_bytes": 1 << (10 + number % 5), "replies_dropped": 0, "watches": number % 3,
        }
        for number in range(clients)
    )  # fmt: skip
    return Snapshot(stats | figures, listed)


def gathered(**arguments: Any) -> Gathered:
    found = Gathered("tcp://127.0.0.1:5570")
    for uptime_s in (10.0, 11.0, 12.0):
        found.answered(snapshot(uptime_s, **arguments))
    return found


def drawn(found: Gathered, view: View | None = None, columns: int = 80, lines: int = 24) -> list[str]:
    return [line.plain for line in picture(found, view or View(), Size(columns, lines), "12:00:00")]


# ---- pictures


@pytest.mark.parametrize("columns", [60, 80, 81, 133, 200, 400])
@pytest.mark.parametrize("lines", [16, 24, 25, 60])
@pytest.mark.parametrize("clients", [0, 1, 500])
def test_a_picture_is_as_large_as_its_screen_whatever_is_in_it(columns: int, lines: int, clients: int) -> None:
    """Seen red with lines that are not cut."""
    found = gathered(clients=clients, storage_trouble="disk full", compaction_trouble="no room " * 50)
    for view in (View(), View(help=True), View(sampling=True), View(pattern="nothing"), View(typing=True)):
        for silence in (None, "connection refused " * 20):
            found.silence = silence
            rows = drawn(found, view, columns, lines)
            assert len(rows) == lines and max(map(len, rows)) <= columns


def test_the_most_important_figures_fit_80_by_24() -> None:
    rows = drawn(gathered(clients=9))
    text = "\n".join(rows)
    for wanted in ("1,000/s", "100/s", "latency p50", "changes/sync", "receive 25%", "1,234,567 rows", "9 clients",
                   "memory 1.0 GiB", "checkpoint 256.0 MiB"):  # fmt: skip
        assert wanted in text, wanted
    assert sum(row.startswith(" zmq:") for row in rows) >= 4
    assert [row.split()[0] for row in rows if row.startswith((" insert", " lookup", " size"))] == [
        "lookup", "insert", "size",
    ]  # fmt: skip


def test_before_the_first_answer_and_on_a_small_screen_it_says_so() -> None:
    empty = Gathered("tcp://127.0.0.1:5570")
    assert any("asking" in row for row in drawn(empty))
    empty.missed("connection refused")
    assert any("connection refused" in row for row in drawn(empty))
    assert "too small" in "".join(drawn(gathered(), columns=30, lines=5))
    assert drawn(gathered(), columns=1, lines=1) and not any(len(row) > 1 for row in drawn(gathered(), None, 1, 1))


def test_names_that_clients_have_chosen_cannot_draw() -> None:
    """Seen red without the escaping."""
    rows = drawn(gathered(name="\x1b]0;title\x07\x1b[2J\u202e"), columns=200)
    assert any("\\u001b" in row for row in rows)
    assert all(row.isprintable() for row in rows)


def test_printed_once_it_leaves_nothing_out() -> None:
    lines = [line.plain for line in whole(gathered(clients=300), View(), 100, "12:00:00")]
    assert sum(line.startswith(" zmq:") for line in lines) == 300 and max(map(len, lines)) <= 100


def test_a_sparkline_is_as_high_as_its_values_and_has_gaps() -> None:
    assert sparkline([0.0, 7.0, None, 3.5], 4) == f"{BLOCKS[0]}{BLOCKS[7]} {BLOCKS[4]}"
    assert sparkline([1.0, 2.0, 3.0, 4.0], 2) == f"{BLOCKS[5]}{BLOCKS[7]}"
    assert sparkline([0.0, 0.0], 5) == f"   {BLOCKS[0] * 2}" and sparkline([5.0], 3) == "   "
    assert sparkline([0.0, 1.0], 2, PLAIN).isascii()


# ---- keys


def test_every_key_of_the_help_does_something() -> None:
    for key in HELP:
        pressed = {"up": "\x1b[A", "down": "\x1b[B", "PgUp": "\x1b[5~", "PgDn": "\x1b[6~"}.get(key.shown, key.shown)
        view = View(skipped=5)
        view.press(pressed)
        assert view != View(skipped=5), key.shown


def test_arrows_are_one_key_each() -> None:
    assert list(keys_in("q\x1b[A\x1bOB\x1b[5~\x1bé")) == ["q", "\x1b[A", "\x1bOB", "\x1b[5~", "\x1b", "é"]


def test_sorting_goes_around_all_columns() -> None:
    found, view, firsts = gathered(clients=8).rates, View(), []
    assert found is not None
    for order in CLIENT_ORDERS:
        assert view.client_order == order
        firsts.append(view.clients(found)[0].client["name"])
        view.press("s")
    assert view.client_order == next(iter(CLIENT_ORDERS))
    assert firsts[0] == "zmq:00000007" and firsts[3] == "zmq:00000004" and firsts[4] == "zmq:00000002"
    view.press("o")
    assert [name for name, _ in view.operations(found)] == ["insert", "lookup", "size"]


def test_the_filter_takes_what_is_typed_until_enter_or_escape() -> None:
    found, view = gathered(clients=20).rates, View()
    assert found is not None
    for key in ("/", *"40005x", "\x7f", "q", "\x7f", "\r"):
        view.press(key)
    assert not view.done and view.pattern == "40005" and not view.typing
    assert [one.client["name"] for one in view.clients(found)] == ["zmq:00000005"] and view.operations(found) == []
    view.press("\x1b")
    assert view.pattern == "" and len(view.clients(found)) == 20
    for key in ("/", *"x" * 1000):
        view.press(key)
    assert len(view.pattern) == FILTER_CHARS_MAX
    view.press("\x1b")
    assert view.pattern == "" and not view.typing


def test_the_interval_stays_within_its_bounds() -> None:
    view = View(interval_s=0.3)
    view.press("+")
    assert view.interval_s == 0.5
    for _ in INTERVALS_S:
        view.press("-")
    assert view.interval_s == INTERVALS_S[0]
    for _ in INTERVALS_S:
        view.press("+")
    assert view.interval_s == INTERVALS_S[-1]


def test_scrolling_ends_at_the_last_client() -> None:
    found, view = gathered(clients=30), View()
    for _ in range(10):
        view.press("\x1b[6~")
    rows = drawn(found, view)
    assert any("from 30 of 30" in row for row in rows) and view.skipped == 29


# ---- what is kept


def test_lines_are_bounded_and_have_gaps_where_there_was_no_answer() -> None:
    recent = Recent(kept_max=5)
    recent.miss()
    for uptime_s in range(10, 20):
        recent.add(snapshot(float(uptime_s)))
    recent.miss()
    assert recent.line("requests", 100) == [1000.0] * 4 + [None]
    assert recent.line("changes", 2) == [100.0, None] and recent.line("log", 0) == []
    assert recent.operation_line("insert", 2) == [100.0, None] and recent.operation_line("new", 2) == [0.0, None]
    assert all(len(recent.line(figure, 3)) == 3 for figure in FIGURES)
    assert recent.add(snapshot(1.0)) is None and recent.latest is None and recent.line("requests", 1) == [None]


@pytest.mark.parametrize(
    ("key", "prefix"),
    [("robots/17/pose", "robots/"), ("user42", "user"), ("a:b:c", "a:"), ("plain", "plain"), ("42", "42"), ("", ""),
     ("/x/y", "/x/y"), ("ä" * 100 + "1", "ä" * 60)],
)  # fmt: skip
def test_a_prefix_is_what_keys_of_a_kind_begin_with(key: str, prefix: str) -> None:
    assert prefix_of(key) == prefix


def test_prefixes_are_bounded_and_the_hot_ones_stay() -> None:
    """Seen red with the prefixes dropped that came first."""
    hot = HotPrefixes()
    hot.add("robots/1", 1000.0)
    for number in range(3 * PREFIXES_MAX):
        hot.add(f"{chr(0x4E00 + number)}/x")
    assert len(hot.shares(10_000)) <= PREFIXES_MAX and hot.shares(1)[0][0] == "robots/"
    hot.age(60.0)
    hot.add("cars/1", 100.0)
    assert hot.shares(2)[0][0] == "cars/"
    hot.age(1e6)
    assert hot.shares(5) == []


# ---- units


def test_times_and_rates_are_short() -> None:
    assert [brief(value) for value in (0.0, 85.4e-6, 999.4e-6, 1.25e-3, 0.0999, 3.1, 12.0, 750.0)] == [
        "0 us", "85.4 us", "999 us", "1.25 ms", "99.9 ms", "3.1 s", "12 s", "750 s",
    ]  # fmt: skip
    assert [rate(value) for value in (0.0, 0.25, 8.5, 99.4, 99.96, 41234.4)] == [
        "0", "0.25", "8.5", "99.4", "100", "41,234",
    ]  # fmt: skip


def test_the_help_fits_a_screen_of_80_by_24() -> None:
    rows = drawn(gathered(), View(help=True))
    said = " ".join(" ".join(rows).split())
    assert "requests/s, received/s, taken/s, unread, watches, connected" in said
    assert "until the replies were handed over" in said and "docs/observing.md." in said
    assert len(rows) == 24 and all(len(row) <= 80 for row in rows)


def test_a_narrow_screen_shows_addresses_rather_than_transports() -> None:
    assert any("127.0.0.1:40000" in row for row in drawn(gathered()))
    assert any("router 127.0.0.1:40000" in row for row in drawn(gathered(), columns=120))
