"""Clients and watches that other processes get: pickled, copied, forked, spawned; watches among other descriptors."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import multiprocessing
import os
import pickle
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from support.proxy import Proxy
from support.servers import PATIENCE_S, ServerProcess, wait_until

import kvzmq
from kvzmq.server.watches import PROGRESS_CHANGES

pytestmark = pytest.mark.usefixtures("transport")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data") as server:
        yield server


def in_child(work: Callable[[], None]) -> None:
    """Run `work` in a forked child; fail if it does not return."""
    gc.collect()  # what earlier tests have left is no child's to close: the threads of gRPC are not there
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            gc.collect()
            code = 0
        except BaseException as error:
            print(repr(error), flush=True)
        finally:
            os._exit(code)
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline_s:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(status) == 0


# ---- pickled and copied


def increment(table: kvzmq.Client, times: int) -> str:
    """What a worker does."""
    for _ in range(times):
        table.increment("n")
    return repr(table)


def increment_async(table: kvzmq.AsyncClient, times: int) -> str:
    async def work() -> None:
        async with table:
            for _ in range(times):
                await table.increment("n")

    asyncio.run(work())
    return repr(table)


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
@pytest.mark.parametrize("work", [increment, increment_async])
def test_a_client_goes_to_another_process(server: ServerProcess, method: Any, work: Any) -> None:
    """As an argument to a worker, and with a queue of work, as a pool has it. Seen red before clients pickled."""
    make = kvzmq.connect if work is increment else kvzmq.connect_async
    client = make(server.url).namespace("jobs/")
    with kvzmq.connect(server.url) as table, multiprocessing.get_context(method).Pool(2) as pool:
        shown = pool.starmap(work, [(client, 50)] * 4)
        assert table["jobs/n"] == 200
        assert all(server.url in one and "'jobs/'" in one for one in shown)


@pytest.mark.parametrize("make", [kvzmq.connect, kvzmq.connect_async])
def test_what_is_pickled_is_url_timeout_and_prefix(make: Any) -> None:
    client = make("tcp://127.0.0.1:1,ipc:///x", timeout=7, context=zmq.Context()).namespace("a/")
    back = pickle.loads(pickle.dumps(client))
    assert type(back) is type(client) and repr(back) == repr(client)
    assert back._connection.timeout_s == 7
    assert back._connection is not client._connection
    assert back.namespace("b/")._connection is back._connection


def test_an_unpickled_client_closes_only_its_own_connection(server: ServerProcess) -> None:
    with kvzmq.connect(server.url) as table:
        table["k"] = 1
        with pickle.loads(pickle.dumps(table)) as other:
            assert other["k"] == 1
        assert table["k"] == 1
        with pytest.raises(ValueError, match="closed"):
            other["k"]


def test_forgotten_clients_leave_no_descriptors(server: ServerProcess) -> None:
    """A pool unpickles its client for every task."""
    with kvzmq.connect(server.url) as table:
        table["k"] = 1
        data = pickle.dumps(table)

        def ask(times: int) -> int:
            for _ in range(times):
                assert pickle.loads(data)["k"] == 1
            gc.collect()
            return len(os.listdir("/proc/self/fd"))

        ask(3)
        before = len(os.listdir("/proc/self/fd"))
        ask(30)
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before + 6, what="as few descriptors as before")


@dataclasses.dataclass
class Service:
    table: Any


@pytest.mark.parametrize("copied", [
    copy.copy, copy.deepcopy, lambda table: copy.deepcopy([table])[0],
    lambda table: dataclasses.asdict(Service(table))["table"],
])  # fmt: skip
def test_a_copy_shares_the_connection_and_does_not_close_it(server: ServerProcess, copied: Any) -> None:
    """Seen red with copies that closed the original's connection."""
    with kvzmq.connect(server.url) as table:
        robots = table.namespace("robots/")
        with copied(robots) as same:
            same["a"] = 1
            assert same._connection is table._connection and repr(same) == repr(robots)
        assert robots["a"] == 1
        with pytest.raises(ValueError, match="closed"):
            same["a"]

    async def main() -> None:
        async with kvzmq.connect_async(server.url) as table:
            async with copied(table) as same:
                assert await same.lookup("robots/a") == 1
            assert await table.lookup("robots/a") == 1

    asyncio.run(main())


