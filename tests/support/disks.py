"""Real disks for tests: small ones that fill up, and one whose power can be cut.

All mounts are made in a mount namespace of the test process's own. They are gone when the last of
its processes is, however it ended, and nobody else sees them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_FICLONE = 0x40049409

_XFS_BYTES = 512 << 20  # mkfs.xfs makes none below 300 MB; the file is sparse
_DISK_BYTES = 32 << 20


class NotPermitted(Exception):
    """Mounting is not permitted here: these tests need root, and prove nothing without."""


@functools.cache
def _own_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        raise NotPermitted(f"unshare: {os.strerror(ctypes.get_errno())}: these tests mount file systems, as root")
    _run("mount", "--make-rprivate", "/")


def _run(*command: str, allowed: tuple[int, ...] = (0,)) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise NotPermitted(f"{command[0]} is missing: apt-get install e2fsprogs xfsprogs mount") from None
    if done.returncode not in allowed:
        raise NotPermitted(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")


@contextlib.contextmanager
def _mounted(path: Path, *options: str) -> Iterator[Path]:
    _own_namespace()
    path.mkdir(exist_ok=True)
    _run("mount", *options, str(path))
    try:
        yield path
    finally:
        _run("umount", "--lazy", str(path))


@contextlib.contextmanager
def small_disk(path: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a tmpfs of that size at `path`."""
    with _mounted(path, "-t", "tmpfs", "-o", f"size={kilobytes}k", "kvzmq-test"):
        yield path


class CuttableDisk:
    """A file system in a file, `path`, whose state on the disk can be kept at any moment.

    The file lies on XFS, which clones a file in one step: nothing is written to it meanwhile. So a
    clone is what a power cut at that moment would have left: what was flushed, and whatever else
    the kernel happened to have written; in the middle of a sync as well as between two.
    """

    def __init__(self, kind: str, scratch: Path) -> None:
        self.kind = kind
        self.path = scratch / "disk"
        self._store = scratch / "xfs"
        self._image = self._store / "image"
        self._clones = 0

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Make it, and mount it at `path`."""
        backing = self._store.with_suffix(".image")
        with backing.open("wb") as file:
            file.truncate(_XFS_BYTES)
        _run("mkfs.xfs", "-q", "-m", "reflink=1", str(backing))
        with _mounted(self._store, "-o", "loop", str(backing)):
            with self._image.open("wb") as file:
                file.truncate(_DISK_BYTES)
            _run(f"mkfs.{self.kind}", "-q", str(self._image))
            with _mounted(self.path, "-t", self.kind, "-o", "loop", str(self._image)):
                _run("sync", "-f", str(self.path))
                yield self.path

    def cut(self) -> Path:
        """Keep what is on the disk now; returns the clone. May be called from a thread."""
        self._clones += 1
        clone = self._store / f"clone-{self._clones}"
        with self._image.open("rb") as source, clone.open("wb") as target:
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
        return clone

    @contextlib.contextmanager
    def after_the_cut(self, clone: Path) -> Iterator[Path]:
        """Mount a clone. One without a journal is read as it is and copied out.

        Its repair would be tested otherwise, not the table: a removed file's inode may still be on the disk, with
        what is now another file's data for its block numbers, and e2fsck clears those it finds illegal, in place.
        """
        mounted = clone.with_suffix(".mounted")
        if self.kind == "ext2":
            with _mounted(mounted, "-t", self.kind, "-o", "loop,ro", str(clone)) as path:
                copied = shutil.copytree(
                    path, clone.with_suffix(".copied"), ignore=shutil.ignore_patterns("lost+found")
                )
            yield copied
            shutil.rmtree(copied)
        else:
            with _mounted(mounted, "-t", self.kind, "-o", "loop", str(clone)) as path:
                yield path
        clone.unlink()
