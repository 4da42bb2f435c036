"""Checkpoints in etcd, against keys in memory: every way in which a writer may end, stop, or meet another one."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.fake_keys import FakeKeys

from kvzmq import errors
from kvzmq.store.etcd import checkpoints
from kvzmq.store.etcd.checkpoints import (
    CHUNK_BYTES,
    Content,
    Head,
    LockLost,
    Replaced,
    download,
    lock,
    read_head,
    trim,
    upload,
)
from kvzmq.store.etcd.space import Status, remove_garbage_by_force, trim_by_force
from kvzmq.store.file.files import DiskDirectory, DiskFile

NAME = "t"


class Killed(Exception):
    """The process ends here."""


class Time:
    """A clock that only `sleep` moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def keys() -> FakeKeys:
    return FakeKeys()


@pytest.fixture
def file_of(tmp_path: Path) -> Iterator[Callable[[bytes], DiskFile]]:
    directory = DiskDirectory(tmp_path / "files")
    with contextlib.ExitStack() as stack:
        stack.callback(directory.close)

        def make(content: bytes) -> DiskFile:
            file = stack.enter_context(contextlib.closing(directory.create("file")))
            file.write(0, content)
            return file

        yield make


FileOf = Callable[[bytes], DiskFile]


def content(seed: int, chunks: float = 2.5) -> bytes:
    return random.Random(seed).randbytes(int(chunks * CHUNK_BYTES))


def write(keys: FakeKeys, file: DiskFile, group: int, time: Time | None = None) -> Head:
    time = time or Time()
    with lock(keys, NAME, time.clock, time.sleep) as held:
        return upload(held, keys, NAME, file, Content(group, group, 7, 3), pace=time.sleep)


def read(keys: FakeKeys, file_of: FileOf) -> bytes | None:
    head = read_head(keys, NAME)
    if head is None:
        return None
    file = file_of(b"")
    download(keys, NAME, head, file)
    return file.read(0, file.size())


def test_a_checkpoint_is_read_as_it_was_written_in_pieces_that_etcd_takes(keys: FakeKeys, file_of: FileOf) -> None:
    assert read(keys, file_of) is None
    for number, chunks in enumerate((2.5, 3, 0.001), start=1):
        head = write(keys, file_of(content(number, chunks)), number)
        assert read(keys, file_of) == content(number, chunks)
        assert read_head(keys, NAME) == head
        assert (head.group, head.revision, head.rows) == (number, 7, 3)
    assert keys.bytes_max <= 1_000_000
    assert checkpoints.lock_key(NAME) not in keys.values
    assert len(keys.values) == 1 + head.chunks, "the replaced ones are gone"


def test_a_writer_that_ends_at_any_call_leaves_the_old_checkpoint_or_the_new_one(
    keys: FakeKeys, file_of: FileOf
) -> None:
    """And the next writer removes what it left. Seen red with a head put before the pieces, and with garbage left."""
    old, new = content(1), content(2)
    calls = ended_old = 0
    while True:
        keys = FakeKeys()
        write(keys, file_of(old), 1)
        left = calls

        def end(call: str) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        keys.before = end
        try:
            write(keys, file_of(new), 2)
        except Killed:
            pass
        else:
            break
        finally:
            keys.before = lambda call: None
        found = read(keys, file_of)
        assert found in (old, new)
        ended_old += found == old
        write(keys, file_of(new), 3)  # takes the lock over
        assert read(keys, file_of) == new
        head = read_head(keys, NAME)
        assert head is not None and len(keys.values) == 1 + head.chunks, "nothing is left behind"
        calls += 1
    assert 0 < ended_old < calls


def test_a_writer_that_stops_at_any_call_and_wakes_up_later_changes_nothing(keys: FakeKeys, file_of: FileOf) -> None:
    """Another has taken the lock over meanwhile. Seen red with pieces, and with a head, put without comparing it."""
    calls = late = 0
    while True:
        keys = FakeKeys()
        write(keys, file_of(content(1)), 1)
        after: dict[str, Any] = {}
        raised = False
        keys.before = _stop_at(keys, calls, lambda: write(keys, file_of(content(3)), 3), after)  # noqa: B023
        try:
            write(keys, file_of(content(2)), 2)
        except LockLost:
            raised = True
        keys.before = lambda call: None
        if not after:
            break
        if raised:
            assert keys.values == after
            late += 1
        assert read(keys, file_of) == content(3)
        calls += 1
    assert late > 5


def _stop_at(keys: FakeKeys, calls: int, others: Callable[[], object], after: dict[str, Any]) -> Callable[[str], None]:
    """Return a hook that, at one call, has others work and notes what they have left."""
    left = calls

    def stop(call: str) -> None:
        nonlocal left
        if left == 0:
            keys.before = lambda call: None
            others()
            after.update(keys.values)
        left -= 1

    return stop


