"""Keys for tests of CURVE. Made once, in the main thread: making keys while a context closes aborts in libzmq."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import zmq


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
