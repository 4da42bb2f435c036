"""The asyncio client, with single pages of rows: a browser asks for one page, and perhaps never for the next."""

from __future__ import annotations

from typing import Any

from kvzmq.client.asyncio.client import AsyncClient
from kvzmq.client.asyncio.connection import AsyncConnection
from kvzmq.client.core.transports import Opener, check_transport
from kvzmq.client.core.urls import parse_urls
from kvzmq.curve import ClientKeys

TIMEOUT_S = 5.0
"""How long a call may take, unless it says otherwise."""


class Reader(AsyncClient):
    """A client of the dashboard."""

    async def page(self, prefix: str, after: str | None, limit: int) -> list[tuple[str, Any]]:
        """Return the first `limit` rows below a prefix whose keys come after `after`, or fewer if they are large."""
        rows: list[tuple[str, Any]] = await self._run(self._calls.items(prefix, after, limit))
        return rows


def connect(url: str, keys: ClientKeys | None = None) -> Reader:
    """Return a client of the server at a URL; nothing is connected yet.

    Raises:
        ValueError: the URL is malformed, or keys cannot be used with it
    """
    urls = parse_urls(url)
    return Reader(AsyncConnection(urls, TIMEOUT_S, Opener(check_transport(None, None, urls, keys), None, keys)))
