"""Joins the parts of a dashboard."""

from __future__ import annotations

from pathlib import Path

from kvzmq import catalog
from kvzmq.client.core.urls import without_parameters
from kvzmq.dashboard.app import Parts
from kvzmq.dashboard.changes import Changes
from kvzmq.dashboard.collector import Collector
from kvzmq.dashboard.lanes import Lanes
from kvzmq.dashboard.reader import connect
from kvzmq.dashboard.rows import Rows
from kvzmq.dashboard.servers import Servers
from kvzmq.dashboard.streams import Streams


def assemble(
    url: str,
    curve_key: str | None = None,
    server_key: str | None = None,
    data: Path | None = None,
    trace: Path | None = None,
    catalog_address: tuple[str, int] | None = None,
) -> Parts:
    """Return the parts of a dashboard of the server at `url`.

    Args:
        url: as `kvzmq.connect` takes it
        curve_key, server_key: for a server with CURVE, as `kvzmq.connect` takes them
        data: the table's directory, whose log tells the history of rows; or None
        trace: a file of `kvzmq server --trace`, or None
        catalog_address: of the catalog; by default as everywhere

    Raises:
        ValueError: the URL is malformed
    """
    collector = Collector(lambda: connect(url, curve_key, server_key), without_parameters(url))
    return Parts(
        collector=collector,
        streams=Streams(collector),
        rows=Rows(lambda: collector.table, data),
        changes=Changes(lambda: collector.table),
        servers=Servers(catalog_address or catalog.default_address(), lambda of: connect(of, curve_key, server_key)),
        lanes=Lanes(lambda: collector.table, trace),
    )
