"""docs/files.md shows a log and a checkpoint as hex dumps: the store writes them so, byte for byte, and reads them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.forgetful import Disk, Inode
from support.witness import apply, raw, request

from kvzmq.protocol import msgpack, operations
from kvzmq.store.file import checkpoint, file_log, frames
from kvzmq.store.file.compaction import compact_sealed, upgrade
from kvzmq.store.file.file_log import NAME, NAME_SEALED, FileLog
from kvzmq.store.log import SEMANTICS
from kvzmq.store.store import Store

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "files.md"
SALT = bytes(range(0xA0, 0xB0))
SESSION = bytes(range(16))
LINEAGE, EPOCH = bytes(range(0xD0, 0xE0)), bytes(range(0xE0, 0xF0))
TIME_US = 1_700_000_000_000_000


def example() -> Disk:
    """Do what the document says was done."""
    disk = Disk()
    store = Store(log := FileLog(disk.open()))
    store.recover()
    identifiers = iter((LINEAGE, EPOCH))
    store.begin_epoch(TIME_US - 1_000_000, lambda length: next(identifiers))
    apply(store, [request(SESSION, 1, operations.Open())], TIME_US)
    zebra, counter = operations.Insert("zebra", raw({"weight": 100})), operations.Increment("n")
    apply(store, [request(SESSION, 2, zebra), request(None, 1, counter)], TIME_US + 1_000_000)
    apply(store, [request(SESSION, 3, operations.Expire("n", 60.0))], TIME_US + 2_000_000)
    log.seal()
    return disk


def dump_hex(data: bytes) -> str:
    """Return `data` as hexdump -C shows it."""
    lines = []
    for offset in range(0, len(data), 16):
        part = data[offset : offset + 16]
        halves = " ".join(f"{byte:02x}" for byte in part[:8]), " ".join(f"{byte:02x}" for byte in part[8:])
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{offset:08x}  {halves[0]:<23}  {halves[1]:<23}  |{text}|")
    return "\n".join(lines)


def read_hex(heading: str) -> bytes:
    """Return the bytes of the dump that follows a heading of the document."""
    section = DOCUMENT.read_text().split(f"\n### {heading}\n", 1)[1]
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert block
    return b"".join(bytes.fromhex(line[10:58]) for line in block[1].splitlines())


@pytest.fixture
def fixed_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every file get the document's salt, and the log no zeros ahead of it."""
    usual = frames.new_header
    monkeypatch.setattr(frames, "new_header", lambda magic, number: usual(magic, number, SALT))
    monkeypatch.setattr(file_log, "PREPARED_BYTES", 0)


def test_the_store_writes_the_documents_log_and_checkpoint(fixed_salt: None) -> None:
    disk = example()
    assert dump_hex(bytes(disk.names[NAME_SEALED].seen)) == dump_hex(read_hex("A log"))
    assert compact_sealed(disk.open())
    assert dump_hex(bytes(disk.names[checkpoint.NAME].seen)) == dump_hex(read_hex("A checkpoint"))


def test_the_store_reads_the_documents_log_and_checkpoint() -> None:
    for files in ({NAME: "A log"}, {checkpoint.NAME: "A checkpoint", NAME_SEALED: "A log"}):
        disk = Disk()
        for name, heading in files.items():
            inode = Inode()
            inode.write(0, read_hex(heading))
            disk.change_names({name: inode})
        store = Store(FileLog(disk.open()))
        store.recover()
        assert {key: msgpack.decode_value(value) for key, value in store.table.rows.items()} == {
            "zebra": {"weight": 100},
            "n": 1,
        }
        assert store.table.epochs.dump() == (LINEAGE, [(EPOCH, 0)])
        assert store.table.revision == 3 and dict(store.table.expiries.items()) == {"n": TIME_US + 62_000_000}


def test_a_log_of_semantics_2_is_read_and_gone_on_with_in_a_new_one() -> None:
    """It is the document's, but for the number: it says of nobody who has sent what."""
    disk, inode = Disk(), Inode()
    data = read_hex("A log")
    header = frames.Header(file_log.MAGIC, 2, SALT, 1)
    inode.write(0, frames.encode_header(header) + data[frames.HEADER_BYTES :])
    disk.change_names({NAME: inode})
    log = FileLog(disk.open())
    store = Store(log)
    store.recover()
    assert (log.semantics, store.table.revision, store.records) == (2, 3, 4)
    upgrade(log)
    assert log.semantics == SEMANTICS and log.sealed


if __name__ == "__main__":  # prints the dumps for the document
    with pytest.MonkeyPatch.context() as patch:
        usual_header = frames.new_header
        patch.setattr(frames, "new_header", lambda magic, number: usual_header(magic, number, SALT))
        patch.setattr(file_log, "PREPARED_BYTES", 0)
        made = example()
        print(dump_hex(bytes(made.names[NAME_SEALED].seen)), end="\n\n")
        compact_sealed(made.open())
        print(dump_hex(bytes(made.names[checkpoint.NAME].seen)))
