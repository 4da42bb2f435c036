"""A disk that keeps what was synced and may forget the rest.

`Disk` stands behind the `Directory` and `File` of kvzmq.store.file.files. It remembers two things for
every file and for the directory: what a process sees (the page cache) and what is on the medium.

    kill()         the process dies, the page cache survives: nothing is lost, nothing is durable that was not
    lose_power()   of what was not synced anything may survive: any subset of the 4 KiB pages written, any
                   length between the shortest and the longest the file had, any subset of the directory's
                   changes, each of which is atomic. Pages that never reached the medium read as zeros, or garbage.
                   A file that was removed, and is back because its removal was lost, may hold garbage: a file
                   system without a journal gives a file's blocks away when nobody has it open any more.

A failing sync does the worst a kernel does: some pages reach the medium, all count as clean from then
on, and a second sync has nothing left to write. A failing sync of a directory leaves its changes
pending, and every file whole, as journals do. What becomes of the undecided is asked of `choose`, so that
a random source, a fixed script or an enumeration of everything (`every_choice`) can drive it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

PAGE_BYTES = 4096

Choose = Callable[[int], int]
"""From `n` to one of 0 ... n - 1."""

CHANGES = ("create", "write", "truncate", "sync", "rename", "unlink", "sync directory")
"""The kinds of calls that change something."""


class Crash(BaseException):
    """The process died here; no handler of the store may catch it."""


class Call(NamedTuple):
    """One call that changes something: its kind, the name of the file."""

    kind: str
    name: str


Verdict = Literal["crash", "fail", "full", None]
"""What becomes of a call: the process dies in it, EIO, ENOSPC, or nothing special."""


class Inode:
    """A file, whatever it is called."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.kept = bytearray()
        self.dirty: set[int] = set()
        self.resized = False
        self.lengths = (0, 0)  # the shortest and the longest since the last sync
        self.holder: OpenFile | None = None
        self.opened = 0
        self.spared = False  # its process died while it was open: nothing has written since

    def write(self, offset: int, data: bytes) -> None:
        if not data:
            return
        end = offset + len(data)
        if end > len(self.seen):
            first_new = len(self.seen) // PAGE_BYTES
            self.seen.extend(bytes(end - len(self.seen)))
            self.resized = True
            self.dirty.update(range(first_new, offset // PAGE_BYTES))
        self.seen[offset:end] = data
        self.dirty.update(range(offset // PAGE_BYTES, (end - 1) // PAGE_BYTES + 1))
        self._note_length()

    def truncate(self, length: int, choose: Choose) -> None:
        if length > len(self.seen):
            self.seen.extend(bytes(length - len(self.seen)))
        else:
            for page in sorted(page for page in self.dirty if page * PAGE_BYTES >= length):
                if choose(2):  # the kernel may have written it back before
                    self._keep_page(page)
                self.dirty.discard(page)
            del self.seen[length:]
        self.resized = True
        self._note_length()

    def _note_length(self) -> None:
        self.lengths = min(self.lengths[0], len(self.seen)), max(self.lengths[1], len(self.seen))

    @property
    def synced(self) -> bool:
        return not self.dirty and not self.resized

    def sync(self) -> None:
        for page in self.dirty:
            self._keep_page(page)
        if self.resized:
            self._set_kept_length(len(self.seen))
        self._clean()

    def fail_sync(self, choose: Choose) -> None:
        """Keep some pages, forget that any is dirty."""
        for page in sorted(self.dirty):
            if choose(2):
                self._keep_page(page)
        self._clean()

    def _clean(self) -> None:
        self.dirty.clear()
        self.resized = False
        self.lengths = (len(self.kept), len(self.kept))

    def _keep_page(self, page: int) -> None:
        begin = page * PAGE_BYTES
        data = self.seen[begin : begin + PAGE_BYTES]
        if begin + len(data) > len(self.kept):
            self._set_kept_length(begin + len(data))
        self.kept[begin : begin + len(data)] = data

    def _set_kept_length(self, length: int) -> None:
        self.kept.extend(bytes(max(0, length - len(self.kept))))
        del self.kept[length:]

    def lose_power(self, choose: Choose) -> None:
        shortest, longest = self.lengths
        if self.synced:
            self.seen = bytearray(self.kept)
            return
        # Rounded up, so that a checksum that happens to end in zero does not change what there is to choose.
        written = min(-(-len(self.seen.rstrip(b"\0")) // 64) * 64, len(self.seen))
        ends = sorted({shortest, longest, len(self.seen), len(self.kept), *self._cuts(shortest, written, choose)})
        length = ends[choose(len(ends))]
        on_disk = bytearray(self.kept)
        on_disk.extend(bytes(max(0, length - len(on_disk))))
        for page in sorted(self.dirty):
            begin = page * PAGE_BYTES
            if begin >= length:
                continue
            data = self.seen[begin : begin + PAGE_BYTES]
            if begin >= max(written, len(self.kept)):
                continue  # zeros written over nothing: as if they were not
            fate = choose(3 if begin >= len(self.kept) else 2)
            if fate == 1:
                on_disk[begin : begin + len(data)] = data
            elif fate == 2:
                on_disk[begin : begin + PAGE_BYTES] = (b"garbage " * (PAGE_BYTES // 8))[: len(on_disk) - begin]
        del on_disk[length:]
        self.kept = on_disk
        self.seen = bytearray(on_disk)
        self._clean()

    @staticmethod
    def _cuts(shortest: int, longest: int, choose: Choose) -> list[int]:
        boundary = (shortest // PAGE_BYTES + 1) * PAGE_BYTES
        boundaries = [boundary] if boundary < longest else []
        if longest - shortest < 2:
            return boundaries
        return [*boundaries, shortest + 1 + (longest - shortest - 2) * choose(3) // 2]


class Disk:
    """One directory on a disk that forgets.

    Attributes:
        judge: asked before every changing call what becomes of it
        choose: decides what is undecided
        calls: every changing call so far
    """

    def __init__(self, choose: Choose = lambda n: 0) -> None:
        self.judge: Callable[[Call], Verdict] = lambda call: None
        self.choose = choose
        self.calls: list[Call] = []
        self.names: dict[str, Inode] = {}
        self._kept_names: dict[str, Inode] = {}
        self._pending: list[dict[str, Inode | None]] = []
        self.life = 0

    def open(self) -> ForgetfulDirectory:
        """Open the directory, as a process would at its start."""
        return ForgetfulDirectory(self)

    def kill(self) -> None:
        """Let the process die: what it had open is closed, what it wrote is still in the page cache."""
        self.life += 1
        self.note_open()
        for inode in self._inodes():
            inode.opened = 0
            inode.holder = None

    def _inodes(self) -> set[Inode]:
        changed = {inode for change in self._pending for inode in change.values() if inode is not None}
        return {*self.names.values(), *self._kept_names.values(), *changed}

    def note_open(self) -> None:
        """Remember what the process has open as it dies: what unwinds afterwards closes nothing."""
        for inode in self._inodes():
            inode.spared = inode.spared or inode.opened > 0

    def lose_power(self) -> None:
        """Let the power fail: what was not synced may be gone.

        So may be what a removed file held, if the disk still knows it by its name: without a journal, a file
        system gives its blocks away as soon as nobody has it open.
        """
        self.kill()
        present = {id(inode) for inode in self.names.values()}
        for change in self._pending:
            if self.choose(2):
                _rename(self._kept_names, change)
        self._pending.clear()
        self.names = dict(self._kept_names)
        for inode in dict.fromkeys(self.names.values()):
            if id(inode) in present or inode.spared or not self.choose(2):
                inode.lose_power(self.choose)
            else:
                inode.write(0, (b"garbage " * (len(inode.seen) // 8 + 1))[: len(inode.seen)])
                inode.sync()

    def change_names(self, change: dict[str, Inode | None]) -> None:
        _rename(self.names, change)
        self._pending.append(change)

    def sync_names(self) -> None:
        self._kept_names = dict(self.names)
        self._pending.clear()

    def pending(self) -> int:
        """Return how many changes of the directory are not synced."""
        return len(self._pending)

    def copy(self) -> Disk:
        """Return a disk in the same state, with nothing open."""
        twin = Disk(self.choose)
        twins: dict[int, Inode] = {}

        def of(inode: Inode | None) -> Inode | None:
            if inode is None:
                return None
            if id(inode) not in twins:
                new = twins[id(inode)] = Inode()
                new.seen, new.kept = bytearray(inode.seen), bytearray(inode.kept)
                new.dirty, new.resized, new.lengths = set(inode.dirty), inode.resized, inode.lengths
                new.spared = inode.spared or inode.opened > 0
            return twins[id(inode)]

        twin.names = {name: of(inode) for name, inode in self.names.items()}  # type: ignore[misc]
        twin._kept_names = {name: of(inode) for name, inode in self._kept_names.items()}  # type: ignore[misc]
        twin._pending = [{name: of(inode) for name, inode in change.items()} for change in self._pending]
        return twin


def _rename(names: dict[str, Inode], change: dict[str, Inode | None]) -> None:
    for name, inode in change.items():
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


class OpenFile:
    """The File of this disk."""

    def __init__(self, disk: Disk, name: str, inode: Inode) -> None:
        self._disk = disk
        self._name = name
        self._inode = inode
        self._life = disk.life
        inode.opened += 1

    def _check(self) -> None:
        assert self._life == self._disk.life, f"{self._name} used after its process died"

    def read(self, offset: int, length: int) -> bytes:
        self._check()
        return bytes(self._inode.seen[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self._check()
        verdict = _judge(self._disk, Call("write", self._name))
        if verdict is not None:
            self._inode.write(offset, data[: len(data) * self._disk.choose(5) // 4])
            _end(self._disk, verdict)
        self._inode.write(offset, data)

    def start_sync(self, offset: int, length: int) -> None:
        self._check()  # what is written may be on the disk at any time, so this changes nothing

    def size(self) -> int:
        self._check()
        return len(self._inode.seen)

    def truncate(self, length: int) -> None:
        self._check()
        _end(self._disk, _judge(self._disk, Call("truncate", self._name)))
        self._inode.truncate(length, self._disk.choose)

    def sync(self) -> None:
        self._check()
        verdict = _judge(self._disk, Call("sync", self._name))
        if verdict in ("fail", "full"):
            self._inode.fail_sync(self._disk.choose)
        _end(self._disk, verdict)
        self._inode.sync()

    def lock(self, wait: bool) -> bool:
        self._check()
        if self._inode.holder not in (None, self):
            assert not wait, "would wait for ever"
            return False
        self._inode.holder = self
        return True

    def close(self) -> None:
        if self._inode.holder is self:
            self._inode.holder = None
        if self._life == self._disk.life:
            self._inode.opened -= 1


class ForgetfulDirectory:
    """The Directory of this disk."""

    path = Path("table")

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self._life = disk.life

    def _judge(self, kind: str, name: str) -> None:
        assert self._life == self.disk.life, "directory used after its process died"
        _end(self.disk, _judge(self.disk, Call(kind, name)))

    def exists(self, name: str) -> bool:
        return name in self.disk.names

    def open(self, name: str) -> OpenFile:
        inode = self.disk.names.get(name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return OpenFile(self.disk, name, inode)

    def create(self, name: str) -> OpenFile:
        self._judge("create", name)
        inode = self.disk.names.get(name)
        if inode is None:
            inode = Inode()
            self.disk.change_names({name: inode})
        else:
            inode.truncate(0, self.disk.choose)
        return OpenFile(self.disk, name, inode)

    def rename(self, old: str, new: str) -> None:
        self._judge("rename", old)
        inode = self.disk.names.get(old)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), old)
        self.disk.change_names({old: None, new: inode})

    def unlink(self, name: str) -> None:
        self._judge("unlink", name)
        if name in self.disk.names:
            self.disk.change_names({name: None})

    def sync(self) -> None:
        try:
            self._judge("sync directory", ".")
        except OSError:
            self.disk.note_open()  # a journal keeps blocks until the names are on the disk
            raise
        self.disk.sync_names()

    def close(self) -> None:
        pass


def _judge(disk: Disk, call: Call) -> Verdict:
    disk.calls.append(call)
    return disk.judge(call)


def _end(disk: Disk, verdict: Verdict) -> None:
    if verdict == "crash":
        disk.note_open()
        raise Crash
    if verdict == "fail":
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    if verdict == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def every_choice() -> Iterator[Choose]:
    """Yield sources of choices until every sequence of choices was made, each in a run of its own."""
    path: list[tuple[int, int]] = []
    while True:
        position = 0

        def choose(n: int) -> int:
            nonlocal position
            if position == len(path):
                path.append((0, n))
            chosen, options = path[position]
            assert options == n, "the run is not the same as the one before"
            position += 1
            return chosen

        yield choose
        del path[position:]
        while path and path[-1][0] + 1 == path[-1][1]:
            path.pop()
        if not path:
            return
        path[-1] = path[-1][0] + 1, path[-1][1]
