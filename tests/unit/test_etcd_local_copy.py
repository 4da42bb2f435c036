"""A server's directory beside a log in etcd: its copy of the checkpoint, and what it knows of the history."""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random

import pytest
from support.fake_keys import FakeKeys

from kvzmq import errors
from kvzmq.store.epochs import Epochs
from kvzmq.store.etcd.checkpoints import Content, Head, Replaced, lock, read_head, upload
from kvzmq.store.etcd.local_copy import (
    NAME_SEEN,
    LocalCopy,
    Seen,
    begin_generation,
    check_index,
    check_seen,
    read_generation,
)
from kvzmq.store.file import checkpoint
from kvzmq.store.file.files import DiskDirectory

NAME = "t"
FIRST, SECOND, OTHER = b"1" * 16, b"2" * 16, b"3" * 16
LINEAGE = b"L" * 16


def put(keys: FakeKeys, path: Path, group: int) -> Head:
    """Write a checkpoint to etcd."""
    path.mkdir(exist_ok=True)
    with contextlib.closing(DiskDirectory(path, lock=False)) as directory:
        checkpoint.write(directory, group, [b"section %d" % group])
        with contextlib.closing(directory.open(checkpoint.NAME)) as file, lock(keys, NAME) as held:
            return upload(held, keys, NAME, file, Content(group, group, 0, 0))


def test_the_newest_checkpoint_is_fetched_once_and_is_the_only_one_kept(tmp_path: Path) -> None:
    """Seen red with a copy that is taken for the newest because it is there."""
    keys, copy = FakeKeys(), LocalCopy(tmp_path)
    assert copy.fetch(keys, NAME) is None
    for group in (5, 9):
        put(keys, tmp_path / "other", group)
        head = copy.fetch(keys, NAME)
        assert head is not None and copy.has(head) and head.group == group
        found = copy.read(head)
        assert (found.group, list(found.sections)) == (group, [b"section %d" % group])
        assert [path.name for path in copy.path.iterdir()] == [f"{head.id}.ckpt"]
    gets: list[str] = []
    keys.before = gets.append
    assert copy.fetch(keys, NAME) == head
    assert len(gets) == 1, "only the head is read"
    copy.close()


def test_a_fetch_that_is_interrupted_or_overtaken_begins_again(tmp_path: Path) -> None:
    keys, copy = FakeKeys(), LocalCopy(tmp_path)
    put(keys, tmp_path / "other", 1)
    group, last = 1, 4

    def replace(call: str) -> None:
        nonlocal group
        if "/data/" in call and group < last:
            group += 1
            keys.before = lambda call: None
            put(keys, tmp_path / "other", group)
            keys.before = replace

    keys.before = replace
    head = copy.fetch(keys, NAME)
    assert head is not None and head.group == 4 and head == read_head(keys, NAME)
    group, last = 100, 1000
    keys.before = lambda call: None
    put(keys, tmp_path / "other", group)
    keys.before = replace
    with pytest.raises(Replaced):
        copy.fetch(keys, NAME)
    assert not list(copy.path.glob("*.tmp"))
    copy.close()


def test_a_damaged_copy_is_fetched_again(tmp_path: Path) -> None:
    """Seen red with a copy that is only looked at for its length."""
    keys, copy = FakeKeys(), LocalCopy(tmp_path)
    assert copy.newest(keys, NAME) is None
    head = put(keys, tmp_path / "other", 1)
    for _ in range(2):
        found = copy.newest(keys, NAME)
        assert found is not None and found[0] == head
        assert list(found[1].sections) == [b"section 1"]
        path = copy.path / f"{head.id}.ckpt"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    copy.close()


def test_what_was_seen_is_read_back_and_lost_without_harm(tmp_path: Path) -> None:
    copy = LocalCopy(tmp_path)
    assert copy.read_seen(NAME) is None
    seen = Seen(NAME, "g", "00", "11", 5)
    copy.write_seen(seen)
    assert copy.read_seen(NAME) == seen
    assert copy.read_seen("another") is None
    (copy.path / NAME_SEEN).write_bytes(b"")
    assert copy.read_seen(NAME) is None
    copy.close()


