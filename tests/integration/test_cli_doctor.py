"""`kvzmq doctor` and `kvzmq bench --disk` as they are typed."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.disks import NotPermitted, small_disk
from support.servers import ServerProcess, wait_until
from support.wire import WireClient

from kvzmq.bench import disk
from kvzmq.cli import main


def command(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def names(result: Result) -> list[str]:
    return [found["name"] for found in json.loads(result.stdout)["findings"]]


def test_doctor_of_a_server_here_says_what_is_wrong_and_exits_with_1(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ServerProcess(data) as server:
        found = command("-c", server.url, "doctor", "--data", str(data), "--json")
        # The machine of a test may be short of this or that; its files are as a server makes them.
        assert {"silent", "cannot_write", "damaged", "permissions", "old_version", "clock"}.isdisjoint(names(found))
        assert found.exit_code == (1 if names(found) else 0)
        data.chmod(0o755)
        found = command("-c", server.url, "doctor", "--data", str(data), "--json")
        assert found.exit_code == 1 and names(found).count("permissions") == 1
        shown = command("-c", server.url, "doctor", "--data", str(data))
        assert shown.exit_code == 1 and f"    mend: chmod 700 {data}\n" in shown.stdout
        server.terminate()
        down = command("-c", server.url, "--timeout", "3", "doctor", "--data", str(data), "--json")
        assert down.exit_code == 1 and {"silent", "permissions"} <= set(names(down))


def test_bench_of_a_disk_says_pass_or_fail(tmp_path: Path) -> None:
    found = command("bench", "--disk", str(tmp_path))
    first, verdict = found.stdout.splitlines()
    assert "syncs/s, p50 " in first and str(tmp_path) in first
    assert (found.exit_code, verdict.split(":")[0]) in ((0, "pass"), (1, "fail"))
    assert disk.P99_S_MAX == 0.05 and list(tmp_path.iterdir()) == []


def test_doctor_finds_a_full_disk_in_memory(tmp_path: Path) -> None:
    try:
        with small_disk(tmp_path / "disk", 1024) as full, ServerProcess(full / "data") as server:
            (full / "ballast").write_bytes(bytes(full_bytes(full)))
            with WireClient(server.url, session=None) as wire:
                wait_until(lambda: wire.call("insert", "a", "x" * 50_000)[1][0] != 0, what="a refusal")
            found = command("-c", server.url, "doctor", "--data", str(full / "data"), "--json")
            assert found.exit_code == 1 and {"cannot_write", "disk_filling", "file_system"} <= set(names(found))
            (full / "ballast").unlink()
            with WireClient(server.url, session=None) as wire:
                wait_until(lambda: wire.call("insert", "a", 1)[1][0] == 0, what="a change that is written")
            assert "cannot_write" not in names(command("-c", server.url, "doctor", "--json"))
    except NotPermitted as why:
        pytest.skip(str(why))


def full_bytes(disk: Path) -> int:
    room = os.statvfs(disk)
    return max(0, room.f_bavail * room.f_frsize - 16_384)


def test_doctor_finds_a_compaction_that_fails(tmp_path: Path) -> None:
    (tmp_path / "data" / "table.ckpt.tmp").mkdir(parents=True)
    with ServerProcess(tmp_path / "data", "--compact-after", "20") as server:
        with WireClient(server.url, session=None) as wire:
            for number in range(30):
                wire.call("insert", f"k{number}", number)
            wait_until(lambda: wire.call("stats")[1][1]["compactions_failed"], what="a failure")
        shown = command("-c", server.url, "doctor")
        assert shown.exit_code == 1 and "cannot be compacted and grows" in shown.stdout


def test_doctor_names_a_client_that_does_not_read_and_the_command_that_ends_it(tmp_path: Path) -> None:
    """As it is told, letter by letter."""
    with ServerProcess(tmp_path / "data", bridge=True) as server, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        with WireClient(server.url, session=None) as wire:
            wire.call("insert", "big", "x" * 900_000)
            deaf.sendall(b'{"method": "lookup", "key": "big"}\n' * 12)
            wait_until(
                lambda: any((one["unread_bytes"] or 0) > 1_500_000 for one in wire.call("clients")[1][1]),
                what="unread replies",
            )
        told = json.loads(command("-c", server.url, "doctor", "--json").stdout)["findings"]
        (finding,) = [one for one in told if one["name"] == "client_does_not_read"]
        assert finding["command"].startswith("kvzmq clients kick tcp:127.0.0.1:")
        assert command("-c", server.url, *finding["command"].split()[1:]).exit_code == 0
        assert "client_does_not_read" not in names(command("-c", server.url, "doctor", "--json"))
