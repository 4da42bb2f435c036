"""What to know of a machine before its figures mean anything. Reads, never measures."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe(directory: Path) -> dict[str, str]:
    """Return facts by name: the processor, memory, the kernel, Python, and the file system of `directory`."""
    kind, options = file_system(directory)
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "distribution": _distribution(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "file system": f"{kind} ({options})",
    }


def _processor() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        return "unknown"


def file_system(directory: Path) -> tuple[str, str]:
    """Return the kind of the file system `directory` is on, and its mount options."""
    best, found = 0, ("unknown", "")
    path = directory.resolve()
    for line in _read("/proc/self/mounts").splitlines():
        _, mount, kind, options, *_ = line.split()
        place = Path(mount.replace("\\040", " "))
        if (place == path or place in path.parents) and len(mount) >= best:
            best, found = len(mount), (kind, options)
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
