"""Does libzmq abort a process of ours, whatever the other side does, in any state it may be in?

    python tests/abort_hunt.py                      100,000 disconnects, half of them by clients, half by servers
    python tests/abort_hunt.py --disconnects 2000   fewer

libzmq has asserts that a peer can reach: the process ends by SIGABRT, and no test of replies would see
why. So peers end their connections in each state of a connection, in each way there is, while the other
side's queues are empty, full, or stopped; a watchdog looks whether the process under attack lives.

    server   `kvzmq server`, attacked by raw peers, by libzmq's sockets and by lines at the bridge
    client   a program with many of kvzmq's links and a client that watches, attacked by what it takes
             for its server: that ends, sends noise, or floods it while it does not read

Endings: `close`, `reset` (SO_LINGER 0), `half` (shutdown, then close), `kill` (the process that holds the
connection is killed). Prints the counts of each state; exits with 1 if a process was ended by a signal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import zmq
from support import zmtp
from support.servers import ServerProcess
from support.wire import WireClient

PAGE = "page"
PAGE_BYTES = 100_000
KILLED_TOGETHER = 25
"""How many connections a process holds that is killed."""

LINKS = 24
"""How many links the client under attack has."""

Peer = Any
Counts = Counter[str]


def request(*ops: list[Any], seq: int = 1) -> bytes:
    return msgspec.msgpack.encode([None, seq, list(ops)])


PING = zmtp.frame(request(["ping"]))
LOOKUP = zmtp.frame(request(["lookup", PAGE]))
PAGES = zmtp.frame(request(["items", "row/", None, 10_000]))
WATCH = zmtp.frame(request(["watch", ""]))

# ---- peers of the server, byte by byte


def _connect(url: str) -> socket.socket:
    peer = zmtp.connect(url)
    peer.setblocking(False)
    return peer


def _send(peer: socket.socket, data: bytes) -> None:
    """Send what the kernel takes: who is not read from goes on without waiting."""
    with contextlib.suppress(OSError):
        while data:
            data = data[peer.send(data) :]


def _greeted(
    hello: bytes, *parts: bytes, read: bool = False, receive_bytes: int | None = None
) -> Callable[[str], socket.socket]:
    """Send a greeting, wait for the server's if there is more to say, as it takes nothing before it, then the rest."""

    def begin(url: str) -> socket.socket:
        peer = _connect(url)
        if receive_bytes is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        _send(peer, hello)
        if parts or read:
            _receive_until(peer, b"ROUTER")
        for part in parts:
            _send(peer, part)
        if read and parts and select.select([peer], [], [], 0.05)[0]:
            with contextlib.suppress(OSError):
                peer.recv(4096)
        return peer

    return begin


def _receive_until(peer: socket.socket, mark: bytes) -> None:
    received = b""
    while mark not in received and select.select([peer], [], [], 1.0)[0]:
        with contextlib.suppress(BlockingIOError):
            part = peer.recv(4096)
            if not part:
                return
            received += part


_HELLO = zmtp.greeting() + zmtp.ready()
_NAMED = zmtp.greeting() + zmtp.ready(identity=b"the same")

