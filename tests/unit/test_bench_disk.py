"""`kvzmq bench --disk`: what it measures, and when a disk passes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvzmq.bench import disk


def measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, usual_s: float, slow_s: float, kind: str = "ext4"
) -> disk.DiskReport:
    """Measure a disk that takes `slow_s` for 1 of 40 syncs."""
    now_s = [0.0]
    syncs = [0]

    def sync(descriptor: int) -> None:
        os.fstat(descriptor)
        syncs[0] += 1
        now_s[0] += slow_s if syncs[0] % 40 == 0 else usual_s

    monkeypatch.setattr(disk, "file_system", lambda directory: (kind, ""))
    return disk.measure(tmp_path, 10.0, lambda: now_s[0], sync)


def test_a_disk_passes_by_its_usual_and_its_slow_syncs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    good = measured(monkeypatch, tmp_path, 0.001, 0.01)
    assert good.passes and good.p50_s == pytest.approx(0.001) and good.p99_s == pytest.approx(0.01)
    assert good.syncs_per_s == pytest.approx(40 / 0.049, rel=0.01)
    assert "half of the syncs" in measured(monkeypatch, tmp_path, 0.006, 0.01).reasons[0]
    assert "1 of 100 syncs" in measured(monkeypatch, tmp_path, 0.001, 0.06).reasons[0]
    assert "keeps nothing" in measured(monkeypatch, tmp_path, 0.001, 0.001, "tmpfs").reasons[0]
    assert list(tmp_path.iterdir()) == []


def test_it_measures_real_syncs_too(tmp_path: Path) -> None:
    found = disk.measure(tmp_path, 0.05)
    assert found.syncs >= 1 and 0 < found.p50_s <= found.p99_s <= found.max_s
    assert list(tmp_path.iterdir()) == []
