"""A secured server and its clients, both shells and the command line, in processes of their own."""

from __future__ import annotations

import json
import pickle
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.client_shells import Blocking, LoopThread
from support.curve import ALICE, BOB, BOB_AGAIN, OTHER_SERVER, SERVER, STRANGER, Keys
from support.screens import ScreenProcess
from support.servers import KVZMQ, DidNotStart, ServerProcess, free_port, wait_until
from support.told import DEADLINES_S, told

import kvzmq
from kvzmq.client.core.transports import TRANSPORTS

CLIENTS = f"# who may do what\nalice {ALICE.public} read,write,admin\nbob {BOB.public} read config/\n"
CALL_S = 60.0


class Place:
    """A directory of keys and a clients file, and a server that uses them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clients = path / "clients"
        self.write_clients(CLIENTS)
        names = {
            "server": SERVER,
            "other": OTHER_SERVER,
            "alice": ALICE,
            "bob": BOB,
            "again": BOB_AGAIN,
            "eve": STRANGER,
        }
        self.files = {keys: keys.write(path / f"{name}.key_secret") for name, keys in names.items()}
        self.server: ServerProcess

    def options(self, *keys: Keys) -> list[str]:
        given = [part for pair in keys or (SERVER,) for part in ("--curve-key", str(self.files[pair]))]
        return [*given, "--clients", str(self.clients)]

    def write_clients(self, text: str) -> None:
        new = self.path / "clients.new"
        new.write_text(text)
        new.chmod(0o600)
        new.replace(self.clients)

    def reload(self, text: str) -> None:
        """Change the clients file and wait until the server has it."""
        before = self.server.stderr.count("read again")
        self.write_clients(text)
        self.server.signal(signal.SIGHUP)
        wait_until(lambda: self.server.stderr.count("read again") > before)

    def connect(self, keys: Keys, timeout: float = CALL_S, server: Keys = SERVER) -> kvzmq.Client:
        return kvzmq.connect(self.server.url, timeout, curve_key=self.files[keys], server_key=server.public)

    def run(
        self, keys: Keys | None, *arguments: str, server: Keys = SERVER, timeout_s: float = CALL_S
    ) -> subprocess.CompletedProcess[str]:
        given = [] if keys is None else ["--curve-key", str(self.files[keys]), "--server-key", server.public]
        command = [*KVZMQ, "-c", self.server.url, "--timeout", str(timeout_s), *given, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=2 * CALL_S)

    def explain(self, keys: Keys | None, text: str, server: Keys = SERVER) -> int:
        """Return the exit code of `ping --explain` when it says `text`: at its deadline it says what it has heard."""
        for timeout_s in DEADLINES_S:
            found = self.run(keys, "ping", "--explain", server=server, timeout_s=timeout_s)
            if text in found.stdout:
                return found.returncode
        raise AssertionError(f"no {text!r} in {found.stdout}")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    with ServerProcess(tmp_path / "data", *place.options()) as place.server:
        yield place


@pytest.fixture(params=["blocking", "asyncio"])
def open_client(request: pytest.FixtureRequest, place: Place) -> Iterator[Callable[..., Any]]:
    thread = LoopThread()
    made: list[Any] = []

    def open_client(keys: Keys | None, timeout: float = CALL_S, server: Keys = SERVER) -> Any:
        given: dict[str, Any] = {}
        if keys is not None:
            given = {"curve_key": place.files[keys], "server_key": server.public}
        elif request.param.endswith("-pyzmq"):
            given = {"transport": "pyzmq"}
        if request.param.startswith("blocking"):
            made.append(kvzmq.connect(place.server.url, timeout, **given))
        else:
            made.append(Blocking(kvzmq.connect_async(place.server.url, timeout, **given), thread))
        return made[-1]

    yield open_client
    for client in made:
        client.close()
    thread.close()


# ---- clients


def test_a_client_does_what_it_may_and_is_told_what_it_may_not(open_client: Callable[..., Any]) -> None:
    alice, bob = open_client(ALICE), open_client(BOB)
    alice.insert("config/a", 1)
    assert bob.lookup("config/a") == 1
    assert list(bob.items("config/")) == [("config/a", 1)]
    for call in (
        lambda: bob.lookup("secret"),
        lambda: bob.insert("config/a", 2),
        lambda: bob.size(),
        lambda: bob.query("name", "fred"),
        lambda: list(bob.keys()),
        lambda: bob.stats(),
        lambda: bob.watch(),
    ):
        with pytest.raises(kvzmq.NotAllowed, match="bob may not"):
            call()
    assert bob.lookup("config/a") == 1
    assert alice.stats()["client_keys"] == 2


def keyed(url: str, path: Path | None, server: Keys = SERVER) -> str:
    """Return a URL that says the keys for it."""
    given = "" if path is None else f"&curve_key={quote(str(path), safe='')}"
    return f"{url}?server_key={quote(server.public, safe='')}{given}"


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_the_keys_may_stand_in_the_url(place: Place, tmp_path: Path, transport: str) -> None:
    """For both shells, their watches, what was pickled, and the command line, which shows none of it."""
    binds = [f"ipc://{tmp_path}/socket"] if transport == "ipc" else []
    with ServerProcess(tmp_path / "other", *place.options(), binds=binds) as server:
        url = keyed(server.url, place.files[ALICE])
        with kvzmq.connect(url) as table, table.watch("config/") as watch:
            with pickle.loads(pickle.dumps(table)) as copy:
                copy.insert("config/a", 1)
            assert watch.get(CALL_S).value == 1
        thread = LoopThread()
        again = Blocking(kvzmq.connect_async(url), thread)
        assert again.lookup("config/a") == 1
        again.close()
        thread.close()
        for command in (["ping"], ["ping", "--explain"], ["doctor"], ["insert", "config/a", "2"]):
            ran = subprocess.run([*KVZMQ, "-c", url, *command], capture_output=True, text=True, timeout=2 * CALL_S)
            assert ran.returncode in (0, 1) and "key=" not in ran.stdout + ran.stderr, ran
        ran = subprocess.run([*KVZMQ, "-c", keyed(server.url, None), "--curve-key", str(place.files[ALICE]), "lookup",
                              "config/a"], capture_output=True, text=True, timeout=2 * CALL_S)  # fmt: skip
        assert ran.stdout == "2\n", ran


def test_doctor_says_that_it_may_not_ask_and_not_that_nothing_is_wrong(place: Place) -> None:
    """Bob lacks the right admin, and nobody has the stranger's key."""
    for keys, said in ((BOB, "bob may not stats: that needs the right admin"), (STRANGER, "does not know the key")):
        for timeout_s in DEADLINES_S:  # all of it goes by until a stranger is told
            ran = place.run(keys, "doctor", "--data", str(place.server.data), timeout_s=timeout_s)
            if said in ran.stdout:
                break
        assert ran.returncode == 1 and "nothing wrong" not in ran.stdout, ran
        assert f"{place.server.url} was not looked at: " in ran.stdout and said in ran.stdout, ran
        assert "    mend: kvzmq --curve-key FILE doctor" in ran.stdout, ran