RAW: dict[str, Callable[[str], socket.socket]] = {
    "connected": _greeted(b""),
    "half a greeting": _greeted(zmtp.greeting()[:11]),
    "greeting": _greeted(zmtp.greeting()),
    "half a READY": _greeted(zmtp.greeting() + zmtp.ready()[:9]),
    "READY, nothing read": _greeted(_HELLO),
    "hands shaken": _greeted(_HELLO, read=True),
    "half a frame": _greeted(_HELLO, PING[:7]),
    "half a frame's length": _greeted(_HELLO, zmtp.frame(bytes(1000))[:4]),
    "half a message": _greeted(_HELLO, zmtp.frame(b"id", more=True) * 3),
    "one request": _greeted(_HELLO, PING),
    "one reply read": _greeted(_HELLO, PING, read=True),
    "a full receive queue": _greeted(_HELLO, PING * 150),
    "a full receive queue, and half a frame": _greeted(_HELLO, PING * 120 + PING[:5]),
    "a full send queue": _greeted(_HELLO, LOOKUP * 40, receive_bytes=4096),
    "both queues full": _greeted(_HELLO, LOOKUP * 40 + PING * 150, receive_bytes=4096),
    "pages asked for, so that the loop is busy": _greeted(_HELLO, PAGES * 20),
    "a watch": _greeted(_HELLO, WATCH + PING, read=True),
    "a watch and a full queue": _greeted(_HELLO, WATCH * 3 + PING * 120, receive_bytes=4096),
    "an identity taken over": _greeted(_NAMED, PING * 40),
    "noise after the handshake": _greeted(_HELLO, bytes(range(255, -1, -1)) * 20),
    "noise instead of a handshake": _greeted(bytes(range(256)) * 4),
    "a frame beyond the limit": _greeted(_HELLO, zmtp.frame(b"x" * 100, length=1 << 40)),
    "a command of other times": _greeted(_HELLO, zmtp.frame(b"\x04PING\0\0", command=True) * 50),
}
"""What a raw peer does before it ends, by name."""

LINES: dict[str, bytes] = {
    "bridge: connected": b"",
    "bridge: half a line": b'{"method": ',
    "bridge: pipelined": b'{"method":"ping"}\n' * 200,
    "bridge: replies unread": b'{"method":"lookup","key":"page"}\n' * 60,
    "bridge: HTTP": b"POST / HTTP/1.1\r\n\r\n",
}


def _by_line(port: int, data: bytes) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port), timeout=10)
    peer.setblocking(False)
    _send(peer, data)
    return peer


def end(peer: socket.socket, ending: str) -> None:
    """End a connection in the way of that name."""
    with contextlib.suppress(OSError):
        if ending == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif ending == "half":
            peer.shutdown(socket.SHUT_WR)
    peer.close()


# ---- peers of the server, libzmq's own

LIBZMQ: dict[str, tuple[int, dict[str, int], int, bytes]] = {
    "libzmq: connected": (zmq.DEALER, {}, 0, b""),
    "libzmq: one request": (zmq.DEALER, {}, 1, request(["ping"])),
    "libzmq: requests unanswered": (zmq.DEALER, {"sndhwm": 0}, 200, request(["ping"])),
    "libzmq: large replies unread": (zmq.DEALER, {"rcvhwm": 1, "rcvbuf": 4096}, 60, request(["lookup", PAGE])),
    "libzmq: a watch unread": (zmq.DEALER, {"rcvhwm": 1}, 3, request(["watch", ""])),
    "libzmq: a REQ": (zmq.REQ, {"req_correlate": 1, "req_relaxed": 1}, 3, request(["ping"])),
    "libzmq: probing": (zmq.DEALER, {"probe_router": 1}, 2, request(["ping"])),
}


def _by_libzmq(context: zmq.Context[Any], url: str, state: str) -> zmq.Socket[bytes]:
    kind, options, count, frame = LIBZMQ[state]
    peer: zmq.Socket[bytes] = context.socket(kind)
    peer.linger = 0
    for name, value in options.items():
        setattr(peer, name, value)
    peer.connect(url)
    with contextlib.suppress(zmq.Again):
        for _ in range(count):
            peer.send(frame, zmq.NOBLOCK)
    return peer


