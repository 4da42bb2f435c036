"""The asyncio client: the methods of the blocking one, to await."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvzmq.client.asyncio.connection import AsyncConnection
from kvzmq.client.asyncio.mapping import AsyncMappingMethods
from kvzmq.client.asyncio.server import AsyncServerMethods
from kvzmq.client.core.base import check_settings
from kvzmq.client.core.reads import LINEARIZABLE, Reads
from kvzmq.client.core.targets import Target
from kvzmq.client.core.timeouts import TIMEOUT_S
from kvzmq.client.core.transports import Opener
from kvzmq.client.core.values import check_prefix

if TYPE_CHECKING:
    from kvzmq.client.core.pyzmq_socket import Context


def connect_async(
    url: str | None = None,
    timeout: float | None = TIMEOUT_S,
    *,
    transport: str | None = None,
    curve_key: str | os.PathLike[str] | None = None,
    server_key: str | None = None,
    context: Context | None = None,
    reads: Reads | None = None,
) -> AsyncClient:
    """Return an asyncio client of the server at `url`; see `connect`. Use it in an `async with` block.

    Raises:
        ValueError: the URL is malformed, the timeout not above 0, the transport none for it, a key cannot be used, or
            there is no such kind of reads
        TypeError: one of them is of another type
    """
    return open_client(*check_settings(url, timeout, transport, curve_key, server_key, context, reads))


def open_client(
    targets: Sequence[Target],
    timeout_s: float,
    prefix: str = "",
    transport: str | None = None,
    context: Context | None = None,
    reads: Reads = LINEARIZABLE,
) -> AsyncClient:
    """Return a client with a connection of its own: a new one, or one that was pickled."""
    return AsyncClient(AsyncConnection(targets, timeout_s, Opener(transport, context), reads), prefix)


class AsyncClient(AsyncMappingMethods, AsyncServerMethods):
    """A durable table on a server, for the tasks of one event loop.

    The methods are those of Client, to await; what is said there of durability, errors and retries
    holds here. Tasks that ask in the same turn of the loop share a message.
    """

    _name = "kvzmq.AsyncClient"

    def namespace(self, prefix: str) -> AsyncClient:
        """Return this client for the keys that begin with `prefix`, which is left out of them.

        It shares the connection, which closing the namespace leaves open and closing this client closes.
        """
        prefix = check_prefix(prefix)
        return AsyncClient(self._connection, self._calls.prefix + prefix, owner=False)

    def __copy__(self) -> AsyncClient:
        return self.namespace("")

    def __deepcopy__(self, memo: object) -> AsyncClient:
        return self.namespace("")

    def __reduce__(self) -> tuple[Any, ...]:
        return open_client, self._settings()
