"""The program that measures what watching costs measures it. Its figures are for a quiet machine."""

from __future__ import annotations

import pytest
from support import cables
from support.servers import free_port

from benchmarks.run import watching

SHORT = 0.3


@pytest.fixture(autouse=True)
def has_a_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "free_port", free_port)


def test_every_watcher_is_measured_beside_nobody() -> None:
    costs = list(watching.measure(rounds=1, seconds=SHORT, clients=2, names=list(watching.WATCHERS)))
    assert [cost.watcher for cost in costs] == list(watching.WATCHERS)
    assert all(cost.throughput[0] > 0 and cost.cpu[0] > 0 for cost in costs)


def test_watching_an_idle_server_takes_little_of_a_processor() -> None:
    """Far from the figures of a quiet machine, and from a watcher that asks without pause."""
    shares = dict(watching.measure_idle(SHORT * 10, clients=2, names=["nobody", "dashboard, opened", "top"]))
    assert shares["nobody"] <= max(shares.values()) < 0.05


@pytest.mark.xdist_group(cables.GROUP)
def test_the_page_is_weighed_and_timed() -> None:
    page = watching.measure_page()
    assert 100_000 < page.bytes < 600_000 and page.files > 5
    assert 0 < page.first_figure_ms <= page.first_chart_ms
