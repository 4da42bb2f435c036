"""`kvzmq trace FILE`: how the requests of several clients interleaved."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import click

from kvzmq.cli import DONE, NOT_FOUND, USAGE, complain
from kvzmq.tracing import interleaving
from kvzmq.tracing.interleaving import BAR, REST, Block, Numbered, Summary
from kvzmq.tracing.trace import Line

LANES_REQUESTS = 240
"""How many requests are drawn unless told otherwise."""

_WIDTH_MAX = 160
"""Wider drawings are harder to follow, not easier."""

_COLORS = (
    "green",
    "cyan",
    "yellow",
    "magenta",
    "blue",
    "red",
    "bright_green",
    "bright_cyan",
    "bright_yellow",
    "bright_magenta",
)


@click.command("trace")
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--lanes",
    "requests",
    type=click.IntRange(min=0),
    default=LANES_REQUESTS,
    show_default=True,
    metavar="N",
    help="Draw N requests; 0 draws none.",
)
@click.option(
    "--step",
    "first_step",
    type=int,
    metavar="N",
    help="Begin the drawing at step N.  [default: the first that served several clients]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def trace(file: Path, requests: int, first_step: int | None, as_json: bool) -> None:
    """Show how requests interleaved, from what `kvzmq server --trace FILE` wrote.

    FILE may be - for standard input. Each lane is a client, time runs to the right, a bar begins a step
    of the server's loop; capitals write, small letters read. Exits with 1 if requests did not each
    execute alone.
    """
    try:
        with click.open_file(str(file), encoding="utf-8", errors="replace") as lines:
            summary, excerpt = _read(lines, first_step, requests)
    except interleaving.BadTraceLine as error:
        complain(f"{'standard input' if str(file) == '-' else file}: {error}")
        sys.exit(USAGE)
    if as_json:
        click.echo(json.dumps(summary._asdict() | {"alone": summary.alone}))
    else:
        _print_summary(summary)
        _print_lanes(excerpt)
    sys.exit(DONE if summary.alone else NOT_FOUND)


def _read(texts: Iterable[str], first_step: int | None, requests: int) -> tuple[Summary, list[Line]]:
    """Summarize the whole trace and keep the part that is to be drawn."""
    kept = _Excerpt(first_step, requests)
    summary = interleaving.summarize(kept.watch(interleaving.read(texts)))
    return summary, kept.lines or kept.head


class _Excerpt:
    """Keeps so many lines from the first step of interest on, while all lines pass by."""

    def __init__(self, first_step: int | None, requests: int) -> None:
        self.lines: list[Line] = []
        self.head: list[Line] = []  # to fall back on when no step served several clients
        self._first_step = first_step
        self._requests = requests
        self._step: list[Line] = []

    def watch(self, numbered: Iterable[Numbered]) -> Iterator[Numbered]:
        for entry in numbered:
            yield entry
            self._look_at(entry.line)

    def _look_at(self, line: Line) -> None:
        if len(self.head) < self._requests and self._first_step is None:
            self.head.append(line)
        if self.lines:
            if len(self.lines) < self._requests:
                self.lines.append(line)
            return
        if self._first_step is not None:
            if line.step >= self._first_step and self._requests:
                self.lines.append(line)
            return
        if self._step and self._step[0].step != line.step:
            self._step.clear()
        self._step.append(line)
        if self._step[0].client != line.client:
            self.lines = list(islice(self._step, self._requests))


def _print_summary(summary: Summary) -> None:
    shared = f" ({summary.shared_steps / summary.steps:.0%})" if summary.steps else ""
    operations = ", ".join(f"{name} {count:,}" for name, count in summary.operations.items())
    run = f"{summary.longest_run:,}"
    if summary.longest_run_client is not None:
        run += f", by {summary.longest_run_client}"
    alone = (
        click.style("yes", fg="green") if summary.alone else click.style(f"NO, {summary.fault}", fg="red", bold=True)
    )
    rows = [
        ("requests", f"{summary.requests:,}"),
        ("by operation", operations or "none"),
        ("clients", f"{summary.clients:,}"),
        ("steps of the loop", f"{summary.steps:,}"),
        ("steps that served several clients", f"{summary.shared_steps:,}{shared}"),
        ("requests a step", f"mean {summary.requests_a_step:.1f}, max {summary.requests_a_step_max:,}"),
        ("longest run of one client, others active", run),
        (
            "changes of the table",
            f"{summary.changes:,}" + (f", {summary.expired:,} of them expired rows" if summary.expired else ""),
        ),
        ("each request executed alone", alone),
    ]
    label_width = max(len(label) for label, _ in rows)
    for label, text in rows:
        click.echo(f"{label:<{label_width}}  {text}")


def _print_lanes(lines: Sequence[Line]) -> None:
    if not lines:
        return
    clients = list(dict.fromkeys(line.client for line in lines))
    colors = {client: _COLORS[number % len(_COLORS)] for number, client in enumerate(clients)}
    label_width = max(*map(len, clients), len("step"))
    width = min(shutil.get_terminal_size().columns, _WIDTH_MAX) - label_width - 2
    for block in interleaving.draw(lines, max(20, width)):
        click.echo()
        click.echo(f"{'step':>{label_width}} {_ruler(block)}".rstrip())
        for client in (client for client in clients if client in block.lanes):
            label = click.style(f"{client:>{label_width}}", fg=colors[client])
            click.echo(f"{label} {_lane(block.lanes[client], colors[client])}")
    marks: dict[str, str] = {}
    for line in lines:
        marks.setdefault(interleaving.mark(line), line.operation.partition("+")[0])
    legend = "  ".join(f"{sign} {name}" for sign, name in sorted(marks.items(), key=lambda item: item[1]))
    click.echo(f"\n{legend}  {REST} another client's turn  {BAR} a step begins")


def _ruler(block: Block) -> str:
    """Write the steps' numbers above their bars, where there is room."""
    text = ""
    for step, column in block.steps:
        if column >= len(text) + (1 if text else 0):
            text = text.ljust(column) + str(step)
    return text


def _lane(lane: str, color: str) -> str:
    """Color a client's requests; dim what is not its own."""
    pieces = []
    start = 0
    for end in range(1, len(lane) + 1):
        if end == len(lane) or (lane[end] in REST + BAR) != (lane[start] in REST + BAR):
            own = lane[start] not in REST + BAR
            pieces.append(
                click.style(lane[start:end], fg=color, bold=True) if own else click.style(lane[start:end], dim=True)
            )
            start = end
    return "".join(pieces)
