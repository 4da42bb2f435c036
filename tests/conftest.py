"""What all tests share: which of them run in part, and where they say how much they did.

`KVZMQ_FULL=1 pytest` runs the whole matrix of faults; without it tests marked `full` are left out
and the others do the part that fits `make test`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from support.servers import ServerProcess

FULL = os.environ.get("KVZMQ_FULL", "") not in ("", "0")
"""Whether the whole matrix runs."""

hypothesis.settings.register_profile(
    "kvzmq", deadline=None, suppress_health_check=list(hypothesis.HealthCheck), print_blob=True, database=None
)
hypothesis.settings.load_profile("kvzmq")

_COUNTS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_COUNTS] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not FULL:
        left_out = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[_COUNTS]:
        terminalreporter.section("counts")
        for line in config.stash[_COUNTS]:
            terminalreporter.write_line(line)


@pytest.fixture
def full() -> bool:
    """Whether to do all there is to do, instead of the part that fits `make test`."""
    return FULL


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[str, int], None]:
    """Say how much a test did, `count("byte prefixes", 100_000)`: shown at the end of the run."""

    def add(what: str, number: int) -> None:
        request.config.stash[_COUNTS].append(f"{number:>12,}  {what}  ({request.node.name})")

    return add


@pytest.fixture(params=["plain", pytest.param("pyzmq", marks=pytest.mark.full)])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the client's sockets, for clients that do not choose; the contract tests run over both without KVZMQ_FULL."""
    monkeypatch.setenv("KVZMQ_TRANSPORT", request.param)
    transport: str = request.param
    return transport


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A real server with a bridge, on free ports and an empty directory."""
    with ServerProcess(tmp_path / "data", bridge=True) as server:
        yield server
