"""A second machine on a cable of its own: a network namespace. Needs root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator

HERE, THERE = "10.77.0.1", "10.77.0.2"
"""The addresses at our end of the cable, and at the other."""


@contextlib.contextmanager
def cable() -> Iterator[tuple[list[str], Callable[[bool], None]]]:
    """Return how to run something on a second machine, THERE, and the plug at our end."""
    name, ours, theirs = f"kvzmq{os.getpid() % 10_000}", f"kva{os.getpid() % 10_000}", f"kvb{os.getpid() % 10_000}"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    def plug(into: bool) -> None:
        ip("-n", name, "link", "set", theirs, "up" if into else "down")
        if into:
            return

    ip("netns", "add", name)
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        ip("addr", "add", "10.77.0.1/24", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "addr", "add", "10.77.0.2/24", "dev", theirs)
        ip("-n", name, "link", "set", "lo", "up")
        plug(True)
        yield ["ip", "netns", "exec", name], plug
    finally:
        subprocess.run(["ip", "link", "del", ours], check=False)
        subprocess.run(["ip", "netns", "del", name], check=False)
