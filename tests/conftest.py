"""What all tests share: which of them run in part, how long calls may take, and where tests say how much they did.

`KVZMQ_FULL=1 pytest` runs the whole matrix of faults; without it tests marked `full` are left out
and the others do the part that fits `make test`.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import coverage
import hypothesis
import pytest
from support.etcd_cluster import EtcdCluster
from support.servers import PATIENCE_S, ServerProcess, giving_ports_back

import kvzmq
from kvzmq.client.core import hello, session

FULL = os.environ.get("KVZMQ_FULL", "") not in ("", "0")
"""Whether the whole matrix runs."""

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
"""Before any test module imports gRPC: else a server that a test forks may abort before it is one. See store.etcd."""

CALL_S = 60.0
"""What a call of a client may take in the tests that do not say. A user's 5 s are too few for a machine that does
three times as much as it can; tests of deadlines give their own.
"""

for _connect in (kvzmq.connect, kvzmq.connect_async):
    _connect.__defaults__ = (None, CALL_S)  # of url and timeout
os.environ.setdefault("KVZMQ_TIMEOUT", str(CALL_S))  # of the command line

hypothesis.settings.register_profile(
    "kvzmq", deadline=None, suppress_health_check=list(hypothesis.HealthCheck), print_blob=True, database=None
)
hypothesis.settings.load_profile("kvzmq")

FAULT = Path(__file__).parent / "fault"
"""Tests that coverage leaves out, as it does those marked `unmeasured`. They repeat a few paths thousands of times,
three times slower when measured, and what they kill leaves no data; strace would count coverage's calls, too.
"""

COVERAGE_OF_CHILDREN = "COVERAGE_PROCESS_CONFIG"
"""The environment variable by which coverage, with `patch = subprocess`, measures the processes that tests start."""

_COUNT = "count"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(FAULT):
            item.add_marker(pytest.mark.flaky(reruns=0))  # what is lost once is lost
    if not FULL:
        left_out = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    measuring = coverage.Coverage.current()
    if measuring is None or not (item.path.is_relative_to(FAULT) or item.get_closest_marker("unmeasured")):
        return (yield)
    measuring.stop()
    of_children = os.environ.pop(COVERAGE_OF_CHILDREN, None)
    try:
        return (yield)
    finally:
        if of_children is not None:
            os.environ[COVERAGE_OF_CHILDREN] = of_children
        measuring.start()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = (report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome))
    lines = [line for report in reports for what, line in report.user_properties if what == _COUNT]
    if lines:
        terminalreporter.section("counts")
        for line in lines:
            terminalreporter.write_line(str(line))
    if again := terminalreporter.getreports("rerun"):
        terminalreporter.section("failed, and were run again: a race of the test, or of kvzmq")
        for report in again:
            terminalreporter.write_sep("_", report.nodeid)
            terminalreporter.write_line(report.longreprtext)


@pytest.fixture(autouse=True)
def ports_are_held() -> Iterator[None]:
    """Ports of `free_port` are a test's until it has ended; for good, they would be hundreds of descriptors."""
    with giving_ports_back():
        yield


@pytest.fixture
def full() -> bool:
    """Whether to do all there is to do, instead of the part that fits `make test`."""
    return FULL


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[str, int], None]:
    """Say how much a test did, `count("byte prefixes", 100_000)`: shown at the end of the run."""

    def add(what: str, number: int) -> None:
        # A property travels with the report, also from one of several workers.
        request.node.user_properties.append((_COUNT, f"{number:>12,}  {what}  ({request.node.name})"))

    return add


@pytest.fixture
def asks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients not ask a server again that is slow to answer, for tests that count what it was asked."""
    for module in (session, hello):
        monkeypatch.setattr(module, "RESEND_S", 2 * PATIENCE_S)


@pytest.fixture(params=["plain", pytest.param("pyzmq", marks=pytest.mark.full)])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the client's sockets, for clients that do not choose; contract tests run over both without KVZMQ_FULL."""
    monkeypatch.setenv("KVZMQ_TRANSPORT", request.param)
    transport: str = request.param
    return transport


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A real server with a bridge, on free ports and an empty directory."""
    with ServerProcess(tmp_path / "data", bridge=True) as server:
        yield server


@pytest.fixture(scope="session")
def etcd_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """The etcd cluster of this session, for tests that leave it healthy; the others start one of their own."""
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.fixture
def etcd_name(request: pytest.FixtureRequest) -> str:
    """A name for the keys of one test in the cluster of the session."""
    return f"{re.sub(r'[^a-z0-9-]+', '-', request.node.name.lower())[:40].strip('-')}-{secrets.token_hex(4)}"
