"""Keys in URLs: what a URL says, what it may leave to arguments and environment, and what is never shown."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from support.curve import ALICE, BOB, OTHER_SERVER, SERVER

import kvzmq
from kvzmq.client.core.targets import Target, parse_targets
from kvzmq.client.core.urls import ServerUrl, parse_urls, without_parameters
from kvzmq.curve import CURVE_KEY_VARIABLE, SERVER_KEY_VARIABLE, BadKey

AWKWARD = "aA0.-:+=^!/*?&<>()[]{}@%$#aaaaaaaaaaaaaa"
"""Not a key, but with all the digits of Z85 that mean something in a URL."""


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (CURVE_KEY_VARIABLE, SERVER_KEY_VARIABLE, "KVZMQ_URL"):
        monkeypatch.delenv(name, raising=False)


def test_every_scheme_takes_keys() -> None:
    key, path = quote(AWKWARD, safe=""), quote("/a b/c,d.key_secret", safe="")
    for url in ("tcp://host:1", "tcp://[::1]:5570", "ipc:///run/kvzmq", "inproc://a", "catalog://host/project"):
        found = parse_urls(f"{url}?server_key={key}&curve_key={path}")
        assert found == [ServerUrl(url, "/a b/c,d.key_secret", AWKWARD)]
    assert parse_urls("ipc:///tmp/what?,tcp://a:1") == [ServerUrl("ipc:///tmp/what?"), ServerUrl("tcp://a:1")]


@pytest.mark.parametrize("char", ["+", "=", "#", "/", "?", "*"])
def test_what_means_nothing_there_may_stand_as_it_is(char: str) -> None:
    assert parse_urls(f"tcp://a:1?server_key=a{char}b")[0].server_key == f"a{char}b"


@pytest.mark.parametrize("query, fault", [
    ("", "has a parameter that is none of curve_key, server_key"),
    ("secret=secret", "none of curve_key, server_key"),
    ("server_key=secret&secret", "an & in a value is written %26"),
    ("server_key=", "says nothing for server_key"),
    ("server_key", "says nothing for server_key"),
    ("curve_key=secret&server_key=b&curve_key=c", "says curve_key twice"),
])  # fmt: skip
def test_parameters_that_make_no_sense_are_refused_without_showing_them(query: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as raised:
        parse_urls(f"tcp://a:1?{query}")
    assert "'tcp://a:1'" in str(raised.value) and "secret" not in str(raised.value)


def test_the_url_counts_before_the_argument_and_that_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = (str(keys.write(tmp_path / name)) for name, keys in (("alice", ALICE), ("bob", BOB)))
    said = f"tcp://a:1?server_key={quote(SERVER.public, safe='')}"
    monkeypatch.setenv(CURVE_KEY_VARIABLE, alice)
    monkeypatch.setenv(SERVER_KEY_VARIABLE, OTHER_SERVER.public)

    def parsed(url: str, *arguments: str) -> tuple[str, str]:
        (target,) = parse_targets(url, *arguments)
        assert target.keys is not None
        return target.keys.path, target.keys.server

    assert parsed("tcp://a:1") == (alice, OTHER_SERVER.public)
    assert parsed(said) == (alice, SERVER.public)
    assert parsed(said, bob) == (bob, SERVER.public)
    assert parsed("tcp://a:1", bob, SERVER.public) == (bob, SERVER.public)
    assert parsed(f"{said}&curve_key={quote(bob)}", alice, OTHER_SERVER.public) == (bob, SERVER.public)


def test_each_url_has_its_own_server_key(tmp_path: Path) -> None:
    path = str(ALICE.write(tmp_path / "alice"))
    urls = ",".join(f"tcp://a:1?server_key={quote(keys.public, safe='')}" for keys in (SERVER, OTHER_SERVER))
    targets = parse_targets(urls, path)
    assert [target.keys and target.keys.server for target in targets] == [SERVER.public, OTHER_SERVER.public]
    assert [target.url for target in targets] == ["tcp://a:1", "tcp://a:1"]


def test_a_list_is_protected_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    """Else who breaks the connections to one server has the client ask another in plain."""
    path = quote(str(ALICE.write(tmp_path / "alice")), safe="")
    with pytest.raises(BadKey, match="none for tcp://b:2: a client that loses the others would go on"):
        parse_targets(f"tcp://a:1?curve_key={path}&server_key={quote(SERVER.public, safe='')},tcp://b:2")
    assert parse_targets("tcp://a:1,tcp://b:2") == [Target("tcp://a:1"), Target("tcp://b:2")]


def test_a_bad_key_of_a_url_names_the_url(tmp_path: Path) -> None:
    with pytest.raises(BadKey, match="tcp://a:1: server_key was given without curve_key"):
        parse_targets(f"tcp://a:1?server_key={quote(SERVER.public, safe='')}")
    path = str(ALICE.write(tmp_path / "alice"))
    with pytest.raises(BadKey, match="tcp://a:1: server_key is 'short'"):
        parse_targets("tcp://a:1?server_key=short", path)


def test_a_secret_key_where_its_file_is_wanted_is_shown_nowhere() -> None:
    for url, argument in ((f"tcp://a:1?curve_key={quote(ALICE.secret, safe='')}", None), ("tcp://a:1", ALICE.secret)):
        with pytest.raises(BadKey, match="curve_key is a key itself") as raised:
            kvzmq.connect(url, curve_key=argument, server_key=SERVER.public)
        assert ALICE.secret not in str(raised.value) and quote(ALICE.secret, safe="") not in str(raised.value)


def test_a_client_shows_its_url_without_keys(tmp_path: Path) -> None:
    path = str(ALICE.write(tmp_path / "alice"))
    url = f"tcp://127.0.0.1:1?server_key={quote(SERVER.public, safe='')}&curve_key={quote(path)}"
    with kvzmq.connect(url) as table:
        assert repr(table) == "<kvzmq.Client tcp://127.0.0.1:1 transport=pyzmq>"
    assert without_parameters(f"{url}, ipc:///a?b") == "tcp://127.0.0.1:1,ipc:///a?b"