def test_a_list_of_urls_follows_a_server_to_its_new_key(place: Place, tmp_path: Path) -> None:
    """The URL names both endpoints, each with its key; the old one has gone."""
    with ServerProcess(tmp_path / "other", *place.options(OTHER_SERVER)) as server:
        gone, there = f"tcp://127.0.0.1:{free_port()}", server.url
        pairs = zip((gone, there), (SERVER, OTHER_SERVER))
        with kvzmq.connect(",".join(keyed(url, place.files[ALICE], keys) for url, keys in pairs)) as table:
            table.insert("a", 1)


def test_a_watch_of_a_revoked_client_ends_with_not_allowed(open_client: Callable[..., Any], place: Place) -> None:
    alice, bob = open_client(ALICE), open_client(BOB)
    watch = bob.watch("config/")
    alice.insert("config/a", 1)
    assert next(iter(watch)).value == 1
    place.reload(f"alice {ALICE.public} read,write,admin\n")
    alice.insert("config/a", 2)
    with pytest.raises(kvzmq.NotAllowed, match="no longer, in the server's clients file"):
        watch.get(CALL_S)
    told(lambda timeout_s: bob.lookup("config/a", timeout=timeout_s), "clients file", kvzmq.NotAllowed)


def test_a_watch_goes_on_when_other_rights_leave_it_its_own(open_client: Callable[..., Any], place: Place) -> None:
    alice, bob = open_client(ALICE), open_client(BOB)
    watch = bob.watch("config/")
    place.reload(CLIENTS.replace("read config/", "read,write config/ more/"))
    alice.insert("config/a", 1)
    assert watch.get(CALL_S).value == 1
    bob.insert("more/b", 2)


