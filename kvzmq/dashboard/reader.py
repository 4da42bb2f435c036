"""The asyncio client, with single pages of rows: a browser asks for one page, and perhaps never for the next."""

from __future__ import annotations

from typing import Any

from kvzmq.client.asyncio.client import AsyncClient
from kvzmq.client.asyncio.connection import AsyncConnection
from kvzmq.client.core.targets import parse_targets
from kvzmq.client.core.transports import Opener, check_transport

TIMEOUT_S = 5.0
"""How long a call may take, unless it says otherwise."""


class Reader(AsyncClient):
    """A client of the dashboard."""

    async def page(self, prefix: str, after: str | None, limit: int) -> list[tuple[str, Any]]:
        """Return the first `limit` rows below a prefix whose keys come after `after`, or fewer if they are large."""
        rows: list[tuple[str, Any]] = await self._run(self._calls.items(prefix, after, limit))
        return rows


def connect(url: str, curve_key: str | None = None, server_key: str | None = None) -> Reader:
    """Return a client of the server at a URL; nothing is connected yet.

    Args:
        url: as `kvzmq.connect` takes it
        curve_key: the path of the client's keys, for a server with CURVE whose URL does not say them
        server_key: the public key of that server

    Raises:
        ValueError: the URL is malformed, or keys cannot be used with it
    """
    targets = parse_targets(url, curve_key, server_key)
    return Reader(AsyncConnection(targets, TIMEOUT_S, Opener(check_transport(None, None, targets), None)))
