"""The trace of `kvzmq server`: opened when it starts, and again upon SIGHUP."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from kvzmq.tracing.trace import Trace


def open_trace(path: str | None, stack: contextlib.ExitStack) -> Trace | None:
    """Return the trace into a file, - for standard output, or None for none; the stack closes it."""
    if path is None:
        return None
    if path == "-":
        return Trace(sys.stdout)
    trace = Trace(Path(path).open("w", encoding="utf-8"))
    stack.callback(trace.close)
    return trace


def reopen_trace(trace: Trace, path: str) -> str:
    """Go on with a trace in the file that has this name now; returns what to say of it."""
    # Without waiting: to open a pipe that nobody reads any more would hold the loop up for ever.
    file = open(path, "a", encoding="utf-8", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK, 0o666))
    os.set_blocking(file.fileno(), True)
    trace.go_on_in(file)
    return f"goes on in {path}"
