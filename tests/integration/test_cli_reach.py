"""What the command line says of a server that is not there, and which URLs it takes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.commands import command
from support.servers import PATIENCE_S, DidNotStart, ServerProcess, free_port, wait_until
from support.terminals import Terminal

import kvzmq
from kvzmq.cli import main

# ---- nobody listens


@pytest.mark.parametrize("where", ["before", "after", "environment"])
def test_no_wait_fails_at_once_when_nobody_listens(tmp_path: Path, where: str) -> None:
    for url in (
        f"tcp://127.0.0.1:{free_port()}",
        f"ipc://{tmp_path}/nobody",
        f"tcp://127.0.0.1:{free_port()},ipc://{tmp_path}/no",
    ):
        options = {"before": ["--no-wait", "size"], "after": ["size", "--no-wait"], "environment": ["size"]}[where]
        began_s = time.monotonic()
        result = command(
            "-c", url, "--timeout", "600", *options, **({"KVZMQ_NO_WAIT": "1"} if where == "environment" else {})
        )
        assert result.exit_code == 4 and time.monotonic() - began_s < PATIENCE_S
        assert result.stderr.startswith(f"kvzmq: cannot reach {url}: ") and result.stderr.count("\n") == 1


def test_no_wait_makes_no_difference_to_a_server_that_is_there(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", binds=["tcp://127.0.0.1:0", f"ipc://{tmp_path}/sock"]) as server:
        for url in (*server.urls, f"tcp://127.0.0.1:{free_port()},{server.url}"):
            assert command("--no-wait", "-c", url, "size").stdout == "0\n"
        assert command("--no-wait", "export", str(tmp_path / "data")).exit_code == 3, (
            "in use: it needs no server to say so"
        )


def test_a_person_is_told_at_once_what_is_waited_for(tmp_path: Path) -> None:
    """Seen red with: no notice."""
    with ServerProcess(tmp_path / "data") as server:
        server.kill()
        terminal = Terminal("-c", server.url, "--timeout", "60", "insert", "a", "1", home=tmp_path, columns=200)
        try:
            shown = terminal.wait_for(r"still trying, for 60 s")
            assert "connection refused: nothing listens on port" in shown
            server.start()
            assert terminal.wait_for_exit() == 0 and "OK (revision 1)" in terminal.seen
        finally:
            terminal.close()


def test_a_person_hears_nothing_of_a_server_that_answers(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        terminal = Terminal("-c", server.url, "watch", "--from-revision", "0", "--count", "1", home=tmp_path)
        try:
            with kvzmq.connect(server.url) as table:
                wait_until(lambda: table.stats()["watches"], what="the watch")
                time.sleep(0.5)  # longer than a notice takes to come
                table.insert("a", 1)
            assert terminal.wait_for_exit() == 0 and "trying" not in terminal.seen
        finally:
            terminal.close()


def test_a_stopped_server_is_not_called_refused(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as stopped:
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            result = command("-c", stopped.url, "--no-wait", "--timeout", "3", "size")
            assert result.exit_code == 4 and "refused" not in result.stderr and "says nothing" in result.stderr
        finally:
            os.kill(stopped.pid, signal.SIGCONT)


# ---- URLs


@pytest.mark.parametrize(
    "url",
    ["tcp://127.0.0.1:70000", "tcp://127.0.0.1:65536", "tcp://h:0", "catalog://h:70000/p", "tcp://a:1,tcp://b:99999"],
)
def test_a_port_that_is_none_is_refused_by_every_client(url: str) -> None:
    with pytest.raises(ValueError, match="which is no number from 1 to 65535"):
        kvzmq.connect(url)
    result = command("-c", url, "size")
    assert result.exit_code == 2 and "which is no number from 1 to 65535" in result.stderr


def test_the_command_line_reaches_no_socket_of_another_process() -> None:
    result = command("-c", "inproc://x", "size")
    assert result.exit_code == 2 and "tcp://HOST:PORT or ipc:///PATH" in result.stderr


@pytest.mark.parametrize(
    "option, value, words",
    [
        ("--bind", "tcp://127.0.0.1:70000", "there is no port 70000"),
        ("--bind", "tcp://127.0.0.1", "has no port"),
        ("--bind", "tcp://127.0.0.1:http", "has no port"),
        ("--bind", "tcp://:5570", "is not an endpoint"),
        ("--bind", "inproc://x", "nobody could connect"),
        ("--bind", "udp://127.0.0.1:5570", "is not an endpoint"),
        ("--bind", "127.0.0.1:5570", "is not an endpoint"),
        ("--bind", "ipc://", "is not an endpoint"),
        ("--tcp", "127.0.0.1:70000", "there is no port 70000"),
        ("--tcp", "70000", "there is no port 70000"),
        ("--tcp", "localhost", "is not HOST:PORT"),
        ("--catalog", "localhost:99999", "there is no port 99999"),
    ],
)
def test_a_server_refuses_an_endpoint_that_is_none(tmp_path: Path, option: str, value: str, words: str) -> None:
    result = command("server", "--data", str(tmp_path / "data"), option, value)
    assert result.exit_code == 2 and words in result.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "bind", ["tcp://*:0", "tcp://lo:0", "tcp://127.0.0.1:*", "tcp://[::1]:0", "ipc://@{unique}", "ipc://{path}"]
)
def test_a_server_takes_every_endpoint_that_zeromq_has_between_processes(tmp_path: Path, bind: str) -> None:
    if "::1" in bind and not Path("/proc/net/if_inet6").exists():
        return
    bind = bind.format(unique=f"kvzmq-{os.getpid()}", path=tmp_path / "sock")
    try:
        with ServerProcess(tmp_path / "data", "--insecure", binds=[bind]) as server:
            url = server.url.replace("0.0.0.0", "127.0.0.1")
            assert command("-c", url, "size").stdout == "0\n"
    except DidNotStart as error:  # libzmq needs to be asked for IPv6
        assert "::1" in bind, error


# ---- completion


def complete(words: str, **environment: str) -> list[str]:
    variables = {"_KVZMQ_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    result = CliRunner().invoke(main, [], prog_name="kvzmq", env=variables | environment)
    assert result.stderr == "" and (result.exception is None or isinstance(result.exception, SystemExit))
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


def test_the_shell_completes_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvzmq.cli.completing.TIMEOUT_S", PATIENCE_S)  # a person does not wait so long
    with ServerProcess(tmp_path / "data") as server:
        with kvzmq.connect(server.url) as table:
            table.insert_many({"robots/one": 1, "robots/two": 2, "robots/with space": 3, "robots/$HOME": 4, "other": 5})
        both = ["robots/one", "robots/two"]
        assert complete("kvzmq lookup robots/", KVZMQ_URL=server.url) == both
        assert complete("kvzmq get robots/", KVZMQ_URL=server.url) == both
        assert complete(f"kvzmq -c {server.url} insert robots/") == both
        assert complete(f"kvzmq lookup -c {server.url} other robots/") == both
        assert complete(f"kvzmq remove -c {server.url} --prefix robots/") == both
        assert complete(f"kvzmq keys -c {server.url} robots/o") == both[:1]
        assert complete(f"kvzmq insert -c {server.url} robots/one r") == []


@pytest.mark.parametrize(
    "url", ["tcp://127.0.0.1:1", "nonsense", "tcp://127.0.0.1:99999", "catalog://127.0.0.1:1/x", "inproc://x"]
)
def test_a_completion_that_fails_says_nothing_and_takes_no_time(url: str) -> None:
    began_s = time.monotonic()
    assert complete("kvzmq lookup r", KVZMQ_URL=url) == []
    assert time.monotonic() - began_s < PATIENCE_S
