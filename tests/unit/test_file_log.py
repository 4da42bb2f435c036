"""table.txn and table.ckpt as bytes: round trips, every prefix, every flipped bit, every torn page.

A recovery gives an exact prefix of the groups or refuses, naming file and offset. It never gives anything else.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import Any, cast

import pytest
from support.forgetful import PAGE_BYTES, Disk, Inode
from support.witness import Clients, apply, commit, dump_of, raw, request

from kvzmq import errors
from kvzmq.protocol import msgpack, operations
from kvzmq.store.file import checkpoint, file_log, frames
from kvzmq.store.file.compaction import compact_sealed
from kvzmq.store.file.file_log import MAGIC, NAME, NAME_SEALED, NAME_TORN, FileLog
from kvzmq.store.file.files import File
from kvzmq.store.log import SEMANTICS, Checkpoint
from kvzmq.store.store import Store
from kvzmq.store.table import Table

SALT = bytes(range(100, 116))
GARBAGE = bytes(Random(0).randrange(1, 256) for _ in range(PAGE_BYTES))


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say nothing of each torn tail."""
    monkeypatch.setattr(logging.getLogger("kvzmq.store.file.file_log"), "disabled", True)


def disk_with(**files: bytes) -> Disk:
    """Return a disk that holds `files`, named with _ for a dot."""
    disk = Disk()
    for name, data in files.items():
        inode = Inode()
        inode.write(0, data)
        inode.sync()
        disk.change_names({name.replace("_", "."): inode})
    disk.sync_names()
    return disk


def log_of(groups: Sequence[bytes], first: int = 1) -> tuple[bytes, list[int]]:
    """Return a log and where each of its frames ends, its header first."""
    header = frames.new_header(MAGIC, first, SALT)
    parts = [frames.encode_header(header)]
    parts += [frames.encode_frame(SALT, first + number, group) for number, group in enumerate(groups)]
    ends, end = [], 0
    for part in parts:
        end += len(part)
        ends.append(end)
    return b"".join(parts), ends


def recovered(disk: Disk) -> tuple[FileLog, list[bytes]]:
    log = FileLog(disk.open())
    return log, [found for found in log.recover() if isinstance(found, bytes)]


def real_log(seed: int, bytes_min: int, value_bytes_max: int = 300) -> tuple[bytes, list[bytes]]:
    """Return the log of a store that did real work, and its groups."""
    disk = Disk()
    clients = Clients(Random(seed), value_bytes_max=value_bytes_max)
    log = FileLog(disk.open())
    store = Store(log)
    store.recover()
    apply(store, clients.opening(), clients.time())
    while log.log_bytes < bytes_min:
        apply(store, clients.batch(), clients.time())
    data = bytes(disk.names[NAME].seen[: log.log_bytes])
    return data, recovered(disk)[1]


def refused_at(message: str) -> int:
    """Return the offset that a refusal names, after the file."""
    found = re.search(r"^table/table\.\w+(?:\.\w+)?: .*?offset (\d+)", message)
    assert found, f"no file and offset in {message!r}"
    return int(found[1])


# ---- frames


@pytest.mark.parametrize("payloads", [[], [b""], [b"a"], [b"", b"", b"x" * 70_000], [bytes(range(256))] * 300])
def test_frames_read_back_as_they_were_written(payloads: list[bytes]) -> None:
    data, ends = log_of(payloads, first=7)
    disk = disk_with(table_txn=data)
    file = disk.open().open(NAME)
    assert frames.read_header(file, MAGIC, "name") == frames.Header(MAGIC, SEMANTICS, SALT, 7)
    found = list(frames.scan(file, SALT))
    assert [frame.payload for frame in found] == payloads
    assert [frame.end for frame in found] == ends[1:]
    assert [frame.number for frame in found] == list(range(7, 7 + len(payloads)))


