"""CURVE on a ROUTER: what encrypts its connections, and who its peers are.

libzmq does the work: it shakes hands, asks the ZAP handler of the context whether the peer's key is known, and puts
what that answers, the key in Z85, into the metadata of every frame.

The key is read from every request, which costs 0.6 us, not once for an identity: an identity is chosen by its peer,
and may be another's after a reconnect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import zmq

from kvzmq import errors
from kvzmq.curve import KeyPair
from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.messages import Refusal, Request

_SERVER_OPTIONS: tuple[tuple[int, int | bytes], ...] = (
    (zmq.CURVE_SERVER, 1),
    # Without a handler, libzmq lets in whoever has any key at all, unless it is told to insist on the domain.
    (zmq.ZAP_ENFORCE_DOMAIN, 1),
    # Who claims the identity of a connected peer would be sent its replies. Clients leave their identity to ZeroMQ.
    (zmq.ROUTER_HANDOVER, 0),
)


class Curve(NamedTuple):
    """What a ROUTER needs to let in only known clients, and to execute only what they may.

    keys     the server's, one for each endpoint
    domain   which the ZAP handler decides on
    refuse   says why the holder of a public key (Z85) may not have operations executed, "" if it may
    name_of  returns the name of a public key's holder, for people
    """

    keys: Sequence[KeyPair]
    domain: str
    refuse: Callable[[str, Sequence[Operation]], str]
    name_of: Callable[[str], str]

    def prepare(self, sock: zmq.Socket[bytes]) -> None:
        """Have a socket insist on CURVE; before it is bound."""
        sock.setsockopt(zmq.ZAP_DOMAIN, self.domain.encode())
        for option, value in _SERVER_OPTIONS:
            sock.setsockopt(option, value)

    def use_key(self, sock: zmq.Socket[bytes], endpoint: int) -> None:
        """Have the endpoint that is bound next, the how-manieth it is, shake hands with its key."""
        sock.setsockopt(zmq.CURVE_SECRETKEY, self.keys[endpoint].secret.encode())

    def admit(self, user: str, request: Request | Refusal) -> Request | Refusal:
        """Return a request that its sender may make, or else a refusal of the whole of it."""
        if isinstance(request, Refusal):
            return request
        why = self.refuse(user, request.ops)
        return Refusal(request.seq, errors.NotAllowed.code, why) if why else request


def user_of(frame: zmq.Frame) -> str:
    """Return the public key of who sent a frame, "" if it came without CURVE."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""
