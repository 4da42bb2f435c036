"""The address of a table on an etcd cluster, and what lets a server in there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kvzmq.store.etcd import url
from kvzmq.store.etcd.client import EtcdClient, prefix_end
from kvzmq.store.etcd.url import EtcdUrl, Security, parse_url, read_security


@pytest.mark.parametrize(
    ("text", "addresses", "name"),
    [
        ("etcd://127.0.0.1:2379/zoo", ("127.0.0.1:2379",), "zoo"),
        ("etcd://a:1,b.example.org:2,c/lab/zoo", ("a:1", "b.example.org:2", "c:2379"), "lab/zoo"),
        ("etcd://[::1]:2379,[fe80::1]/z", ("[::1]:2379", "[fe80::1]:2379"), "z"),
    ],
)
def test_an_address_names_members_and_a_table(text: str, addresses: tuple[str, ...], name: str) -> None:
    found = parse_url(text)
    assert found == EtcdUrl(addresses, name)
    assert parse_url(str(found)) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("http://a:1/zoo", "begins with etcd://"),
        ("etcd://a:1", "names no table"),
        ("etcd://a:1/", "names no table"),
        ("etcd://a:1,,b:1/zoo", "no HOST:PORT"),
        ("etcd://a:b/zoo", "no HOST:PORT"),
        ("etcd://a:70000/zoo", "1 to 65535"),
        ("etcd://a:1/a//b", "cannot be the name"),
        ("etcd://a:1/a/", "cannot be the name"),
        ("etcd://a:1/a b", "cannot be the name"),
        ("etcd://a:1/lab/log", "'log' may only be its first part"),
        ("etcd://a:1/" + "a" * 201, "cannot be the name"),
    ],
)
def test_another_form_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_url(text)


def test_no_table_has_its_keys_among_those_of_another() -> None:
    """Turned red by a key of the log or of checkpoints whose word is not reserved."""
    source = "".join(path.read_text() for path in Path(url.__file__).parent.glob("*.py"))
    words = set(re.findall(r'f"\{(?:self\._)?name\}/([a-z-]+)', source))
    assert len(words) >= 6 and words <= url.RESERVED


def test_a_password_is_refused_in_an_address_and_shown_nowhere() -> None:
    with pytest.raises(ValueError, match="options of their own") as refused:
        parse_url("etcd://me:hunter2@a:1/zoo")
    assert "hunter2" not in str(refused.value)
    security = Security(user="me", password="hunter2", key=b"secret", certificate=b"c")
    client = EtcdClient(["a:1"], security)
    assert "hunter2" not in repr(security) + repr(client) and "secret" not in repr(security)
    client.close()


def test_what_lets_in_goes_in_pairs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs its private key"):
        Security(certificate=b"c")
    with pytest.raises(ValueError, match="needs a password"):
        Security(user="me")
    (tmp_path / "ca").write_bytes(b"ca")
    assert read_security(ca=tmp_path / "ca") == Security(ca=b"ca")
    with pytest.raises(OSError, match="none"):
        read_security(ca=tmp_path / "none")


def test_a_range_of_a_prefix_ends_behind_its_last_key() -> None:
    assert prefix_end(b"a/") == b"a0"
    assert prefix_end(b"a\xff\xff") == b"b"
    assert prefix_end(b"\xff") == b"\0"
