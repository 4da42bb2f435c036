"""The lines of one picture of `kvzmq top`, for a screen of a given size. No I/O, and nothing is remembered.

    header, alarms, and that the server does not answer     always
    figures with sparklines, step phases, table             7 lines
    operations, clients, hottest prefixes                   share what lines are left
    footer                                                  the keys

A line is as wide as the screen at most; what does not fit is cut. Names come from the server's clients, so control
characters in them are escaped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

from rich.text import Text

from kvzmq.cli import show
from kvzmq.cli.top.gathering import Gathered
from kvzmq.cli.top.view import HELP, View
from kvzmq.observing.rates import PHASES, ClientRates, Rates, Snapshot
from kvzmq.units import brief, count, duration, rate, size

COLUMNS_MIN, LINES_MIN = 60, 16
"""What a picture needs; from 80 x 24 on it has everything."""

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "._-=+*#@"
"""Heights of a sparkline, and those for a terminal without such characters."""

_HEAD, _DIM, _LABEL, _VALUE = "bold", "bright_black", "cyan", "bold"
_SPARK, _BAD, _WARN = "green", "bold white on red", "bold yellow"
_PHASE_COLORS = ("blue", "green", "yellow", "magenta")
_HELP_COLUMNS = 8
_NAME_COLUMNS = 12
_VALUE_COLUMNS = 11
_ALARMS_MAX = 3
_PREFIXES_MAX = 5
_OPERATIONS_MIN = 3
_LINE_GAP = 2
_LINES_MAX = 10_000


@dataclass(frozen=True)
class Size:
    """The screen: how many columns and lines, and the characters of a bar."""

    columns: int
    lines: int
    heights: str = BLOCKS


def picture(gathered: Gathered, view: View, screen: Size, clock: str) -> Sequence[Text]:
    """Return the lines of the picture, as many as the screen has at most.

    Args:
        clock: the time of day, as the header shows it
    """
    if screen.columns < COLUMNS_MIN or screen.lines < LINES_MIN:
        small = f"{screen.columns} x {screen.lines} is too small: {COLUMNS_MIN} x {LINES_MIN} is needed. q quits"
        return [Text(small[at : at + screen.columns]) for at in range(0, len(small), screen.columns)][: screen.lines]
    lines = [_header(gathered, view, screen, clock), *_trouble(gathered, screen)]
    body = screen.lines - 1 - len(lines)
    if view.help:
        lines += _help(screen.columns, body)
    else:
        lines += list(_report(gathered, view, screen, body))
    lines = lines[: screen.lines - 1]
    lines += [Text()] * (screen.lines - 1 - len(lines))
    return [_cut(line, screen.columns) for line in [*lines, _footer(view)]]


def whole(gathered: Gathered, view: View, columns: int, clock: str) -> Sequence[Text]:
    """Return everything, in as many lines as it takes: what is printed once, not shown on a screen."""
    screen = Size(max(columns, COLUMNS_MIN), LINES_MIN)
    return [
        _cut(line, columns)
        for line in (
            _header(gathered, view, screen, clock),
            *_trouble(gathered, screen),
            *_report(gathered, view, screen, _LINES_MAX),
        )
    ]


def _report(gathered: Gathered, view: View, screen: Size, lines_max: int) -> Iterator[Text]:
    """Yield the figures and the lists, `lines_max` lines at most."""
    snapshot, rates = gathered.recent.snapshot, gathered.rates
    if snapshot is None or rates is None:
        if gathered.silence is None:
            yield Text("  asking ...", _DIM)
        return
    figures = [*_figures(gathered, rates, screen), _phases(rates, screen), _table(snapshot)]
    yield from figures
    left = lines_max - len(figures)
    prefixes = [] if not view.sampling else [Text(), *_prefixes(gathered, view, screen)]
    left -= len(prefixes)
    operations = list(_operations(gathered, rates, view, screen))
    clients = list(_clients(rates, view, screen))
    # Half for the operations, if the clients need theirs: each has a head, and a blank line before it.
    share = max(_OPERATIONS_MIN + _LINE_GAP, left - len(clients) - 1, left // 2)
    operations = [Text(), *operations][: min(share, left)]
    yield from operations
    yield from [Text(), *clients][: max(0, left - len(operations))]
    yield from prefixes


# ---- header, alarms, footer, help


def _header(gathered: Gathered, view: View, screen: Size, clock: str) -> Text:
    snapshot = gathered.recent.snapshot
    about = ""
    if snapshot is not None:
        about = f"{snapshot.stats.get('version', '?')}, up {duration(int(snapshot.stats.get('uptime_s', 0)))}, "
    right = f"{'PAUSED, ' if view.paused else ''}{about}{clock} "
    left = f" kvzmq top  {show.printable(gathered.url)}"
    gap = max(1, screen.columns - len(left) - len(right))
    return Text(left + " " * gap + right, "bold white on blue")


def _trouble(gathered: Gathered, screen: Size) -> Iterator[Text]:
    if gathered.silence is not None:
        for_s = time.monotonic() - gathered.silent_since_s
        said = show.printable(gathered.silence).replace("\n", " ")
        yield Text(f" no answer for {duration(int(for_s))}, still asking: {said}".ljust(screen.columns), _BAD)
    for alarm in gathered.alarms[:_ALARMS_MAX]:
        yield Text(f" ! {show.printable(alarm.text)}", _WARN)
        yield Text(f"   mend: {show.printable(alarm.command)}", _DIM)
    if len(gathered.alarms) > _ALARMS_MAX:
        yield Text(f"   {len(gathered.alarms) - _ALARMS_MAX} more: kvzmq doctor", _DIM)


def _footer(view: View) -> Text:
    if view.typing:
        return Text.assemble((" show only: ", _HEAD), view.pattern, ("_", "blink"), ("   Enter keeps, Esc ends", _DIM))
    if view.pattern:
        return Text.assemble((" only ", _HEAD), (show.printable(view.pattern), _WARN), ("   Esc ends it  h help", _DIM))
    line = Text(" ")
    for key, what in _SHORT.items():
        line.append(key, _HEAD).append(f" {what}  ", _DIM)
    return line.append(f"every {view.interval_s:g} s", _DIM)


_SHORT: Mapping[str, str] = {
    "q": "quit", "h": "help", "s o": "sort", "/": "filter", "p": "pause", "m": "prefixes",
}  # fmt: skip
"""The keys that the footer names; view.KEYS has them all."""


_EXPLAINED = (
    "Latencies are the server's: from the end of the poll until the replies were handed over. changes/sync: changes "
    "made durable by one wait for the disk. Where a server is busy, latencies and phases are of one step a "
    "millisecond, and requests of a client are estimates. What is wrong is what kvzmq doctor says; what to do then: "
    "docs/observing.md."
)


def _help(columns: int, lines_max: int) -> Sequence[Text]:
    lines = [Text()]
    for key in HELP:
        first, *rest = wrap(key.help, columns - _HELP_COLUMNS)
        lines.append(Text.assemble((f"  {key.shown:{_HELP_COLUMNS - 2}}", _HEAD), first))
        lines += [Text(" " * _HELP_COLUMNS + line) for line in rest]
    return [*lines, Text(), *(Text(f"  {line}") for line in wrap(_EXPLAINED, columns - 2))][:lines_max]


# ---- the figures

_PAIRS: Sequence[tuple[tuple[str, str, Callable[[Rates], str]], tuple[str, str, Callable[[Rates], str]]]] = (
    (("requests", "requests", lambda r: f"{rate(r.requests_per_s)}/s"),
     ("latency p50", "latency_p50", lambda r: _time(r.latency.count, r.latency.p50_s))),
    (("changes", "changes", lambda r: f"{rate(r.changes_per_s)}/s"),
     ("latency p99", "latency_p99", lambda r: _time(r.latency.count, r.latency.p99_s))),
    (("syncs", "syncs", lambda r: f"{rate(r.syncs_per_s)}/s"),
     ("sync p50", "sync_p50", lambda r: _time(r.sync.count, r.sync.p50_s))),
    (("changes/sync", "changes_per_sync", lambda r: rate(r.changes_per_sync)),
     ("sync p99", "sync_p99", lambda r: _time(r.sync.count, r.sync.p99_s))),
    (("cpu", "cpu", lambda r: f"{r.cpu_share:.0%}"),
     ("logged", "logged", lambda r: f"{_size(r.logged_bytes_per_s)}/s")),
)  # fmt: skip
"""Two figures a line, each with its name, its line of `Recent`, and how its value is written."""


def _figures(gathered: Gathered, rates: Rates, screen: Size) -> Iterator[Text]:
    half = screen.columns // 2
    spark = half - _NAME_COLUMNS - _VALUE_COLUMNS - 3
    for pair in _PAIRS:
        line = Text()
        for name, figure, written in pair:
            line.append(f" {name:{_NAME_COLUMNS}}", _LABEL)
            line.append(f"{written(rates):>{_VALUE_COLUMNS}} ", _DIM if gathered.silence else _VALUE)
            line.append(sparkline(gathered.recent.line(figure, spark), spark, screen.heights), _SPARK).append(" ")
        yield line


def sparkline(values: Sequence[float | None], columns: int, heights: str = BLOCKS) -> str:
    """Return a line as high as each value is beside the highest, the latest at the right; a gap is a blank."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return " " * columns
    highest = max(known)
    top = len(heights) - 1
    drawn = "".join(
        " " if value is None else heights[round(top * value / highest)] if highest > 0 else heights[0]
        for value in values[-columns:]
    )
    return drawn.rjust(columns)


