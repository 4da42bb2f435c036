"""The interleave trace: one line for every request executed, in the order of execution.

    step <tab> revision <tab> client <tab> operation <tab> key <tab> changes <tab> began_us <tab> took_us

`revision` is the table's after the request, `changes` how many of its revisions are the request's
own; `key` is JSON, or `-` for an operation without one; a request of several operations has the
first one's name and key and `+N` for the others; `began_us` counts from the trace's start, in
microseconds. Rows that expired have a line of their own, of the client `-`. A line that starts with
`#` is a comment. A line is written when its request has executed, which may be before the step is
durable: after a crash the last step's lines may show requests that were not answered and are not in
the log.

Requests interleave where neighbouring lines of one step have different clients. Each request was executed
alone if the times do not overlap and each line's revision is that of the line before plus its own changes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

import msgspec

from kvzmq.protocol.declaration import Operation, method_of
from kvzmq.protocol.messages import Request
from kvzmq.server.observer import Executed, Observer, Phases

COLUMNS = ("step", "revision", "client", "operation", "key", "changes", "began_us", "took_us")

THE_SERVER = "-"
"""The client of lines that no client's request caused."""

EXPIRED = "expired"
"""The operation of a line for rows that expired."""

_log = logging.getLogger(__name__)
_encode_json = msgspec.json.Encoder().encode


class Line(NamedTuple):
    """One executed request, as the trace shows it."""

    step: int
    revision: int
    client: str
    operation: str
    key: str
    changes: int
    began_us: float
    took_us: float


class Trace(Observer):
    """Writes the trace to a text file.

    Args:
        file: open for writing
        now_ns: the clock by which requests are timed, see Executed
    """

    def __init__(self, file: TextIO, now_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._file = file
        self._start_ns = now_ns()
        self._expired = 0
        self._expired_revision = 0
        self._failed = False
        self._print("# " + "\t".join(COLUMNS) + "\n")

    def on_expire(self, rows: int, revision: int) -> None:
        """Count rows for a line of their own, which is written before the next request's."""
        self._expired += rows
        self._expired_revision = revision

    def on_execute(self, executed: Executed) -> None:
        """Write the line of a request."""
        if self._expired:
            now_ns = executed.began_ns
            self._line(executed.step, self._expired_revision, THE_SERVER, EXPIRED, "-", self._expired, now_ns, now_ns)
            self._expired = 0
        operation, key = _describe(executed.request)
        changes = executed.revision_after - executed.revision_before
        name = executed.arrival.transport.name(executed.arrival.peer)
        self._line(
            executed.step, executed.revision_after, name, operation, key, changes, executed.began_ns, executed.ended_ns
        )

    def on_step(self, phases: Phases) -> None:
        """Flush the file, so that its readers see the step."""
        self.flush()

    def _line(
        self,
        step: int,
        revision: int,
        client: str,
        operation: str,
        key: str,
        changes: int,
        began_ns: int,
        ended_ns: int,
    ) -> None:
        began_us, took_us = (began_ns - self._start_ns) / 1e3, (ended_ns - began_ns) / 1e3
        self._print(f"{step}\t{revision}\t{client}\t{operation}\t{key}\t{changes}\t{began_us:.1f}\t{took_us:.1f}\n")

    def _print(self, text: str) -> None:
        if not self._failed:
            self._try(lambda: self._file.write(text))

    def flush(self) -> None:
        """Flush the file; a failure ends the trace, not the server."""
        if not self._failed:
            self._try(self._file.flush)

    def go_on_in(self, file: TextIO) -> None:
        """Close the file and go on in another, as after a rotation; also where the trace had ended for an error."""
        self.close()
        self._file = file
        self._failed = False
        self._print("# " + "\t".join(COLUMNS) + "\n")

    def close(self) -> None:
        """Close the file. What is still in its buffer and cannot be written is lost."""
        self._try(self._file.close)

    def _try(self, do: Callable[[], object]) -> None:
        try:
            do()
        except (OSError, ValueError) as error:
            if not self._failed:
                self._failed = True  # a trace that cannot be written must not stop the server
                _log.warning("the trace ends here: %s", error)


def _describe(request: Request) -> tuple[str, str]:
    first: Operation = request.ops[0]
    operation = method_of(first)
    if len(request.ops) > 1:
        operation += f"+{len(request.ops) - 1}"
    key: Any = getattr(first, "key", None)
    return operation, "-" if key is None else _encode_json(key).decode()


def parse(text: str) -> Line | None:
    """Parse a line; None for a comment.

    Raises:
        ValueError: it is not a line of a trace
    """
    if text.startswith("#") or not text.strip():
        return None
    fields = text.rstrip("\n").split("\t")
    if len(fields) != len(COLUMNS):
        raise ValueError(f"{len(fields)} columns, not {len(COLUMNS)}")
    step, revision, client, operation, key, changes, began_us, took_us = fields
    return Line(int(step), int(revision), client, operation, key, int(changes), float(began_us), float(took_us))
