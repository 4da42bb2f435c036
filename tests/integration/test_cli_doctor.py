"""`kvzmq doctor` and `kvzmq bench --disk` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result
from support.servers import ServerProcess

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
        before = len(names(found))
        data.chmod(0o755)
        found = command("-c", server.url, "doctor", "--data", str(data), "--json")
        assert found.exit_code == 1 and "permissions" in names(found) and len(names(found)) == before + 1
        shown = command("-c", server.url, "doctor", "--data", str(data))
        assert shown.exit_code == 1 and f"    mend: chmod 700 {data}\n" in shown.stdout
        server.terminate()
        down = command("-c", server.url, "--timeout", "1", "doctor", "--data", str(data), "--json")
        assert down.exit_code == 1 and {"silent", "permissions"} <= set(names(down))


def test_bench_of_a_disk_says_pass_or_fail(tmp_path: Path) -> None:
    found = command("bench", "--disk", str(tmp_path))
    first, verdict = found.stdout.splitlines()
    assert "syncs/s, p50 " in first and str(tmp_path) in first
    assert (found.exit_code, verdict.split(":")[0]) in ((0, "pass"), (1, "fail"))
    assert disk.P99_S_MAX == 0.05 and list(tmp_path.iterdir()) == []
