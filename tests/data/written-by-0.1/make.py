"""How this directory was written: by kvzmq 0.1, format 1, semantics 1. Kept to be read, not to be run again.

    python make.py DIR      writes the table to DIR/table and what it holds to DIR/holds.json

Later versions have to open `table` and find what `holds.json` says: the rows, when they expire, the
sessions with their kept results, the revision. Nothing here is taken from a later version, and the
files must never be written anew by one.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from kvzmq.protocol import messages, msgpack
from kvzmq.store.file.compaction import fold
from kvzmq.store.file.file_log import FileLog
from kvzmq.store.file.files import DiskDirectory
from kvzmq.store.store import Store

TIME_US = 1_780_000_000_000_000  # 2026-05-28
TTL_S = messages.TTL_S_MAX  # about ten years
ONE, TWO, BUSY = (bytes([number]) * 16 for number in (1, 2, 3))


class Writer:
    """Runs one request a step, a second apart."""

    def __init__(self, path: Path) -> None:
        self.directory = DiskDirectory(path)
        self.log = FileLog(self.directory)
        self.store = Store(self.log)
        self.store.recover()
        self.time_us = TIME_US

    def step(self, session: bytes | None, seq: int, *ops: list[Any]) -> None:
        request = msgpack.decode_request(msgpack.encode_value((session, seq, ops)))
        assert isinstance(request, messages.Request), request
        self.time_us += 1_000_000
        self.store.begin([request], self.time_us)
        self.store.answer(request)
        self.store.settle()

    def tick(self) -> None:
        """Let a second pass: what is due expires, by a group without requests."""
        self.time_us += 1_000_000
        self.store.begin([], self.time_us)
        self.store.settle()


def before_the_checkpoint(writer: Writer) -> None:
    writer.step(ONE, 1, ["open"])
    writer.step(ONE, 2, ["insert", "zebra", {"weight": 100, "name": "fred"}])
    writer.step(ONE, 3, ["insert_many", {"": None, "größe": 1.5, "a\nb\x00": True, "🦓": [1, [2, {"x": []}]]}])
    writer.step(
        ONE,
        4,
        ["insert", "least", -(1 << 63)],
        ["insert", "most", (1 << 64) - 1],
        ["insert", "bytes", bytes(range(256))],
    )
    writer.step(ONE, 5, ["insert", "lives in the checkpoint", 1, TTL_S], ["insert", "lives on", 2, TTL_S])
    writer.step(ONE, 6, ["remove", "nobody"])  # fails: NoSuchKey is a result that is kept
    writer.step(None, 1, ["insert", "gone at once", 1, 0.5])
    writer.tick()
    writer.step(BUSY, 1, ["open"])
    for seq in range(2, 140):  # more than a session keeps: its floor rises
        writer.step(BUSY, seq, ["increment", "n"])


def before_the_seal(writer: Writer) -> None:
    writer.step(TWO, 1, ["open"])
    writer.step(TWO, 2, ["increment", "n", 0.5])
    writer.step(TWO, 3, ["compare_and_set", "zebra", [{"name": "fred", "weight": 100}], [{"name": "barney"}]])
    writer.step(TWO, 4, ["compare_and_set", "zebra", [1], [2]])  # does not hold
    writer.step(TWO, 5, ["setdefault", "zebra", 0], ["setdefault", "new", [b"\xff", None]])
    writer.step(TWO, 6, ["insert", "lives in the sealed log", {"x": 1}, TTL_S])
    writer.step(TWO, 7, ["transaction", [["zebra", [{"name": "barney"}]], ["ghost", []]],
                         [["insert", "in a transaction", 1], ["lookup", "new"], ["remove", "größe"]]])  # fmt: skip
    writer.step(TWO, 8, ["transaction", [["ghost", [1]]], [["insert", "never", 1]]])  # CheckFailed


def after_the_seal(writer: Writer) -> None:
    writer.step(ONE, 7, ["remove_many", ["most", "nobody"]])
    writer.step(ONE, 8, ["expire", "zebra", TTL_S], ["expire", "lives in the checkpoint", None], ["increment", "zebra"])
    writer.step(None, 1, ["insert", "lives in the log", "x", TTL_S])
    writer.step(None, 1, ["insert", "expires in the log", "x", 0.5])
    writer.tick()
    writer.step(TWO, 9, ["insert", "last", "ü"])


def main(path: Path) -> None:
    writer = Writer(path / "table")
    before_the_checkpoint(writer)
    writer.log.rotate()
    fold(writer.directory)
    before_the_seal(writer)
    writer.log.rotate()  # and no compaction: its log stays, sealed
    after_the_seal(writer)
    table = writer.store.table
    holds = {
        "revision": table.revision,
        "group": writer.log.group,
        "rows": {key: base64.b64encode(value).decode() for key, value in sorted(table.rows.items())},
        "expires_us": {
            key: deadline for key in sorted(table.rows) if (deadline := table.expiries.get(key)) is not None
        },
        "sessions": {
            session.hex(): {
                "floor": floor,
                "kept": {seq: [digest, revision, results.hex()] for seq, digest, revision, results in kept_results},
            }
            for session, floor, kept_results in table.sessions.dump()
        },
    }
    (path / "holds.json").write_text(json.dumps(holds, ensure_ascii=False).replace('}, "', '},\n"') + "\n")
    writer.store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
