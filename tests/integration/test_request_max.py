"""`kvzmq server --request-max`: what is refused; rows written under a higher limit can be read and exported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.servers import KVZMQ, DidNotStart, ServerProcess
from support.wire import NoReply, WireClient

import kvzmq

sys.path.insert(0, str(Path(__file__).parents[2] / "clients"))
from HashTableClient import HashTableClient

LARGE_BYTES = 8_388_000
"""As long as a value could be when every server took 8 MiB, and results had a kilobyte less."""


def test_rows_written_under_a_higher_limit_are_read_in_every_way_and_exported(tmp_path: Path) -> None:
    value = "\x01" * LARGE_BYTES
    with ServerProcess(tmp_path / "data", "--request-max", "8M", bridge=True) as server:
        with WireClient(server.url) as client:
            client.open()
            _, answer = client.call("insert", "large", value)
            assert answer == (0, None)
        server.kill()
        server.options = []
        server.start()
        with WireClient(server.url) as client, pytest.raises(NoReply):
            client.call("insert", "other", "x" * LARGE_BYTES, timeout_s=2.0)
        with kvzmq.connect(server.url, timeout=120) as table:
            assert table["large"] == value and dict(table.items()) == {"large": value}
            with pytest.raises(kvzmq.KvzmqError):
                table.insert("other", "x" * LARGE_BYTES)
        with HashTableClient(host="127.0.0.1", port=server.port) as bridged:
            assert bridged.lookup("large") == value
        exported = subprocess.run([*KVZMQ, "export", "-c", server.url], capture_output=True, timeout=120, check=True)
        rows = [json.loads(line) for line in exported.stdout.splitlines()]
        assert any(value in (row if isinstance(row, list) else row.values()) for row in rows)


@pytest.mark.parametrize("size", ["1K", "8M", "65536", "64KiB"])
def test_sizes_of_requests_are_taken(tmp_path: Path, size: str) -> None:
    with (
        ServerProcess(tmp_path / "data", environment={"KVZMQ_REQUEST_MAX": size}) as server,
        WireClient(server.url) as client,
    ):
        _, (_, told) = client.call("hello")
        assert told["request_bytes_max"] == {"1K": 1024, "8M": 8 << 20, "65536": 65536, "64KiB": 65536}[size]


@pytest.mark.parametrize("size", ["0", "1023", "9M", "1G", "many", "-1"])
def test_other_sizes_are_refused_in_words(tmp_path: Path, size: str) -> None:
    with pytest.raises(DidNotStart) as raised:
        ServerProcess(tmp_path / "data", "--request-max", size)
    assert raised.value.exit_code == 2 and "1024 to 8388608" in raised.value.stderr