def test_a_lock_that_is_put_again_is_respected_and_an_abandoned_one_taken_over(keys: FakeKeys) -> None:
    time = Time()
    with lock(keys, NAME, time.clock, time.sleep) as held:

        def sleep(seconds: float) -> None:
            time.sleep(seconds)
            held.keep()

        with pytest.raises(LockLost, match="another server writes"), lock(keys, NAME, time.clock, sleep):
            pass
        assert time.now_s < checkpoints.LOCK_STALE_S
        began_s = time.now_s
        with lock(keys, NAME, time.clock, time.sleep):
            assert time.now_s - began_s >= checkpoints.LOCK_STALE_S
            with pytest.raises(LockLost, match="taken over"):
                held.transact()
    with lock(keys, NAME, time.clock, lambda seconds: pytest.fail("it waited")):
        pass


def test_transactions_that_are_executed_twice_do_no_harm(keys: FakeKeys, file_of: FileOf) -> None:
    """As when an answer is lost. Seen red with a lock, and with a head, that is not known to be one's own."""
    keys.repeats = True
    number = keys.append(NAME, "a", 1)
    for seed in (1, 2):
        write(keys, file_of(content(seed)), number + seed)
        assert read(keys, file_of) == content(seed)
    with lock(keys, NAME) as held:
        with contextlib.suppress(LockLost):  # it is tried again
            trim(held, keys, NAME, number)
        trim(held, keys, NAME, number)
    assert not any("/log/" in key or "/lock" in key for key in keys.values)


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_noticed(keys: FakeKeys, file_of: FileOf) -> None:
    head = write(keys, file_of(content(1)), 1)
    gets = 0

    def replace(call: str) -> None:
        nonlocal gets
        gets += call.startswith("get")
        if gets == 2:
            keys.before = lambda call: None
            write(keys, file_of(content(2)), 2)

    keys.before = replace
    with pytest.raises(Replaced):
        download(keys, NAME, head, file_of(b""))


@pytest.mark.parametrize("harm", ["missing", "flipped", "short"])
def test_a_checkpoint_that_is_not_what_was_written_is_refused(harm: str, keys: FakeKeys, file_of: FileOf) -> None:
    """Seen red without comparing length and CRC with the head's."""
    head = write(keys, file_of(content(1)), 1)
    key = checkpoints.chunk_key(NAME, head.id, 1)
    value, put_at = keys.values.pop(key)
    if harm == "flipped":
        keys.values[key] = bytes([value[0] ^ 1]) + value[1:], put_at
    elif harm == "short":
        keys.values[key] = value[:-1], put_at
    with pytest.raises(errors.CorruptionError, match="etcd key"):
        download(keys, NAME, head, file_of(b""))


def test_a_head_of_another_kind_or_of_a_newer_version_is_refused(keys: FakeKeys) -> None:
    key = checkpoints.head_key(NAME)
    keys.transact([], put=[(key, b"{}")])
    with pytest.raises(errors.CorruptionError, match="not the head"):
        read_head(keys, NAME)
    keys.transact([], put=[(key, b'{"id":"x","group":1,"position":1,"bytes":1,"chunks":1,"crc":1,"version":2}')])
    with pytest.raises(errors.WrittenByNewer, match="update this one"):
        read_head(keys, NAME)


def test_a_checkpoint_that_holds_less_than_the_present_one_is_not_written(keys: FakeKeys, file_of: FileOf) -> None:
    write(keys, file_of(content(1)), 5)
    before = dict(keys.values)
    for group in (4, 5):
        with pytest.raises(LockLost, match="holds as much"):
            write(keys, file_of(content(2)), group)
    assert keys.values == before


def test_trimming_deletes_the_groups_up_to_a_number_of_every_server(keys: FakeKeys, file_of: FileOf) -> None:
    """Seen red with groups trimmed whenever they were put, and with some that the checkpoint does not hold."""
    chance = random.Random(1)
    servers = {server: 0 for server in "zyabc"}
    numbers = []
    for _ in range(300):
        server = chance.choice(list(servers))
        servers[server] += 1
        numbers.append(keys.append(NAME, server, servers[server]))
    write(keys, file_of(content(1, 0.1)), numbers[200])
    with lock(keys, NAME) as held:
        assert trim(held, keys, NAME, numbers[150]) == 151
        assert keys.values[checkpoints.trimmed_key(NAME)][0] == b"%d" % numbers[150]
        left = sorted(put_at for key, (_, put_at) in keys.values.items() if "/log/" in key)
        assert left == numbers[151:]
        assert trim(held, keys, NAME, numbers[100]) == 0, "it never goes back"
        with pytest.raises(LockLost, match="no checkpoint"):
            trim(held, keys, NAME, numbers[201])


