"""A secured server among strangers and clients that mean harm: nobody gets more than its rights, others are served."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
from support import zmtp
from support.curve import ALICE, BOB, OTHER_SERVER, SERVER, STRANGER, Keys
from support.mutator import Mutator
from support.servers import ServerProcess

import kvzmq
from kvzmq import errors

FRAMES, FRAMES_FULL = 10_000, 100_000
HANDSHAKES, HANDSHAKES_FULL = 300, 5_000
STRANGERS, STRANGERS_FULL = 300, 1_000
WINDOW = 200
STEADY_S = 60.0
"""How long a small request may take beside all this: a server that is held up never answers."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    key, clients = SERVER.write(tmp_path / "server.key_secret"), tmp_path / "clients"
    clients.write_text(f"alice {ALICE.public} read,write,admin\nbob {BOB.public} read k\n")
    clients.chmod(0o600)
    with ServerProcess(tmp_path / "data", "--curve-key", str(key), "--clients", str(clients)) as server:
        yield server


@pytest.fixture
def steady(server: ServerProcess, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Ask something that has one right answer, within STEADY_S."""
    path = ALICE.write(tmp_path / "alice.key_secret")
    with kvzmq.connect(server.url, STEADY_S, curve_key=path, server_key=SERVER.public) as table:
        table.insert("steady", 1)
        revision = table.revision

        def check() -> None:
            assert table.lookup("steady") == 1

        yield check
        check()
        assert table.revision == revision, "somebody has changed something"
        assert list(table) == ["steady"]
        assert server.running and "Traceback" not in server.stderr, server.stderr


def dealer(url: str, keys: Keys, server: Keys = SERVER) -> zmq.Socket[bytes]:
    sock: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.CURVE_SERVERKEY, server.public.encode())
    sock.setsockopt(zmq.CURVE_PUBLICKEY, keys.public.encode())
    sock.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
    sock.connect(url)
    return sock


def test_no_mutated_frame_of_a_reader_changes_the_table(
    server: ServerProcess, steady: Callable[[], None], full: bool, count: Callable[[str, int], None]
) -> None:
    """Each gets one reply; seen red with rights compared for the first operation of a request only."""
    mutator = Mutator(seed=21)
    frames = FRAMES_FULL if full else FRAMES
    codes: dict[int, int] = {}
    with contextlib.closing(dealer(server.url, BOB)) as bob:
        sent = received = 0
        while received < frames:
            while sent < frames and sent - received < WINDOW:
                bob.send(mutator.frame() or b"\xc1")  # an empty one is a probe, and not answered
                sent += 1
            assert bob.poll(int(STEADY_S * 1000)), f"no reply to one of frames {received} to {sent}"
            while received < sent and bob.poll(0):
                _, _, results = msgspec.msgpack.decode(bob.recv())
                for code, _ in results:
                    codes[code] = codes.get(code, 0) + 1
                received += 1
            if received % 50 == 0:
                steady()
    assert codes[errors.NotAllowed.code] > frames / 20 and codes[0] > frames / 200, codes
    count("mutated frames of a client that may only read", frames)
    count("of them refused for want of a right", codes[errors.NotAllowed.code])


def test_mutated_handshakes_with_curve_harm_nobody(
    server: ServerProcess, steady: Callable[[], None], full: bool, count: Callable[[str, int], None]
) -> None:
    dice = random.Random(22)
    handshakes = HANDSHAKES_FULL if full else HANDSHAKES
    hello = zmtp.frame(b"\x05HELLO\x01\x00" + bytes(72) + dice.randbytes(32 + 8 + 80), command=True)
    initiate = zmtp.frame(b"\x08INITIATE" + dice.randbytes(96 + 8 + 144), command=True)
    good = [
        zmtp.greeting(b"CURVE") + hello,
        zmtp.greeting(b"CURVE") + hello + initiate,
        zmtp.greeting(b"CURVE") + initiate,
        zmtp.greeting(b"CURVE") + zmtp.ready(),
        zmtp.greeting(b"CURVE") + zmtp.frame(b"hello"),
        zmtp.greeting() + zmtp.ready() + zmtp.frame(msgspec.msgpack.encode([None, 1, [["insert", "a", 1]]])),
        *zmtp.INSTEAD_OF_A_HANDSHAKE.values(),
    ]
    zmtp.send_mutated_handshakes(server.url, good, handshakes, dice, steady)
    count("mutated handshakes with CURVE", handshakes)


def test_strangers_in_crowds_hold_nobody_up(
    server: ServerProcess, steady: Callable[[], None], full: bool, count: Callable[[str, int], None]
) -> None:
    """Half have an unknown key, half another server's; each is closed and the next one comes."""
    strangers = STRANGERS_FULL if full else STRANGERS
    slowest_s = 0.0
    socks: list[zmq.Socket[bytes]] = []
    for number in range(strangers):
        sock = dealer(server.url, STRANGER, OTHER_SERVER if number % 2 else SERVER)
        sock.send(msgspec.msgpack.encode([None, 1, [["insert", "a", 1]]]), zmq.NOBLOCK)
        socks.append(sock)
        if len(socks) > 50:
            socks.pop(0).close()
        if number % 10 == 0:
            began_s = time.monotonic()
            steady()
            slowest_s = max(slowest_s, time.monotonic() - began_s)
    for sock in socks:
        assert not sock.poll(0)
        sock.close()
    count("strangers that tried to connect", strangers)
    count("ms, the slowest small request meanwhile", int(slowest_s * 1000))
