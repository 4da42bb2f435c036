"""The blocking client: what it is made of, and how it is opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvzmq.client.core.base import check_settings
from kvzmq.client.core.reads import LINEARIZABLE, Reads
from kvzmq.client.core.targets import Target
from kvzmq.client.core.timeouts import TIMEOUT_S
from kvzmq.client.core.transports import Opener
from kvzmq.client.core.values import check_prefix
from kvzmq.client.sync.connection import Connection
from kvzmq.client.sync.mapping import MappingMethods
from kvzmq.client.sync.server import ServerMethods

if TYPE_CHECKING:
    from kvzmq.client.core.pyzmq_socket import Context


def connect(
    url: str | None = None,
    timeout: float | None = TIMEOUT_S,
    *,
    transport: str | None = None,
    curve_key: str | os.PathLike[str] | None = None,
    server_key: str | None = None,
    context: Context | None = None,
    reads: Reads | None = None,
) -> Client:
    """Return a client of the server at `url`; it connects when it is first used.

    Args:
        url: `tcp://HOST:PORT`, `ipc:///PATH` or `catalog://HOST:PORT/PROJECT`; several, separated by
            commas, are tried in turn. Each may say the keys for it, `?server_key=KEY&curve_key=FILE`, with what is
            special in URLs percent-encoded. None stands for the environment's KVZMQ_URL, or where that is
            not set for tcp://127.0.0.1:5570
        timeout: seconds a call may take in all, retries and reconnects included; None for no limit
        transport: `plain`, sockets of kvzmq's own for tcp:// and ipc://; `pyzmq`, sockets of libzmq; None for the
            environment's KVZMQ_TRANSPORT, or where that is not set `plain` wherever the URL allows
        curve_key: for a server with CURVE, the file NAME.key_secret that `kvzmq keygen NAME` has made; what the URL
            says counts before it. None stands for the environment's KVZMQ_CURVE_KEY, or where that is not set for a
            connection in plain. Asks for `pyzmq`
        server_key: the public key of that server, 40 characters; what the URL says counts before it. None stands for
            the environment's KVZMQ_SERVER_KEY
        context: the ZeroMQ context to use instead of the process's own; asks for `pyzmq`
        reads: how new what is read has to be, where several servers serve one table: `linearizable`, everything that
            any of them has acknowledged; `session`, everything that this client has seen, its own writes included;
            `local`, whatever the server has. None stands for the environment's KVZMQ_READS, or where that is not set
            for `linearizable`. A request that also writes is always linearizable

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
) -> Client:
    """Return a client with a connection of its own: a new one, or one that was pickled."""
    return Client(Connection(targets, timeout_s, Opener(transport, context), reads), prefix)


class Client(MappingMethods, ServerMethods):
    """A durable table on a server, as a mapping and more. May be used from several threads.

    A write has reached the disk when the method returns. Every method may raise Timeout, if it
    certainly did not run or only read; OutcomeUnknown, if a write was sent and no answer came;
    WriteRejected, if the server could not write and did not do it. Retries and reconnects inside the
    deadline happen by themselves and never repeat a write. `timeout` overrides the client's, seconds;
    None means the client's, math.inf no limit.

    Namespaces and copies share the connection; what was pickled gets one of its own.
    """

    _name = "kvzmq.Client"

    def namespace(self, prefix: str) -> Client:
        """Return this client for the keys that begin with `prefix`, which is left out of them.

        It shares the connection, which closing the namespace leaves open and closing this client
        closes. `size` still counts the whole table, `len` the namespace.
        """
        prefix = check_prefix(prefix)
        return Client(self._connection, self._calls.prefix + prefix, owner=False)

    def __copy__(self) -> Client:
        return self.namespace("")

    def __deepcopy__(self, memo: object) -> Client:
        return self.namespace("")

    def __reduce__(self) -> tuple[Any, ...]:
        return open_client, self._settings()
