"""Directories that earlier versions wrote open in this one, and hold what was written.

`tests/data/written-by-VERSION/` has such a table, what it holds, and the script that wrote both then.
"""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from support.servers import DidNotStart, ServerProcess
from support.wire import WireClient

from kvzmq.cli import main
from kvzmq.protocol import msgpack
from kvzmq.store.file import checkpoint, frames
from kvzmq.store.file.file_log import NAME, NAME_SEALED, FileLog
from kvzmq.store.file.files import DiskDirectory
from kvzmq.store.store import Store

VERSIONS = sorted((Path(__file__).parents[1] / "data").glob("written-by-*"))
OLD_SESSION = bytes([2]) * 16
"""The session of make.py whose request 2 was `increment n 0.5`, and which got 138.5."""


@pytest.fixture(params=VERSIONS, ids=lambda path: str(path.name))
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of an old directory, and what it holds."""
    shutil.copytree(request.param / "table", tmp_path / "table")
    return tmp_path / "table", json.loads((request.param / "holds.json").read_text())


def rows_of(holds: dict[str, Any]) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in holds["rows"].items()}


def test_there_are_directories_of_earlier_versions() -> None:
    assert [path.name for path in VERSIONS][:1] == ["written-by-0.1"]


def test_the_store_finds_exactly_what_was_written(written: tuple[Path, dict[str, Any]]) -> None:
    path, holds = written
    store = Store(FileLog(DiskDirectory(path)))
    try:
        store.recover()
        table = store.table
        assert dict(table.rows) == rows_of(holds)
        found = {key: deadline for key in table.rows if (deadline := table.expiries.get(key)) is not None}
        assert found == holds["expires_us"]
        assert table.revision == holds["revision"]
        sessions = {
            session.hex(): {
                "floor": floor,
                "kept": {str(seq): [digest, rev, res.hex()] for seq, digest, rev, res in kept},
            }
            for session, floor, kept in table.sessions.dump()
        }
        assert sessions == holds["sessions"]
        assert list(sessions) == list(holds["sessions"]), "the one longest silent comes first"
    finally:
        store.close()


def test_a_server_goes_on_with_it_and_with_its_sessions(written: tuple[Path, dict[str, Any]]) -> None:
    path, holds = written
    decoded = {key: msgpack.decode_value(value) for key, value in rows_of(holds).items()}
    for _ in range(2):  # and finds what it wrote itself behind it
        with ServerProcess(path) as server, WireClient(server.url, session=None) as wire:
            (_, (code, rows)), (_, (_, stats)) = wire.call("items"), wire.call("stats")
            assert code == 0 and {key: value for key, value in rows if key != "now"} == decoded
            assert stats["sessions"] >= len(holds["sessions"])
            with WireClient(server.url, session=OLD_SESSION) as old:
                kept = holds["sessions"][OLD_SESSION.hex()]["kept"]["2"]
                reply = old.request(["increment", "n", 0.5], seq=2)  # sent again, years later
                assert reply.results == msgspec.msgpack.decode(bytes.fromhex(kept[2])) == [[0, 138.5]]
            wire.call("insert", "now", 1)
            server.terminate()


def test_the_tools_read_it(written: tuple[Path, dict[str, Any]]) -> None:
    path, holds = written
    checked = CliRunner().invoke(main, ["check", str(path), "--json"])
    assert checked.exit_code == 0, checked.stderr
    report = json.loads(checked.stdout)
    assert (report["damaged"], report["rows"], report["revision"]) == (False, len(holds["rows"]), holds["revision"])
    exported = CliRunner().invoke(main, ["export", str(path)])
    keys = [row["key"] for row in map(json.loads, exported.stdout.splitlines()) if "key" in row]
    assert exported.exit_code == 0 and keys == sorted(holds["rows"])
    logged = CliRunner().invoke(main, ["log", str(path), "--json"])
    assert logged.exit_code == 0 and '"transaction"' in logged.stdout


# ---- and those of later versions are refused as such


@pytest.fixture(params=[checkpoint.NAME, NAME_SEALED, NAME])
def later(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory in which one file was written by a later version."""
    shutil.copytree(VERSIONS[0] / "table", tmp_path / "table")
    path = tmp_path / "table" / request.param
    data = path.read_bytes()
    header = frames.Header(data[:8], 65535, data[12:28], int.from_bytes(data[28:36], "little"))
    path.write_bytes(frames.encode_header(header) + data[frames.HEADER_BYTES :])
    return tmp_path / "table"


@pytest.mark.parametrize("command", [["check"], ["check", "--repair"], ["export"], ["log"]])
def test_the_tools_refuse_what_a_later_version_wrote(
    later: Path, command: list[str], request: pytest.FixtureRequest
) -> None:
    if command == ["log"] and request.node.callspec.params["later"] == checkpoint.NAME:
        return  # it shows the logs and does not look at the checkpoint
    before = {path.name: path.read_bytes() for path in later.iterdir()}
    result = CliRunner().invoke(main, [*command, str(later)])
    assert result.exit_code == 3, result.output
    assert "written by a newer version of kvzmq (semantics 65535): update this one" in result.stderr
    assert "damage" not in result.output.lower()
    assert {path.name: path.read_bytes() for path in later.iterdir()} == before
    assert not later.with_name("table.repaired").exists()


def test_a_server_refuses_what_a_later_version_wrote(later: Path) -> None:
    before = {path.name: path.read_bytes() for path in later.iterdir()}
    with pytest.raises(DidNotStart) as refused:
        ServerProcess(later)
    assert refused.value.exit_code == 3 and "written by a newer version of kvzmq" in refused.value.stderr
    assert "damage" not in refused.value.stderr.lower() and "check --repair" not in refused.value.stderr
    assert {path.name: path.read_bytes() for path in later.iterdir()} == before