# ---- forked


def unread(changes: kvzmq.Watch) -> bool:
    """Whether something has come that nobody has read: some sockets know, of others the descriptors do."""
    socket = changes._channel.socket
    assert socket is not None
    return socket.readable or bool(select.select(list(socket.descriptors), [], [], 0)[0])


def test_an_asyncio_client_is_used_in_a_forked_child(server: ServerProcess) -> None:
    """Also while the parent's loop is not closed. Seen red with the parent's sockets in the child."""
    table = kvzmq.connect_async(server.url)
    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(table.increment("n")) == 1

        def work() -> None:
            assert asyncio.run(table.increment("n")) == 2

        in_child(work)
        for number in range(3, 30):
            assert loop.run_until_complete(table.increment("n")) == number
        in_child(lambda: asyncio.run(table.close()))
        assert loop.run_until_complete(table.increment("n")) == 30
        loop.run_until_complete(table.close())
    finally:
        loop.close()


def test_a_watch_is_not_a_forked_childs(server: ServerProcess) -> None:
    """The child is told at once, and the parent misses nothing. Seen red with a child that asked for ever."""
    with kvzmq.connect(server.url) as table, table.watch() as changes:
        table["a"] = 1
        changes.get(PATIENCE_S)
        table["b"] = 2
        wait_until(lambda: unread(changes))

        def work() -> None:
            began_s = time.process_time()
            for call in (
                lambda: changes.get(0.5),
                lambda: next(changes),
                changes.start,
                changes.progress,
                changes.fileno,
            ):
                with pytest.raises(RuntimeError, match=r"from_revision=watch\.revision"):
                    call()
            assert time.process_time() - began_s < 1
            with table.watch(from_revision=changes.revision) as mine:
                assert mine.get(PATIENCE_S).key == "b"
            changes.close()
            assert list(changes) == []

        in_child(work)
        table["c"] = 3
        assert [changes.get(PATIENCE_S).key, changes.get(PATIENCE_S).key] == ["b", "c"]


def test_an_asyncio_watch_is_not_a_forked_childs(server: ServerProcess) -> None:
    loop = asyncio.new_event_loop()
    table = kvzmq.connect_async(server.url)
    changes = table.watch()
    try:
        loop.run_until_complete(changes.start())
        loop.run_until_complete(table.insert("a", 1))
        assert loop.run_until_complete(changes.get(PATIENCE_S)).key == "a"

        async def in_the_child() -> None:
            for call in (
                lambda: changes.get(0.5),
                lambda: changes.start(),
                lambda: changes.progress(),
                lambda: changes.__anext__(),
            ):
                with pytest.raises(RuntimeError, match=r"from_revision=watch\.revision"):
                    await call()
            await changes.close()
            assert [event async for event in changes] == []

        in_child(lambda: asyncio.run(in_the_child()))
        loop.run_until_complete(table.insert("b", 2))
        assert loop.run_until_complete(changes.get(PATIENCE_S)).key == "b"
        loop.run_until_complete(changes.close())
        loop.run_until_complete(table.close())
    finally:
        loop.close()


# ---- among other descriptors


def drain(changes: kvzmq.Watch) -> list[Any]:
    values = []
    while True:
        try:
            values.append(changes.get(timeout=0).value)
        except kvzmq.Timeout:
            return values


def poll_zmq(changes: kvzmq.Watch) -> Callable[[float], bool]:
    poller = zmq.Poller()
    poller.register(changes, zmq.POLLIN)
    return lambda wait_s: bool(poller.poll(int(wait_s * 1000)))


def poll_select(changes: kvzmq.Watch) -> Callable[[float], bool]:
    return lambda wait_s: bool(select.select([changes], [], [], wait_s)[0])


