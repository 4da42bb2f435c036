"""The program that measures a backup measures one. Its figures are for a quiet machine."""

from __future__ import annotations

import pytest
from support.servers import free_port

from benchmarks.run import backup


@pytest.fixture(autouse=True)
def has_a_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "free_port", free_port)


def test_a_backup_is_measured_in_its_parts() -> None:
    found = backup.measure(rows=2000, seconds=3.0, writers=2)  # a busy machine does something in so long a time
    assert found.rows >= 2000 and found.bytes > 2000 * backup.VALUE_BYTES
    assert [phase.name for phase in found.phases] == ["before", "checkpoint", "transfer", "after"]
    assert found.phases[0].inserts > 0 and 0 < found.phases[0].p50_ms <= found.phases[0].p99_ms