@pytest.mark.parametrize("window_bytes", [24, 25, 64, 1000])
def test_frames_are_found_across_the_borders_of_the_window(window_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_WINDOW_BYTES", window_bytes)
    payloads = [bytes([number]) * number for number in range(60)]
    data, ends = log_of(payloads)
    file = disk_with(table_txn=data).open().open(NAME)
    assert [frame.payload for frame in frames.scan(file, SALT)] == payloads
    for begin, end in pairwise(ends):
        found = frames.find_frame(file, SALT, begin - 5)
        assert found is not None and (found.offset, found.end) == (begin, end)
    assert frames.find_frame(file, SALT, ends[-2]) is None


def test_a_payload_that_no_reader_would_take_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 1: it would be refused as damage when it is read. Turned red by leaving out the check."""
    monkeypatch.setattr(frames, "PAYLOAD_BYTES_MAX", 100)
    frames.encode_frame(SALT, 1, bytes(100))
    with pytest.raises(ValueError, match="101 bytes"):
        frames.encode_frame(SALT, 1, bytes(101))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header: header._replace(magic=b"kvzmqCKP"), "not b'kvzmqLOG'"),
        (lambda header: header._replace(semantics=0), "never written by any version"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(
    change: Callable[[frames.Header], frames.Header], words: str
) -> None:
    header = frames.encode_header(change(frames.new_header(MAGIC, 1)))
    with pytest.raises(errors.CorruptionError, match=words):
        recovered(disk_with(table_txn=header))


@pytest.mark.parametrize(("field", "words"), [("FORMAT", "format 65535"), ("SEMANTICS", "semantics 65535")])
def test_a_file_of_a_later_version_is_not_called_damaged(
    monkeypatch: pytest.MonkeyPatch, field: str, words: str
) -> None:
    monkeypatch.setattr(frames, field, 65535)
    header = frames.encode_header(frames.new_header(MAGIC, 1))
    monkeypatch.undo()
    with pytest.raises(
        errors.WrittenByNewer, match=rf"written by a newer version of kvzmq \({words}\): update this one"
    ):
        recovered(disk_with(table_txn=header))


# ---- prefixes


def check_prefixes(data: bytes, groups: list[bytes]) -> int:
    """Recover every prefix of a log; each gives exactly the groups that are whole in it."""
    _, ends = log_of(groups)
    assert ends[-1] == len(data)
    whole = 0
    for length in range(len(data) + 1):
        disk = disk_with(table_txn=data[:length])
        if length < frames.HEADER_BYTES:
            with pytest.raises(errors.CorruptionError, match=r"table/table\.txn: offset 0: the header is cut short"):
                recovered(disk)
            continue
        while whole + 1 < len(ends) and ends[whole + 1] <= length:
            whole += 1
        log, found = recovered(disk)
        assert found == groups[:whole]
        assert disk.names[NAME].seen.rstrip(b"\0") == data[: ends[whole]].rstrip(b"\0")
        rest = data[ends[whole] : length]
        saved = [bytes(inode.seen) for name, inode in disk.names.items() if name.startswith(NAME_TORN)]
        assert saved == ([rest] if rest.strip(b"\0") else [])
        assert log.group == whole
    return len(data) + 1


def test_every_prefix_of_a_log_recovers_an_exact_prefix(full: bool, count: Callable[[str, int], None]) -> None:
    """Guarantees 1, 2. Turned red by taking a torn tail for damage, and by leaving out the payload's CRC."""
    prefixes = 0
    for seed in range(26 if full else 2):
        prefixes += check_prefixes(*real_log(seed, 4096, value_bytes_max=200))
    count("byte prefixes of real logs", prefixes)
    assert prefixes > (100_000 if full else 8_000)


def test_a_log_goes_on_after_every_kind_of_torn_tail() -> None:
    """Guarantee 1: what is committed after a cut is there after the next recovery."""
    data, ends = log_of([b"one", b"two" * 50, b"three"])
    for length in range(ends[1], len(data)):
        disk = disk_with(table_txn=data[:length])
        log, groups = recovered(disk)
        commit(log, b"next")
        log.close()
        assert recovered(disk)[1] == [*groups, b"next"]


# ---- flipped bits


def flips(data: bytes, everything: bool) -> Iterator[tuple[int, bytes]]:
    """Yield the data with one bit flipped: every bit, or every 11th and those of the first 200 bytes."""
    flipped = bytearray(data)
    for bit in range(8 * len(data)):
        if everything or bit < 1600 or bit % 11 == 0:
            flipped[bit // 8] ^= 1 << bit % 8
            yield bit // 8, bytes(flipped)
            flipped[bit // 8] ^= 1 << bit % 8


def test_every_flipped_bit_of_a_log_is_found(full: bool, count: Callable[[str, int], None]) -> None:
    """Guarantee 7: refused with file and offset, or in the very last frame taken for a torn tail.

    Turned red by: no payload CRC; no header CRC (a flipped length swallowed the frames after it); taking damage
    for a torn tail.
    """
    data, groups = real_log(1, 16_384, value_bytes_max=3000)
    _, ends = log_of(groups)
    tried = 0
    for place, flipped in flips(data, full):
        tried += 1
        frame = sum(end <= place for end in ends)  # 0 is the header
        disk = disk_with(table_txn=flipped)
        if frame == len(groups):
            log, found = recovered(disk)
            assert found == groups[:-1] and log.torn_bytes == len(data) - ends[-2]
            continue
        with pytest.raises(errors.CorruptionError) as refused:
            recovered(disk)
        assert refused_at(str(refused.value)) == (ends[frame - 1] if frame else 0)
        assert bytes(disk.names[NAME].seen) == flipped, "a refused file is left as it is"
    count("flipped bits of a log of 16 KiB", tried)


def sample_checkpoint() -> tuple[bytes, Table]:
    disk = Disk()
    clients = Clients(Random(3), value_bytes_max=2000)
    store = Store(FileLog(disk.open()))
    store.recover()
    apply(store, clients.opening(), clients.time())
    for _ in range(40):
        apply(store, clients.batch(), clients.time())
    checkpoint.write(disk.open(), 41, store.table.dump())
    return bytes(disk.names[checkpoint.NAME].seen), store.table


def sections_of(data: bytes) -> list[bytes]:
    found = checkpoint.read(disk_with(table_ckpt=data).open())
    assert found is not None
    return list(found.sections)


def load(data: bytes) -> Table:
    table = Table()
    table.load(sections_of(data))
    return table


def test_every_flipped_bit_of_a_checkpoint_is_found(full: bool, count: Callable[[str, int], None]) -> None:
    """Guarantee 7. Turned red by: no payload CRC; no header CRC; the footer not compared."""
    data, table = sample_checkpoint()
    assert dump_of(load(data)) == dump_of(table)
    tried = 0
    for _, flipped in flips(data, full):
        tried += 1
        with pytest.raises(errors.CorruptionError) as refused:
            load(flipped)
        refused_at(str(refused.value))
    count(f"flipped bits of a checkpoint of {len(data)} bytes", tried)


def test_every_prefix_of_a_checkpoint_and_anything_after_it_is_refused() -> None:
    """Guarantee 7. Turned red by not asking for the footer."""
    data, _ = sample_checkpoint()
    for length in range(len(data)):
        with pytest.raises(errors.CorruptionError):
            load(data[:length])
    with pytest.raises(errors.CorruptionError, match="data after the footer"):
        load(data + b"\0")


def test_sections_in_another_order_or_number_are_refused() -> None:
    header = frames.new_header(checkpoint.MAGIC, 1, SALT)
    one, two = (frames.encode_frame(SALT, number, b"section") for number in (1, 2))
    footer = frames.encode_frame(SALT, 0, checkpoint._FOOTER.pack(1, 7, 0))
    for parts in ([two, footer], [one, one, footer], [one, two, footer], [footer], [one, footer]):
        with pytest.raises(errors.CorruptionError):
            sections_of(frames.encode_header(header) + b"".join(parts))


# ---- torn pages


def test_any_subset_of_the_last_group_s_pages_recovers_a_prefix(full: bool, count: Callable[[str, int], None]) -> None:
    """Guarantees 1, 2: after a loss of power, whatever part of the unsynced group is there.

    Turned red by a frame for each record instead of each group, and by leaving out the payload's CRC.
    """
    random = Random(2)
    tears = logs = 0
    while logs < (1000 if full else 60):
        synced = [random.randbytes(random.randrange(6000)) for _ in range(random.randrange(4))]
        before, _ = log_of(synced)
        pages = random.randrange(1, 9)
        first_page = len(before) // PAGE_BYTES
        room = (first_page + pages) * PAGE_BYTES - len(before) - frames.FRAME_BYTES
        if room < 1:
            continue
        logs += 1
        last = random.randbytes(random.randrange(max(1, room - PAGE_BYTES), room + 1))
        after, _ = log_of([*synced, last])
        pages = (len(after) - 1) // PAGE_BYTES - first_page + 1
        for hole in (bytes(PAGE_BYTES), GARBAGE):
            old = before + (hole * 10)[: len(after) - len(before)]
            for subset in range(1 << pages):
                image = bytearray(old)
                for page in range(pages):
                    if subset >> page & 1:
                        begin = (first_page + page) * PAGE_BYTES
                        image[begin : begin + PAGE_BYTES] = after[begin : begin + PAGE_BYTES]
                tail = random.choice((b"", bytes(random.randrange(5000)), GARBAGE[: random.randrange(1, 4096)]))
                _, found = recovered(disk_with(table_txn=bytes(image) + tail))
                assert found == ([*synced, last] if image == after else synced)
                tears += 1
    count(f"torn groups in {logs} logs", tears)


def test_a_torn_group_that_holds_a_piece_of_its_own_log_is_a_torn_tail() -> None:
    """Guarantee 2: somebody may store the log in the table. Turned red by taking any valid frame for a successor."""
    data, ends = log_of([b"one", b"two"])
    group = b"x" * 100 + data + b"y" * 100
    whole, _ = log_of([b"one", b"two", group])
    _, found = recovered(disk_with(table_txn=whole[:-50]))
    assert found == [b"one", b"two"]
    assert ends[-1] < len(whole)


# ---- states of the directory


def test_a_log_is_missing_between_checkpoint_and_log() -> None:
    data, _ = log_of([b"five"], first=5)
    with pytest.raises(
        errors.CorruptionError, match=r"table\.txn: begins with group 5, but the files before it end with group 0"
    ):
        recovered(disk_with(table_txn=data))


def test_a_log_missing_beside_a_checkpoint_is_refused() -> None:
    data, _ = sample_checkpoint()
    with pytest.raises(errors.CorruptionError, match=r"table\.txn is missing beside a checkpoint"):
        recovered(disk_with(table_ckpt=data))


def test_a_log_that_ends_before_its_checkpoint_is_refused() -> None:
    """Guarantee 1: new groups after it would be refused later. Turned red by leaving out the comparison."""
    data, _ = sample_checkpoint()
    log, _ = log_of([b"x"] * 20)
    with pytest.raises(errors.CorruptionError, match="ends with group 20, but the files before it end with group 41"):
        recovered(disk_with(table_ckpt=data, table_txn=log))


def test_a_torn_sealed_log_is_damage() -> None:
    """Guarantee 7: it was synced before it was sealed. Turned red by taking it for the last log."""
    data, _ = log_of([b"one", b"two"])
    fresh, _ = log_of([], first=3)
    with pytest.raises(errors.CorruptionError, match=r"table\.txn\.sealed: .*a sealed log has no torn tail"):
        recovered(disk_with(**{"table_txn_sealed": data[:-1], "table_txn": fresh}))


def test_a_group_out_of_order_is_damage() -> None:
    data = frames.encode_header(frames.new_header(MAGIC, 1, SALT))
    data += frames.encode_frame(SALT, 1, b"one") + frames.encode_frame(SALT, 3, b"three")
    with pytest.raises(errors.CorruptionError, match="group 3, expected 2"):
        recovered(disk_with(table_txn=data))


@pytest.mark.parametrize("leftover", ["table_txn_tmp", "table_ckpt_tmp"])
@pytest.mark.parametrize("content", [b"", b"half a hea", GARBAGE])
def test_leftovers_of_a_crash_do_no_harm(leftover: str, content: bytes) -> None:
    data, _ = log_of([b"one"])
    assert recovered(disk_with(**{leftover: content}))[1] == []
    disk = disk_with(**{leftover: content, "table_txn": data})
    log, found = recovered(disk)
    assert found == [b"one"]
    log.seal()
    commit(log, b"two")
    log.close()
    assert recovered(disk)[1] == [b"one", b"two"]


def test_group_numbers_go_on_through_logs_without_groups() -> None:
    """A rotation straight after another, and a compaction of nothing."""
    disk = Disk()
    log, _ = recovered(disk)
    log.seal()
    assert recovered_rows(disk) == {}
    disk.kill()
    for number in range(4):
        store = Store(FileLog(disk.open()))
        store.recover()
        apply(store, [request(None, 1, operations.Insert(f"k{number}", raw(number)))], number)
        disk.kill()
        compact_sealed(disk.open())
        log, _ = recovered(disk)
        log.seal()
        assert compact_sealed(disk.open())
        log.seal()
        disk.kill()
    assert recovered_rows(disk) == {f"k{number}": number for number in range(4)}


def recovered_rows(disk: Disk) -> dict[str, object]:
    store = Store(FileLog(disk.open()))
    store.recover()
    return {key: msgpack.decode_value(value) for key, value in store.table.rows.items()}


def test_a_sealed_log_already_in_the_checkpoint_is_not_applied_again() -> None:
    """Guarantee 8: the crash came before the sealed log was removed. Turned red by replaying every group."""
    disk = Disk()
    store = Store(log := FileLog(disk.open()))
    store.recover()
    apply(store, [request(None, 1, operations.Increment("n"))], 1)
    log.seal()
    checkpoint.write(disk.open(), log.group, store.table.dump())
    apply(store, [request(None, 1, operations.Increment("n"))], 2)
    assert NAME_SEALED in disk.names
    assert recovered_rows(disk) == {"n": 2}


def test_two_torn_tails_are_both_kept() -> None:
    """Turned red by a name that only tells the second."""
    data, _ = log_of([b"one"])
    disk = disk_with(table_txn=data + b"first torn")
    recovered(disk)
    disk.names[NAME].write(len(data), b"second torn")
    recovered(disk)
    assert sorted(bytes(inode.seen) for name, inode in disk.names.items() if name.startswith(NAME_TORN)) == [
        b"first torn",
        b"second torn",
    ]


def test_a_read_only_recovery_changes_nothing() -> None:
    data, _ = log_of([b"one"])
    disk = disk_with(table_txn=data + b"torn")
    disk.calls.clear()
    log = FileLog(disk.open(), read_only=True)
    assert list(log.recover()) == [b"one"]
    log.close()
    assert log.torn_bytes == 4 and disk.calls == []


def test_zeros_written_ahead_are_no_torn_tail() -> None:
    data, _ = log_of([b"one", b"\0" * 100])
    for zeros in (1, 23, 24, 4096, file_log.PREPARED_BYTES, (4 << 20) + 5):
        log, found = recovered(disk_with(table_txn=data + bytes(zeros)))
        assert found == [b"one", b"\0" * 100] and log.torn_bytes == 0


class Noting:
    """A file that writes down what is done to it, and whose writes may fail, and whose sync, once."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.done: list[tuple[Any, ...]] = []
        self.failing = False
        self.full = False

    def write(self, offset: int, data: bytes) -> None:
        self.done.append(("write", offset))
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.file.write(offset, data)

    def start_sync(self, offset: int, length: int) -> None:
        self.done.append(("start_sync", offset, length))

    def truncate(self, length: int) -> None:
        self.file.truncate(length)

    def sync(self) -> None:
        self.done.append(("sync",))
        if self.failing:
            self.failing = False
            raise OSError(errno.EIO, "Input/output error")
        self.file.sync()


def noting_log() -> tuple[FileLog, Noting]:
    log, _ = recovered(Disk())
    assert log._file is not None
    noting = Noting(log._file)
    log._file = cast(File, noting)
    return log, noting


def test_the_disk_is_asked_to_begin_with_a_group_before_the_group_is_handed_out() -> None:
    """Not a promise, but what the figures live on. Red with another place, another length, or after the execution."""
    log, noting = noting_log()
    for group in (b"a" * 1000, b"b"):
        noting.done.clear()
        offset, length = log.log_bytes, frames.FRAME_BYTES + len(group)
        log.append(group)
        assert noting.done == [("write", offset), ("start_sync", offset, length)]
        log.sync()
        assert noting.done[2:] == [("sync",)] and log.log_bytes == offset + length


def test_after_a_sync_that_failed_nothing_is_committed_any_more() -> None:
    """The kernel takes the lost pages for clean: a second sync would say yes. Red when a log did not remember."""
    log, noting = noting_log()
    commit(log, b"one")
    noting.failing = True
    with pytest.raises(errors.StorageFatal, match=r"table\.txn: sync failed: Input/output error"):
        commit(log, b"two")
    noting.done.clear()
    for go_on in (lambda: log.append(b"three"), log.sync, log.barrier, log.seal):
        with pytest.raises(errors.StorageFatal, match=r"table\.txn: sync failed: Input/output error"):
            go_on()
    assert noting.done == []


def test_after_a_cut_that_failed_nothing_is_committed_any_more() -> None:
    log, noting = noting_log()
    noting.full = noting.failing = True
    with pytest.raises(
        errors.StorageFatal, match="could not cut back after No space left on device: Input/output error"
    ):
        commit(log, b"one")
    noting.full = False
    with pytest.raises(errors.StorageFatal, match="could not cut back"):
        commit(log, b"two")


def test_a_checkpoint_that_cannot_be_written_leaves_no_half_of_it() -> None:
    """Guarantee 6: a disk it has filled would leave the log no room. Turned red by leaving the file there."""
    disk = disk_with(table_txn=log_of([])[0])
    disk.judge = lambda call: "full" if call.kind == "write" else None
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write(disk.open(), 1, [b"section"])
    assert list(disk.names) == [NAME]


def test_a_checkpoint_is_read_back_section_by_section() -> None:
    disk = Disk()
    sections = [b"", b"one", bytes(10_000)]
    length = checkpoint.write(disk.open(), 9, sections)
    assert length == len(disk.names[checkpoint.NAME].seen)
    found = checkpoint.read(disk.open())
    assert isinstance(found, Checkpoint) and found.group == 9 and list(found.sections) == sections
    assert checkpoint.read(Disk().open()) is None
