"""How `kvzmq server` is secured: what --curve-key, --clients and --insecure come to, and what is refused without them.

Loopback and ipc:// are for this machine alone, and need no keys. Any other address is open to whoever reaches it: it
is refused unless it is protected by CURVE, or the operator says --insecure. The bridge is never protected.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import zmq

from kvzmq import errors
from kvzmq.curve import read_key_pair
from kvzmq.server.access import Access
from kvzmq.server.transport.curve import Curve
from kvzmq.server.zap import DOMAIN, Zap

_LOCAL_NAMES = ("localhost", "lo")

_log = logging.getLogger(__name__)


class Secured(NamedTuple):
    """What a server with CURVE consists of, besides the others."""

    curve: Curve
    zap: Zap
    access: Access


def is_local(endpoint: str) -> bool:
    """Tell whether only this machine reaches an endpoint, `tcp://HOST:PORT` or `ipc://PATH`."""
    scheme, _, rest = endpoint.partition("://")
    if scheme in ("ipc", "inproc"):
        return True
    host = rest.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in _LOCAL_NAMES


def refuse_unprotected(endpoints: Sequence[str], tcp: tuple[str, int] | None, curve: bool, insecure: bool) -> None:
    """Refuse addresses that other machines reach without anything that protects them.

    Args:
        endpoints: of ZeroMQ, as given or as bound
        tcp: of the bridge
        curve: whether the endpoints have CURVE
        insecure: whether the operator takes them as they are

    Raises:
        CannotListen: there is one
    """
    if insecure:
        return
    for endpoint in endpoints:
        if not curve and not is_local(endpoint):
            raise errors.CannotListen(
                f"{endpoint} is open to whoever reaches it: give --curve-key and --clients to protect it "
                "(docs/security.md, five minutes), or say --insecure if your network does"
            )
    if tcp is not None and not is_local(f"tcp://{tcp[0]}:{tcp[1]}"):
        raise errors.CannotListen(
            f"--tcp {tcp[0]}:{tcp[1]} is open to whoever reaches it, and the bridge cannot be protected: use "
            "127.0.0.1, or say --insecure if your network protects it"
        )


def secure(
    context: zmq.Context[zmq.Socket[bytes]], key_paths: Sequence[Path], clients_path: Path, endpoint_count: int
) -> Secured:
    """Read keys and clients, and have a handler decide on the connections of a context.

    Args:
        context: of the server's sockets
        key_paths: of the server's keys, one for all endpoints or one for each
        clients_path: of the clients file
        endpoint_count: how many endpoints there are

    Raises:
        BadKey: a key cannot be used
        BadClients: the clients file cannot be used
    """
    keys = [read_key_pair(path) for path in key_paths]
    access = Access(clients_path)
    zap = Zap(context, access.knows)
    for path, pair in zip(key_paths, keys):
        _log.info(
            "the public key of %s, which clients need as --server-key, is %s; in a URL ?server_key=%s",
            path, pair.public, quote(pair.public, safe=""),
        )  # fmt: skip
    each = keys * endpoint_count if len(keys) == 1 else keys
    return Secured(Curve(each, DOMAIN, access.refuse, access.name_of), zap, access)
