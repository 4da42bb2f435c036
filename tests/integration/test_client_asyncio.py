"""The asyncio client under cancellation, load, several loops, and at rest."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import resource
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import zmq
from support.servers import PATIENCE_S, ServerProcess, free_port

import kvzmq

pytestmark = pytest.mark.usefixtures("transport")


def run(main: Coroutine[Any, Any, Any], timeout_s: float = 2 * PATIENCE_S) -> Any:
    """Run on a new loop; a lost wake-up fails instead of hanging."""

    async def bounded() -> Any:
        return await asyncio.wait_for(main, timeout_s)

    return asyncio.run(bounded())


@pytest.mark.parametrize("calls, messages", [(500, 1), (1000, 2)])
def test_what_tasks_ask_in_one_turn_travels_together(
    server: ServerProcess, asks_once: None, calls: int, messages: int
) -> None:
    """Seen red with a flush at each call."""

    async def main() -> None:
        async with kvzmq.connect_async(server.url) as table:
            await table.insert("k", 1)
            before = await table.stats()
            await asyncio.gather(*(table.lookup("k") for _ in range(calls)))
            after = await table.stats()
            assert after["operations"] - before["operations"] == calls + 1
            assert after["requests"] - before["requests"] == messages + 1

    run(main())


def test_cancelled_calls_never_mix_up_replies(
    server: ServerProcess, full: bool, count: Callable[[str, int], None]
) -> None:
    """wait_for, gather, TaskGroup and plain cancel at random moments; every other reply is its own."""
    rounds = 1000 if full else 100
    cancelled = answered = 0

    async def main() -> None:
        nonlocal cancelled, answered
        chance = random.Random(3)
        async with kvzmq.connect_async(server.url) as table:
            await table.insert_many({f"k{number}": number for number in range(100)})

            async def look(number: int) -> None:
                nonlocal cancelled, answered
                try:
                    assert await table.lookup(f"k{number}") == number
                    answered += 1
                except asyncio.CancelledError:
                    cancelled += 1
                    raise

            async def look_for_a_moment(number: int) -> None:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(look(number), chance.random() * 0.002)

            for _ in range(rounds):
                tasks = [asyncio.ensure_future(look(number)) for number in range(30)]
                tasks += [asyncio.ensure_future(look_for_a_moment(number)) for number in range(30, 60)]
                await asyncio.sleep(chance.random() * 0.002)
                for task in chance.sample(tasks, 20):
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                assert not [t for t in tasks if not t.cancelled() and t.exception() is not None]

    run(main())
    assert cancelled > rounds and answered > rounds
    count("asyncio calls cancelled", cancelled)
    count("asyncio calls answered beside them", answered)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is new in 3.11")
def test_a_failing_task_group_cancels_its_calls_and_the_client_works_on(server: ServerProcess) -> None:
    async def main() -> None:
        async with kvzmq.connect_async(server.url) as table:
            for _ in range(20):
                with pytest.raises(BaseException) as caught:
                    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined]
                        for number in range(50):
                            group.create_task(table.insert(f"k{number}", number))
                        group.create_task(table.lookup("nothing"))
                assert [type(error) for error in caught.value.exceptions] == [kvzmq.NoSuchKey]  # type: ignore[attr-defined]
            await table.insert("k", 1)
            assert await table.lookup("k") == 1

    run(main())


def test_an_unsent_cancelled_write_is_not_executed(server: ServerProcess) -> None:
    async def main() -> None:
        async with kvzmq.connect_async(server.url) as table:
            await table.insert("warm", 1)
            server.kill()
            task = asyncio.ensure_future(table.insert("k", 1))
            await asyncio.sleep(0.2)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            server.start()
            await table.insert("later", 1)
            assert not await table.contains("k")

    run(main())


class Ticks:
    """What an asyncio client finds at its ticks, of which there is one every 50 ms while it waits.

    unread  how often there was a frame to read: more than by chance if the wakeups for frames are lost
    left    how often it had been there at the tick before, and nothing was read since
    """

    def __init__(self, table: kvzmq.AsyncClient) -> None:
        self.unread = self.left = 0
        self._received, self._received_before = 0, -1
        self._channel = channel = table._connection._channel
        self._tick, self._receive = channel.tick, channel.receive
        channel.tick, channel.receive = self._look, self._note  # type: ignore[method-assign]

    def _look(self, now_s: float) -> bool:
        socket = self._channel.socket
        if socket is not None and socket.readable:
            self.unread += 1
            self.left += self._received == self._received_before
            self._received_before = self._received
        else:
            self._received_before = -1
        return self._tick(now_s)

    def _note(self, frame: bytes, now_s: float) -> None:
        self._received += 1
        self._receive(frame, now_s)


def test_no_wakeup_is_lost_under_load(server: ServerProcess, full: bool, count: Callable[[str, int], None]) -> None:
    """Tasks that sleep at random between calls: each lost edge of the socket's descriptor would cost 50 ms
    until the next tick, or the whole deadline. Seen red without the look at `readable` after sending:
    the slowest calls then took 50 ms and more, many times over.
    """
    calls = 1_000_000 if full else 100_000
    tasks = 100
    slow = left = 0

    async def main() -> None:
        nonlocal slow, left
        async with kvzmq.connect_async(server.url) as table:
            await table.insert("k", 1)
            ticks = Ticks(table)

            async def work(number: int) -> None:
                nonlocal slow
                chance = random.Random(number)
                for step in range(calls // tasks):
                    began_s = time.perf_counter()
                    if step % 50 == 0:
                        await table.increment(f"n{number}")
                    else:
                        await table.lookup("k")
                    slow += time.perf_counter() - began_s > 0.045
                    if chance.random() < 0.01:
                        await asyncio.sleep(chance.random() * 0.004)

            await asyncio.gather(*(work(number) for number in range(tasks)))
            found = await table.lookup_many([f"n{number}" for number in range(tasks)])
            assert set(found.values()) == {calls // tasks // 50}
            left = ticks.left

    run(main(), 1800)
    count("asyncio operations without a lost wake-up", calls)
    count("of them slower than 45 ms", slow)
    assert left == 0, "an answer stayed unread from tick to tick: its wake-up was lost"


def test_one_task_alone_waits_for_no_tick(server: ServerProcess) -> None:
    """One call at a time: a lost wake-up would make it wait for the 50 ms tick."""

    async def main() -> None:
        async with kvzmq.connect_async(server.url) as table:
            await table.insert("k", 1)
            ticks = Ticks(table)
            for _ in range(2000):
                await table.lookup("k")
            assert ticks.unread < 200

    run(main())


def test_an_idle_client_does_nothing(server: ServerProcess) -> None:
    """No timer, no callback: the loop sleeps. Seen red with a tick that always sets the next."""

    async def main() -> None:
        async with kvzmq.connect_async(server.url) as table, table.watch() as changes:
            await table.insert("k", 1)
            await changes.get()
            loop = asyncio.get_running_loop()
            await asyncio.sleep(0.2)
            wakeups = 0
            select = loop._selector.select  # type: ignore[attr-defined]

            def counted(timeout: float | None = None) -> Any:
                nonlocal wakeups
                wakeups += 1
                return select(timeout)

            loop._selector.select = counted  # type: ignore[attr-defined]
            for _ in range(5):  # a busy machine may take its time until all has been answered
                wakeups = 0
                began = resource.getrusage(resource.RUSAGE_THREAD)
                await asyncio.sleep(1.0)
                ended = resource.getrusage(resource.RUSAGE_THREAD)
                spent_s = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
                if wakeups <= 5 and spent_s < 0.02:
                    return
            raise AssertionError(f"{wakeups} wakeups and {spent_s} s of a processor in a second")

    run(main())


def test_a_client_without_a_server_does_not_burn_the_processor() -> None:
    async def main() -> None:
        async with kvzmq.connect_async(f"tcp://127.0.0.1:{free_port()}") as table:
            began_s = time.process_time()
            with pytest.raises(kvzmq.Timeout):
                await table.lookup("k", timeout=1.0)
            assert time.process_time() - began_s < 0.3

    run(main())


def test_two_loops_in_two_threads_have_their_own_clients(server: ServerProcess) -> None:
    def work(name: str) -> None:
        async def main() -> None:
            async with kvzmq.connect_async(server.url) as table:
                for step in range(300):
                    await table.insert(name, step)
                    assert await table.lookup(name) == step

        run(main())

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    with kvzmq.connect(server.url) as table:
        assert dict(table.items()) == {"a": 299, "b": 299}


def test_a_client_of_another_loop_says_so(server: ServerProcess) -> None:
    client = kvzmq.connect_async(server.url)

    async def main() -> None:
        await client.insert("k", 1)

        def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                run(client.lookup("k"))

        await asyncio.to_thread(elsewhere)
        await client.close()

    run(main())


def test_a_client_moves_on_when_its_loop_has_ended(server: ServerProcess) -> None:
    """Two calls of asyncio.run with one client, the first with calls still waiting. Seen red: the second hung."""
    client = kvzmq.connect_async(server.url)
    waiting: list[asyncio.Future[Any]] = []

    async def first() -> None:
        await client.insert("k", 1)
        waiting.extend(asyncio.ensure_future(client.lookup("k")) for _ in range(10))
        await asyncio.sleep(0)

    async def second() -> None:
        assert await client.lookup("k") == 1
        await client.close()

    run(first())
    run(second())


def test_a_loop_closed_under_waiting_calls_leaves_nothing_behind(server: ServerProcess) -> None:
    loop = asyncio.new_event_loop()
    client = kvzmq.connect_async(server.url)
    loop.run_until_complete(client.insert("k", 1))
    task = loop.create_task(client.lookup("k"))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    run(client.close())
    task.get_coro().close()  # what the interpreter would do
    del task, client
    gc.collect()


def test_closing_ends_the_calls_that_wait() -> None:
    router: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    port = router.bind_to_random_port("tcp://127.0.0.1")

    async def main() -> None:
        table = kvzmq.connect_async(f"tcp://127.0.0.1:{port}")
        tasks = [asyncio.ensure_future(table.lookup("k")) for _ in range(10)]
        await asyncio.sleep(0.1)
        await table.close()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(error, kvzmq.Timeout) and "closed" in str(error)

    try:
        run(main())
    finally:
        router.close()


def test_many_tasks_wait_without_more_in_flight_than_allowed(server: ServerProcess, asks_once: None) -> None:
    """5,000 tasks with 10 KB each: all are served, in requests of 1 MiB, 32 of them at a time."""

    async def main() -> None:
        async with kvzmq.connect_async(server.url) as table:
            before = (await table.stats())["requests"]
            text = "x" * 10_000
            await asyncio.gather(*(table.insert(f"k{number % 100}", text) for number in range(5_000)))
            requests = (await table.stats())["requests"] - before
            assert 45 < requests < 120

    run(main())


def test_descriptors_are_given_back(server: ServerProcess) -> None:
    async def main() -> None:
        async def once() -> None:
            async with kvzmq.connect_async(server.url) as table, table.watch():
                await table.ping()

        await once()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            await once()
        until_s = time.monotonic() + PATIENCE_S
        while len(os.listdir("/proc/self/fd")) > before + 5:  # libzmq's threads close theirs a little later
            assert time.monotonic() < until_s
            await asyncio.sleep(0.01)

    run(main())
