"""What `kvzmq server` tells a catalog of itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kvzmq import catalog
from kvzmq.cli.serving.options import Options

_log = logging.getLogger(__name__)


def announcer_of(
    options: Options, endpoints: Sequence[str], bridge_port: int | None
) -> tuple[catalog.Announcer | None, catalog.Announcement | None]:
    """Return what tells a catalog of the server, and what it tells; warn if that will be of little use."""
    if options.project is None:
        return None, None
    host, port = options.catalog_address or catalog.default_address()
    announcement = catalog.announcement_of(options.project, options.owner or _login_name(), endpoints, bridge_port)
    if announcement is None:
        _log.warning(
            "not announced as %s: no other machine reaches ipc://; add a --bind tcp://HOST:PORT", options.project
        )
        return None, None
    endpoint = catalog.parse_endpoint(str(announcement.endpoint))
    if endpoint is not None and endpoint.is_loopback and not catalog.is_loopback(host):
        _log.warning("announced as %s, but only this machine reaches %s", options.project, endpoint)
    return catalog.Announcer(host, port), announcement


def _login_name() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