def _phases(rates: Rates, screen: Size) -> Text:
    """Return where the time of a step goes, in words and as a bar."""
    line = Text(f" {'step':{_NAME_COLUMNS}}", _LABEL)
    if not any(rates.step_shares.values()):
        return line.append("no step was timed", _DIM)
    for name, color in zip(PHASES, _PHASE_COLORS):
        line.append(f" {name} ").append(f"{rates.step_shares[name]:.0%} ", f"bold {color}")
    room = screen.columns - len(line) - 1
    full = screen.heights[-1]
    for name, color in zip(PHASES, _PHASE_COLORS):
        line.append(full * int(room * rates.step_shares[name]), color)
    return line


def _table(snapshot: Snapshot) -> Text:
    stats = snapshot.stats
    compacting = ", one runs" if stats.get("compaction_running") else ""
    parts = (
        count(stats.get("keys") or 0, "row"),
        f"memory {_size(stats.get('resident_bytes') or 0)}",
        f"log {_size(stats.get('log_bytes') or 0)}",
        f"checkpoint {_size(stats.get('checkpoint_bytes') or 0)}",
        count(stats.get("compactions") or 0, "compaction") + compacting,
    )
    return Text(" " + ", ".join(parts))


# ---- the lists


def _operations(gathered: Gathered, rates: Rates, view: View, screen: Size) -> Iterator[Text]:
    spark = screen.columns - 60
    head = _columns(("operation", -14), ("per s", 9), ("errors/s", 9), ("p50", 9), ("p99", 9))
    yield Text(f"{head}  by {view.operation_order}", _HEAD)
    for name, of in view.operations(rates):
        line = Text(
            _columns(
                (name, -14), (rate(of.per_s), 9), (rate(of.errors_per_s) if of.errors_per_s else "", 9),
                (_time(of.latency.count, of.latency.p50_s), 9), (_time(of.latency.count, of.latency.p99_s), 9),
            ),
            _DIM if not of.per_s else "",
        )  # fmt: skip
        line.append("  ").append(sparkline(gathered.recent.operation_line(name, spark), spark, screen.heights), _SPARK)
        yield line


