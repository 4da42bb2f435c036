"""Operations of the log: what it holds besides the changes of rows."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from kvzmq.protocol.declaration import Write, no_key
from kvzmq.protocol.limits import TABLE_ID_BYTES


class Open(Write, tag="open"):
    """Open the request's session. Payload: a map with `lineage` and `epoch`, or null for a table without."""

    mark = "O"
    accesses = no_key


class BeginEpoch(Write, tag="epoch"):
    """Begin an epoch of the table, and its lineage if it has none."""

    id: Annotated[bytes, Meta(min_length=TABLE_ID_BYTES, max_length=TABLE_ID_BYTES)]
    lineage: Annotated[bytes, Meta(min_length=TABLE_ID_BYTES, max_length=TABLE_ID_BYTES)] | None = None

    mark = "B"
    from_clients = False
    accesses = no_key


class Senders(Write, tag="by"):
    """Say who has sent the requests that follow in the group: clients' names, None for who has none, each with how many
    requests in a row. The server's own, like `epoch`; it changes no row."""

    runs: list[tuple[str | None, int]]

    mark = "N"
    from_clients = False
    accesses = no_key
