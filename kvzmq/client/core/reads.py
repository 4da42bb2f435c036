"""How new what a client reads has to be, where several servers serve one table; see docs/protocol.md.

    linearizable   all that any server has acknowledged
    session        all that this client has seen of the table, its own writes included
    local          whatever the server has

Only requests that write nothing are concerned: a write, and what travels with it, is always linearizable.
"""

from __future__ import annotations

import os
from typing import Literal

Reads = Literal["linearizable", "session", "local"]

LINEARIZABLE: Reads = "linearizable"
SESSION: Reads = "session"
LOCAL: Reads = "local"
READS: tuple[Reads, ...] = (LINEARIZABLE, SESSION, LOCAL)

READS_VARIABLE = "KVZMQ_READS"
"""The environment variable that chooses for programs that do not."""


def check_reads(reads: str | None) -> Reads:
    """Return the kind that was asked for, by the environment if need be.

    Raises:
        TypeError: it is no string
        ValueError: there is no such kind
    """
    source = ""
    if reads is None:
        reads = os.environ.get(READS_VARIABLE) or LINEARIZABLE
        source = f" (from {READS_VARIABLE})"
    if not isinstance(reads, str):
        raise TypeError(f"reads is a {type(reads).__name__}: it is one of {', '.join(READS)}, or None")
    for kind in READS:
        if reads == kind:
            return kind
    raise ValueError(f"reads is {reads!r}{source}: it is one of {', '.join(READS)}")