def _clients(rates: Rates, view: View, screen: Size) -> Iterator[Text]:
    found = view.clients(rates)
    view.skipped = min(view.skipped, max(0, len(found) - 1))
    name_columns = max(19, min(40, screen.columns - 80))
    head = count(len(found), "client") if not view.skipped else f"from {view.skipped + 1:,} of {len(found):,}"
    heads = [(head, -name_columns), *((name, width) for name, width, _ in _CLIENT_COLUMNS)]
    shown = len(heads) if screen.columns >= _WATCHES_FROM_COLUMNS else -1
    yield Text(f"{_columns(*heads[:shown])}  by {view.client_order}", _HEAD)
    for one in found[view.skipped :]:
        cells = [(show.printable(one.client["name"]), -name_columns)]
        cells += [(written(one), width) for _, width, written in _CLIENT_COLUMNS]
        address = one.client["address"] or "?"
        where = "" if one.client["name"].endswith(address) else f" {show.printable(address)}"
        drawn = Text(_columns(*cells[:shown]), "" if one.requests_per_s else _DIM)
        transport = f"  {one.client['transport']}" if screen.columns >= _TRANSPORT_FROM_COLUMNS else " "
        yield drawn.append(f"{transport}{where}", _DIM)


_CLIENT_COLUMNS: Sequence[tuple[str, int, Callable[[ClientRates], str]]] = (
    ("requests/s", 11, lambda one: rate(one.requests_per_s)),
    ("received/s", 11, lambda one: _known_size(one.received_bytes_per_s)),
    ("taken/s", 11, lambda one: _known_size(one.taken_bytes_per_s)),
    ("unread", 10, lambda one: _known_size(one.client["unread_bytes"])),
    ("watches", 8, lambda one: str(one.client["watches"] or "")),
)
"""What is shown of a client besides its name: head, width, and how it is written; the last where there is room."""

