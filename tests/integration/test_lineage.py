"""A table that goes back in time, or is another one, is told: to those who watch, and to those who ask."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.client_shells import SHELLS, open_shell
from support.servers import PATIENCE_S, ServerProcess
from support.told import told

import kvzmq
from kvzmq.store.file.compaction import compact_sealed
from kvzmq.store.file.file_log import FileLog
from kvzmq.store.file.files import DiskDirectory
from kvzmq.store.store import Store


def copy_of(data: Path, to: Path) -> Path:
    """Copy a table's files as `cp -r` does, one by one, beside a server; again if a compaction was faster."""
    names = ("table.ckpt", "table.txn.sealed", "table.txn")
    while True:
        before = [(data / name).stat().st_ino if (data / name).exists() else 0 for name in names]
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir()
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(data / name, to / name)
        if before == [(data / name).stat().st_ino if (data / name).exists() else 0 for name in names]:
            return to


def put_back(copy: Path, data: Path) -> None:
    """Replace a table's files by those of a copy."""
    shutil.rmtree(data)
    shutil.copytree(copy, data)


def identity(url: str) -> tuple[str, str]:
    with kvzmq.connect(url) as table:
        told = table.stats()
        return told["lineage"], told["epoch"]


def test_a_table_keeps_its_lineage_and_each_start_begins_an_epoch(tmp_path: Path) -> None:
    data = tmp_path / "data"
    seen = []
    with ServerProcess(data) as server:
        for _ in range(3):
            seen.append(identity(server.url))
            server.kill()
            server.start()
        server.kill()
    lineages, epochs = zip(*seen)
    assert len(set(lineages)) == 1 and len(set(epochs)) == 3
    store = Store(FileLog(DiskDirectory(data)))
    store.recover()
    assert [epoch.hex() for epoch, _ in store.table.epochs.dump()[1]][:3] == list(epochs)
    store.log.seal()
    assert compact_sealed(store.log.directory)  # type: ignore[attr-defined]
    store.close()
    again = Store(FileLog(DiskDirectory(data)))
    again.recover()
    assert again.table.epochs.dump() == store.table.epochs.dump(), "a checkpoint keeps them"
    again.close()


def test_two_tables_differ_in_their_lineage(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "one") as one, ServerProcess(tmp_path / "two") as two:
        assert identity(one.url)[0] != identity(two.url)[0]


@pytest.mark.parametrize("kind", SHELLS)
def test_a_watch_is_told_when_the_table_went_on_from_an_older_copy(kind: str, tmp_path: Path) -> None:
    """Seen red without epochs: the watch went on with the rows of another history, as if nothing were."""
    data = tmp_path / "data"
    with ServerProcess(data) as server, open_shell(kind, server.url) as table:
        for number in range(10):
            table.insert(f"a{number}", number)
        copy = copy_of(data, tmp_path / "copy")
        watch = table.watch()
        for number in range(5):
            table.insert(f"lost{number}", number)
        assert [watch.get(PATIENCE_S).key for _ in range(5)] == [f"lost{number}" for number in range(5)]
        server.kill()
        put_back(copy, data)
        server.start()
        for number in range(20):  # it grows past where the watch was
            table.insert(f"new{number}", number)
        with pytest.raises(kvzmq.RevisionGone):
            watch.get(PATIENCE_S)
        watch.close()