@pytest.mark.parametrize("waiter", [poll_zmq, poll_select])
def test_a_watch_is_waited_for_among_others(server: ServerProcess, waiter: Any) -> None:
    """Every event comes by waiting for the descriptor alone, none is left behind; it is quiet when there is none."""
    with kvzmq.connect(server.url) as table, table.watch("c") as changes:
        ready = waiter(changes)
        assert drain(changes) == []
        seen: list[int] = []
        written = 0
        for size in (1, 2, 500, 3000, 1, 1):
            table.insert_many({f"c{number:05}": number for number in range(written, written + size)})
            table.insert_many({f"other{number}": 0 for number in range(2500)})
            written += size
            while len(seen) < written:
                assert ready(PATIENCE_S), f"{len(seen)} of {written}"
                seen += drain(changes)
        assert seen == list(range(written))
        wait_until(lambda: not drain(changes) and not ready(0.05), what="quiet")


def test_a_watchs_descriptor_stays_when_its_socket_is_another(tmp_path: Path) -> None:
    """Another server is tried, with another socket, and the first one found again. Seen red without `follow`."""
    with ServerProcess(tmp_path / "data") as server, Proxy(int(server.url.rpartition(":")[2])) as proxy:
        url = f"{proxy.url},tcp://127.0.0.1:1"
        with kvzmq.connect(server.url) as table, kvzmq.connect(url).watch() as changes:
            ready = poll_zmq(changes)
            number = changes.fileno()
            for value in range(2):
                first = changes._channel.socket
                proxy.refuse()
                wait_until(lambda first=first: drain(changes) or changes._channel.socket not in (first, None))  # type: ignore[misc]
                proxy.flow()
                table["k"] = value
                seen: list[int] = []
                wait_until(lambda seen=seen: seen.extend(drain(changes)) or seen)  # type: ignore[misc]
                wait_until(lambda: drain(changes) or not ready(0.05), what="quiet")
                table["k"] = "soon"
                assert ready(PATIENCE_S)
                wait_until(lambda seen=seen: seen.extend(drain(changes)) or len(seen) == 2)  # type: ignore[misc]
                assert seen == [value, "soon"]
                assert changes.fileno() == number


def test_a_watch_does_not_say_that_nothing_came_while_something_is_unread(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look takes a bounded number of messages, which may all tell of others' changes. The descriptor is quiet then.

    Seen red without the look at what is unread before Timeout.
    """
    monkeypatch.setattr("kvzmq.client.core.socket.FRAMES_MAX", 1)
    with kvzmq.connect(server.url) as table, table.watch("c") as changes:
        ready = poll_zmq(changes)
        for value in range(5):
            drain(changes)
            for _ in range(3):
                table.insert_many({f"other{number}": 0 for number in range(PROGRESS_CHANGES)})
            table["c"] = value
            seen: list[int] = []
            wait_until(lambda: unread(changes))
            while not seen:
                seen += drain(changes)
                assert seen or ready(PATIENCE_S)
            assert seen == [value]


def test_a_closed_watch_has_no_descriptor(server: ServerProcess) -> None:
    with kvzmq.connect(server.url) as table:
        changes = table.watch()
        changes.fileno()
        changes.close()
        with pytest.raises(ValueError, match="closed"):
            changes.fileno()


def test_a_loop_waits_for_a_blocking_watch(server: ServerProcess) -> None:
    async def main(table: kvzmq.Client, changes: kvzmq.Watch) -> list[Any]:
        seen: list[Any] = drain(changes)
        done = asyncio.Event()

        def on_ready() -> None:
            seen.extend(drain(changes))
            if len(seen) >= 300:
                done.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(changes, on_ready)
        for value in range(300):
            await asyncio.to_thread(table.insert, "k", value)
        await asyncio.wait_for(done.wait(), PATIENCE_S)
        loop.remove_reader(changes)
        return seen

    with kvzmq.connect(server.url) as table, table.watch() as changes:
        assert asyncio.run(main(table, changes)) == list(range(300))
