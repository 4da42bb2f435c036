"""`export -o` and `import`: whole files, their counts, and a table that becomes exactly a file; a restore by hand."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from support.commands import command
from support.servers import KVZMQ, PATIENCE_S, ServerProcess, wait_until

import kvzmq

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("table") / "data") as running:
        yield running


@pytest.fixture
def table(server: ServerProcess) -> Iterator[kvzmq.Client]:
    with kvzmq.connect(server.url) as client:
        client.clear()
        yield client


@pytest.fixture
def run(server: ServerProcess) -> Any:
    def invoke(*arguments: object, stdin: str | None = None, code: int = 0) -> Result:
        result = command("-c", server.url, *arguments, stdin=stdin)
        assert result.exit_code == code, result.output
        return result

    return invoke


# ---- whole files


def test_an_import_begins_where_its_input_stands(server: ServerProcess, table: kvzmq.Client, tmp_path: Path) -> None:
    """On a terminal, too, where the lines are counted first. Seen red with a count that went back to the start."""
    path, first = tmp_path / "rows.jsonl", '{"key": "read by another program", "value": 1}\n'
    path.write_text(first + '{"key": "zebra", "value": 2}\n')
    leader, follower = pty.openpty()
    try:
        with path.open("rb") as file:
            os.lseek(file.fileno(), len(first), os.SEEK_SET)
            command_line = [*KVZMQ, "-c", server.url, "import"]
            subprocess.run(command_line, stdin=file, stderr=follower, timeout=PATIENCE_S, check=True)
    finally:
        os.close(leader)
        os.close(follower)
    assert dict(table) == {"zebra": 2}


def test_an_export_to_a_file_ends_with_its_count(run: Any, table: kvzmq.Client, tmp_path: Path) -> None:
    table.insert_many({f"k{n:04}": n for n in range(1234)})
    path = tmp_path / "rows.jsonl"
    assert run("export", "-o", path).stderr == "1,234 rows exported\n"
    lines = path.read_text().splitlines()
    assert len(lines) == 1235 and json.loads(lines[-1]) == {"rows": 1234}
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]
    table.clear()
    assert run("import", path).stderr == "1,234 rows imported\n"
    assert run("import", stdin=path.read_text()).stderr == "1,234 rows imported\n"
    assert table.size() == 1234
    assert run("export").stdout.splitlines() == lines[:-1], "to standard output come rows alone"


def test_an_export_that_fails_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    """Seen red with: the file opened and written in place."""
    path = tmp_path / "rows.jsonl"
    path.write_text("the old one")
    path.chmod(0o640)
    with ServerProcess(tmp_path / "data") as server:
        with kvzmq.connect(server.url) as table:
            table.insert_many({f"k{n}": "x" * 1000 for n in range(1000)})
        limited = subprocess.run(  # a full disk, as far as the command can tell
            ["bash", "-c", f"ulimit -f 100; trap '' XFSZ; exec {shlex.join(KVZMQ)} -c {server.url} export -o {path}"],
            capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
        assert limited.returncode == 3 and "File too large" in limited.stderr, limited
        assert path.read_text() == "the old one" and [entry.name for entry in tmp_path.glob("*rows*")] == ["rows.jsonl"]
        result = command("-c", server.url, "export", "-o", path)
        assert result.exit_code == 0 and path.read_text().count("\n") == 1001
        assert path.stat().st_mode & 0o777 == 0o640, "it keeps its mode"
        link = tmp_path / "link"
        link.symlink_to(path)
        assert command("-c", server.url, "export", "-o", link, "--prefix", "k1").exit_code == 0
        assert link.is_symlink() and path.read_text().count("\n") < 1001
        assert command("-c", server.url, "export", "-o", "/dev/null").exit_code == 0
        assert not Path("/dev/null").is_file()


def row(key: str, value: object = 1) -> str:
    return json.dumps({"key": key, "value": value}) + "\n"


@pytest.mark.parametrize("spoil", ["a line lost", "a line added", "the count mended"])
def test_a_count_that_is_wrong_is_refused_before_anything_is_imported(
    run: Any, table: kvzmq.Client, tmp_path: Path, spoil: str
) -> None:
    rows = [row(f"k{n}") for n in range(3000)]
    lines = {"a line lost": rows[1:], "a line added": [*rows, row("more")], "the count mended": rows}[spoil]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(lines) + ('{"rows":30000}\n' if spoil == "the count mended" else '{"rows":3000}\n'))
    for options in ([], ["--replace"]):
        result = run("import", path, *options, code=2)
        assert "lines came before" in result.stderr and table.size() == 0
    piped = subprocess.run(
        [*KVZMQ, "-c", str(run("ping", "--json") and json.loads(run("ping", "--json").stdout)["url"]), "import"],
        input=path.read_bytes(), capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert piped.returncode == 2 and b"lines came before" in piped.stderr, "a pipe is read once: at its end"


def test_a_file_without_a_count_is_imported_with_a_note(run: Any, table: kvzmq.Client, tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text(row("a") + row("b"))
    for result in (run("import", path), run("import", stdin=path.read_text())):
        assert "2 rows imported" in result.stderr and "no count at the end" in result.stderr
    assert table.size() == 2


def test_files_with_counts_may_be_put_behind_one_another(run: Any, table: kvzmq.Client) -> None:
    assert "imported\n" in run("import", stdin=row("a") + '{"rows":1}\n' + row("b") + row("c") + '{"rows":2}\n').stderr
    assert "no count" in run("import", stdin=row("a") + '{"rows":1}\n' + row("b")).stderr
    run("import", stdin=row("a") + '{"rows":1,"key":"x"}\n', code=2)
    assert sorted(table) == ["a", "b", "c"]


def test_an_import_gives_a_time_to_live_to_what_has_none(run: Any, table: kvzmq.Client) -> None:
    run("import", "--ttl", "5m", stdin=row("a") + '{"key":"b","value":1,"expires":"2030-01-01T00:00:00Z"}\n')
    (a, b) = table.ttl("a"), table.ttl("b")
    assert a is not None and 200 < a <= 300 and b is not None and b > 1e6


# ---- --replace


def test_replace_makes_the_table_exactly_the_file(run: Any, table: kvzmq.Client, tmp_path: Path) -> None:
    table.insert_many({f"k{n:04}": n for n in range(1500)})
    table.insert("lives", 1, ttl_s=1000)
    path = tmp_path / "rows.jsonl"
    run("export", "-o", path)
    wanted = dict(table.items())
    table.insert_many({f"new{n}": n for n in range(2500)} | {"k0000": "changed"})
    table.remove("k0001")
    table.expire("k0002", 1000)
    result = run("import", "--replace", path)
    assert result.stderr == "1,501 rows imported, 2,500 others removed\n"
    assert dict(table.items()) == wanted and table.ttl("k0002") is None and table.ttl("lives") is not None
    run("import", "--replace", stdin='{"key":"k0003","removed":true}\n' + row("only") + '{"rows":2}\n')
    assert dict(table.items()) == {"only": 1}


@pytest.mark.parametrize("text", ["", row("a"), row("a") + '{"rows":1}\n' + row("b")])
def test_replace_refuses_a_file_that_may_have_been_cut_off(run: Any, table: kvzmq.Client, text: str) -> None:
    table.insert("keep", 1)
    assert "Nothing was changed" in run("import", "--replace", stdin=text, code=2).stderr
    assert dict(table.items()) == {"keep": 1}
    run("import", "--replace", "--without-count", stdin=text)
    assert "keep" not in table


@pytest.mark.parametrize(
    "bad",
    [
        "nonsense",
        '{"key":"a"}',
        '{"key":"a","value":36893488147419103232}',
        json.dumps({"key": "k" * 70_000, "value": 1}),
    ],
)
def test_replace_refuses_a_bad_line_before_it_changes_anything(run: Any, table: kvzmq.Client, bad: str) -> None:
    table.insert("keep", 1)
    result = run("import", "--replace", stdin=row("a") + bad + '\n{"rows":2}\n', code=2)
    assert "line 2: " in result.stderr and dict(table.items()) == {"keep": 1}


def test_replace_is_finished_by_running_it_again(
    run: Any, table: kvzmq.Client, server: ServerProcess, tmp_path: Path
) -> None:
    table.insert_many({f"old{n:05}": n for n in range(5000)})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(row(f"k{n:05}", n) for n in range(5000)) + '{"rows":5000}\n')
    server.kill()
    assert "0 rows are done" in run("--timeout", "2", "import", "--replace", path, code=4).stderr
    server.start()
    run("import", "--replace", path)
    assert sorted(table) == [f"k{n:05}" for n in range(5000)]


# ---- what docs/operations.md says


def commands_below(heading: str) -> list[str]:
    section = OPERATIONS.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [text for language, text in blocks if not language]


def test_the_restore_of_the_documents_restores(tmp_path: Path) -> None:
    """Types what the page says, with other names for the directories, the file and the URL."""
    backup, restore, export, rows = commands_below("Backup and restore")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kvzmq").write_text(f'#!/bin/sh\nexec {shlex.join(KVZMQ)} "$@"\n')
    (programs / "kvzmq").chmod(0o755)
    (programs / "sudo").write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    (programs / "sudo").chmod(0o755)
    (programs / "date").write_text("#!/bin/sh\necho 2026-01-31\n")  # the page's, and midnight never passes
    (programs / "date").chmod(0o755)
    (tmp_path / "backup").mkdir()

    with ServerProcess(tmp_path / "lib", "--compact-after", "50") as server:

        def type_(text: str, **more: str) -> subprocess.CompletedProcess[str]:
            text = text.replace("/var/lib/kvzmq", str(tmp_path / "lib")).replace("/backup/", f"{tmp_path}/backup/")
            text = text.replace("/opt/kvzmq/bin/", "")
            environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "KVZMQ_URL": server.url} | more
            result = subprocess.run(
                ["bash", "-euc", text], capture_output=True, text=True, env=environment, timeout=PATIENCE_S
            )
            assert result.returncode == 0, result.stderr
            return result

        with kvzmq.connect(server.url) as table:
            table.insert_many({f"k{n}": n for n in range(100)})
            for n in range(80):
                table.insert("n", n)
            wanted = dict(table.items())
            type_(export)  # the rows of a running server
            table.insert("wrong", 1)
            table.remove("k1")
            type_(rows)
            assert dict(table.items()) == wanted
            type_(backup)
            table.clear()
        server.terminate()
        steps = [line for line in restore.splitlines() if not line.startswith("systemctl")]
        assert len(steps) == len(restore.splitlines()) - 2, "stop and start are the service's"
        type_("\n".join(steps))
        server.options.append("--must-exist")
        server.start()
        with kvzmq.connect(server.url) as table:
            assert dict(table.items()) == wanted


def test_copy_takes_a_directory_or_a_server_with_times_to_live_and_bytes(tmp_path: Path) -> None:
    rows = {f"k{number}": {"n": number} for number in range(2500)} | {"bytes": b"\0\xff"}
    with ServerProcess(tmp_path / "from") as home, ServerProcess(tmp_path / "to") as other:
        with kvzmq.connect(home.url) as table:
            table.insert_many(rows)
            table.insert("brief", 1, ttl_s=3600)
        with kvzmq.connect(other.url) as table:
            table.insert("k1", "old")
            table.insert("only here", 1)
            result = command("copy", home.url, other.url)
            assert result.exit_code == 0 and "2,502 rows copied, as " in result.stderr, result.output
            assert dict(table) == rows | {"brief": 1, "only here": 1}
            assert 3500 < (table.ttl("brief") or 0) <= 3600
            home.terminate()
            assert "2,502 rows copied, of " in command("copy", str(home.data), other.url, "--replace").stderr
            assert dict(table) == rows | {"brief": 1}
        assert command("copy", str(tmp_path / "nothing"), other.url).exit_code == 2
        same = command("copy", other.url, other.url)
        assert same.exit_code == 2 and "serve the same table" in same.stderr
        to_files = command("copy", other.url, str(tmp_path))
        assert to_files.exit_code == 2 and "start a server on it" in to_files.stderr


def test_copy_of_a_table_that_is_written_to_is_the_table_at_the_revision_it_tells(tmp_path: Path) -> None:
    """Red when what was written during the copy was not read again.

    On a busy machine some of it may be written when the copy has ended: that is not in it.
    """
    rows = dict.fromkeys((f"k{number:05}" for number in range(20_000)), 0)
    changes: list[tuple[int, str, int | None]] = []  # revision, key, value or None if it was removed
    with ServerProcess(tmp_path / "from") as home, ServerProcess(tmp_path / "to") as other:
        with kvzmq.connect(home.url) as table:
            table.insert_many(rows)
        ended = threading.Event()

        def write() -> None:
            with kvzmq.connect(home.url) as table:
                wait_until(lambda: table.stats()["watches"] or ended.is_set(), what="the copy")
                for number in range(100):
                    table.insert(f"k{number:05}", 1)
                    changes.append((table.revision, f"k{number:05}", 1))
                    table.remove(f"k{19_999 - number:05}")
                    changes.append((table.revision, f"k{19_999 - number:05}", None))

        writer = threading.Thread(target=write)
        writer.start()
        result = command("copy", home.url, other.url, "--timeout", "60")
        ended.set()
        writer.join()
        if result.exit_code == 1:  # it was written to without a rest: this machine is busy
            result = command("copy", home.url, other.url, "--replace", "--timeout", "60")
        assert result.exit_code == 0, result.output
        found = re.search(r"at revision ([\d,]+)", result.stderr)
        assert found is not None, result.stderr
        told = int(found[1].replace(",", ""))
        for revision, key, value in changes:
            if revision > told:
                break
            rows.pop(key) if value is None else rows.update({key: value})
        with kvzmq.connect(other.url) as there:
            assert dict(there) == rows, f"not the table at revision {told}"
