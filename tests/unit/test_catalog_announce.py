"""Announcing a server: never waits, never raises."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from support.catalogs import WAIT_S, until
from support.logged import logged

from kvzmq.catalog import Announcement, Announcer, announcement_of
from kvzmq.catalog.announce import send_datagram

ANNOUNCEMENT = Announcement(owner="me", port=5571, project="zebra", endpoint="tcp://0.0.0.0:5570", keys=3)


class Recorder:
    """A `send` that keeps what it was given, waits while it is told to, and fails as told."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.failures: list[Exception | None] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self._changed = threading.Condition()
        self.calls = 0

    def __call__(self, data: bytes, host: str, port: int) -> None:
        with self._changed:
            self.calls += 1
            self._changed.notify_all()
        assert self.may_go.wait(WAIT_S)
        failure = self.failures.pop(0) if self.failures else None
        with self._changed:
            self.sent.append(json.loads(data))
            self._changed.notify_all()
        if failure is not None:
            raise failure

    def wait_for(self, holds: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, WAIT_S)


def test_an_announcement_is_one_datagram_with_one_json_object() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(WAIT_S)
        announcer = Announcer("localhost", udp.getsockname()[1])
        announcer.announce(ANNOUNCEMENT)
        data = udp.recv(65536)
        announcer.close()
    assert json.loads(data) == {
        "type": "hashtable",
        "owner": "me",
        "port": 5571,
        "project": "zebra",
        "endpoint": "tcp://0.0.0.0:5570",
        "revision": 0,
        "keys": 3,
        "clients": 0,
    }


def test_announcing_never_waits_and_only_the_newest_announcement_is_kept() -> None:
    """Seen to fail with the newest appended to a list instead of replacing what waits."""
    send = Recorder()
    send.may_go.clear()
    announcer = Announcer("catalog.example", 9097, send)
    announcer.announce(Announcement(owner="me", port=1, project="p", endpoint="", revision=0))
    send.wait_for(lambda: send.calls == 1)
    began_s = time.monotonic()
    for revision in range(1, 10_001):
        announcer.announce(Announcement(owner="me", port=1, project="p", endpoint="", revision=revision))
    assert time.monotonic() - began_s < WAIT_S / 2
    send.may_go.set()
    send.wait_for(lambda: len(send.sent) == 2)
    announcer.close()
    announcer._thread.join(WAIT_S)
    assert [each["revision"] for each in send.sent] == [0, 10_000]


def test_closing_an_announcer_does_not_wait_for_a_name_server() -> None:
    send = Recorder()
    send.may_go.clear()
    announcer = Announcer("catalog.example", 9097, send)
    announcer.announce(ANNOUNCEMENT)
    send.wait_for(lambda: send.calls == 1)
    began_s = time.monotonic()
    announcer.close()
    assert time.monotonic() - began_s < WAIT_S / 2
    send.may_go.set()
    announcer._thread.join(WAIT_S)  # what it logs of a failure is no other test's


def test_closing_an_idle_announcer_ends_its_thread() -> None:
    announcer = Announcer("catalog.example", 9097, Recorder())
    announcer.close()
    assert not announcer._thread.is_alive()


def test_a_failure_is_logged_once_until_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    """Seen to fail without the comparison with the last failure."""
    send = Recorder()
    send.failures = [
        OSError("no net"),
        OSError("no net"),
        ValueError("bad name"),
        None,
        None,
        OSError("no net"),
    ]
    caplog.set_level(logging.INFO)
    announcer = Announcer("catalog.example", 9097, send)
    for count in range(1, 7):
        announcer.announce(ANNOUNCEMENT)
        send.wait_for(lambda count=count: len(send.sent) == count)  # type: ignore[misc]
    announcer.close()
    assert [record.getMessage().rpartition(": ")[2] for record in logged(caplog)] == [
        "no net",
        "bad name",
        "announcing to the catalog catalog.example:9097 again",
        "no net",
    ]


@pytest.mark.parametrize(
    ("host", "port", "announcement"),
    [
        ("no\0host", 1, ANNOUNCEMENT),
        ("x" * 300, 1, ANNOUNCEMENT),
        ("127.0.0.1", 70_000, ANNOUNCEMENT),
        ("127.0.0.1", 9, Announcement(owner="me", port=1, project="x" * 70_000, endpoint="")),
        ("127.0.0.1", 9, Announcement(owner="\udcff", port=1, project="p", endpoint="")),
    ],
)
def test_what_cannot_be_sent_is_logged_and_never_raised(
    caplog: pytest.LogCaptureFixture, host: str, port: int, announcement: Announcement
) -> None:
    announcer = Announcer(host, port)
    announcer.announce(announcement)
    until(lambda: bool(logged(caplog)))
    assert announcer._thread.is_alive()
    announcer.close()
    assert "cannot announce" in caplog.text


