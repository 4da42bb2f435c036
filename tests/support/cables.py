"""A second machine on a cable of its own: a network namespace. Needs root.

with cable() as line:
    line.here, line.there           the addresses at our end of the cable, and at the other
    [*line.run, "kvzmq", "server"]  what runs on the second machine
    line.plug(False)                pulls the cable out, at the other end
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

GROUP = "network"
"""Of the tests that lay cables, and of those with a browser, for xdist_group: so that one worker runs them, one after
the other. Chromium gives up what it loads when an interface comes or goes: net::ERR_NETWORK_CHANGED.
"""

CABLES_MAX = 250
"""How many there may be at a time on one machine: each has a network 10.77.N.0/24."""


class Cable(NamedTuple):
    """One cable, and the machine at its other end.

    number      N, which no other cable of this machine has
    """

    number: int

    @property
    def here(self) -> str:
        return f"10.77.{self.number}.1"

    @property
    def there(self) -> str:
        return f"10.77.{self.number}.2"

    @property
    def machine(self) -> str:
        """The name of the second machine."""
        return f"kvzmq{self.number}"

    @property
    def run(self) -> list[str]:
        """What is put before a command that is to run on the second machine."""
        return ["ip", "netns", "exec", self.machine]

    @property
    def our_end(self) -> str:
        return f"kva{self.number}"

    @property
    def their_end(self) -> str:
        return f"kvb{self.number}"

    def plug(self, into: bool) -> None:
        """Plug the cable in at the other end, or pull it out."""
        _ip("-n", self.machine, "link", "set", self.their_end, "up" if into else "down")


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """Lay a cable to a new machine, and remove both afterwards.

    Tests of other processes have theirs at the same time. With one network for all, the kernel would send what is for
    one machine to another one, so each cable takes the first number that is free.
    """
    line = _take_machine()
    try:
        _ip("link", "add", line.our_end, "type", "veth", "peer", "name", line.their_end, "netns", line.machine)
        _ip("addr", "add", f"{line.here}/24", "dev", line.our_end)
        _ip("link", "set", line.our_end, "up")
        _ip("-n", line.machine, "addr", "add", f"{line.there}/24", "dev", line.their_end)
        _ip("-n", line.machine, "link", "set", "lo", "up")
        line.plug(True)
        yield line
    finally:
        subprocess.run(["ip", "link", "del", line.our_end], check=False)
        subprocess.run(["ip", "netns", "del", line.machine], check=False)


def _take_machine() -> Cable:
    said = b""
    for number in range(1, CABLES_MAX + 1):
        line = Cable(number)
        # Two that add one name at a time: the kernel lets one of them.
        done = subprocess.run(["ip", "netns", "add", line.machine], capture_output=True)
        if done.returncode == 0:
            return line
        said = done.stderr
        if b"File exists" not in said:
            break
    raise AssertionError(f"no second machine can be had: {said.decode()}")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
