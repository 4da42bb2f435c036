"""The clients file, and what its lines allow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.curve import ALICE, BOB, BOB_AGAIN, STRANGER
from support.logged import logged

from kvzmq.protocol import operations
from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.operations import OPERATIONS
from kvzmq.server import access
from kvzmq.server.access import KEYS_MAX, PREFIXES_MAX, Access, BadClients, Client, parse_clients

A, B, B2 = ALICE.public, BOB.public, BOB_AGAIN.public


def decode(op: list[Any]) -> Operation:
    found: Operation = msgspec.msgpack.decode(msgspec.msgpack.encode(op), type=operations.AnyOperation)
    return found


def client(rights: str, *prefixes: str) -> Client:
    return Client("bob", frozenset(rights.split(",")), prefixes)


# ---- the file


def test_a_line_is_a_key_with_its_name_rights_and_prefixes() -> None:
    text = f'# people\n\n  alice {A} read,write,admin\r\nbob\t{B} read config/ "with space/" "#odd" "\\u00e9"\n'
    assert parse_clients(text) == {
        A: Client("alice", frozenset({"read", "write", "admin"}), ()),
        B: Client("bob", frozenset({"read"}), ("config/", "with space/", "#odd", "é")),
    }


def test_a_name_may_have_two_keys_of_the_same_rights_while_one_is_changed() -> None:
    found = parse_clients(f"bob {B} read config/\nbob {B2} read config/\n")
    assert found[B] == found[B2]


BAD = {
    "": "names no client: add a line",
    "# nobody\n": "names no client",
    f"bob {B} read": "does not end with a newline",
    f"bob {B}\n": "line 1 is 'bob .*: a line is NAME KEY RIGHTS",
    f"# x\nbo/b {B} read\n": "line 2 has the name 'bo/b': a name is up to 64 letters",
    f"{'b' * 65} {B} read\n": "line 1 has the name",
    f"bob {B[:-1]} read\n": "line 1 has the key .*: a key is 40 characters of Z85",
    f"bob {B[:-1]}~ read\n": "line 1 has the key",
    f"bob {B} red\n": "line 1 has the right 'red': rights are read, write, admin",
    f"bob {B} read,\n": "line 1 has the right ''",
    f"bob {B} read, write\n": "line 1 has the right ''",
    f"bob {B} read\nalice {B} read\n": "line 2 has the key of line 1 again",
    f"bob {B} read\nbob {B2} write\n": "line 2 gives bob other rights than line 1",
    f"bob {B} read a/\nbob {B2} read\n": "line 2 gives bob other rights",
    f"bob {B} read\nbob {B2} read\nbob {A} read\n": "line 3 is a third key of bob, after lines 1 and 2",
    f"bob {B} read config/ # reader\n": "line 1 has the prefix '#': a comment takes its own line",
    f'bob {B} read ""\n': "line 1 has an empty prefix: leave prefixes away",
    f'bob {B} read "config\n': "line 1 has a prefix that does not end",
    f'bob {B} read "a"b\n': "line 1 has a prefix that does not end",
    f'bob {B} read "\\x"\n': "line 1 has the prefix .* no JSON string",
    f'bob {B} read "\\ud800"\n': "line 1 has the prefix .* no JSON string",
    f"bob {B} read {'a ' * (PREFIXES_MAX + 1)}\n": "line 1 has 65 prefixes: 64 at most",
    f"bob {B} read {'a' * 1025}\n": "line 1 has a prefix of more than 1024 characters",
    "#" * (1 << 20) + "\n": "is longer than 1048576 bytes",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: BAD[text][:50])
def test_a_bad_file_is_refused_with_its_line_and_how_to_mend_it(text: str) -> None:
    with pytest.raises(BadClients, match=BAD[text]):
        parse_clients(text)


def test_there_is_a_limit_to_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEYS_MAX == 10_000
    monkeypatch.setattr(access, "KEYS_MAX", 1)
    with pytest.raises(BadClients, match="line 2 is one client too many"):
        parse_clients(f"bob {B} read\nalice {A} read\n")


WORDS = st.sampled_from(
    [
        "bob",
        "alice",
        A,
        B,
        B2,
        "read",
        "write",
        "admin",
        "read,write",
        "config/",
        '"a b"',
        '"',
        "#",
        "\\",
        "\0",
        "\u2028",
    ]
)
LINES = st.lists(WORDS, max_size=7).map(" ".join)


@given(
    st.one_of(st.text(max_size=200), st.lists(LINES, max_size=5).map("\n".join), LINES.map(lambda line: line + "\n"))
)
@example(f'bob {B} read "a\\\n')
def test_no_text_gives_rights_that_no_line_of_it_says(text: str) -> None:
    """Whatever stands in the file: an error, or clients whose name, key and rights are words of one line."""
    try:
        found = parse_clients(text)
    except BadClients:
        return
    for key, who in found.items():
        line = next(line for line in text.split("\n") if key in line.split())
        name, _, rights = line.split()[:3]
        assert (who.name, who.rights) == (name, frozenset(rights.split(",")))
        assert bool(who.prefixes) == (len(line.split()) > 3)
        assert "" not in who.prefixes


@given(st.integers(0, 400))
def test_a_file_that_is_cut_anywhere_gives_nobody_more_than_the_whole(length: int) -> None:
    """Red when the last line needed no newline: a prefix that is cut is a larger right."""
    bobs = "".join(f'bob {key} read config/ "two words/"\n' for key in (B, B2))
    text = f"alice {A} read,write shared/alice/ shared/notes/\n{bobs}"
    whole = parse_clients(text)
    try:
        found = parse_clients(text[:length])
    except BadClients:
        return
    assert found.items() <= whole.items()


# ---- requests

VALUE = {"name": "fred"}
REQUESTS: list[tuple[list[Any], str, list[str], bool]] = [
    # the operation, the rights it needs, the keys it touches, whether it looks at the whole table
    (["ping"], "", [], False),
    (["hello"], "", [], False),
    (["stats"], "admin", [], False),
    (["backup", "0" * 32], "read,admin", [], True),
    (["clients"], "admin", [], False),
    (["kick", "zmq:00000000"], "admin", [], False),
    (["slow_requests"], "read,admin", [], True),
    (["monitor"], "read,admin", [], True),
    (["monitor", "", "insert", "a/"], "read,admin", ["a/"], False),
    (["open"], "write", [], False),
    (["insert", "a/1", 1], "write", ["a/1"], False),
    (["remove", "a/1"], "write", ["a/1"], False),
    (["insert_many", {"a/1": 1, "b/2": 2}], "write", ["a/1", "b/2"], False),
    (["remove_many", ["a/1", "b/2"]], "write", ["a/1", "b/2"], False),
    (["compare_and_set", "a/1", [1], [2]], "read,write", ["a/1"], False),
    (["setdefault", "a/1", 1], "read,write", ["a/1"], False),
    (["increment", "a/1", 1], "read,write", ["a/1"], False),
    (["expire", "a/1", 1.0], "write", ["a/1"], False),
    (["lookup", "a/1"], "read", ["a/1"], False),
    (["lookup_many", ["a/1", "b/2"]], "read", ["a/1", "b/2"], False),
    (["ttl", "a/1"], "read", ["a/1"], False),
    (["size"], "read", [], True),
    (["query", "name", "fred"], "read", [], True),
    (["keys", "a/"], "read", ["a/"], False),
    (["keys"], "read", [], True),
    (["items", "a/"], "read", ["a/"], False),
    (["items", ""], "read", [], True),
    (["watch", "a/"], "read", ["a/"], False),
    (["watch"], "read", [], True),
    (["watch_query", "name", "fred"], "read", [], True),
    (["progress", 1], "", [], False),
    (["unwatch", 1], "", [], False),
    (["transaction", [["c/3", []]], [["insert", "a/1", 1]]], "read,write", ["a/1", "c/3"], False),
    (["transaction", [], [["insert", "a/1", 1], ["lookup", "b/2"]]], "read,write", ["a/1", "b/2"], False),
    (["transaction", [], [["insert_many", {"a/1": 1}], ["remove", "b/2"]]], "write", ["a/1", "b/2"], False),
]
EACH = pytest.mark.parametrize(("op", "rights", "keys", "whole"), REQUESTS, ids=lambda value: str(value)[:40])


def test_every_operation_is_tried() -> None:
    assert {op[0] for op, *_ in REQUESTS} == set(OPERATIONS)


@EACH
def test_an_operation_needs_each_of_its_rights(op: list[Any], rights: str, keys: list[str], whole: bool) -> None:
    needed = frozenset(rights.split(",")) - {""}
    assert Client("bob", needed, ()).excess([decode(op)]) == ""
    for right in needed:
        others = frozenset(access.RIGHTS) - {right}
        assert f"needs the right {right}" in Client("bob", others, ()).excess([decode(op)])


@EACH
def test_an_operation_needs_its_keys_within_the_prefixes(
    op: list[Any], rights: str, keys: list[str], whole: bool
) -> None:
    everything = "read,write,admin"
    excess = client(everything, "a/", "b/", "c/").excess([decode(op)])
    assert bool(excess) is whole
    if whole:
        assert "that concerns all keys, beyond the prefixes 'a/', 'b/', 'c/'" in excess
    for key in keys:
        others = {"a/", "b/", "c/", "d/"} - {key[:2]}
        assert "beyond" in client(everything, *sorted(others)).excess([decode(op)])


@pytest.mark.parametrize("prefix", ["", "conf", "config", "configure/", "Config/"])
def test_an_operation_on_a_prefix_needs_that_prefix_within_an_allowed_one(prefix: str) -> None:
    """Red when the allowed prefix had to begin with the one asked for, and not the other way round."""
    assert client("read", "config/").excess([decode(["items", prefix])]) != ""
    assert client("read", "config/").excess([decode(["items", "config/web/"])]) == ""


def test_a_request_is_refused_for_any_of_its_operations() -> None:
    within, beyond = decode(["lookup", "config/a"]), decode(["lookup", "secret/a"])
    assert client("read", "config/").excess([within] * 9) == ""
    for at in range(10):
        ops = [within] * 9
        ops.insert(at, beyond)
        assert (
            client("read", "config/").excess(ops)
            == "bob may not lookup 'secret/a': a key beyond the prefixes 'config/'"
        )


# ---- the file changes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "clients"
    path.write_text(f"alice {A} read,write\nbob {B} read config/\n")
    path.chmod(0o600)
    return path


def test_a_key_that_is_not_in_the_file_may_nothing(path: Path) -> None:
    found = Access(path)
    assert found.refuse(STRANGER.public, [decode(["ping"])]) != ""
    assert found.refuse("", [decode(["ping"])]) != ""
    assert found.refuse(A, [decode(["insert", "x", 1])]) == ""


def test_a_change_of_the_file_is_in_force_when_it_is_read_again(path: Path) -> None:
    found = Access(path)
    path.write_text(f"alice {A} read,write\n")
    assert found.has_changed() and found.client_of(B) is not None
    assert found.reload() and found.client_of(B) is None and found.changed == {B}
    assert (
        found.refuse(B, [decode(["ping"])])
        == "the key of this connection is not, or no longer, in the server's clients file"
    )
    assert not found.has_changed()


def test_a_file_that_takes_the_place_of_the_old_one_is_read(path: Path) -> None:
    found = Access(path)
    new = path.with_name("new")
    new.write_text(path.read_text().replace("bob", "bab"))
    new.chmod(0o600)
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(new, path)
    assert found.has_changed() and found.reload()
    assert found.client_of(B) == Client("bab", frozenset({"read"}), ("config/",))


BROKEN = [b"", b"bob\n", b"\xff\n", f"alice {A} read,write,fly\n".encode(), f"alice {A} read,write".encode()]


@pytest.mark.parametrize("text", BROKEN, ids=["empty", "short", "binary", "right", "cut"])
def test_a_broken_file_leaves_the_rights_that_were_in_force(
    path: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Red when the new file was taken over before it was known to be whole."""
    found = Access(path)
    path.write_bytes(text)
    for _ in range(3):
        assert not found.reload() and not found.changed and not found.has_changed()
    assert found.refuse(A, [decode(["insert", "x", 1])]) == ""
    assert found.refuse(B, [decode(["insert", "config/x", 1])]) != ""
    assert [record.message for record in logged(caplog) if record.levelname == "ERROR"] == [
        f"{found.trouble}; the rights that were in force before stay"
    ], "it is complained of once"
    path.write_text(f"bob {B} read config/\n")
    assert found.reload() and found.trouble is None and found.client_of(A) is None


def test_a_file_that_is_gone_leaves_the_rights_and_is_found_when_it_is_back(path: Path) -> None:
    found = Access(path)
    text = path.read_text()
    path.unlink()
    assert found.has_changed() and not found.reload() and found.client_of(A) is not None
    assert not found.has_changed()
    assert "No such file" in str(found.trouble)
    path.write_text(text.replace("bob", "bab"))
    path.chmod(0o600)
    assert found.has_changed() and found.reload() and found.trouble is None


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(BadClients, match="may be written by others: chmod go-w"):
        Access(path)


def test_a_start_with_a_broken_file_is_refused(path: Path) -> None:
    path.write_text("bob\n")
    with pytest.raises(BadClients, match=rf"the clients file {path} line 1 is 'bob'"):
        Access(path)
    with pytest.raises(BadClients, match="No such file"):
        Access(path.with_name("none"))