def _be_killed(url: str, port: int, seed: int) -> Counts:
    """Begin connections in a process of their own, and kill it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        dice = random.Random(seed)
        counts: Counts = Counter()
        held: list[Peer] = []
        with contextlib.suppress(OSError, zmq.ZMQError):
            context = zmq.Context() if dice.random() < 0.3 else None
            for _ in range(KILLED_TOGETHER):
                if context is not None:
                    state = dice.choice(list(LIBZMQ))
                    held.append(_by_libzmq(context, url, state))
                elif dice.random() < 0.1:
                    state = dice.choice(list(LINES))
                    held.append(_by_line(port, LINES[state]))
                else:
                    state = dice.choice(list(RAW))
                    held.append(RAW[state](url))
                counts[f"{state} | kill"] += 1
            if context is not None:
                time.sleep(0.05)
        os.write(writer, json.dumps(counts).encode())
        os.close(writer)
        signal.pause()
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = pipe.read()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return Counter(json.loads(text or b"{}"))


def attack_server(url: str, port: int, disconnects: int, seed: int) -> Counts:
    """Connect and end in every state and way."""
    dice = random.Random(seed)
    counts: Counts = Counter()
    context: zmq.Context[Any] | None = None
    held: list[tuple[Peer, str]] = []
    while counts.total() < disconnects:
        with contextlib.suppress(OSError):
            chance = dice.random()
            if chance < 0.25:
                if context is not None:
                    context.destroy(linger=0)
                    context = None
                counts += _be_killed(url, port, dice.randrange(1 << 30))
            elif chance < 0.35:
                context = context or zmq.Context()
                for state in LIBZMQ:
                    peer = _by_libzmq(context, url, state)
                    if dice.random() < 0.5:
                        peer.poll(20)
                    peer.close(linger=0)
                    counts[f"{state} | close"] += 1
            else:
                for _ in range(16):
                    if dice.random() < 0.1:
                        state = dice.choice(list(LINES))
                        held.append((_by_line(port, LINES[state]), state))
                    else:
                        state = dice.choice(list(RAW))
                        held.append((RAW[state](url), state))
                while len(held) > dice.choice((0, 16, 100)):
                    peer, state = held.pop(dice.randrange(len(held)))
                    ending = dice.choice(("close", "reset", "half"))
                    end(peer, ending)
                    counts[f"{state} | {ending}"] += 1
    for peer, _ in held:
        peer.close()
    if context is not None:
        context.destroy(linger=0)
    return counts


# ---- servers of the client

AS_ROUTER = zmtp.greeting() + zmtp.ready(b"ROUTER")
_REPLY = zmtp.frame(msgspec.msgpack.encode([1, 0, [[0, None]]]))
_EVENT = zmtp.frame(msgspec.msgpack.encode([0, 1, [1, 0, ["k", [1]]]]))
FLOOD = _REPLY * 30_000

SERVERS: dict[str, bytes] = {
    "accepted": b"",
    "half a greeting": zmtp.greeting()[:11],
    "greeting": zmtp.greeting(),
    "half a READY": (zmtp.greeting() + zmtp.ready(b"ROUTER"))[:70],
    "READY": AS_ROUTER,
    "half a reply": AS_ROUTER + _REPLY[:5],
    "a reply": AS_ROUTER + _REPLY,
    "events": AS_ROUTER + _EVENT * 200,
    "a full receive queue": AS_ROUTER + FLOOD,
    "a full receive queue, and half a frame": AS_ROUTER + FLOOD + _REPLY[:5],
    "half a message": AS_ROUTER + zmtp.frame(b"x", more=True) * 5,
    "noise": bytes(range(256)) * 10,
    "noise after the handshake": AS_ROUTER + bytes(range(255, -1, -1)) * 20,
    "a frame beyond the limit": AS_ROUTER + zmtp.frame(b"x" * 100, length=1 << 40),
    "another kind of socket": zmtp.greeting() + zmtp.ready(b"PUB"),
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}
"""What a server does before it ends, by name."""


class _Held:
    """A client's connection to a bad server."""

    def __init__(self, peer: socket.socket, state: str, stays_s: float) -> None:
        self.peer = peer
        self.state = state
        self.left = SERVERS[state]
        self.until_s = time.monotonic() + stays_s
        self.greeted = not self.left.startswith(AS_ROUTER)
        peer.setblocking(False)
        if not self.greeted:
            _send(peer, AS_ROUTER)
            self.left = self.left[len(AS_ROUTER) :]

    def go_on(self) -> None:
        """Say what is left to say, once the client has greeted us: it takes nothing before."""
        with contextlib.suppress(OSError):
            if not self.greeted:
                self.greeted = b"DEALER" in self.peer.recv(4096)
            while self.greeted and self.left:
                self.left = self.left[self.peer.send(self.left[: 1 << 20]) :]