_WATCHES_FROM_COLUMNS = 90
_TRANSPORT_FROM_COLUMNS = 100
"""Names begin with the transport, unless the client has chosen its own."""


def _known_size(amount: float | None) -> str:
    return "?" if amount is None else _size(amount)


def _prefixes(gathered: Gathered, view: View, screen: Size) -> Iterator[Text]:
    yield Text(" hottest prefixes, of a sample of the requests", _HEAD)
    if gathered.sampling_trouble:
        yield Text(f" {show.printable(gathered.sampling_trouble)}", _WARN)
    elif gathered.prefixes is not None:
        shares = [pair for pair in gathered.prefixes.shares(50) if view.passes(pair[0])][:_PREFIXES_MAX]
        if not shares:
            asked = f"for a key with {show.printable(view.pattern)}" if view.pattern else "with a key"
            yield Text(f" no request {asked} so far", _DIM)
        width = max(10, screen.columns - 50)
        for prefix, share in shares:
            line = Text(f" {_fitted(show.printable(prefix), 34)} {share:>5.0%}  ")
            yield line.append(screen.heights[-1] * round(width * share), _SPARK)


# ---- parts of lines


def _columns(*cells: tuple[str, int]) -> str:
    """Return texts in columns of the given widths; a negative one is aligned at its left."""
    parts = (_fitted(text, -width) if width < 0 else f"{text:>{width}}" for text, width in cells)
    return " " + "".join(parts)


def _fitted(text: str, columns: int) -> str:
    """Return a name in so many columns, cut with a mark if it is longer."""
    drawn = Text(text)
    drawn.truncate(columns, overflow="ellipsis", pad=True)
    return drawn.plain


def _cut(line: Text, columns: int) -> Text:
    line = line.copy()
    line.truncate(columns, overflow="crop")
    return line


def _time(times: int, seconds: float) -> str:
    return brief(seconds) if times else "-"


def _size(amount: float) -> str:
    return size(amount).replace(" bytes", " B")
