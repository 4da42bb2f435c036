"""The servers that a catalog knows, and how far those of one table are apart.

A catalog's figures are up to a minute old. So each server is asked for its revision as well, all at the same time: the
lag of a server is how far it is behind the one of the same table (lineage) that has most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from kvzmq import errors
from kvzmq.catalog import TABLE_TYPES, Entry, query, why_unusable
from kvzmq.dashboard.reader import Reader
from kvzmq.dashboard.shown import printable
from kvzmq.observing.figures import figures_of

SERVERS_MAX = 64
"""How many servers are shown and asked, those announced last."""

LOOK_S = 2.0
"""How long an answer is good: all browsers together ask the servers no more often."""

ASK_S_MAX = 1.5
"""How long the catalog, and each server, may take to answer."""


class Listed(msgspec.Struct):
    """A server. `asked` says whether revision, keys and lineage are its own answer, and not the catalog's."""

    project: str
    url: str
    owner: str
    lineage: str
    epoch: str
    revision: int
    keys: int
    clients: int
    heard_s: float
    asked: bool = False
    trouble: str | None = None
    lag: int | None = None


class Found(msgspec.Struct):
    """What a catalog knows, or why that is not known."""

    catalog: str
    servers: Sequence[Listed] = ()
    trouble: str | None = None
    left_out: int = 0


class Servers:
    """Asks a catalog.

    Args:
        address: the catalog's host and port
        connect: makes a client of the server at a URL
    """

    def __init__(self, address: tuple[str, int], connect: Callable[[str], Reader]) -> None:
        self._host, self._port = address
        self._connect = connect
        self._found: Found | None = None
        self._until_s = 0.0
        self._asking = asyncio.Lock()

    async def find(self) -> Found:
        """Return the servers, sorted by project and URL; what was found within LOOK_S is not looked for again."""
        async with self._asking:
            if self._found is None or time.monotonic() >= self._until_s:
                self._found = await self._look()
                self._until_s = time.monotonic() + LOOK_S
            return self._found

    async def _look(self) -> Found:
        name = f"{self._host}:{self._port}"
        try:
            listed = await asyncio.to_thread(query, self._host, self._port, ASK_S_MAX)
        except errors.CatalogError as error:
            return Found(name, trouble=str(error))
        tables = sorted((e for e in listed if e.type in TABLE_TYPES), key=lambda entry: -entry.lastheardfrom)
        servers = list(await asyncio.gather(*map(self._ask, tables[:SERVERS_MAX])))
        compare(servers)
        servers.sort(key=lambda server: (server.project, server.lineage, server.url))
        return Found(name, servers, left_out=max(0, len(tables) - SERVERS_MAX))

    async def _ask(self, entry: Entry) -> Listed:
        url = entry.url(self._host)
        server = Listed(
            printable(entry.project), printable(url or entry.endpoint), printable(entry.owner), entry.lineage,
            entry.epoch, entry.revision, entry.keys, entry.clients, max(0.0, time.time() - entry.lastheardfrom),
        )  # fmt: skip
        server.trouble = why_unusable(entry, self._host) or None
        if server.trouble is not None:
            return server
        try:
            async with self._connect(url) as table:
                stats = figures_of(await table.stats(timeout=ASK_S_MAX))
        except (errors.KvzmqError, OSError, ValueError) as error:
            server.trouble = printable(str(error))
            return server
        server.asked = True
        server.revision, server.keys = stats.get("revision") or 0, stats.get("keys") or 0
        server.lineage, server.epoch = stats.get("lineage") or "", stats.get("epoch") or ""
        server.clients = stats.get("clients") or server.clients
        return server


def compare(servers: Sequence[Listed]) -> None:
    """Note how far each server is behind the others of its table; None where it is the only one, or did not answer."""
    for server in servers:
        same = [one.revision for one in servers if one.lineage == server.lineage and one.asked]
        if server.asked and server.lineage and len(same) > 1:
            server.lag = max(same) - server.revision