def attack_client(listener: socket.socket, disconnects: int, seed: int, alive: Callable[[], bool]) -> Counts:
    """Be a bad server to everyone who connects."""
    dice = random.Random(seed)
    counts: Counts = Counter()
    listener.settimeout(0.003)
    held: list[_Held] = []
    while counts.total() < disconnects and alive():
        with contextlib.suppress(TimeoutError):
            peer, _ = listener.accept()
            state = dice.choice(list(SERVERS))
            full = state.startswith("a full")
            held.append(_Held(peer, state, dice.choice((0.1, 0.5)) if full else dice.choice((0.0, 0.0, 0.003, 0.03))))
        now_s = time.monotonic()
        for one in list(held):
            one.go_on()
            if one.until_s <= now_s:
                held.remove(one)
                ending = dice.choice(("close", "reset", "half"))
                end(one.peer, ending)
                counts[f"client, {one.state} | {ending}"] += 1
    for one in held:
        one.peer.close()
    return counts


def be_attacked(url: str) -> None:
    """Be the client under attack: connections that are used and hardly read, for as long as somebody listens to us."""
    from kvzmq.client.core import pyzmq_socket

    pyzmq_socket._OPTIONS = tuple(  # the time between two attempts is not what is tested
        (option, 1 if option in (zmq.RECONNECT_IVL, zmq.RECONNECT_IVL_MAX) else value)
        for option, value in pyzmq_socket._OPTIONS
    )
    dice = random.Random(1)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets = [pyzmq_socket.PyzmqSocket(url, context) for _ in range(LINKS)]
    connected_s = [time.monotonic()] * LINKS
    reading = [True] * LINKS
    while True:
        now_s = time.monotonic()
        for number, one in enumerate(sockets):
            one.poll_events()
            if one.connected:
                connected_s[number] = now_s
            elif now_s - connected_s[number] > 0.1:  # after noise libzmq does not connect again
                one.close()
                sockets[number] = one = pyzmq_socket.PyzmqSocket(url, context)
                connected_s[number] = now_s
            for _ in range(dice.choice((0, 0, 1, 40))):
                one.send(request(["ping"]))
            if dice.random() < 0.02:
                reading[number] = not reading[number]
            for _ in range(dice.choice((0, 0, 0, 500))):
                if not (reading[number] and one.readable):
                    break
                one.receive()
            if dice.random() < 0.001:
                one.close()
                sockets[number] = pyzmq_socket.PyzmqSocket(url, context)
        time.sleep(0.002)


def watch_and_be_busy(url: str) -> None:
    """Be a program that watches, is busy meanwhile, and whose server is killed and stopped."""
    import kvzmq

    print("begun", flush=True)
    with kvzmq.connect(url, timeout=60) as table:
        turn = 0
        watch = table.watch("")
        while True:
            turn += 1
            with contextlib.suppress(kvzmq.KvzmqError, KeyError):
                table.insert("mine", turn)
                table.lookup(PAGE)
            time.sleep(0.3 * random.random())  # busy: nobody reads the watch
            with contextlib.suppress(kvzmq.KvzmqError):
                for _ in range(random.choice((0, 100, 100_000))):
                    watch.get(timeout=0.01)


# ---- the hunt


