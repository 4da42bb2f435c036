"""A restore that is cut off, anywhere, over a directory in any state."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count as count_from
from pathlib import Path

import pytest
from support.store_states import STATES, backup_of, commit, inserts, plain, recovered
from support.witness import dump_of

from kvzmq import errors
from kvzmq.store.file.file_log import FileLog
from kvzmq.store.file.files import DiskDirectory
from kvzmq.store.offline import restore
from kvzmq.store.store import Store
from kvzmq.store.table import Table

Count = Callable[[str, int], None]

DIED, FAILED = 9, 1


class Dying(DiskDirectory):
    """A directory of a process that dies, as by SIGKILL, after so many changes of names."""

    left = -1  # never

    def _change(self) -> None:
        if Dying.left == 0:
            os._exit(DIED)
        Dying.left -= 1  # of the process that is to die: it is a fork

    def rename(self, old: str, new: str) -> None:
        self._change()
        super().rename(old, new)

    def unlink(self, name: str) -> None:
        self._change()
        super().unlink(name)


def is_cut_off(path: Path, data: Path, left: int) -> bool:
    """Restore in a process that dies after so many changes of names; False if it had come to its end before."""
    child = os.fork()
    if child == 0:
        try:
            Dying.left = left
            restore.restore(path, data, replace=True)
            os._exit(0)
        finally:
            os._exit(FAILED)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, DIED)
    return code == DIED


@pytest.mark.parametrize("state", ["none", "sealed", "sealed and log", *STATES])
def test_a_restore_that_is_cut_off_leaves_the_old_table_the_new_one_or_none_that_starts(
    tmp_path: Path, state: str, full: bool, monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
    """Seen red with the new checkpoint put first: it was carried on by a log of another history."""
    monkeypatch.setattr(restore, "DiskDirectory", Dying)
    cuts = refusals = 0
    for groups in (1, 3, 5, 6, 10, 11, 13, 20) if full else (1, 5, 10, 13):
        scratch = tmp_path / str(groups)
        new = backup_of(scratch / "source", scratch / "backup", groups)
        for left in count_from(0):
            data = scratch / str(left)
            old = make(state, data)
            if not is_cut_off(scratch / "backup", data, left):
                break
            cuts += 1
            try:
                assert recovered(data) in (old, new), "another table"
            except errors.CorruptionError:
                refusals += 1
            restore.restore(scratch / "backup", data, replace=True)
            assert recovered(data) == new
        assert recovered(data) == new
    assert 0 < refusals < cuts
    count(f"places where a restore over {state} was cut off: the old table, the new one, or a refusal to start", cuts)


def make(state: str, data: Path) -> list[bytes]:
    """Make a directory, and return what a server finds in it."""
    if state == "none":
        data.mkdir()
        return dump_of(Table())
    if state in STATES:
        STATES[state](data)
    else:
        plain(data)
        (data / "table.txn").rename(data / "table.txn.sealed")
        if state == "sealed and log":
            store = Store(FileLog(DiskDirectory(data)))
            store.recover()
            commit(store, *inserts(50, 53))
            store.close()
    return recovered(data)
