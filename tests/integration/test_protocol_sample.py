"""The client of docs/protocol.md against real servers that are not there, are killed, and come back."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from support.servers import PATIENCE_S, ServerProcess, free_port, wait_until

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
SLACK_S = PATIENCE_S
"""How late a busy machine may make what is due: the sample looks at its deadline every 2 seconds, by itself."""


@pytest.fixture(params=range(len(re.findall(r"^```python$", DOCUMENT, re.MULTILINE))))
def names(request: pytest.FixtureRequest) -> dict[str, Any]:
    source = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)[request.param]
    names: dict[str, Any] = {"pack": msgspec.msgpack.encode, "unpack": msgspec.msgpack.decode}
    exec(compile(source, "docs/protocol.md", "exec"), names)
    return names


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data") as server:
        yield server


def within(limit_s: float, work: Callable[[], Any]) -> Any:
    """Return what `work` returns, or the error it raises; fail when it is not done in time."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    assert found, f"it still waits after {limit_s} s"
    return found[0]


def test_without_a_server_it_says_so_when_its_time_is_over(names: dict[str, Any]) -> None:
    """Seen red with a send that blocks."""
    error = within(1 + SLACK_S, lambda: names["Table"](f"tcp://127.0.0.1:{free_port()}", 1.0))
    assert isinstance(error, TimeoutError) and "nothing was sent" in str(error)


def test_it_waits_for_a_server_that_comes(names: dict[str, Any], server: ServerProcess) -> None:
    server.kill()
    began = threading.Event()
    done: list[Any] = []

    def use() -> None:
        began.set()
        done.append(names["Table"](server.url, 60.0).call("increment", "n"))

    thread = threading.Thread(target=use)
    thread.start()
    began.wait(PATIENCE_S)
    server.start()
    thread.join(PATIENCE_S)
    assert done == [1]


def test_a_killed_server_is_an_error_and_a_restarted_one_is_found(names: dict[str, Any], server: ServerProcess) -> None:
    """Each increment that was answered is counted once; each that was not, once at most."""
    table = names["Table"](server.url, 60.0)
    assert table.call("increment", "n") == 1
    server.kill()
    table.timeout_s = 1.0
    error = within(1 + SLACK_S, lambda: table.call("increment", "n"))
    assert isinstance(error, TimeoutError)
    server.start()
    table.timeout_s = 60.0
    first = within(60 + SLACK_S, lambda: table.call("increment", "n"))
    assert first in (2, 3)
    server.restart()
    assert within(60 + SLACK_S, lambda: table.call("increment", "n")) == first + 1


def test_no_call_is_lost_or_repeated_through_kills(names: dict[str, Any], server: ServerProcess) -> None:
    done: list[Any] = []
    stop = threading.Event()

    def use() -> None:
        table = names["Table"](server.url, 60.0)
        while not stop.is_set():
            done.append(table.call("increment", "n"))

    thread = threading.Thread(target=use)
    thread.start()
    for _ in range(3):
        before = len(done)
        wait_until(lambda before=before: len(done) > before + 20)  # type: ignore[misc]
        server.restart()
    before = len(done)
    wait_until(lambda: len(done) > before + 20)
    stop.set()
    thread.join(PATIENCE_S)
    assert done == list(range(1, len(done) + 1))


def test_it_leaves_no_sockets_behind(names: dict[str, Any]) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    within(1 + SLACK_S, lambda: names["Table"](url, 0.5))
    zmq.Context.instance()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        within(1 + SLACK_S, lambda: names["Table"](url, 0.5))
    deadline_s = time.monotonic() + PATIENCE_S
    while len(os.listdir("/proc/self/fd")) > before + 6 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= before + 6
