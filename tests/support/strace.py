"""Faults in the system calls of real processes, by strace's injection.

`inject("fdatasync", "error=EIO", when="3", data=path)` is a wrapper for a command: the third
fdatasync of each thread fails that touches a file of the store in `path`. The calls are written to
`output`, so a test can see what the process did next. strace counts each kind of call, and each
thread's, by itself.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FILES = ("", "table.txn", "table.txn.tmp", "table.txn.sealed", "table.ckpt", "table.ckpt.tmp")
"""The names in a store's directory, the directory itself first."""

CALLS = ("mkdir", "openat", "flock", "pwrite64", "fdatasync", "fsync", "rename", "unlink", "ftruncate")
"""Every system call by which the store changes something, or makes it last."""

KILL = "signal=KILL"

_CALL = re.compile(r"^(?:\d+ +)?(?:[\d:.]+ +)?(?P<name>\w+)\((?P<arguments>.*?)\)? += (?P<result>.*)$")


class Call(NamedTuple):
    """A system call as strace wrote it down."""

    name: str
    arguments: str
    result: str


def inject(
    call: str,
    fault: str,
    when: str,
    data: Path,
    output: Path,
    names: Sequence[str] | None = FILES,
    follow: bool = False,
) -> list[str]:
    """Return the words to put before a command.

    Args:
        call: the name of the system call, several separated by commas
        fault: what strace is to do: KILL, "error=EIO", "retval=40" ...
        when: "3" the third time, "3+" from then on, "3..5" three times
        data: the store's directory
        output: where the calls are written down
        names: only calls that touch these of its files; None for all calls of the process
        follow: children and threads as well
    """
    return [*watch(data, output, names, follow), "-e", f"inject={call}:{fault}:when={when}"]


def watch(
    data: Path, output: Path, names: Sequence[str] | None = FILES, follow: bool = False, calls: Sequence[str] = CALLS
) -> list[str]:
    """Return the words to put before a command to have its calls written down, and no fault."""
    program = shutil.which("strace")
    assert program is not None, "strace is missing: apt-get install strace"
    paths = [word for name in names or () for word in ("-P", str(data / name) if name else str(data))]
    # -D: the command is our child, strace is its child; so its process id and exit code are the command's.
    return [
        program, "-D", "-qq", "-s", "16", *(["-f"] if follow else []), "-o", str(output), *paths,
        "-e", f"trace={','.join(calls)}", "-e", "signal=none",
    ]  # fmt: skip


def read_calls(output: Path) -> list[Call]:
    """Return the calls that were written down, in order."""
    matches = (_CALL.match(line) for line in output.read_text(errors="replace").splitlines())
    return [Call(match["name"], match["arguments"], match["result"]) for match in matches if match]
