"""What the blocking and the asyncio client have in common, whichever way they wait. No I/O."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from kvzmq.client.core.call import Call
from kvzmq.client.core.calls import Calls
from kvzmq.client.core.endpoints import Endpoints
from kvzmq.client.core.reads import LINEARIZABLE, Reads, check_reads
from kvzmq.client.core.targets import Target, parse_targets
from kvzmq.client.core.timeouts import check_timeout
from kvzmq.client.core.transports import Opener, check_transport

if TYPE_CHECKING:
    from kvzmq.client.core.monitor_state import MonitorState
    from kvzmq.client.core.push_channel import PushChannel
    from kvzmq.client.core.pyzmq_socket import Context
    from kvzmq.client.core.watch_state import WatchState

C = TypeVar("C", bound="BaseConnection")

Settings = tuple[Sequence[Target], float, str, "str | None", "Context | None", Reads]
"""What a client is made of: servers, timeout in seconds, prefix, transport, context and kind of reads."""


def check_settings(
    url: str | None,
    timeout: float | None,
    transport: str | None,
    curve_key: str | os.PathLike[str] | None,
    server_key: str | None,
    context: Context | None,
    reads: Reads | None,
) -> Settings:
    """Return what `connect` was given, checked, and completed from the environment; see there.

    Raises:
        ValueError, TypeError: something cannot be used
    """
    targets = parse_targets(url, curve_key, server_key)
    timeout_s = math.inf if timeout is None else check_timeout(timeout)
    transport = check_transport(transport, context, targets)
    return targets, timeout_s, "", transport, context, check_reads(reads)


class BaseConnection:
    """Base class of connections to the servers of one table.

    Args:
        targets: the servers, tried in turn
        timeout_s: how long a call may take unless it says otherwise
        open_socket: makes a socket to one of them
        reads: how new what is read has to be
    """

    def __init__(
        self, targets: Sequence[Target], timeout_s: float, open_socket: Opener, reads: Reads = LINEARIZABLE
    ) -> None:
        self.targets = targets
        self.timeout_s = timeout_s
        self.open_socket = open_socket
        self.reads = reads
        self.closed = False

    @property
    def lineage(self) -> str | None:
        """The lineage of the table that this client has asked; or None."""
        raise NotImplementedError

    @property
    def revision(self) -> int:
        """The highest revision in any reply, or event of a watch."""
        raise NotImplementedError

    def note_seen(self, revision: int) -> None:
        """Take note that this client has seen a revision elsewhere: its session reads then see it, too."""
        raise NotImplementedError


class BaseClient(Generic[C]):
    """Base class of clients: the keys below a prefix, over a connection that is a client's own or another's.

    Args:
        connection: to the servers
        prefix: of all keys
        owner: whether closing this closes the connection
    """

    _name: ClassVar[str]
    """What it is called in its `repr`."""

    def __init__(self, connection: C, prefix: str = "", *, owner: bool = True) -> None:
        self._connection = connection
        self._calls = Calls(prefix)
        self._owner = owner
        self._released = False

    @property
    def transport(self) -> str:
        """How this client reaches its server: `plain` or `pyzmq`; or both, comma-separated, where its URLs differ."""
        return self._connection.open_socket.describe(self._connection.targets)

    @property
    def revision(self) -> int:
        """The highest revision of the table in any reply to this client."""
        return self._connection.revision

    @property
    def lineage(self) -> str | None:
        """Which table this client asks, 32 hexadecimal digits: of any other it asks nothing. None before an answer."""
        return self._connection.lineage

    @property
    def _closed(self) -> bool:
        return self._released or self._connection.closed

    @property
    def _kind(self) -> str:
        return "client" if self._owner or not self._calls.prefix else "namespace"

    def _closed_error(self) -> ValueError:
        return ValueError(f"the {self._kind} is closed")

    def _settings(self) -> Settings:
        """Return what another client like this one is made of, in another process: a context stays behind."""
        connection = self._connection
        transport = connection.open_socket.transport
        return connection.targets, connection.timeout_s, self._calls.prefix, transport, None, connection.reads

    def __repr__(self) -> str:
        place = f" below {self._calls.prefix!r}" if self._calls.prefix else ""
        state = " closed" if self._closed else ""
        urls = ",".join(target.url for target in self._connection.targets)
        return f"<{self._name} {urls} transport={self.transport}{place}{state}>"

    # ---- what a server pushes. Imported when it is first wanted, as most programs watch nothing: a twelfth of the
    # instructions from Python's start to a first answer.

    def _watch_channel(
        self, make_call: Callable[[int | None, str | None], Call], from_revision: int | None, epoch: str | None
    ) -> PushChannel[WatchState]:
        if self._closed:
            raise self._closed_error()
        make_call(from_revision, epoch)  # bad arguments are refused here, not when a connection is there
        from kvzmq.client.core.push_channel import PushChannel
        from kvzmq.client.core.watch_state import WatchState

        connection = self._connection
        state = WatchState(make_call, self._calls.prefix, from_revision, epoch, connection.lineage)
        return PushChannel(state, Endpoints(connection.targets), connection.open_socket, connection.note_seen)

    def _monitor_channel(self, *filters: Any) -> PushChannel[MonitorState]:
        if self._closed:
            raise self._closed_error()
        from kvzmq.client.core.monitor_state import MonitorState
        from kvzmq.client.core.push_channel import PushChannel

        connection = self._connection
        state = MonitorState(self._calls.monitor(*filters), connection.lineage)
        return PushChannel(state, Endpoints(connection.targets), connection.open_socket)

    def _timeout_s(self, timeout: float | None) -> float:
        return self._connection.timeout_s if timeout is None else check_timeout(timeout)
