"""What a server that was killed has left in etcd, and when the next one in its directory removes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.fake_keys import FakeKeys

from kvzmq.store.etcd.former import NOTE, server_key, succeed
from kvzmq.store.etcd.layout import Keys

NAME = "t"
FIRST, SECOND, OTHER = "1" * 16, "2" * 16, "3" * 16


def append(keys: FakeKeys, server: str, seq: int) -> None:
    """Append a group, as a server does."""
    keys.append(NAME, server, seq)
    keys.transact([], put=[(server_key(NAME, server), b"%d" % seq)])


def put_pieces(keys: FakeKeys, server: str, seq: int) -> None:
    for number in range(2):
        keys.transact([], put=[(f"{NAME}/chunk/{server}/{seq:016x}/{number:08}", b"piece")])


def left(keys: FakeKeys, what: str) -> list[str]:
    return sorted(key for key in keys.values if key.startswith(f"{NAME}/{what}/"))


def test_the_key_is_the_one_that_appends_compare() -> None:
    assert server_key(NAME, FIRST).encode() == Keys(NAME).server(FIRST)


@pytest.mark.parametrize("repeats", [False, True])
def test_the_next_server_of_a_directory_removes_the_key_of_the_one_that_was_killed(
    repeats: bool, tmp_path: Path
) -> None:
    """And no other one. Seen red without removing it, and without a note of who lives there."""
    keys = FakeKeys()
    keys.repeats = repeats
    for server in (FIRST, OTHER, SECOND):
        append(keys, server, 5)
    succeed(keys, NAME, FIRST, tmp_path)
    assert len(left(keys, "server")) == 3
    succeed(keys, NAME, SECOND, tmp_path)
    assert left(keys, "server") == [server_key(NAME, SECOND), server_key(NAME, OTHER)]
    succeed(keys, NAME, "4" * 16, tmp_path)
    assert left(keys, "server") == [server_key(NAME, OTHER)]
    assert len(left(keys, "log")) == 3, "groups stay"


def test_pieces_of_a_group_that_never_landed_go_and_those_of_the_others_stay(tmp_path: Path) -> None:
    """Seen red with the pieces of the last group removed."""
    keys = FakeKeys()
    succeed(keys, NAME, FIRST, tmp_path)
    append(keys, FIRST, 0xF)
    for server, seq in ((FIRST, 0xE), (FIRST, 0xF), (FIRST, 0x10), (SECOND, 0x10), ("0" * 16, 0x10)):
        put_pieces(keys, server, seq)
    before = left(keys, "chunk")
    succeed(keys, NAME, SECOND, tmp_path)
    assert left(keys, "chunk") == [key for key in before if f"{FIRST}/{0x10:016x}" not in key]


def test_a_group_that_lands_while_its_server_is_succeeded_keeps_its_pieces(tmp_path: Path) -> None:
    """Its request was on its way when the server was killed. Seen red with a removal that does not compare."""
    keys = FakeKeys()
    succeed(keys, NAME, FIRST, tmp_path)
    append(keys, FIRST, 1)
    put_pieces(keys, FIRST, 2)

    def land(call: str) -> None:
        if call == "transact":
            keys.before = lambda call: None
            append(keys, FIRST, 2)

    keys.before = land
    succeed(keys, NAME, SECOND, tmp_path)
    assert left(keys, "server") == [] and len(left(keys, "chunk")) == 2


def test_the_note_of_a_copied_directory_or_of_another_table_is_not_believed(tmp_path: Path) -> None:
    """The original may be alive. Seen red without comparing the directory."""
    keys = FakeKeys()
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    succeed(keys, NAME, FIRST, original)
    append(keys, FIRST, 1)
    shutil.copytree(original, copy)
    succeed(keys, NAME, SECOND, copy)
    succeed(keys, "another", OTHER, original)
    assert left(keys, "server") == [server_key(NAME, FIRST)]


@pytest.mark.parametrize("note", [b"", b"{", b'{"name": "t"}'])
def test_a_note_that_a_power_cut_has_left_is_written_anew(note: bytes, tmp_path: Path) -> None:
    keys = FakeKeys()
    (tmp_path / NOTE).write_bytes(note)
    succeed(keys, NAME, FIRST, tmp_path)
    append(keys, FIRST, 1)
    succeed(keys, NAME, SECOND, tmp_path)
    assert left(keys, "server") == []
