"""The numbers of descriptors: which one is given next, whatever earlier tests have left open or closed in this process.

with none_free_below(fd):
    os.close(fd)
    socket.socket().fileno()        fd: the lowest free number is the one that is given
"""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def none_free_below(number: int) -> Iterator[None]:
    """Take all numbers below `number` that are free, for as long as the block goes on."""
    gc.collect()  # what is closed by a collection within the block would be free
    with contextlib.ExitStack() as taken:
        while taken.enter_context(socket.socket()).fileno() < number:
            pass
        yield
