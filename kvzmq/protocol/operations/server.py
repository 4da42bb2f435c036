"""Operations about the server: what it is, how it does, who is connected, and a backup of the whole table."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from kvzmq.protocol.declaration import Operation, Scope, no_key, the_whole_table
from kvzmq.protocol.limits import CLIENTS_PAGE_MAX, NAME_CHARS_MAX, SLOW_REQUESTS_MAX
from kvzmq.protocol.operations.arguments import BackupId, a_piece, its_limit


class Ping(Operation, tag="ping"):
    """Do nothing. Payload: the string "pong"."""

    mark = "p"
    ordered_by_log = False
    accesses = no_key


class HelloInfo(Struct, gc=False):
    """What a client declares about itself.

    heartbeat_s  a promise to send something at least so often while it has watches, seconds; if it breaks the promise
                 its watches end
    """

    heartbeat_s: Annotated[float, Meta(ge=1, le=3600)] | None = None


class Hello(Operation, tag="hello"):
    """Introduce a connection. Payload: a map with `version`, `lineage`, `epoch`, `revision`,
    `request_bytes_max` and `heartbeat_s`; lineage and epoch are 32 hexadecimal digits or null.
    """

    info: HelloInfo | None = None

    mark = "h"
    ordered_by_log = False
    scope = Scope.SERVER
    accesses = no_key


class Stats(Operation, tag="stats"):
    """Describe the server. Payload: a map of name to number or string."""

    mark = "?"
    ordered_by_log = False
    scope = Scope.SERVER
    administers = True
    accesses = no_key


class Backup(Operation, tag="backup"):
    """Read a checkpoint that holds everything acknowledged before it was first asked for, piece by piece.

    Without `offset` the backup begins, unless it has begun already. Payload: its length in bytes, or null while the
    checkpoint is being written. With `offset`: up to BACKUP_CHUNK_BYTES bytes from there; at its end none, and the
    server lets it go. In a request of its own. BackupFailed.
    """

    id: BackupId
    offset: Annotated[int, Meta(ge=0)] | None = None

    mark = "b"
    scope = Scope.SERVER
    administers = True
    accesses = the_whole_table
    weight = a_piece


class Clients(Operation, tag="clients"):
    """List at most `limit` connected clients whose names sort after `after`. Payload: an array of maps, by name."""

    after: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] = ""
    limit: Annotated[int, Meta(ge=1, le=CLIENTS_PAGE_MAX)] = 100

    mark = "c"
    ordered_by_log = False
    scope = Scope.SERVER
    administers = True
    accesses = no_key
    weight = its_limit


class Kick(Operation, tag="kick"):
    """End the connection of the client of this name. Payload: whether there was one that could be ended."""

    name: Annotated[str, Meta(max_length=NAME_CHARS_MAX)]

    mark = "!"
    ordered_by_log = False
    scope = Scope.SERVER
    administers = True
    accesses = no_key


class SlowRequests(Operation, tag="slow_requests"):
    """List at most `limit` of the requests that took longest. Payload: an array of records, the slowest first."""

    limit: Annotated[int, Meta(ge=1, le=SLOW_REQUESTS_MAX)] = SLOW_REQUESTS_MAX

    mark = "z"
    ordered_by_log = False
    scope = Scope.SERVER
    administers = True
    accesses = the_whole_table
    weight = its_limit
