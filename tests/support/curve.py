"""Keys for tests of CURVE. Made once, in the main thread: making keys while a context closes aborts in libzmq."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from kvzmq.curve import KeyPair
from kvzmq.server.access import Access
from kvzmq.server.transport.curve import Curve
from kvzmq.server.transport.router import RouterTransport
from kvzmq.server.zap import DOMAIN, Zap
from support.stepped import Stepped, ZmqPeer


class Keys(NamedTuple):
    """A pair of keys, Z85."""

    public: str
    secret: str

    def write(self, path: Path) -> Path:
        """Write both to a file, as `zmq.auth` does; returns the path."""
        path.touch(0o600)
        path.write_text(f'curve\n    public-key = "{self.public}"\n    secret-key = "{self.secret}"\n')
        return path


def make_keys() -> Keys:
    public, secret = zmq.curve_keypair()
    return Keys(public.decode(), secret.decode())


SERVER, OTHER_SERVER, ALICE, BOB, BOB_AGAIN, STRANGER = (make_keys() for _ in range(6))


class SecuredStepped(Stepped):
    """A server with CURVE, a step at a time.

    access, zap  the server's

    Args:
        path: of the clients file
        clients: what stands in it
        keys: of the server, one for each endpoint
    """

    zap: Zap
    access: Access

    def __init__(self, path: Path, clients: str, keys: Sequence[Keys] = ()) -> None:
        self.path = path
        self.keys = keys or (SERVER,)
        path.write_text(clients)
        path.chmod(0o600)
        self.access = Access(path)
        super().__init__()

    def make_router(self, request_bytes_max: int) -> RouterTransport:
        self.zap = Zap(self.context, lambda key: self.access.client_of(key) is not None)
        curve = Curve([KeyPair(*pair) for pair in self.keys], DOMAIN, self.access.refuse, self.access.name_of)
        return RouterTransport(self.context, ["tcp://127.0.0.1:0"] * len(self.keys), request_bytes_max, curve)

    def __enter__(self) -> SecuredStepped:
        return self

    def write_clients(self, text: str) -> None:
        """Change the clients file, and have the server read it."""
        self.path.write_text(text)
        self.server.reload_clients()

    def peer(
        self, keys: Keys | None, kind: int = zmq.DEALER, *, url: str = "", server: Keys = SERVER, **options: Any
    ) -> ZmqPeer:
        """Return a peer with keys, or one without CURVE."""
        curve: dict[str, Any] = {}
        if keys is not None:
            curve = {
                "curve_serverkey": server.public.encode(),
                "curve_publickey": keys.public.encode(),
                "curve_secretkey": keys.secret.encode(),
            }
        return self.zmq(kind, url=url, **curve, **options)