def test_a_stranger_is_told_at_its_deadline_that_it_is_not_allowed(open_client: Callable[..., Any]) -> None:
    """Red when a refusal was taken for silence."""
    eve = open_client(STRANGER)
    for call in (
        lambda timeout_s: eve.lookup("a", timeout=timeout_s),
        lambda timeout_s: eve.insert("a", 1, timeout=timeout_s),
        lambda timeout_s: eve.watch(timeout=timeout_s),
    ):
        told(call, re.escape(f"{STRANGER.public} has to be in the server's clients file"), kvzmq.NotAllowed)


def test_a_client_that_was_refused_is_served_as_soon_as_it_is_known(
    open_client: Callable[..., Any], place: Place
) -> None:
    """Red when the socket was left as it was: libzmq does not try again."""
    eve = open_client(STRANGER)
    told(lambda timeout_s: eve.ping(timeout=timeout_s), "clients file", kvzmq.NotAllowed)
    place.reload(CLIENTS + f"eve {STRANGER.public} read\n")
    assert eve.size() == 0


@pytest.mark.parametrize(
    ("keys", "server", "message"),
    [
        (None, SERVER, "asks for CURVE: give this client curve_key"),
        (ALICE, OTHER_SERVER, "it has another key than server_key"),
    ],
)
def test_what_is_wrong_with_the_keys_is_told(
    open_client: Callable[..., Any], keys: Keys | None, server: Keys, message: str
) -> None:
    table = open_client(keys, server=server)
    told(lambda timeout_s: table.ping(timeout=timeout_s), message, kvzmq.Timeout)


def test_both_transports_tell_that_keys_are_asked_for(place: Place) -> None:
    for transport in TRANSPORTS:
        with kvzmq.connect(place.server.url, transport=transport) as table:
            told(
                lambda timeout_s, table=table: table.ping(timeout=timeout_s),  # type: ignore[misc]
                "asks for CURVE: give this client curve_key",
                kvzmq.Timeout,
            )


def test_keys_for_a_server_without_curve_are_told(tmp_path: Path) -> None:
    path = ALICE.write(tmp_path / "alice.key_secret")
    with (
        ServerProcess(tmp_path / "data") as server,
        kvzmq.connect(server.url, curve_key=path, server_key=SERVER.public) as table,
    ):
        told(lambda timeout_s: table.ping(timeout=timeout_s), "speaks ZeroMQ without CURVE", kvzmq.Timeout)


def test_a_client_comes_back_to_a_server_that_was_killed(place: Place) -> None:
    with place.connect(ALICE) as alice:
        alice.insert("a", 1)
        place.server.restart()
        assert alice.lookup("a") == 1


def test_a_client_takes_its_keys_from_the_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVZMQ_CURVE_KEY", str(place.files[ALICE]))
    monkeypatch.setenv("KVZMQ_SERVER_KEY", SERVER.public)
    with kvzmq.connect(place.server.url) as table:
        table.insert("a", 1)
    assert place.run(None, "lookup", "a").stdout == "1\n"


def test_a_pickled_client_takes_its_keys_along_by_their_file(place: Place) -> None:
    with place.connect(ALICE) as alice:
        data = pickle.dumps(alice)
    assert ALICE.secret.encode() not in data
    with pickle.loads(data) as again:
        assert again.size() == 0


# ---- keys are changed


def test_a_client_changes_its_key_while_both_are_known(place: Place) -> None:
    place.reload(CLIENTS + f"bob {BOB_AGAIN.public} read config/\n")
    with place.connect(BOB) as old, place.connect(BOB_AGAIN) as new:
        assert old.ping() and new.ping()
        place.reload(CLIENTS.replace(BOB.public, BOB_AGAIN.public))
        assert new.ping()
        with pytest.raises(kvzmq.NotAllowed):
            old.lookup("config/a")


def test_a_server_changes_its_key_by_a_second_endpoint(tmp_path: Path) -> None:
    place = Place(tmp_path)
    binds = ["tcp://127.0.0.1:0", "tcp://127.0.0.1:0"]
    with ServerProcess(tmp_path / "data", *place.options(SERVER, OTHER_SERVER), binds=binds) as place.server:
        for url, keys in zip(place.server.urls, (SERVER, OTHER_SERVER)):
            with kvzmq.connect(url, curve_key=place.files[ALICE], server_key=keys.public) as table:
                table.insert("a", 1)