def test_a_catalog_that_was_not_started_is_noticed_on_the_same_machine() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))  # so that nobody else has the port
        udp.connect(("127.0.0.1", 9))  # so that it takes datagrams from there alone
        with pytest.raises(ConnectionRefusedError):
            send_datagram(b"{}", "127.0.0.1", udp.getsockname()[1])


# --- What is announced


def fields_of(announcement: Announcement | None) -> dict[str, Any]:
    assert announcement is not None
    fields: dict[str, Any] = json.loads(msgspec.json.encode(announcement))
    return {name: fields[name] for name in ("type", "port", "uuid", "endpoint") if name in fields}


@pytest.mark.parametrize(
    ("endpoints", "bridge_port", "expected"),
    [
        (["tcp://127.0.0.1:5570"], 5571, {"type": "hashtable", "port": 5571, "endpoint": "tcp://127.0.0.1:5570"}),
        (["ipc:///tmp/x"], 5571, {"type": "hashtable", "port": 5571}),
        (
            ["tcp://127.0.0.1:5570"],
            None,
            {"type": "hashtable-zeromq", "uuid": "tcp://127.0.0.1:5570", "endpoint": "tcp://127.0.0.1:5570"},
        ),
        (
            ["ipc:///tmp/x", "tcp://127.0.0.1:1", "tcp://[::1]:2", "tcp://0.0.0.0:3", "tcp://10.0.0.1:4"],
            None,
            {"type": "hashtable-zeromq", "uuid": "tcp://0.0.0.0:3", "endpoint": "tcp://0.0.0.0:3"},
        ),
    ],
)
def test_a_port_is_the_bridges_and_an_endpoint_is_one_that_others_reach(
    endpoints: list[str], bridge_port: int | None, expected: dict[str, Any]
) -> None:
    """Seen to fail with the endpoint's port in the place of a bridge's, and with the first endpoint taken."""
    assert fields_of(announcement_of("p", "me", endpoints, bridge_port)) == expected


def test_what_no_other_machine_could_use_is_not_announced() -> None:
    assert announcement_of("p", "me", ["ipc:///tmp/x", "ipc://@y"]) is None


# --- Withdrawing


def test_a_withdrawal_takes_the_place_of_the_entry_and_is_no_table() -> None:
    """Seen to fail with close dropping what waits."""
    send = Recorder()
    announcer = Announcer("catalog.example", 9097, send)
    announcement = announcement_of("p", "me", ["tcp://10.0.0.1:1"])
    assert announcement is not None
    announcer.announce(announcement)
    send.wait_for(lambda: len(send.sent) == 1)
    announcer.withdraw()
    announcer.close()
    assert not announcer._thread.is_alive()
    assert send.sent[1:] == [
        {"type": "stopped", "owner": "me", "project": "p", "uuid": "tcp://10.0.0.1:1", "lifetime": 1}
    ]


def test_what_was_never_announced_is_not_withdrawn() -> None:
    send = Recorder()
    announcer = Announcer("catalog.example", 9097, send)
    announcer.withdraw()
    announcer.close()
    assert send.sent == []


def test_a_withdrawal_replaces_an_announcement_that_waits() -> None:
    send = Recorder()
    send.may_go.clear()
    announcer = Announcer("catalog.example", 9097, send)
    announcer.announce(ANNOUNCEMENT)
    send.wait_for(lambda: send.calls == 1)
    announcer.announce(ANNOUNCEMENT)
    announcer.withdraw()
    send.may_go.set()
    announcer.close()
    send.wait_for(lambda: len(send.sent) == 2)
    assert [each["type"] for each in send.sent] == ["hashtable", "stopped"]


def test_a_withdrawal_does_not_wait_for_a_name_server_and_a_failure_raises_nothing() -> None:
    send = Recorder()
    announcer = Announcer("catalog.example", 9097, send)
    announcer.announce(ANNOUNCEMENT)
    send.wait_for(lambda: len(send.sent) == 1)
    send.may_go.clear()
    send.failures = [OSError("no net")]
    began_s = time.monotonic()
    announcer.withdraw()
    announcer.close()
    assert time.monotonic() - began_s < WAIT_S / 2
    send.may_go.set()
    announcer._thread.join(WAIT_S)  # what it logs of a failure is no other test's