def _spawn(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(Path(__file__)), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@contextlib.contextmanager
def _ended(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def hunt_server(disconnects: int, attackers: int = 3) -> tuple[Counts, int]:
    """Attack a server; return the counts, and how often it was ended by a signal."""
    counts: Counts = Counter()
    with tempfile.TemporaryDirectory() as place, ServerProcess(Path(place) / "data", bridge=True) as server:
        with WireClient(server.url) as client:
            client.open()
            client.call("insert", PAGE, "x" * PAGE_BYTES)
            client.call("insert_many", {f"row/{number}": number for number in range(10_000)})
            workers = [
                _spawn("--attack", server.url, server.port, disconnects // attackers + 1, seed)
                for seed in range(attackers)
            ]
            with _ended(workers):
                turn = 0
                while any(worker.poll() is None for worker in workers) and server.running:
                    turn += 1
                    client.call("insert", f"k{turn % 100}", turn, timeout_s=60)  # what watches tell
                if not server.running:
                    print(f"the server was ended, exit code {server.exit_code}:\n{server.stderr[-1000:]}")
                    return counts, 1
                for worker in workers:
                    assert worker.stdout is not None
                    counts += Counter(json.loads(worker.stdout.read()))
        server.terminate()
    return counts, 0


def hunt_client(disconnects: int) -> tuple[Counts, int]:
    """Attack programs of ours as their server."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        victim = _spawn("--victim", f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        with _ended([victim]):
            counts = attack_client(listener, disconnects, 1, lambda: victim.poll() is None)
            time.sleep(0.2)
            code = victim.poll()
    if code is not None:
        print(f"the client was ended, exit code {code}")
    return counts, int(code is not None)


def hunt_watcher(kills: int) -> tuple[Counts, int]:
    """Kill and stop the server of programs that watch and are busy."""
    counts: Counts = Counter()
    with tempfile.TemporaryDirectory() as place, ServerProcess(Path(place) / "data") as server:
        watchers = [_spawn("--watch", server.url) for _ in range(3)]
        with _ended(watchers):
            for watcher in watchers:
                assert watcher.stdout is not None
                watcher.stdout.readline()
            for turn in range(kills):
                with WireClient(server.url) as client:
                    client.open()
                    client.call("insert", PAGE, "x" * PAGE_BYTES)
                    for _ in range(3):
                        client.call("insert_many", {f"k{number}": turn for number in range(5000)})
                if turn % 3 == 2:
                    server.signal(signal.SIGSTOP)
                    time.sleep(0.2)
                    server.signal(signal.SIGCONT)
                    counts["watcher, server stopped"] += len(watchers)
                else:
                    server.restart()
                    counts["watcher, server killed"] += len(watchers)
                ended = [code for watcher in watchers if (code := watcher.poll()) is not None]
                if ended:
                    print(f"watching programs were ended, exit codes {ended}")
                    return counts, len(ended)
    return counts, 0


def show(counts: Counts) -> None:
    """Print the counts, a state a line, an ending a column."""
    endings = ("close", "reset", "half", "kill")
    print(f"{'state':45}" + "".join(f"{ending:>8}" for ending in endings))
    for state in sorted({name.partition(" | ")[0] for name in counts}):
        cells = [counts[f"{state} | {ending}"] for ending in endings]
        print(f"{state:45}" + "".join(f"{cell:8}" for cell in cells) if any(cells) else f"{state:45}{counts[state]:8}")
    print(f"{'in all':45}{counts.total():8}")


def hunt(disconnects: int) -> tuple[Counts, int]:
    """Attack server and clients with so many disconnects in all; return the counts, and how many processes died."""
    counts: Counts = Counter()
    died = 0
    for part, ended in (
        hunt_server(disconnects * 7 // 10),
        hunt_client(disconnects * 3 // 10),
        hunt_watcher(max(3, disconnects // 1000)),
    ):
        counts += part
        died += ended
    return counts, died


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--disconnects", type=int, default=100_000)
    parser.add_argument("--attack", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--victim", help=argparse.SUPPRESS)
    parser.add_argument("--watch", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        url, *numbers = options.attack
        print(json.dumps(attack_server(url, *map(int, numbers))))
    elif options.victim:
        be_attacked(options.victim)
    elif options.watch:
        watch_and_be_busy(options.watch)
    else:
        counts, died = hunt(options.disconnects)
        show(counts)
        print(f"{died} processes were ended by a signal")
        return int(died > 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
