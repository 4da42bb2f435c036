"""One blocking client used by many threads, interrupted, forked, and closed while others wait."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
from support.proxy import Proxy
from support.servers import PATIENCE_S, ServerProcess, free_port, wait_until

import kvzmq
from kvzmq.client.core.endpoints import Endpoints
from kvzmq.client.core.pyzmq_socket import PyzmqSocket
from kvzmq.client.core.session_channel import SessionChannel
from kvzmq.client.core.socket import Change
from kvzmq.client.core.targets import Target
from kvzmq.client.core.transports import PYZMQ, Opener
from kvzmq.client.sync.connection import _SharedChannel

pytestmark = pytest.mark.usefixtures("transport")

SLACK_S = 30.0
"""How late a busy machine may make what is due. Whoever waits for another one's deadline waits twice as long."""


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work(0)`, `work(1)` ... at the same time; return what they return, or raise the first error."""
    results: list[Any] = [None] * count
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            results[number] = work(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a thread hangs"
    if failed:
        raise failed[0]
    return results


@pytest.fixture
def table(server: ServerProcess) -> Iterator[kvzmq.Client]:
    with kvzmq.connect(server.url) as table:
        yield table


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a ROUTER that shakes hands and never answers."""
    router: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    yield f"tcp://127.0.0.1:{port}"
    router.close()


def test_threads_share_messages_and_never_get_each_others_replies(
    table: kvzmq.Client, asks_once: None, count: Callable[[str, int], None]
) -> None:
    """Seen red with replies cut to calls at the wrong place."""
    table.insert_many({f"k{number}": number for number in range(16)})
    before = table.stats()

    def work(number: int) -> None:
        for _ in range(200):
            assert table.lookup(f"k{number}") == number

    in_threads(16, work)
    after = table.stats()
    operations, requests = (after[name] - before[name] for name in ("operations", "requests"))
    assert operations == 3201
    assert requests < operations / 2
    count("operations of 16 threads", operations)
    count("requests they took", requests)


def test_increments_of_threads_add_up(table: kvzmq.Client) -> None:
    in_threads(8, lambda _: [table.increment("n") for _ in range(100)])
    assert table["n"] == 800


def test_operations_of_all_kinds_at_once(table: kvzmq.Client) -> None:
    def work(number: int) -> None:
        mine = table.namespace(f"{number}/")
        chance = random.Random(number)
        for step in range(60):
            key = f"k{chance.randrange(5)}"
            mine[key] = {"by": number, "step": step}
            assert mine[key]["by"] == number
            with mine.pipeline() as p:
                p.insert("x", step)
                found = p.lookup("x")
            assert found.result() == step
            with pytest.raises(KeyError):
                mine.lookup("nothing")
            assert all(value["by"] == number for _, value in mine.items("k"))

    in_threads(8, work)


@pytest.mark.parametrize("first_s", [0.1, 0.3])
def test_every_thread_has_its_own_deadline(silent: str, first_s: float) -> None:
    """The reader's is the shortest, and nobody is answered."""
    with kvzmq.connect(silent, timeout=60) as table:

        def work(number: int) -> float:
            time.sleep(0.02 * number)
            began_s = time.monotonic()
            with pytest.raises(kvzmq.Timeout):
                table.lookup("k", timeout=first_s * (1 + number))
            return time.monotonic() - began_s

        for number, took_s in enumerate(in_threads(4, work)):
            assert first_s * (1 + number) - 0.01 <= took_s < first_s * (1 + number) + SLACK_S


def test_a_reader_whose_time_is_over_passes_its_turn(server: ServerProcess) -> None:
    """The others are answered when answers come again. Seen red with a turn that is not passed."""
    with Proxy(int(server.url.rpartition(":")[2])) as proxy, kvzmq.connect(proxy.url, timeout=60) as table:
        table["k"] = 1
        proxy.stall()
        shared = table._connection._shared()
        over = threading.Event()

        def work(number: int) -> float:
            if number == 0:
                with pytest.raises(kvzmq.Timeout):
                    table.lookup("k", timeout=0.5)
                over.set()
                proxy.flow()
            else:
                wait_until(lambda: shared.reader is not None or over.is_set())  # it may be over before this looks
                assert table.lookup("k") == 1
            return time.monotonic()

        ends = in_threads(4, work)
        assert max(ends) - ends[0] < SLACK_S


def test_a_lost_reply_is_asked_for_again_also_while_others_are_answered(
    server: ServerProcess, table: kvzmq.Client
) -> None:
    """Neither the others nor the one whose reply is lost wait for its whole deadline. Seen red without `overdue`."""
    table.insert_many({"k": 1, "lost": "lost"})
    asked = table._connection._shared().channel.session
    receive = asked.receive
    losses = 1

    def lose_one(frame: bytes, now_s: float = 0.0) -> bool:
        nonlocal losses
        if b"lost" in frame and losses:
            losses -= 1
            return False
        return receive(frame, now_s)

    asked.receive = lose_one  # type: ignore[method-assign]
    stop = threading.Event()

    def work(number: int) -> float:
        began_s = time.monotonic()
        if number == 0:
            assert table.lookup("lost") == "lost"
            stop.set()
        wait_until(lambda: asked.asking or stop.is_set())  # its request is on its way, alone
        while not stop.is_set():
            table.lookup("k")
        return time.monotonic() - began_s

    assert 0.7 < in_threads(8, work)[0] < SLACK_S


class Interrupt(BaseException):
    """What a signal raises."""


def test_an_interrupted_reader_passes_its_turn(silent: str) -> None:
    """A signal ends the main thread's call, which reads; the one that waits is answered by its own deadline."""

    def on_signal(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        with kvzmq.connect(silent, timeout=60) as table:
            ended: list[float] = []

            def wait_for_turn() -> None:
                began_s = time.monotonic()
                with pytest.raises(kvzmq.Timeout):
                    table.lookup("k", timeout=2.0)
                ended.append(time.monotonic() - began_s)

            shared = table._connection._shared()
            waiting = threading.Thread(target=wait_for_turn)

            def interrupt() -> None:
                wait_until(lambda: shared.reader is not None)
                waiting.start()
                wait_until(lambda: shared._waiting)
                os.kill(os.getpid(), signal.SIGUSR1)

            interrupter = threading.Thread(target=interrupt)
            interrupter.start()
            with pytest.raises(Interrupt):
                table.lookup("k")
            interrupter.join(PATIENCE_S)
            waiting.join(PATIENCE_S)
            assert 1.9 < ended[0] < 2.0 + SLACK_S
            assert shared.reader is None
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_interrupts_anywhere_leave_a_client_that_works(
    table: kvzmq.Client, full: bool, count: Callable[[str, int], None]
) -> None:
    """Signals at random moments of the main thread's calls, while other threads use the client.

    Every increment that was reported happened once; no thread hangs; the client works afterwards. Seen red
    without the turn passed on when a thread is interrupted.
    """
    rounds = 2000 if full else 200
    stop = threading.Event()
    done = [0] * 4

    def on_signal(*_: object) -> None:
        raise Interrupt

    def work(number: int) -> None:
        while not stop.is_set():
            table.increment(f"n{number}")
            done[number] += 1

    before = signal.signal(signal.SIGUSR1, on_signal)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    interrupted = 0
    try:
        for thread in threads:
            thread.start()
        main = threading.main_thread().ident
        assert main is not None
        chance = random.Random(1)
        for _ in range(rounds):
            pause_s = chance.random() * 0.003
            timer = threading.Timer(pause_s, signal.pthread_kill, (main, signal.SIGUSR1))
            try:
                timer.start()
                while timer.is_alive():
                    table.lookup_many(["n0", "n1"])
                timer.join()
                time.sleep(0.001)
            except Interrupt:
                interrupted += 1
            timer.join()
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        signal.signal(signal.SIGUSR1, before)
    assert not any(thread.is_alive() for thread in threads)
    assert interrupted > rounds / 2
    assert [table.get(f"n{number}", 0) for number in range(4)] == done
    count("calls interrupted by a signal", interrupted)
    count("increments of others meanwhile", sum(done))


def test_close_ends_the_calls_of_other_threads(silent: str) -> None:
    with kvzmq.connect(silent, timeout=60) as table:

        def work(number: int) -> float:
            if number == 5:
                shared = table._connection._shared()
                wait_until(lambda: len(shared._waiting) == 4)
                table.close()
            else:
                with pytest.raises((kvzmq.Timeout, kvzmq.OutcomeUnknown), match="closed"):
                    (table.lookup if number % 2 else table.remove)("k")
            return time.monotonic()

        ends = in_threads(6, work)
        assert max(ends) - min(ends) < SLACK_S
        with pytest.raises(ValueError, match="closed"):
            table.lookup("k")
        assert not table._connection._shared().channel.is_open


def test_a_forked_child_has_its_own_connection(table: kvzmq.Client) -> None:
    """Seen red without a look at the process id: the parent's replies went to the child."""
    table["n"] = 0
    stop = threading.Event()
    worker = threading.Thread(target=lambda: [table.increment("parent") for _ in iter(stop.is_set, True)])
    worker.start()  # so that the lock may be held in the moment of the fork
    children = []
    for _ in range(5):
        wait_until(lambda: table.get("parent", 0) > 0)
        child = os.fork()
        if child == 0:
            try:
                for _ in range(20):
                    table.increment("n")
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    stop.set()
    worker.join(PATIENCE_S)
    assert codes == [0] * 5
    assert table["n"] == 100
    assert not worker.is_alive()


def test_a_thread_that_waits_does_not_burn_the_processor(silent: str) -> None:
    with kvzmq.connect(silent) as table:
        began_s = time.process_time()
        for url_timeout_s in (0.5, 0.5):
            with pytest.raises(kvzmq.Timeout):
                table.lookup("k", timeout=url_timeout_s)
        assert time.process_time() - began_s < 0.3


def test_a_client_without_a_server_does_not_burn_the_processor() -> None:
    with kvzmq.connect(f"tcp://127.0.0.1:{free_port()}") as table:
        began_s = time.process_time()
        with pytest.raises(kvzmq.Timeout):
            table.lookup("k", timeout=1.0)
        assert time.process_time() - began_s < 0.3


def test_an_unread_monitor_does_not_stop_the_process(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle client of a server that comes and goes reads no reports: they must not stop libzmq's thread.

    Seen red with pyzmq's get_monitor_socket: after 2000 reports every socket of the process stood still.
    """
    monkeypatch.setattr(
        "kvzmq.client.core.pyzmq_socket._OPTIONS", [(zmq.RECONNECT_IVL, 1), (zmq.LINGER, 0), (zmq.IMMEDIATE, 1)]
    )
    acceptor = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()
    accepted = 0

    def hang_up() -> None:
        nonlocal accepted
        acceptor.settimeout(0.2)
        while not stop.is_set():
            try:
                connection, _ = acceptor.accept()
            except TimeoutError:
                continue
            connection.sendall(b"HTTP/1.0 400 what?\r\n\r\n")
            connection.close()
            accepted += 1

    thread = threading.Thread(target=hang_up)
    thread.start()
    idle = PyzmqSocket(f"tcp://127.0.0.1:{acceptor.getsockname()[1]}", zmq.Context.instance())
    try:
        wait_until(lambda: accepted > 2500, 5 * PATIENCE_S, what="2,500 connections")
        with kvzmq.connect(server.url) as table:
            table.ping()
        assert Change.REFUSED in {event.change for event in idle.poll_events()}
    finally:
        stop.set()
        thread.join()
        idle.close()
        acceptor.close()


def test_a_channel_without_calls_has_no_reader() -> None:
    shared = _SharedChannel(SessionChannel(Endpoints([Target("tcp://127.0.0.1:1")]), Opener(PYZMQ)))
    assert shared.reader is None
    shared.close()
