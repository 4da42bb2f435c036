"""What a disk can promise: how many syncs a second, and how long the slow ones take.

It writes as a server does: small groups over blocks that were written ahead, one fdatasync each.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from kvzmq.bench.machine import file_system

GROUP_BYTES = 150
"""A group of one small insert."""

AHEAD_BYTES = 256 << 10
"""How much is written ahead, and then over."""

P50_S_MAX, P99_S_MAX = 0.005, 0.05
"""What a disk has to hold: the first is 200 changes a second of a lone client, the second is what people notice."""

KEEPS_NOTHING = ("tmpfs", "ramfs")
"""File systems in memory: what is synced there is gone with the power."""


class DiskReport(msgspec.Struct):
    """What was measured; times in seconds."""

    path: str
    file_system: str
    syncs: int
    syncs_per_s: float
    p50_s: float
    p99_s: float
    max_s: float
    reasons: list[str]
    """Why it does not pass; none if it does."""

    @property
    def passes(self) -> bool:
        return not self.reasons


def measure(
    directory: Path,
    seconds: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
    sync: Callable[[int], None] = os.fdatasync,
) -> DiskReport:
    """Return what the disk of `directory` does in `seconds`; leaves nothing there.

    Raises:
        OSError: it cannot be written to
    """
    took: list[float] = []
    group = b"k" * GROUP_BYTES
    with tempfile.TemporaryFile(dir=directory, prefix="kvzmq-bench-") as file:
        descriptor = file.fileno()
        os.pwrite(descriptor, bytes(AHEAD_BYTES), 0)
        sync(descriptor)
        began_s = now_s = clock()
        while now_s - began_s < seconds or not took:
            offset = len(took) * GROUP_BYTES % (AHEAD_BYTES - GROUP_BYTES)
            os.pwrite(descriptor, group, offset)
            os.posix_fadvise(descriptor, offset, GROUP_BYTES, os.POSIX_FADV_DONTNEED)  # as a server begins its syncs
            sync(descriptor)
            before_s, now_s = now_s, clock()
            took.append(now_s - before_s)
    took.sort()
    kind = file_system(directory)[0]
    report = DiskReport(
        str(directory), kind, len(took), round(len(took) / (now_s - began_s), 1),
        took[len(took) // 2], took[len(took) * 99 // 100], took[-1], [],
    )  # fmt: skip
    report.reasons = _reasons(report)
    return report


def _reasons(report: DiskReport) -> list[str]:
    found = []
    if report.file_system in KEEPS_NOTHING:
        found.append(f"{report.file_system} keeps nothing when the power goes")
    if report.p50_s > P50_S_MAX:
        found.append(
            f"half of the syncs take more than {report.p50_s * 1000:.1f} ms: {P50_S_MAX * 1000:.0f} are allowed"
        )
    if report.p99_s > P99_S_MAX:
        found.append(f"1 of 100 syncs takes more than {report.p99_s * 1000:.1f} ms: {P99_S_MAX * 1000:.0f} are allowed")
    return found
