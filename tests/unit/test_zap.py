"""Admission by key, with libzmq's own CURVE on a ROUTER in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
from support.curve import ALICE, BOB, OTHER_SERVER, SERVER, STRANGER, Keys
from support.logged import logged
from support.servers import wait_until
from zmq.utils import z85

from kvzmq import errors
from kvzmq.server.zap import DOMAIN, DRAIN_MAX, ENDPOINT, LOG_S, Zap

DEADLINE_S = 60.0
SILENCE_S = 3.0
"""How long a handshake may go on that nobody answers."""


class Listener:
    """A ROUTER with CURVE and its handler; `until` answers both."""

    def __init__(self, *known: Keys, domain: str = DOMAIN, enforce: bool = True) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.now_s = 0.0
        self.known = {keys.public for keys in known}
        self.zap = Zap(self.context, self.known.__contains__, lambda: self.now_s)
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.CURVE_SERVER, 1)
        self.router.setsockopt(zmq.CURVE_SECRETKEY, SERVER.secret.encode())
        self.router.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
        self.router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, int(enforce))
        self.url = f"tcp://127.0.0.1:{self.router.bind_to_random_port('tcp://127.0.0.1')}"
        self.peers: list[zmq.Socket[bytes]] = []
        self.received: list[tuple[bytes, str]] = []

    def connect(self, keys: Keys | None, server: Keys = SERVER) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        """Return a DEALER that has sent a frame, and its monitor."""
        peer = self.context.socket(zmq.DEALER)
        self.peers.append(peer)
        peer.setsockopt(zmq.LINGER, 0)
        if keys is not None:
            peer.setsockopt(zmq.CURVE_SERVERKEY, server.public.encode())
            peer.setsockopt(zmq.CURVE_PUBLICKEY, keys.public.encode())
            peer.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
        peer.monitor(f"inproc://monitor-{len(self.peers)}", zmq.EVENT_ALL)
        monitor = self.context.socket(zmq.PAIR)
        self.peers.append(monitor)
        monitor.connect(f"inproc://monitor-{len(self.peers) - 1}")
        peer.connect(self.url)
        peer.send(b"hello")
        return peer, monitor

    def until(self, done: Callable[[], object]) -> None:
        poller = zmq.Poller()
        poller.register(self.zap.socket, zmq.POLLIN)
        poller.register(self.router, zmq.POLLIN)
        deadline_s = time.monotonic() + DEADLINE_S
        while not done():
            assert time.monotonic() < deadline_s
            for sock, _ in poller.poll(20):
                if sock is self.zap.socket:
                    self.zap.drain()
                else:
                    self.router.recv()
                    frame = self.router.recv(copy=False)
                    self.received.append((frame.bytes, str(frame.get("User-Id"))))

    def close(self) -> None:
        for peer in self.peers:
            peer.close(linger=0)
        self.router.close(linger=0)
        self.zap.close()
        self.context.term()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def listen(*known: Keys, **options: Any) -> Listener:
        made.append(Listener(*known, **options))
        return made[-1]

    yield listen
    for listener in made:
        listener.close()


def events(monitor: zmq.Socket[bytes]) -> set[int]:
    found = set()
    while monitor.poll(0):
        found.add(int.from_bytes(monitor.recv_multipart()[0][:2], "little"))
    return found


def reports(monitor: zmq.Socket[bytes], *wanted: int) -> Callable[[], bool]:
    seen: set[int] = set()

    def reported() -> bool:
        seen.update(events(monitor))
        return not seen.isdisjoint(wanted)

    return reported


def test_a_known_key_is_let_in_and_named_in_every_frame(listen: Callable[..., Listener]) -> None:
    listener = listen(ALICE, BOB)
    for keys in (ALICE, BOB):
        peer, _ = listener.connect(keys)
        peer.send(b"again")
    listener.until(lambda: len(listener.received) == 4)
    assert sorted(listener.received) == sorted(
        (frame, keys.public) for frame in (b"hello", b"again") for keys in (ALICE, BOB)
    )
    assert listener.zap.stats() == {"connections_admitted": 2, "connections_refused": 0}


def test_an_unknown_key_is_refused_and_told(listen: Callable[..., Listener], caplog: pytest.LogCaptureFixture) -> None:
    """Red with every key let in, and with ZAP not enforced."""
    listener = listen(ALICE)
    _, monitor = listener.connect(STRANGER)
    listener.until(reports(monitor, zmq.EVENT_HANDSHAKE_FAILED_AUTH))
    listener.connect(ALICE)
    listener.until(lambda: listener.received)
    assert listener.received == [(b"hello", ALICE.public)]
    assert listener.zap.stats() == {"connections_admitted": 1, "connections_refused": 1}
    assert [record.message for record in logged(caplog)] == [
        f"refused a connection from 127.0.0.1: unknown key {STRANGER.public}"
    ]


@pytest.mark.parametrize("keys", [None, ALICE], ids=["no key", "another server's key"])
def test_who_does_not_know_the_servers_key_does_not_come_as_far(
    listen: Callable[..., Listener], keys: Keys | None
) -> None:
    listener = listen(ALICE)
    _, monitor = listener.connect(keys, OTHER_SERVER)
    listener.until(reports(monitor, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL))
    assert listener.zap.stats() == {"connections_admitted": 0, "connections_refused": 0}
    assert listener.received == []


def test_without_a_handler_nobody_is_let_in(listen: Callable[..., Listener]) -> None:
    """What ZAP_ENFORCE_DOMAIN is for: without it, libzmq lets any key in when nobody answers.

    A handshake that asks before libzmq has noticed that the handler is gone ends in silence, not in a refusal.
    """
    listener = listen(ALICE)
    listener.zap.close()
    _, monitor = listener.connect(ALICE)
    seen: set[int] = set()
    wait_until(lambda: seen.update(events(monitor)) or zmq.EVENT_CONNECTED in seen)  # type: ignore[func-returns-value]
    deadline_s = time.monotonic() + SILENCE_S
    ended = {zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_SUCCEEDED}
    while not seen & ended and time.monotonic() < deadline_s:
        monitor.poll(100)
        seen |= events(monitor)
    assert zmq.EVENT_CONNECTED in seen and zmq.EVENT_HANDSHAKE_SUCCEEDED not in seen
    assert not listener.router.poll(0)


def test_another_domain_is_refused(listen: Callable[..., Listener]) -> None:
    listener = listen(ALICE, domain="kvzmq2")
    _, monitor = listener.connect(ALICE)
    listener.until(reports(monitor, zmq.EVENT_HANDSHAKE_FAILED_AUTH))
    assert listener.received == []


def test_a_context_has_one_handler(listen: Callable[..., Listener]) -> None:
    with pytest.raises(errors.CannotListen, match=r"inproc://zeromq\.zap\.01"):
        Zap(listen().context, lambda key: True)


KEY = z85.decode(ALICE.public.encode())
GOOD = [b"1.0", b"7", DOMAIN.encode(), b"127.0.0.1", b"", b"CURVE", KEY]
STRANGE = [
    [b"1.0"],
    [b"1.0", b"7"],
    GOOD[:6],
    [b"1.1", *GOOD[1:]],
    [*GOOD[:5], b"NULL"],
    [*GOOD[:5], b"NULL", KEY],
    [*GOOD[:5], b"PLAIN", b"alice", b"secret"],
    [*GOOD[:2], b"", *GOOD[3:]],
    [*GOOD[:6], KEY[:-1]],
    [*GOOD[:6], KEY + b"\0"],
    [*GOOD, KEY],
    [*GOOD[:6], *[KEY] * 100],
    [b"\xff"] * 7,
]


@pytest.mark.parametrize("frames", STRANGE, ids=range(len(STRANGE)))
def test_whatever_is_asked_is_answered_and_refused_unless_it_is_a_known_key(
    listen: Callable[..., Listener], frames: list[bytes]
) -> None:
    """Red when the mechanism was not looked at. A REP that does not answer would decide on nobody ever after."""
    listener = listen(ALICE)
    asker = listener.context.socket(zmq.REQ)
    listener.peers.append(asker)
    asker.connect(ENDPOINT)
    for asked, status in ((frames, b"400"), (GOOD, b"200")):
        asker.send_multipart(asked)
        listener.until(lambda: asker.poll(0))
        version, request_id, found, _, user, metadata = asker.recv_multipart()
        assert (version, request_id, found, metadata) == (b"1.0", asked[1] if len(asked) > 1 else b"", status, b"")
        assert user == (ALICE.public.encode() if status == b"200" else b"")


def test_a_step_decides_on_so_many_and_the_log_has_one_line_of_all_that_are_refused(
    listen: Callable[..., Listener], caplog: pytest.LogCaptureFixture
) -> None:
    listener = listen()
    asker = listener.context.socket(zmq.DEALER)
    listener.peers.append(asker)
    asker.connect(ENDPOINT)
    for _ in range(2 * DRAIN_MAX):
        asker.send_multipart([b"", *GOOD])
    assert listener.zap.drain() == DRAIN_MAX
    listener.now_s = LOG_S
    listener.until(lambda: listener.zap.stats()["connections_refused"] == 2 * DRAIN_MAX)
    assert [record.message.partition(":")[0] for record in logged(caplog)] == [
        "refused a connection from 127.0.0.1",
        f"refused {DRAIN_MAX} connections, the latest from 127.0.0.1",
    ]
