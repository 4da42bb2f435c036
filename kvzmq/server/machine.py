"""What the machine has left for a server: memory, descriptors, processor; read from /proc, now and then.

Where there is no /proc the figures are None.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOOK_S = 1.0
"""How long what was read is good: counting 4,000 descriptors takes 1 ms, and a request may ask for it many times."""

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_KIB = 1024


class Machine:
    """Reads how much of the machine this process uses, and how much it may.

    Args:
        clock: seconds that only grow
        proc, cgroups: where the kernel tells of processes and of control groups
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, proc: Path = _PROC, cgroups: Path = _CGROUPS
    ) -> None:
        self._clock = clock
        self._proc = proc
        self._cgroups = cgroups
        self._until_s = float("-inf")
        self._found: dict[str, Any] = {}

    def describe(self) -> dict[str, Any]:
        """Return the figures by name, sizes in bytes, times in seconds; at most LOOK_S old."""
        now_s = self._clock()
        if now_s >= self._until_s:
            self._until_s = now_s + LOOK_S
            self._found = self._read()
        return self._found

    def _read(self) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        memory = self._memory()
        return {
            "cpu_user_s": round(usage.ru_utime, 3),
            "cpu_system_s": round(usage.ru_stime, 3),
            "resident_bytes": self._resident_bytes(),
            "memory_total_bytes": memory.get("MemTotal"),
            "memory_available_bytes": memory.get("MemAvailable"),
            "memory_limit_bytes": self._limit_bytes(),
            "descriptors": self._descriptors(),
            "descriptors_max": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        }

    def _resident_bytes(self) -> int | None:
        words = _text(self._proc / "self" / "statm").split()
        return int(words[1]) * os.sysconf("SC_PAGE_SIZE") if len(words) > 1 else None

    def _memory(self) -> dict[str, int]:
        found = {}
        for line in _text(self._proc / "meminfo").splitlines():
            name, _, rest = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                found[name] = int(rest.split()[0]) * _KIB
        return found

    def _limit_bytes(self) -> int | None:
        """Return the least limit of the control groups (version 2) that this process is in, as systemd's MemoryMax."""
        limits = []
        for line in _text(self._proc / "self" / "cgroup").splitlines():
            if line.startswith("0::"):
                group = self._cgroups / line[3:].lstrip("/")
                for path in (group, *group.parents):
                    told = _text(path / "memory.max").strip()
                    if told.isdecimal():
                        limits.append(int(told))
                    if path == self._cgroups:
                        break
        return min(limits, default=None)

    def _descriptors(self) -> int | None:
        try:
            return len(os.listdir(self._proc / "self" / "fd"))
        except OSError:
            return None


def _text(path: Path) -> str:
    """Return what a file of the kernel says, nothing if there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
