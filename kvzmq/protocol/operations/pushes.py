"""Operations about the watches and monitors of a connection, whose events a server pushes."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw

from kvzmq import errors
from kvzmq.protocol.declaration import Operation, Scope, declared, its_prefix, method_of, no_key, the_whole_table
from kvzmq.protocol.limits import NAME_CHARS_MAX, SAMPLE_MAX
from kvzmq.protocol.operations.arguments import (
    EpochArgument,
    a_page,
    check_name,
    check_prefix,
    check_subkey,
    its_subvalue,
)


class Watch(Operation, tag="watch"):
    """Push an event for every change of a key that begins with `prefix`.

    With `from_revision`, a revision reached in `epoch`, the changes after it come first. Payload: the watch's number.
    If `epoch` is given, be it null, the payload is `[number, lineage, epoch]` instead, and events say where a request
    ends. RevisionGone if the history does not reach back so far, or is another one. Not available at the bridge.
    """

    prefix: str = ""
    from_revision: Annotated[int, Meta(ge=0)] | None = None
    epoch: EpochArgument | None = ""

    mark = "w"
    scope = Scope.CONNECTION
    pushes = True
    accesses = its_prefix
    weight = a_page
    check = check_prefix


class WatchQuery(Operation, tag="watch_query"):
    """Push an event for every row that enters, changes within, or leaves a query's matches."""

    subkey: str
    subvalue: Raw
    from_revision: Annotated[int, Meta(ge=0)] | None = None
    epoch: EpochArgument | None = ""

    mark = "w"
    scope = Scope.CONNECTION
    pushes = True
    accesses = the_whole_table
    weight = a_page
    values = its_subvalue
    check = check_subkey


class Monitor(Operation, tag="monitor"):
    """Push records of the requests that are answered, as far as they pass the filters. Payload: the monitor's number.

    A request passes if the name of its client begins with `client`, if one of its operations is `op` and touches a key
    that begins with `prefix`, each unless it is "", and if it took `slower_than_s` or longer. Of those that pass, one
    of `sample` is told.
    """

    client: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] = ""
    op: str = ""
    prefix: str = ""
    slower_than_s: Annotated[float, Meta(ge=0)] = 0.0
    sample: Annotated[int, Meta(ge=1, le=SAMPLE_MAX)] = 1

    mark = "v"
    ordered_by_log = False
    scope = Scope.CONNECTION
    pushes = True
    administers = True
    accesses = its_prefix

    def check(self) -> None:
        check_name("prefix", self.prefix)
        if self.op and not any(method_of(kind) == self.op for kind in declared() if kind.from_clients):
            raise errors.InvalidRequest(f"there is no operation {self.op[:100]!r} that a monitor could show")


class Progress(Operation, tag="progress"):
    """Ask for an event without a change, to be sent when every event of the watch up to the revision of this reply was.

    Payload: whether this connection has a watch of this number, or a monitor: of that it is the heartbeat.
    """

    watch: int

    mark = "g"
    scope = Scope.CONNECTION
    accesses = no_key


class Unwatch(Operation, tag="unwatch"):
    """End the watch, or the monitor, of this number. Payload: null."""

    watch: int

    mark = "u"
    ordered_by_log = False
    scope = Scope.CONNECTION
    accesses = no_key