def test_trimming_takes_the_pieces_of_long_groups_along_and_leaves_those_of_later_ones(
    keys: FakeKeys, file_of: FileOf
) -> None:
    """Also those of a group that is about to be appended. Seen red with all pieces of a server deleted."""
    for server in "ab":
        for seq in range(1, 4):
            for number in range(2):
                keys.transact([], put=[(f"{NAME}/chunk/{server}/{seq:016x}/{number:08}", b"piece")])
            if (server, seq) != ("b", 3):
                last = keys.append(NAME, server, seq)
    write(keys, file_of(content(1, 0.1)), last)
    with lock(keys, NAME) as held:
        trim(held, keys, NAME, keys.values[f"{NAME}/log/b/{2:016x}"][1] - 1)
        left = sorted(key for key in keys.values if "/chunk/" in key)
        assert [key.split("/")[2:4] for key in left] == [["b", f"{2:016x}"]] * 2 + [["b", f"{3:016x}"]] * 2
        trim(held, keys, NAME, last)
    left = sorted(key for key in keys.values if "/chunk/" in key)
    assert [key.split("/")[2:4] for key in left] == [["b", f"{3:016x}"]] * 2


def test_trimming_goes_on_where_an_interrupted_one_ended(
    keys: FakeKeys, file_of: FileOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "RANGE_KEYS_MAX", 10)
    number = [keys.append(NAME, f"server{seq % 7}", seq) for seq in range(100)][-1]
    write(keys, file_of(content(1, 0.1)), number)
    with lock(keys, NAME) as held:
        calls = 0

        def end(call: str) -> None:
            nonlocal calls
            calls += 1
            if calls == 8:
                raise Killed

        keys.before = end
        with pytest.raises(Killed):
            trim(held, keys, NAME, number)
        keys.before = lambda call: None
        assert 0 < sum("/log/" in key for key in keys.values) < 100
        trim(held, keys, NAME, number)
    assert not any("/log/" in key for key in keys.values)


def test_half_written_checkpoints_are_removed_without_a_lock_at_any_moment_of_their_writer(
    keys: FakeKeys, file_of: FileOf
) -> None:
    """When etcd takes no put. A writer that goes on afterwards writes nothing more, and what was whole stays so.

    Seen red with the lock left.
    """
    calls = removed = 0
    while True:
        keys = FakeKeys()
        write(keys, file_of(content(1)), 1)
        after: dict[str, Any] = {}
        keys.before = _stop_at(keys, calls, partial(remove_garbage_by_force, keys, Deletes(keys), NAME), after)
        with contextlib.suppress(LockLost):
            write(keys, file_of(content(2)), 2)
        keys.before = lambda call: None
        if not after:
            break
        assert read(keys, file_of) in (content(1), content(2))
        removed += read(keys, file_of) == content(1)
        write(keys, file_of(content(3)), 3)
        assert read(keys, file_of) == content(3)
        calls += 1
    assert removed > 5


def test_groups_that_the_checkpoint_holds_are_trimmed_without_a_lock(keys: FakeKeys, file_of: FileOf) -> None:
    """When etcd takes no put. Seen red with nothing trimmed."""
    trim_by_force(keys, Deletes(keys), NAME)
    numbers = [keys.append(NAME, f"server{seq % 3}", seq) for seq in range(30)]
    write(keys, file_of(content(1, 0.1)), numbers[19])
    trim_by_force(keys, Deletes(keys), NAME)
    assert sorted(put_at for key, (_, put_at) in keys.values.items() if "/log/" in key) == numbers[20:]


def test_a_writer_at_any_moment_of_their_removal_without_a_lock_writes_a_whole_checkpoint(
    keys: FakeKeys, file_of: FileOf
) -> None:
    for calls in range(12):
        keys = FakeKeys()
        write(keys, file_of(content(1)), 1)
        keys.transact([], put=[(checkpoints.chunk_key(NAME, "left", 0), b"half")])
        keys.before = _stop_at(keys, calls, partial(write, keys, file_of(content(2)), 2), {})
        remove_garbage_by_force(keys, Deletes(keys), NAME)
        keys.before = lambda call: None
        assert read(keys, file_of) in (content(1), content(2))
        assert checkpoints.chunk_key(NAME, "left", 0) not in keys.values


class Deletes:
    """The members of a cluster, as far as that deletes."""

    def __init__(self, keys: FakeKeys) -> None:
        self.addresses: Sequence[str] = ("here",)
        self.delete = keys.delete
        self.compact = keys.compact

    def status(self, address: str) -> Status:
        return Status(0, 0, 0, True)

    def defragment(self, address: str) -> None:
        """Do nothing."""

    def disarm(self) -> None:
        """Do nothing."""
