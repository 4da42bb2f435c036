"""The interleave trace: one line for every request executed, in the order of execution.

    step <tab> revision <tab> client <tab> operation <tab> key <tab> began_us <tab> took_us

`revision` is the table's after the request; `key` is JSON, or `-` for an operation without one; a
request of several operations has the first one's name and key and `+N` for the others; `began_us`
counts from the trace's start, in microseconds. A line that starts with `#` is a comment.

That requests interleave shows in neighbouring lines of one step with different clients; that each
executes alone shows in the times, which never overlap, and in the revisions, which have no gaps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

import msgspec

from kvzmq.messages import OPERATIONS, Operation, Refusal, Reply, Request
from kvzmq.transport import Arrival

COLUMNS = ("step", "revision", "client", "operation", "key", "began_us", "took_us")

_log = logging.getLogger(__name__)
_METHODS = {kind: method for method, kind in OPERATIONS.items()}
_encode_json = msgspec.json.Encoder().encode


class Line(NamedTuple):
    """One executed request, as the trace shows it."""

    step: int
    revision: int
    client: str
    operation: str
    key: str
    began_us: float
    took_us: float


class Trace:
    """Writes the trace to a text file."""

    def __init__(self, file: TextIO, now_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._file = file
        self._now_ns = now_ns
        self._start_ns = now_ns()
        self._span = (0, 0)
        self._failed = False
        self._print("# " + "\t".join(COLUMNS) + "\n")

    def around(self, execute: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
        """Return `execute` with a stopwatch around it."""

        def timed(request: Request) -> Reply:
            began_ns = self._now_ns()
            reply = execute(request)
            self._span = (began_ns, self._now_ns())
            return reply

        return timed

    def write(self, step: int, arrival: Arrival, reply: Reply) -> None:
        """Write the line of the request just executed."""
        request = arrival.request
        if isinstance(request, Refusal):
            return
        began_ns, ended_ns = self._span if not request.served else (self._now_ns(), self._now_ns())
        operation, key = _describe(request)
        self._print(
            f"{step}\t{reply.revision}\t{arrival.transport.name(arrival.peer)}\t{operation}\t{key}"
            f"\t{(began_ns - self._start_ns) / 1e3:.1f}\t{(ended_ns - began_ns) / 1e3:.1f}\n"
        )

    def _print(self, text: str) -> None:
        if self._failed:
            return
        try:
            self._file.write(text)
        except (OSError, ValueError) as error:
            self._failed = True  # the trace is worth less than the service
            _log.warning("the trace ends here: %s", error)

    def flush(self) -> None:
        """Let readers of the file see what was written."""
        if not self._failed:
            try:
                self._file.flush()
            except (OSError, ValueError) as error:
                self._failed = True
                _log.warning("the trace ends here: %s", error)


def _describe(request: Request) -> tuple[str, str]:
    first: Operation = request.ops[0]
    operation = _METHODS[type(first)]
    if len(request.ops) > 1:
        operation += f"+{len(request.ops) - 1}"
    key: Any = getattr(first, "key", None)
    return operation, "-" if key is None else _encode_json(key).decode()


def parse(text: str) -> Line | None:
    """Read a line back; None for a comment.

    Raises:
        ValueError: it is not a line of a trace
    """
    if text.startswith("#") or not text.strip():
        return None
    fields = text.rstrip("\n").split("\t")
    if len(fields) != len(COLUMNS):
        raise ValueError(f"{len(fields)} columns, not {len(COLUMNS)}")
    step, revision, client, operation, key, began_us, took_us = fields
    return Line(int(step), int(revision), client, operation, key, float(began_us), float(took_us))
