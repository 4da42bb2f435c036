"""The `hello` with which a connection begins, and what its reply says: which table answers here. No I/O.

A session that has asked a table before sends nothing until the reply is there: if it is another table now, nothing
is asked of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
from msgspec import Raw

from kvzmq import errors
from kvzmq.client.core.call import Result
from kvzmq.client.core.outgoing import RESEND_S
from kvzmq.protocol import encoding
from kvzmq.protocol.limits import REQUEST_BYTES_LIMIT, REQUEST_BYTES_MAX

_HELLO = Raw(encoding.encode_value(("hello",)))


class ServerInfo(msgspec.Struct, gc=False):
    """What the reply to `hello` says that a client has to know; the defaults are for a server of an earlier version.

    lineage, epoch     of the table, 32 hexadecimal digits each
    request_bytes_max  the largest request that the server takes
    seen               whether it takes requests that say which revision was seen
    shared             whether others serve the table, too
    """

    lineage: str | None = None
    epoch: str | None = None
    request_bytes_max: int = REQUEST_BYTES_LIMIT
    seen: bool = False
    shared: bool = False


decode_server_info: Callable[[Raw], ServerInfo] = msgspec.msgpack.Decoder(ServerInfo).decode


class Hello:
    """The `hello` of one session, said anew on each connection.

    Args:
        lineage: of the table that is expected, 32 hexadecimal digits, or None for whichever answers first
        is_awaited: whether nothing may be sent before the reply, also while no table is expected
    """

    def __init__(self, lineage: str | None, is_awaited: bool = False) -> None:
        self._is_awaited = is_awaited
        self.knows_seen = False
        """Whether the server takes requests that say what was seen; one that does not has its table alone."""
        self.is_shared = False
        """Whether others serve the table, too."""
        self.lineage = lineage
        """Of the table that the session has asked."""
        self.changed_to: str | None = None
        """The lineage of another table that answers on this connection."""
        self.request_bytes_max = REQUEST_BYTES_MAX
        """The largest request that the server takes, from its reply to `hello`."""
        self.seq = 0
        """The number of the request that is unanswered, or 0."""
        self.again_s = math.inf
        """When to ask once more if no reply has come."""
        self.held = False
        """Whether nothing may be sent before it is known which table answers here."""

    def request(self, seq: int, now_s: float) -> bytes:
        """Return the frame that begins a new connection, or asks again on it, as request number `seq`."""
        self.changed_to = None
        self.held = self.lineage is not None or self._is_awaited
        self.seq = seq
        self.again_s = now_s + RESEND_S
        return encoding.encode_request(None, seq, [_HELLO])

    def receive(self, results: list[Result]) -> bool:
        """Learn which table answers on this connection; one of an earlier version of the server does not say.

        Returns:
            whether requests were held until now, or are from now on: `changed_to` says which
        """
        try:
            answered = results and results[0].code == errors.OK
            info = decode_server_info(results[0].payload) if answered else ServerInfo()
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False  # not of this protocol
        self.seq = 0
        self.again_s = math.inf
        self.request_bytes_max = info.request_bytes_max
        self.knows_seen, self.is_shared = info.seen, info.shared
        if info.lineage is not None:
            if self.lineage is None:
                self.lineage = info.lineage
            elif self.lineage != info.lineage:
                self.changed_to = info.lineage
        held, self.held = self.held, self.changed_to is not None
        return held or self.held

    def table_changed(self) -> errors.TableChanged:
        """Return the error for calls that another table than before would have to answer."""
        return errors.TableChanged(
            f"another table answers here now (lineage {str(self.changed_to)[:8]}, not {str(self.lineage)[:8]}): "
            "nothing was asked of it. If that is what you want, connect anew"
        )
