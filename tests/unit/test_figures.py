"""What a server says of itself is taken as it is; what anything else says breaks nothing that shows it."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest
from support.stepped import Stepped

from kvzmq.cli.top.drawing import whole
from kvzmq.cli.top.gathering import Gathered
from kvzmq.cli.top.view import View
from kvzmq.dashboard.collector import Collector
from kvzmq.dashboard.reader import Reader
from kvzmq.dashboard.streams import state_of
from kvzmq.observing.figures import FIGURES_MAX, TEXT_CHARS_MAX, NotFigures, clients_of, figures_of
from kvzmq.observing.rates import Snapshot
from kvzmq.server.metrics import Metrics

Said = tuple[Any, Any]

ROUNDS = 300
HOSTILE: list[Any] = [
    None, True, -1, 0, 2**64 - 1, -(2**63), 1e308, -1e308, float("nan"), float("inf"), "",
    "\x1b]0;x\x07\x9b31m", "x" * 5000, b"\xff\0", [], [1] * 1000, {}, {"a": 1}, {1: 2}, {b"x": 1}, [[[[]]]],
    {"count": "x"},
    {"count": 1, "p50_s": 1, "p99_s": 1, "max_s": 1, "sum_s": 1, "buckets": [-1] * 23},
]  # fmt: skip


@pytest.fixture(scope="module")
def said() -> Said:
    """What a server has said of itself and its clients, as a client gets it."""
    with Stepped(metrics=Metrics()) as table:
        peer = table.zmq()
        table.call(peer, "insert", "a", 1)
        table.call(peer, "lookup", "ghost")
        return table.call(peer, "stats")[1], table.call(peer, "clients")[1]


def paths(found: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    members = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for name, value in members:
        yield (*at, name)
        yield from paths(value, (*at, name))


def spoiled(said: Said, source: random.Random) -> Said:
    """Return an answer in which one to five places hold something else, or are gone."""
    found = list(copy.deepcopy(said))
    for _ in range(source.choice([1, 1, 2, 5])):
        *within, name = source.choice([(0,), (1,), *paths(list(said))])
        place: Any = found
        try:
            for step in within:
                place = place[step]
            if within and isinstance(place, dict) and source.random() < 0.2:
                del place[name]
            else:
                place[name] = source.choice(HOSTILE)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier one has replaced it
    return found[0], found[1]


class HostileTable:
    """A client whose server says what the test has it say."""

    said: Said

    async def stats(self, timeout: float) -> Any:
        return self.said[0]

    async def clients(self, timeout: float) -> Any:
        return self.said[1]


def test_what_a_server_says_is_taken_as_it_is(said: Said) -> None:
    assert figures_of(said[0]) == said[0] and clients_of(said[1]) == said[1]


def test_the_page_goes_on_whatever_a_server_says(said: Said) -> None:
    """Red without the check: of 3,000 such answers 2,413 ended what asks for figures, and the page stood still."""
    source = random.Random(1)
    table = HostileTable()

    async def ask() -> None:
        collector = Collector(lambda: cast("Reader", table), "tcp://nowhere")
        for number in range(ROUNDS):
            table.said = spoiled(said, source) if number % 2 else copy.deepcopy(said)
            if number % 2 == 0:
                table.said[0]["uptime_s"] += number
            await collector.poll()
            msgspec.json.encode([state_of(collector), collector.fine.after(0), collector.rates])
            if number % 2 == 0:
                assert collector.silence is None

    asyncio.run(ask())


def test_the_terminal_shows_nothing_that_could_move_its_cursor(said: Said) -> None:
    source = random.Random(2)
    gathered = Gathered("tcp://nowhere")
    for number in range(ROUNDS):
        stats, clients = spoiled(said, source) if number % 2 else copy.deepcopy(said)
        if number % 2 == 0:
            stats["version"] = clients[0]["name"] = clients[0]["transport"] = "\x1b]0;x\x07\x9b31m\x7f\u202e"
            stats["by_operation"]["\x1b[2J"] = stats["by_operation"]["insert"]
        try:
            gathered.answered(Snapshot(figures_of(stats), clients_of(clients)))
        except NotFigures:
            continue
        for line in whole(gathered, View(interval_s=1.0, sampling=False), 100, "12:00"):
            assert line.plain.isprintable(), line.plain


def test_who_answers_something_else_is_said_to_be_silent_with_the_reason() -> None:
    table = HostileTable()

    async def ask(said: Said) -> str | None:
        collector = Collector(lambda: cast("Reader", table), "tcp://nowhere")
        table.said = said
        await collector.poll()
        return collector.silence

    assert "is it a server of kvzmq?" in str(asyncio.run(ask(([], []))))
    assert "is it a server of kvzmq?" in str(asyncio.run(ask(({}, {"a": 1}))))


def test_names_and_texts_are_bounded() -> None:
    found = figures_of({f"figure{number}": 1 for number in range(2 * FIGURES_MAX)} | {"version": "x" * 100_000})
    assert len(found) <= FIGURES_MAX
    assert len(figures_of({"version": "x" * 100_000})["version"]) == TEXT_CHARS_MAX