@pytest.mark.parametrize("kind", SHELLS)
def test_a_watch_goes_on_where_the_copy_holds_all_it_has_seen(kind: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ServerProcess(data) as server, open_shell(kind, server.url) as table:
        watch = table.watch()
        for number in range(5):
            table.insert(f"a{number}", number)
        assert [watch.get(PATIENCE_S).value for _ in range(5)] == list(range(5))
        copy = copy_of(data, tmp_path / "copy")
        server.kill()
        put_back(copy, data)
        server.start()
        table.insert("b", 5)
        assert watch.get(PATIENCE_S).value == 5
        watch.close()


@pytest.mark.parametrize("kind", SHELLS)
def test_a_position_that_a_program_has_kept_is_refused_by_another_history(kind: str, tmp_path: Path) -> None:
    """Seen red with the epoch not sent: a new client went on behind the rows that were lost."""
    data = tmp_path / "data"
    with ServerProcess(data) as server:
        with open_shell(kind, server.url) as table:
            copy = copy_of(data, tmp_path / "copy")
            watch = table.watch()
            for number in range(5):
                table.insert(f"a{number}", number)
            assert [watch.get(PATIENCE_S).value for _ in range(5)] == list(range(5))
            revision, epoch = watch.revision, watch.epoch
            watch.close()
        server.restart()
        with open_shell(kind, server.url) as table:
            table.insert("a5", 5)
            again = table.watch(from_revision=revision, epoch=epoch)
            assert again.get(PATIENCE_S).value == 5, "the same history"
            again.close()
        server.kill()
        put_back(copy, data)
        server.start()
        with open_shell(kind, server.url) as table:
            for number in range(20):
                table.insert(f"b{number}", number)
            with pytest.raises(kvzmq.RevisionGone):
                table.watch(from_revision=revision, epoch=epoch).get(PATIENCE_S)
            with pytest.raises(ValueError, match="32 hexadecimal digits"):
                table.watch(from_revision=revision, epoch="").get(PATIENCE_S)


@pytest.mark.parametrize("kind", SHELLS)
def test_another_table_under_the_same_url_is_told(kind: str, tmp_path: Path) -> None:
    """Seen red with the lineage not compared: reads and writes went to the other table."""
    data = tmp_path / "data"
    with ServerProcess(data) as server, open_shell(kind, server.url) as table:
        table.insert("a", 1)
        watch = table.watch()
        server.kill()
        data.rename(tmp_path / "mine")
        server.start()
        with pytest.raises(kvzmq.TableChanged, match="another table"):
            table.lookup("a")
        with pytest.raises(kvzmq.TableChanged):
            table.insert("a", 2)
        with pytest.raises(kvzmq.TableChanged):
            watch.get(PATIENCE_S)
        watch.close()
        with kvzmq.connect(server.url) as other:
            assert other.size() == 0, "nothing was asked of it"
        server.kill()
        shutil.rmtree(data)
        (tmp_path / "mine").rename(data)
        server.start()
        assert table.lookup("a") == 1, "the right one again"


def test_a_client_goes_past_another_table_to_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvzmq.client.core.endpoints._any_of", lambda count: 0)  # which server comes first
    with (
        ServerProcess(tmp_path / "one") as one,
        ServerProcess(tmp_path / "two") as two,
        kvzmq.connect(f"{one.url},{two.url}") as table,
    ):
        table.insert("a", 1)
        assert table.lookup("a") == 1
        one.kill()
        told(lambda timeout_s: table.lookup("a", timeout=timeout_s), "another table", kvzmq.TableChanged)
        one.start()
        assert table.lookup("a", timeout=PATIENCE_S) == 1


class Follower:
    """A copy of the table, kept by watching, and made anew when the server says so."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.rows: dict[str, Any] = {}
        self.restarts = -1
        self.begin()

    def begin(self) -> None:
        self.watch = self.table.watch()
        self.rows = dict(self.table.items())
        self.restarts += 1

    def follow(self) -> None:
        """Take in everything that the table holds now."""
        while True:
            try:
                self.watch.progress(60)
                while True:
                    event = self.watch.get(0)
                    if event.removed:
                        self.rows.pop(event.key, None)
                    else:
                        self.rows[event.key] = event.value
            except kvzmq.Timeout:
                return
            except kvzmq.RevisionGone:
                self.watch.close()
                self.begin()


def test_a_follower_equals_the_table_through_restores_and_restarts(
    tmp_path: Path, full: bool, count: Callable[[str, int], None]
) -> None:
    """Copies are taken of the live directory and put back at random; a follower never differs unknowingly."""
    data = tmp_path / "data"
    chance = random.Random(7)
    copies: list[Path] = []
    restores = 0
    with ServerProcess(data, "--compact-after", "60") as server, kvzmq.connect(server.url) as table:
        follower = Follower(table)
        for turn in range(150 if full else 12):
            for _ in range(chance.randrange(1, 60)):
                key = f"k{chance.randrange(30)}"
                if chance.random() < 0.3:
                    table.remove_many([key])
                elif chance.random() < 0.3:
                    table.insert_many({f"k{chance.randrange(30)}": turn for _ in range(5)})
                else:
                    table.insert(key, chance.random())
            if chance.random() < 0.7:
                follower.follow()
            copies.append(copy_of(data, tmp_path / f"copy{turn}"))
            server.kill()
            if chance.random() < 0.7:
                put_back(chance.choice(copies[-5:]), data)
                restores += 1
            server.start()
            follower.follow()
            assert follower.rows == dict(table.items())
        follower.watch.close()
    count("older copies put back under a follower that equals the table", restores)
    count("times it was told to begin anew", follower.restarts)