def history(*begun: tuple[bytes, int]) -> Epochs:
    epochs = Epochs()
    epochs.load(LINEAGE, begun)
    return epochs


@pytest.mark.parametrize(
    ("what", "epochs", "revision", "is_refused"),
    [
        ("where it was left", history((FIRST, 0), (SECOND, 50)), 100, False),
        ("others went on", history((FIRST, 0), (SECOND, 50), (OTHER, 120)), 130, False),
        ("an earlier revision", history((FIRST, 0), (SECOND, 50)), 99, True),
        ("before the epoch began", history((FIRST, 0)), 100, True),
        ("another went on from an earlier revision", history((FIRST, 0), (SECOND, 50), (OTHER, 90)), 1000, True),
        ("a new table", history(), 0, True),
    ],
)
def test_a_history_that_lacks_what_was_seen_is_refused(
    what: str, epochs: Epochs, revision: int, is_refused: bool
) -> None:
    """Seen red without comparing the revision, and the epoch."""
    seen = Seen(NAME, "g", LINEAGE.hex(), SECOND.hex(), 100)
    if is_refused:
        with pytest.raises(errors.LogWentBack, match="--new-epoch"):
            check_seen(seen, "g", epochs, revision)
    else:
        check_seen(seen, "g", epochs, revision)
    check_seen(seen, "another generation", epochs, revision)
    check_seen(None, "g", epochs, revision)


def test_another_table_of_the_same_name_is_refused() -> None:
    epochs = history((SECOND, 0))
    epochs.lineage = b"M" * 16
    with pytest.raises(errors.LogWentBack):
        check_seen(Seen(NAME, "g", LINEAGE.hex(), SECOND.hex(), 1), "g", epochs, 5)


def test_a_generation_stays_until_an_operator_begins_a_new_one() -> None:
    keys = FakeKeys()
    first = read_generation(keys, NAME)
    assert read_generation(keys, NAME) == first
    second = begin_generation(keys, NAME)
    assert read_generation(keys, NAME) == second != first


def test_an_etcd_that_has_begun_anew_is_refused_until_somebody_says_to_go_on() -> None:
    """Seen red without a note of its index."""
    keys = FakeKeys()
    for index in (5, 5, 1000, 1001):
        check_index(keys, NAME, lambda _, index=index: index)  # type: ignore[misc]
    for _ in range(2):
        with pytest.raises(errors.LogWentBack, match="--new-epoch"):
            check_index(keys, NAME, lambda _: 12)
    check_index(keys, NAME, lambda _: 12, is_accepted=True)
    check_index(keys, NAME, lambda _: 13)


@pytest.mark.parametrize("repeats", [False, True])
def test_an_etcd_that_has_begun_anew_is_refused_however_much_it_has_changed_since(repeats: bool) -> None:
    """Seen red with the index alone: it is past the one that was noted."""
    keys = FakeKeys()
    keys.repeats, keys.revision = repeats, 300
    check_index(keys, NAME, lambda revision: revision + 20)  # twenty elections, say
    for changes in (0, 1, 320, 10_000):
        keys.revision += changes
        with pytest.raises(errors.LogWentBack):
            check_index(keys, NAME, lambda revision: 12 + revision - 300)


def test_an_etcd_that_goes_on_is_never_refused() -> None:
    """Whatever it does while a server looks. Seen red with the index asked for before the revision."""
    random, keys, others = Random(1), FakeKeys(), 0

    def go_on(_: object) -> None:
        nonlocal others
        others += random.choice((0, 0, 1))  # entries that change nothing
        keys.revision += random.choice((0, 1, 5))

    def index_at(revision: int) -> int:
        go_on(revision)
        return keys.revision + others

    keys.before = go_on
    for _ in range(2000):
        keys.repeats = random.random() < 0.3
        check_index(keys, NAME, index_at)