def test_the_clients_file_is_read_again_without_a_signal_when_it_changes(place: Place) -> None:
    with place.connect(BOB) as bob:
        assert bob.ping()
        place.write_clients(f"alice {ALICE.public} read\n")
        wait_until(lambda: "1 revoked" in place.server.stderr)
        with pytest.raises(kvzmq.NotAllowed):
            bob.ping()


def test_a_broken_clients_file_is_complained_of_and_leaves_the_rights(place: Place) -> None:
    place.write_clients("nonsense\n")
    place.server.signal(signal.SIGHUP)
    wait_until(lambda: "stay" in place.server.stderr)
    assert "line 1 is 'nonsense': a line is NAME KEY RIGHTS" in place.server.stderr
    with place.connect(ALICE) as alice:
        assert alice.stats()["clients_file_trouble"].startswith("the clients file ")
    assert place.server.running


# ---- the command line


def test_the_command_line_takes_keys_before_and_after_the_command(place: Place) -> None:
    assert place.run(ALICE, "insert", "config/a", "1").returncode == 0
    assert place.run(BOB, "lookup", "config/a").stdout == "1\n"
    after = place.run(None, "lookup", "config/a", "--curve-key", str(place.files[BOB]), "--server-key", SERVER.public)
    assert (after.returncode, after.stdout) == (0, "1\n")
    assert place.run(BOB, "ping").returncode == 0, "although it may not have stats"


def test_what_is_not_allowed_ends_with_exit_code_4(place: Place) -> None:
    for arguments in (["insert", "config/a", "1"], ["size"], ["stats"], ["watch"], ["query", "a", "1"]):
        found = place.run(BOB, *arguments)
        assert (found.returncode, found.stdout) == (4, "")
        assert found.stderr.startswith("kvzmq: bob may not "), found.stderr


EXPLAINED: list[tuple[Keys | None, Keys, int, str]] = [
    (ALICE, SERVER, 0, "the table answers: kvzmq "),
    (BOB, SERVER, 0, "the table answers"),
    (STRANGER, SERVER, 4, "is not allowed: the server does not know its key"),
    (ALICE, OTHER_SERVER, 4, "another key than --server-key"),
    (None, SERVER, 4, "asks for CURVE: give --curve-key"),
]


def test_ping_explain_says_what_is_wrong_with_the_keys(place: Place) -> None:
    for keys, server, code, text in EXPLAINED:
        assert place.explain(keys, text, server) == code


def test_ping_explain_says_that_a_server_takes_no_keys(place: Place, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "plain") as place.server:
        text = "speaks ZeroMQ without CURVE: leave --curve-key and --server-key away"
        assert place.explain(ALICE, text) == 4


def test_a_backup_is_for_who_may_administer(place: Place, tmp_path: Path) -> None:
    assert place.run(ALICE, "insert", "secret", "1").returncode == 0
    refused = place.run(BOB, "backup", str(tmp_path / "bobs"))
    assert refused.returncode == 4 and "bob may not backup: that needs the right admin" in refused.stderr
    taken = place.run(ALICE, "backup", str(tmp_path / "alices"))
    assert taken.returncode == 0, taken.stderr
    assert (tmp_path / "alices").exists() and not (tmp_path / "bobs").exists()


def test_top_is_for_who_may_administer(place: Place) -> None:
    shown = place.run(ALICE, "top", "--once", "--json", "-i", "0.2", "--sample")
    assert shown.returncode == 0 and '"prefixes":' in shown.stdout, shown.stderr
    refused = place.run(BOB, "top", "--once")
    assert refused.returncode == 4 and "bob may not stats" in refused.stderr
    keys = ("--curve-key", str(place.files[BOB]), "--server-key", SERVER.public)
    with ScreenProcess([*KVZMQ, "-c", place.server.url, *keys, "top"]) as screen:
        assert screen.wait_for_exit() == 4 and screen.is_given_back
        assert any("bob may not stats" in row for row in screen.rows)


def test_bench_measures_a_secured_server(place: Place) -> None:
    found = place.run(ALICE, "bench", "-n", "200", "-c", "2", "-t", "lookup", "-q")
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--curve-key", "k"], "--curve-key and --clients go together"),
        (["--clients", "c"], "--curve-key and --clients go together"),
        (["--curve-key", "a", "--curve-key", "b", "--clients", "c"], "2 --curve-key and 1 --bind"),
    ],
)
def test_options_that_would_protect_nothing_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(DidNotStart) as caught:
        ServerProcess(tmp_path / "data", *options)
    assert caught.value.exit_code == 2 and message in caught.value.stderr


