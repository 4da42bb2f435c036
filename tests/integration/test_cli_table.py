"""The table's commands against a real server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import command
from support.servers import KVZMQ, PATIENCE_S, ServerProcess, free_port, line_of, take_ctrl_c, wait_until

import kvzmq


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("table") / "data", bridge=True) as running:
        yield running


@pytest.fixture
def table(server: ServerProcess) -> Iterator[kvzmq.Client]:
    with kvzmq.connect(server.url) as client:
        client.remove_many(list(client.keys("")))
        yield client


@pytest.fixture
def run(server: ServerProcess) -> Any:
    def invoke(*arguments: object, stdin: str | bytes | None = None, code: int = 0) -> str:
        result = command("-c", server.url, *arguments, stdin=stdin)
        assert result.exit_code == code, result.stderr
        return result.stdout

    return invoke


def process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*KVZMQ, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=take_ctrl_c, **options
    )


# ---- each command


@pytest.mark.parametrize(
    "text, value",
    [
        ("5", 5),
        ("hello", "hello"),
        ('"5"', "5"),
        ('{"a": [1, null]}', {"a": [1, None]}),
        ("", ""),
        ("ü", "ü"),
        ("2026-01-31", "2026-01-31"),
        ("10.0.0.1", "10.0.0.1"),
        ("5m", "5m"),
        ("truest", "truest"),
        ("none", "none"),
        ("a{b", "a{b"),
        ("1,5", "1,5"),
    ],
)
def test_a_value_is_json_or_else_a_string(run: Any, table: kvzmq.Client, text: str, value: object) -> None:
    assert run("insert", "k", text) == ""
    assert table.lookup("k") == value


@pytest.mark.parametrize(
    "text",
    ['{"weight": 100, name}', "[1, 2", '"open', " {x", "01", "+5", ".5", "5.", "NaN", "-Infinity", "True", "NULL"],
)
def test_what_looks_like_json_and_is_not_is_an_error_unless_it_is_said_to_be_a_string(
    server: ServerProcess, table: kvzmq.Client, text: str
) -> None:
    """Seen red with: any text that is no JSON taken for a string, as it was."""
    for words in (
        ("insert", "k", "--", text), ("setdefault", "k", "--", text), ("cas", "k", "--absent", "--", text),
        ("cas", "k", "1", "--expected", text), ("query", "n", "--", text),
    ):  # fmt: skip
        result = command("-c", server.url, *words)
        assert result.exit_code == 2 and "looks like JSON and is not" in result.stderr and "--string" in result.stderr
    assert command("-c", server.url, "insert", "k", "-", stdin=text).exit_code == 2
    shell = command("-c", server.url, "shell", stdin=f"insert k -- '{text}'\n")
    assert shell.exit_code == 2 and "looks like JSON and is not" in shell.stderr
    assert "k" not in table
    assert command("-c", server.url, "insert", "k", "--string", "--", text).exit_code == 0
    assert table.lookup("k") == text


def test_string_and_bytes_are_taken_as_they_are(run: Any, table: kvzmq.Client) -> None:
    run("insert", "k", "5", "--string")
    assert table.lookup("k") == "5"
    run("insert", "k", "5", "--bytes")
    assert table.lookup("k") == b"5"


def test_a_dash_reads_standard_input(run: Any, table: kvzmq.Client) -> None:
    run("insert", "k", "-", stdin='{"a":\n1}\n')
    assert table.lookup("k") == {"a": 1}
    run("insert", "k", "-", stdin="two\nlines\n")
    assert table.lookup("k") == "two\nlines"
    run("insert", "k", "-", "--bytes", stdin=b"\x00\xff\n")
    assert table.lookup("k") == b"\x00\xff\n"
    run("insert", "k", "-", stdin=b"\xff", code=2)


def test_bytes_come_back_through_a_pipe_as_they_went_in(server: ServerProcess, table: kvzmq.Client) -> None:
    data = bytes(range(256))
    table.insert("photo", data)
    assert (
        subprocess.run([*KVZMQ, "-c", server.url, "lookup", "photo"], capture_output=True, timeout=PATIENCE_S).stdout
        == data
    )


@pytest.mark.parametrize("key", ["", "a b", "ü", "new\nline", "nul\x00", "-x", "--json", "🦓", "e\u0301"])
def test_odd_keys_go_in_and_come_back(run: Any, table: kvzmq.Client, key: str) -> None:
    if "\x00" in key:
        table.insert(key, 1)  # no argument of a program can hold it
    else:
        run("insert", "--", key, "1")
    assert json.loads(run("keys", "--json")) == key
    assert json.loads(run("items", "--json")) == {"key": key, "value": 1}
    assert run("lookup", "--", key) == "1\n"


def test_lookup_of_an_absent_key_exits_with_1(run: Any, table: kvzmq.Client) -> None:
    assert run("lookup", "ghost", code=1) == ""


def test_lookup_of_several_shows_rows_and_names_the_missing(server: ServerProcess, table: kvzmq.Client) -> None:
    table.insert_many({"b": 1, "a": {"x": 1}})
    result = command("-c", server.url, "lookup", "b", "ghost", "a")
    assert (result.exit_code, result.stdout) == (1, 'b\t1\na\t{"x":1}\n')
    assert "no key 'ghost'" in result.stderr


def test_remove_of_one_or_several(run: Any, table: kvzmq.Client) -> None:
    table.insert_many({"a": 1, "b": 1, "c": 1})
    run("remove", "a")
    run("remove", "a", code=1)
    run("remove", "b", "ghost", "c", code=1)
    assert run("size") == "0\n"


def test_query_keys_and_items(run: Any, table: kvzmq.Client) -> None:
    table.insert_many({"z": {"name": "fred", "n": 1}, "a": {"name": "fred"}, "b": {"name": 5}, "c": "x"})
    assert run("query", "name", "fred") == 'a\t{"name":"fred"}\nz\t{"name":"fred","n":1}\n'
    assert run("query", "name", "5") == 'b\t{"name":5}\n'
    assert run("query", "name", "5", "--string") == ""
    assert run("query", "name", "fred", "--limit", 1).count("\n") == 1
    assert run("keys") == "a\nb\nc\nz\n"
    assert run("keys", "b") == "b\n"
    assert run("items", "c") == "c\tx\n"
    assert run("keys", "-n", 2, "--json") == '"a"\n"b"\n'


def test_items_go_through_many_pages(run: Any, table: kvzmq.Client) -> None:
    table.insert_many((f"k{n:05}", n) for n in range(3500))
    assert [line.split("\t")[1] for line in run("items", "k").splitlines()] == [str(n) for n in range(3500)]


def test_cas_changes_only_what_is_expected(run: Any, table: kvzmq.Client) -> None:
    run("cas", "lock", "mine", "--absent")
    run("cas", "lock", "theirs", "--absent", code=1)
    run("cas", "lock", "theirs", "--expected", "other", code=1)
    assert table.lookup("lock") == "mine"
    run("cas", "lock", '{"by": 1}', "--expected", "mine")
    run("cas", "lock", "--remove", "--expected", '{"by": 1.0}')
    assert "lock" not in table


def test_incr_takes_negative_and_broken_numbers(run: Any, table: kvzmq.Client) -> None:
    assert [run("incr", "n"), run("incr", "n", "10"), run("incr", "n", "-5"), run("incr", "n", "-.5")] == [
        "1\n",
        "11\n",
        "6\n",
        "5.5\n",
    ]
    table.insert("s", "x")
    run("incr", "s", code=1)


def test_setdefault_prints_what_is_there(run: Any, table: kvzmq.Client) -> None:
    assert run("setdefault", "k", "1") == "1\n"
    assert run("setdefault", "k", "2") == "1\n"


def test_ttl_shows_and_sets(run: Any, table: kvzmq.Client) -> None:
    run("insert", "k", "1", "--ttl", "100")
    assert 0 < float(run("ttl", "k")) <= 100
    run("ttl", "k", "--forever")
    assert (run("ttl", "k"), run("ttl", "k", "--json")) == ("forever\n", "null\n")
    run("ttl", "k", "50")
    assert 0 < float(run("ttl", "k")) <= 50
    run("ttl", "ghost", code=1)
    run("ttl", "ghost", "5", code=1)


def test_json_for_machines_carries_the_revision_of_a_write(run: Any, table: kvzmq.Client) -> None:
    first = json.loads(run("insert", "k", "1", "--json"))["revision"]
    assert json.loads(run("remove", "k", "--json")) == {"revision": first + 1, "removed": 1}


def test_ping_and_stats(run: Any, server: ServerProcess, table: kvzmq.Client) -> None:
    assert run("ping").startswith(f"{server.url} answers in ")
    assert set(json.loads(run("ping", "--json"))) == {"url", "connected_s", "answered_s", "storage_trouble"}
    assert json.loads(run("stats", "--json"))["pid"] == server.pid
    assert f"pid\t{server.pid}\n" in run("stats")


# ---- where the server is


def test_the_server_is_named_before_or_after_the_command_or_in_the_environment(
    server: ServerProcess, table: kvzmq.Client
) -> None:
    wrong = "tcp://127.0.0.1:1"
    assert command("-c", server.url, "size").stdout == "0\n"
    assert command("-c", wrong, "size", "-c", server.url).stdout == "0\n"
    assert command("size", KVZMQ_URL=server.url).stdout == "0\n"
    assert command("size", "--connect", server.url, KVZMQ_URL=wrong).stdout == "0\n"
    assert command("size", KVZMQ_URL=server.url, KVZMQ_JSON="1", KVZMQ_TIMEOUT="9").stdout == "0\n"


def test_nobody_listening_exits_with_4_and_one_line() -> None:
    result = command("-c", f"tcp://127.0.0.1:{free_port()}", "--timeout", "3", "insert", "a", "1")
    assert result.exit_code == 4 and result.stderr.count("\n") == 1
    assert "connection refused: nothing listens on port" in result.stderr


def test_a_stopped_server_exits_with_4_within_the_timeout(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as stopped:
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            result = command("-c", stopped.url, "--timeout", "3", "size")
            assert result.exit_code == 4 and time.monotonic() - began_s < PATIENCE_S
            assert "says nothing" in result.stderr
        finally:
            os.kill(stopped.pid, signal.SIGCONT)


def test_a_command_waits_out_the_restart_of_its_server(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as restarted:
        restarted.kill()
        late = process("-c", restarted.url, "--timeout", "60", "insert", "a", "1")
        restarted.start()
        assert late.communicate(timeout=PATIENCE_S) == (b"", b"") and late.returncode == 0
        assert command("-c", restarted.url, "lookup", "a").stdout == "1\n"


# ---- watch


def test_watch_prints_each_change_from_a_revision_on(run: Any, table: kvzmq.Client) -> None:
    table.insert("start", 0)
    since = table.revision
    table.insert("w/a", {"x": 1})
    table.insert("other", 1)
    table.remove("w/a")
    assert run("watch", "w/", "--from-revision", since, "--count", 2) == (
        f'{since + 1}\tset\tw/a\t{{"x":1}}\n{since + 3}\tremoved\tw/a\n'
    )
    shown = run("watch", "--from-revision", since, "--count", 3, "--json").splitlines()
    assert [json.loads(line) for line in shown] == [
        {"revision": since + 1, "key": "w/a", "value": {"x": 1}},
        {"revision": since + 2, "key": "other", "value": 1},
        {"revision": since + 3, "key": "w/a", "removed": True},
    ]


def test_watch_of_a_query_follows_what_matches(run: Any, table: kvzmq.Client) -> None:
    table.insert("start", 0)
    since = table.revision
    table.insert("a", {"state": "on"})
    table.insert("b", {"state": "off"})
    table.insert("a", {"state": "off"})
    shown = run("watch", "--query", "state", "on", "--from-revision", since, "--count", 2)
    assert [line.split("\t")[1:3] for line in shown.splitlines()] == [["set", "a"], ["removed", "a"]]


def test_watch_writes_at_once_and_ends_with_ctrl_c_without_a_word(server: ServerProcess, table: kvzmq.Client) -> None:
    since = table.revision
    follower = process("-c", server.url, "watch", "--from-revision", str(since))
    assert follower.stdout is not None
    table.insert("a", 1)
    assert line_of(follower) == f"{since + 1}\tset\ta\t1\n".encode()
    follower.send_signal(signal.SIGINT)
    assert follower.communicate(timeout=PATIENCE_S) == (b"", b"")
    assert follower.returncode == 130


def test_watch_ends_when_its_reader_has_gone(server: ServerProcess, table: kvzmq.Client) -> None:
    since = table.revision
    follower = process("-c", server.url, "watch", "--from-revision", str(since))
    assert follower.stdout is not None and follower.stderr is not None
    table.insert("a", 1)
    line_of(follower)
    follower.stdout.close()
    for n in range(3):
        table.insert("a", n)
    assert follower.wait(PATIENCE_S) == 141
    assert follower.stderr.read() == b""
    follower.stderr.close()


def test_a_watch_from_the_future_is_refused(run: Any, table: kvzmq.Client) -> None:
    run("watch", "--from-revision", table.revision + 1_000_000, code=1)


# ---- pipes and Ctrl-C


def test_a_reader_that_stops_early_gets_no_complaint(server: ServerProcess, table: kvzmq.Client) -> None:
    table.insert_many((f"k{n:05}", "x" * 100) for n in range(20_000))
    command = " ".join(f"'{part}'" for part in [*KVZMQ[:2], KVZMQ[2].replace("'", '"')])
    shown = subprocess.run(
        ["bash", "-c", f"{command} -c {server.url} items | head -n 1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True, timeout=PATIENCE_S, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert shown.stderr == b""
    assert shown.stdout.splitlines()[1] == b"141"


def test_ctrl_c_ends_a_command_that_waits_without_a_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        waiting = process("-c", f"tcp://127.0.0.1:{port}", "--timeout", "60", "size")
        silent.settimeout(PATIENCE_S)
        connection, _ = silent.accept()
        waiting.send_signal(signal.SIGINT)
        assert waiting.communicate(timeout=PATIENCE_S) == (b"", b"")
        assert waiting.returncode == 130
        connection.close()


# ---- export and import


def test_export_and_import_give_the_same_table(run: Any, table: kvzmq.Client, server: ServerProcess) -> None:
    rows = {f"k{n:05}": n for n in range(2500)} | {"odd\n": {"x": [None, 1.5, "ü"]}, "bytes": [b"\x00\xff"]}
    table.insert_many(rows)
    exported = run("export")
    assert exported.count("\n") == len(rows)
    table.remove_many(list(rows))
    result = command("-c", server.url, "import", stdin=exported)
    assert result.exit_code == 0 and "2,502 rows imported" in result.stderr
    assert dict(table.items("")) == rows
    assert run("export") == exported


def test_import_reads_a_file_and_removes_what_is_said_to_be_removed(
    run: Any, table: kvzmq.Client, tmp_path: Path
) -> None:
    table.insert("gone", 1)
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"key":"a","value":1}\n\n{"key":"gone","removed":true}\n{"key":"a","value":2}\n{"key":"gone","removed":true}\n'
    )
    run("import", path)
    assert dict(table.items("")) == {"a": 2}


def test_export_and_import_keep_times_to_live(run: Any, table: kvzmq.Client, server: ServerProcess) -> None:
    table.insert("lives", b"x", ttl_s=1000)
    table.insert("stays", 1)
    exported = run("export")
    table.remove_many(["lives", "stays"])
    table.insert("over", 1)
    run("import", stdin=exported + '{"key":"over","value":1,"expires":"2020-01-01T00:00:00Z"}\n')
    left_s = table.ttl("lives")
    assert left_s is not None and 900 < left_s < 1000.1
    assert table.ttl("stays") is None and dict(table.items("")) == {"lives": b"x", "stays": 1}


@pytest.mark.parametrize(
    "line",
    ["nonsense", '{"key":"a","value":1,"expires":"2030-01-01T00:00:00"}', "{}", '{"key": 1, "value": 1}',
     '{"key": "a"}', '{"key": "a", "value": 1, "msgpack": "AA=="}', '{"key":"a","msgpack":"!"}',
     '{"key":"a","msgpack":"wQ=="}', '{"key":"a","value":1,"extra":2}', '{"key":"a","value":36893488147419103232}',
     '{"key":"a","value":1e999}', "[" * 10_000],
)  # fmt: skip
def test_import_stops_at_a_bad_line_with_its_number_and_what_is_done(
    table: kvzmq.Client, server: ServerProcess, line: str
) -> None:
    good = "".join(f'{{"key":"k{n:04}","value":{n}}}\n' for n in range(1500))
    result = command("-c", server.url, "import", stdin=good + line + '\n{"key":"after","value":1}\n')
    assert result.exit_code == 2
    assert "line 1501: " in result.stderr and "rows are done" in result.stderr
    assert table.size() in (1000, 1500) and "after" not in table


def test_import_of_what_is_no_file_of_rows_says_only_why(tmp_path: Path) -> None:
    path = tmp_path / "rubbish"
    path.write_bytes(b"\x7fELF\n\x00\xff\n")
    for arguments in ([path], ["--replace", path]):
        result = command("-c", f"tcp://127.0.0.1:{free_port()}", "import", *arguments)
        assert result.exit_code == 2 and result.stderr.startswith("kvzmq: line 1: ")
        assert result.stderr.count("\n") == 1 and result.stdout == ""


def test_import_into_nothing_says_what_is_done() -> None:
    result = command(
        "-c", f"tcp://127.0.0.1:{free_port()}", "--timeout", "3", "import", stdin='{"key":"a","value":1}\n'
    )
    assert result.exit_code == 4 and "0 rows are done" in result.stderr and "imported" not in result.stderr


def test_an_import_that_was_cut_off_is_finished_by_running_it_again(tmp_path: Path) -> None:
    lines = "".join(f'{{"key":"k{n:05}","value":{n}}}\n' for n in range(20_000))
    path = tmp_path / "rows.jsonl"
    path.write_text(lines)
    with ServerProcess(tmp_path / "data") as killed:
        half = process("-c", killed.url, "--timeout", "15", "import", str(path))
        with kvzmq.connect(killed.url) as client:
            wait_until(lambda: client.size() > 0, what="the first rows")
        killed.kill()
        half.communicate(timeout=PATIENCE_S)
        assert half.returncode in (0, 4)
        killed.start()
        result = command("-c", killed.url, "import", path)
        assert result.exit_code == 0
        assert command("-c", killed.url, "size").stdout == "20000\n"


def test_a_directory_is_checked_and_logged_beside_its_server_but_exported_only_without(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", "--compact-after", "50") as live:
        stop = threading.Event()

        def write() -> None:
            with kvzmq.connect(live.url) as client:
                n = 0
                while not stop.is_set():
                    n += 1
                    client.insert(f"k{n % 10}", n)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(15):
                checked = command("check", live.data)
                assert checked.exit_code == 0, checked.stdout
                logged = command("log", live.data)
                assert logged.exit_code == 0, logged.stderr
                assert command("export", live.data).exit_code == 3
        finally:
            stop.set()
            writer.join()
        before = command("-c", live.url, "export").stdout
        live.kill()
        assert command("export", live.data).stdout == before
