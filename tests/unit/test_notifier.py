"""sd_notify: what is sent to a socket, and when. The server's side is in tests/integration/test_service.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.logged import logged

from kvzmq.server.service import STATUS_S, Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's socket, and its address as NOTIFY_SOCKET has it."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@kvzmq-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1) if request.param == "abstract" else address)
        sock.settimeout(60)
        yield address, sock


def test_it_tells_of_ready_reload_and_stop(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    notifier = Notifier(address, None, lambda: "3 rows")
    notifier.ready()
    assert sock.recv(999) == b"READY=1\nSTATUS=3 rows"
    with notifier.reloading():
        first, second = sock.recv(999).decode().split("\n")
        assert first == "RELOADING=1" and second.removeprefix("MONOTONIC_USEC=").isdecimal()
    assert sock.recv(999) == b"READY=1\nSTATUS=3 rows"
    assert notifier.beat() == STATUS_S and sock.recv(999) == b"STATUS=3 rows"
    notifier.stopping()
    assert sock.recv(999) == b"STOPPING=1\nSTATUS=stopping"
    notifier.close()


def test_the_watchdog_hears_of_it_twice_in_its_time(manager: tuple[str, socket.socket]) -> None:
    environment = {"NOTIFY_SOCKET": manager[0], "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
    notifier = Notifier.of_environment(environment, lambda: "here")
    assert environment == {"A": "b"}, "children would tell the manager, too"
    assert notifier.beat() == 1.5
    assert manager[1].recv(999) == b"WATCHDOG=1\nSTATUS=here"
    notifier.close()


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"},
                                      {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}])  # fmt: skip
def test_a_watchdog_that_is_not_for_us_hears_nothing(
    manager: tuple[str, socket.socket], watchdog: dict[str, str]
) -> None:
    notifier = Notifier.of_environment({"NOTIFY_SOCKET": manager[0], **watchdog}, lambda: "here")
    assert notifier.beat() == STATUS_S and manager[1].recv(999) == b"STATUS=here"
    notifier.close()


def test_outside_of_a_service_manager_nothing_is_sent_and_no_timer_kept() -> None:
    notifier = Notifier.of_environment({}, lambda: pytest.fail("nobody asks"))
    notifier.ready()
    assert notifier.beat() is None
    notifier.stopping()
    notifier.close()


def test_a_manager_that_is_gone_or_does_not_read_costs_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"), 1.0, lambda: "x" * 1000)
        for _ in range(2000):
            assert notifier.beat() == 0.5
    for _ in range(5):
        notifier.beat()
    assert [record.message for record in logged(caplog)] == [
        "cannot tell the service manager: Resource temporarily unavailable"
    ]
    notifier.close()