@pytest.mark.parametrize("bind", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://[::]:0"])
def test_an_address_that_others_reach_is_refused_without_curve(tmp_path: Path, bind: str) -> None:
    """Red when any address was taken as it is."""
    with pytest.raises(DidNotStart) as caught:
        ServerProcess(tmp_path / "data", binds=[bind])
    assert caught.value.exit_code == 3
    assert f"{bind} is open to whoever reaches it: give --curve-key and --clients" in caught.value.stderr
    assert not (tmp_path / "data").exists()
    if "::" in bind:
        return  # this machine may have no IPv6
    place = Place(tmp_path)
    for options in (["--insecure"], place.options()):
        with ServerProcess(tmp_path / "data", *options, binds=[bind]):
            pass


def test_the_bridge_is_refused_where_others_reach_it_also_with_curve(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with pytest.raises(DidNotStart) as caught:
        ServerProcess(tmp_path / "data", *place.options(), "--tcp", "0.0.0.0:0")
    assert caught.value.exit_code == 3 and "--tcp 0.0.0.0:0 is open to whoever reaches it" in caught.value.stderr


def test_a_server_whose_keys_cannot_be_used_does_not_start(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.files[SERVER].chmod(0o644)
    with pytest.raises(DidNotStart) as caught:
        ServerProcess(tmp_path / "data", *place.options())
    assert caught.value.exit_code == 3 and "may be read by others: chmod 600" in caught.value.stderr
    place.files[SERVER].chmod(0o600)
    place.write_clients("bob\n")
    with pytest.raises(DidNotStart) as caught:
        ServerProcess(tmp_path / "data", *place.options())
    assert caught.value.exit_code == 3 and "line 1 is 'bob'" in caught.value.stderr


def test_the_bridge_asks_for_its_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o600)
    with ServerProcess(tmp_path / "data", "--token-file", str(token), bridge=True) as server:
        for first, answer in ((b"0123456789abcdef\n", b'"pong"'), (b"", b'"NotAllowed"')):
            with socket.create_connection(("127.0.0.1", server.port), timeout=CALL_S) as sock:
                sock.sendall(first + b'{"method": "ping"}\n')
                assert answer in sock.makefile("rb").readline()
    with pytest.raises(DidNotStart) as caught:
        ServerProcess(tmp_path / "data", "--token-file", str(token))
    assert caught.value.exit_code == 2 and "add --tcp" in caught.value.stderr


# ---- who did what


def test_the_log_and_the_trace_name_the_clients(place: Place, tmp_path: Path) -> None:
    place.write_clients(CLIENTS.replace("read config/", "read,write config/"))
    trace = tmp_path / "trace"
    with ServerProcess(tmp_path / "traced", *place.options(), "--trace", str(trace), bridge=True) as place.server:
        with place.connect(ALICE) as alice, place.connect(BOB) as bob:
            alice.insert("a", 1)
            bob.insert("config/b", 2)
            alice.lookup("a")
        with socket.create_connection(("127.0.0.1", place.server.port), CALL_S) as bridge:
            bridge.sendall(b'{"method": "insert", "key": "c", "value": 3}\n')
            assert b"OK" in bridge.recv(1000)
        place.server.terminate()
    text = subprocess.run(
        [*KVZMQ, "log", str(tmp_path / "traced")], capture_output=True, text=True, timeout=2 * CALL_S
    ).stdout
    lines = [line.split("\t") for line in text.splitlines()]
    assert [(line[4], line[5], line[-1]) for line in lines if line[4] == "insert"] == [
        ("insert", "a", "alice"), ("insert", "config/b", "bob"), ("insert", "c", "-"),
    ]  # fmt: skip
    assert all(line[4] != "by" for line in lines)
    only = [*KVZMQ, "log", str(tmp_path / "traced"), "--client", "bob", "--json"]
    found = [
        json.loads(line) for line in subprocess.run(only, capture_output=True, timeout=2 * CALL_S).stdout.splitlines()
    ]
    assert {entry["client"] for entry in found} == {"bob"} and [entry["keys"] for entry in found][-1] == ["config/b"]
    traced = [line.split("\t") for line in trace.read_text().splitlines() if not line.startswith("#")]
    assert {line[2].partition("@")[0] for line in traced if line[3] in ("insert", "lookup") and line[4] == '"a"'} == {
        "alice"
    }
    assert any(line[2].startswith("bob@") for line in traced)
