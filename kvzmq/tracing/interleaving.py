"""How the requests of several clients interleaved, from a trace. No I/O.

It answers three questions: did a step serve several clients, how long did one client wait while requests of another
were executed, and was each request executed alone. A request was executed alone if it began after the previous one had
ended, and if the table's revision increased by the request's own changes only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kvzmq.protocol.operations import OPERATIONS
from kvzmq.tracing.trace import EXPIRED, THE_SERVER, Line, parse

ROUNDING_US = 0.15
"""By how much two requests may seem to overlap: each time is rounded to a tenth of a microsecond."""


class BadTraceLine(Exception):
    """A line of the file, its number counted from 1, is not a line of a trace."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number}: {reason}")
        self.number = number


class Numbered(NamedTuple):
    """A line of the trace and its number in the file, counted from 1."""

    number: int
    line: Line


class Summary(NamedTuple):
    """The summary of a trace.

    requests             how many were executed
    operations           requests by the method of their first operation, the most frequent first
    clients              how many had a request executed
    steps                how many had at least one request
    shared_steps         how many served several clients
    requests_a_step      mean
    requests_a_step_max  maximum
    longest_run          the most requests of one client in a row, while another one was active
    longest_run_client   the client of this run, or None
    changes              by how much the table's revision increased, expired rows included
    expired              how many rows expired
    fault                the first sign that a request was not executed alone, or None
    """

    requests: int
    operations: dict[str, int]
    clients: int
    steps: int
    shared_steps: int
    requests_a_step: float
    requests_a_step_max: int
    longest_run: int
    longest_run_client: str | None
    changes: int
    expired: int
    fault: str | None

    @property
    def alone(self) -> bool:
        """Whether each request was executed alone."""
        return self.fault is None


def read(texts: Iterable[str]) -> Iterator[Numbered]:
    """Yield the lines of a trace; a last line cut off while it was being written is left out.

    Raises:
        BadTraceLine: a line is not of a trace
    """
    for number, text in enumerate(texts, start=1):
        try:
            line = parse(text)
        except ValueError as error:
            if not text.endswith("\n"):
                return
            raise BadTraceLine(number, str(error)) from None
        if line is not None:
            yield Numbered(number, line)


class _Run(NamedTuple):
    client: str
    first: int
    last: int


def summarize(lines: Iterable[Numbered]) -> Summary:
    """Read a trace once and answer the three questions."""
    operations: Counter[str] = Counter()
    step_sizes: Counter[int] = Counter()
    shared: set[int] = set()
    last_of: dict[str, int] = {}
    first_of: dict[str, int] = {}
    runs: list[_Run] = []
    step_client: tuple[int, str] | None = None
    requests = changes = expired = 0
    fault: str | None = None
    before: Line | None = None
    for number, line in lines:
        if before is not None and fault is None:
            fault = _fault(before, line, number)
        before = line
        changes += line.changes
        if line.client == THE_SERVER:
            expired += line.changes
            continue
        client, position = line.client, requests
        requests += 1
        operations[line.operation.partition("+")[0]] += 1
        step_sizes[line.step] += 1
        if step_client is None or step_client[0] != line.step:
            step_client = (line.step, client)
        elif step_client[1] != client:
            shared.add(line.step)
        first_of.setdefault(client, position)
        last_of[client] = position
        if runs and runs[-1].client == client:
            runs[-1] = runs[-1]._replace(last=position)
        else:
            runs.append(_Run(client, position, position))
    longest = _longest(runs, first_of, last_of)
    return Summary(
        requests=requests,
        operations=dict(operations.most_common()),
        clients=len(first_of),
        steps=len(step_sizes),
        shared_steps=len(shared),
        requests_a_step=requests / len(step_sizes) if step_sizes else 0.0,
        requests_a_step_max=max(step_sizes.values(), default=0),
        longest_run=longest.last - longest.first + 1 if longest is not None else 0,
        longest_run_client=longest.client if longest is not None else None,
        changes=changes,
        expired=expired,
        fault=fault,
    )


def _fault(before: Line, line: Line, number: int) -> str | None:
    """Return how `line` shows that its request was not executed alone, `before` being the line before it; or None."""
    if line.step < before.step:
        return f"line {number}: step {line.step} after step {before.step}"
    early_us = before.began_us + before.took_us - line.began_us
    if early_us > ROUNDING_US:
        return f"line {number}: began {early_us:.1f} us before the request before it had ended"
    if line.revision != before.revision + line.changes:
        made = before.revision + line.changes
        return f"line {number}: revision {line.revision}, but {before.revision} + {line.changes} changes make {made}"
    return None


def _longest(runs: Iterable[_Run], first_of: dict[str, int], last_of: dict[str, int]) -> _Run | None:
    """Find the longest run during which another client was active: it had requests before and after the run."""
    longest: _Run | None = None
    begun: list[tuple[int, str]] = []  # of the clients that have begun, the two that go on longest
    for run in runs:
        waited = any(client != run.client and last > run.last for last, client in begun)
        if waited and (longest is None or run.last - run.first > longest.last - longest.first):
            longest = run
        if first_of[run.client] == run.first:
            begun = sorted([*begun, (last_of[run.client], run.client)], reverse=True)[:2]
    return longest


class Block(NamedTuple):
    """A part of the trace as it is drawn: as many columns as fit the width, and one lane for each client.

    steps    where each step begins: its number, and its column
    lanes    by client, one mark a column: the operation's, or a dot where another client's was executed
    width    how many columns
    """

    steps: list[tuple[int, int]]
    lanes: dict[str, str]
    width: int


REST, BAR = "·", "│"

MARKS = {**{method: kind.mark for method, kind in OPERATIONS.items()}, EXPIRED: "x"}
"""How an operation is drawn: capitals and signs write, small letters read."""

UNKNOWN_MARK = "o"


def mark_of(operation: str) -> str:
    """Return how a request is drawn, by the name of its first operation, which `+N` may follow."""
    return MARKS.get(operation.partition("+")[0], UNKNOWN_MARK)


def mark(line: Line) -> str:
    """Return how a line's request is drawn."""
    return mark_of(line.operation)


def draw(lines: Iterable[Line], width: int) -> Iterator[Block]:
    """Draw lanes, `width` columns of them at a time, with a bar wherever a step begins."""
    cells: list[tuple[str, str]] = []
    steps: list[tuple[int, int]] = []
    step: int | None = None
    for line in lines:
        begins = line.step != step
        if len(cells) + 1 + begins > width:
            yield _block(cells, steps)
            cells, steps, begins = [], [], True
        if begins:
            step = line.step
            steps.append((step, len(cells)))
            cells.append(("", BAR))
        cells.append((line.client, mark(line)))
    if cells:
        yield _block(cells, steps)


def _block(cells: list[tuple[str, str]], steps: list[tuple[int, int]]) -> Block:
    clients = list(dict.fromkeys(client for client, _ in cells if client))
    lanes = {
        client: "".join(sign if other == client or not other else REST for other, sign in cells) for client in clients
    }
    return Block(steps, lanes, len(cells))
