"""Clients of several servers of one table: they go on while one of these dies, hangs or is cut off from the log."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.client_shells import SHELLS, open_shell
from support.servers import wait_until
from support.shared_servers import SharedServer, SharedServers
from support.told import told

import kvzmq
from kvzmq.catalog.server import CatalogServer
from kvzmq.client.core import push_channel
from kvzmq.protocol.limits import HEARTBEAT_S
from kvzmq.server import hearing

TIMEOUT_S = 60.0


@pytest.fixture
def servers() -> Iterator[SharedServers]:
    with SharedServers(2) as servers:
        yield servers


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def serving(servers: SharedServers, table: Any) -> SharedServer:
    """Return the server that a client uses: on a busy machine it may have left one that was slow to answer."""
    while True:
        before = counts(servers)
        table.ping()
        found = [server for server, count in zip(servers, before) if server.server.dispatcher.requests > count]
        if len(found) == 1:
            return found[0]


def counts(servers: SharedServers) -> list[int]:
    return [server.server.dispatcher.requests for server in servers]


def kill(server: SharedServer) -> None:
    server.kill()


def hang(server: SharedServer) -> None:
    server.stop_stepping()


def cut_off(server: SharedServer) -> None:
    server.log.is_cut_off = True


@pytest.mark.parametrize("fail", [kill, hang, cut_off], ids=lambda fail: str(fail.__name__))
def test_a_client_goes_on_at_another_server_within_its_deadline(servers: SharedServers, shell: str, fail: Any) -> None:
    """Red when Unavailable and WriteRejected were the call's errors, and when a hanging server was waited for."""
    with open_shell(shell, servers.url, TIMEOUT_S) as table:
        table.increment("n")
        fail(serving(servers, table))
        assert table.increment("n") == 2
        assert table.lookup("n") == 2


@pytest.mark.parametrize("shell", ["blocking", "asyncio"])
def test_a_client_that_only_reads_leaves_a_server_that_is_cut_off(servers: SharedServers, shell: str) -> None:
    with kvzmq.connect(servers[0].url) as table:
        table.insert("a", 1)
    with open_shell(shell, servers.url, TIMEOUT_S) as table:
        assert table.lookup("a") == 1
        cut = serving(servers, table)
        cut_off(cut)
        with kvzmq.connect(next(server.url for server in servers if server is not cut)) as other:
            other.insert("a", 2)
        assert table.lookup("a") == 2


def test_with_no_other_server_the_error_says_why_at_the_deadline(servers: SharedServers) -> None:
    with kvzmq.connect(servers[0].url, TIMEOUT_S) as table:
        table.insert("a", 1)
        cut_off(servers[0])
        began_s = time.monotonic()
        told(lambda timeout_s: table.lookup("a", timeout=timeout_s), "cut off", kvzmq.Unavailable)
        told(lambda timeout_s: table.insert("a", 2, timeout=timeout_s), "not applied", kvzmq.WriteRejected)
        assert time.monotonic() - began_s > 0.9
        assert table.ping() < TIMEOUT_S and table.stats()["barrier_trouble"]
        servers[0].log.is_cut_off = False
        assert table.lookup("a", timeout=TIMEOUT_S) == 1


def test_a_server_that_is_back_in_time_answers_what_was_refused(servers: SharedServers) -> None:
    with kvzmq.connect(servers[0].url, TIMEOUT_S) as table:
        table.insert("a", 1)
        cut_off(servers[0])
        threading.Timer(0.5, lambda: setattr(servers[0].log, "is_cut_off", False)).start()
        assert table.increment("a") == 2


def test_a_retry_at_another_server_gets_the_first_result(servers: SharedServers) -> None:
    """Guarantee 5. The first server executes it, and its reply is lost."""
    with kvzmq.connect(servers.url, TIMEOUT_S) as table:
        table.increment("n")
        first = serving(servers, table)
        first.router.send = lambda peer, reply: None  # type: ignore[method-assign]
        assert table.increment("n") == 2
        assert servers.shared.last >= 3
        assert table.lookup("n") == 2


@pytest.mark.parametrize("fail", [kill, hang, cut_off], ids=lambda fail: str(fail.__name__))
@pytest.mark.parametrize("shell", ["blocking", "asyncio"])
def test_a_watch_goes_on_at_another_server_without_a_gap(
    servers: SharedServers, shell: str, fail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guarantee 16. Red when the watch was not told of the epoch that a server began which joined later."""
    monkeypatch.setattr(hearing, "ASK_S", 0.2)
    monkeypatch.setattr(hearing, "CUT_OFF_S", 0.5)
    monkeypatch.setattr(push_channel, "SILENCE_S_MAX", HEARTBEAT_S + 1)
    with open_shell(shell, servers.url, TIMEOUT_S) as table, table.watch("k") as watch:
        wait_until(lambda: sum(len(server.server.dispatcher.watches) > 0 for server in servers) == 1, what="the watch")
        (watching,) = [server for server in servers if len(server.server.dispatcher.watches)]
        joined = servers.add()
        with kvzmq.connect(joined.url, TIMEOUT_S) as writer:
            for number in range(5):
                writer.insert(f"k{number}", number)
            seen = [watch.get(TIMEOUT_S).value for _ in range(3)]
            fail(watching)
            for number in range(5, 10):
                writer.insert(f"k{number}", number)
            seen += [watch.get(TIMEOUT_S).value for _ in range(7)]
        assert seen == list(range(10))


def test_a_session_read_at_another_server_sees_what_the_client_has_written(servers: SharedServers) -> None:
    """Guarantee 16. Red when the request carried no revision: the other server had not heard of the write."""
    with kvzmq.connect(servers.url, TIMEOUT_S, reads="session") as table:
        table.insert("a", 0)
        first = serving(servers, table)
        (second,) = [server for server in servers if server is not first]
        wait_until(lambda: second.store.revision == 1)
        second.log.is_cut_off = True  # it is behind from here on
        table.insert("a", 1)
        first.kill()

        def hear_again() -> None:
            second.log.is_cut_off = False
            second.log.wake()

        threading.Timer(0.5, hear_again).start()
        assert table.lookup("a") == 1


def test_what_a_watch_has_seen_counts_for_session_reads(servers: SharedServers) -> None:
    with kvzmq.connect(servers.url, TIMEOUT_S, reads="session") as table, table.watch() as watch:
        with kvzmq.connect(servers[0].url) as writer:
            writer.insert("a", 1)
        assert watch.get(TIMEOUT_S).value == 1
        assert table.revision == 1
        assert table.lookup("a") == 1


@pytest.mark.parametrize("reads", ["session", "local"])
def test_reads_that_ask_for_less_are_answered_by_a_server_that_is_cut_off(servers: SharedServers, reads: Any) -> None:
    with kvzmq.connect(servers[0].url, TIMEOUT_S, reads=reads) as table:
        table.insert("a", 1)
        barriers, began_s = servers[0].log.barriers, time.monotonic()
        cut_off(servers[0])
        for _ in range(20):
            assert table.lookup("a") == 1 and table.size() == 1 and list(table) == ["a"]
        timed = 2 + (time.monotonic() - began_s) // (hearing.ASK_S / 4)
        assert servers[0].log.barriers <= barriers + timed, "of the timer alone"


def test_many_clients_count_exactly_while_servers_come_and_go(servers: SharedServers) -> None:
    """Guarantee 5: every server fails in its turn, and every increment counts once."""
    servers.add()
    url = servers.url
    failures: list[BaseException] = []
    totals: list[int] = []
    stop = threading.Event()

    def work() -> None:
        done = 0
        try:
            with kvzmq.connect(url, TIMEOUT_S) as table:
                while not stop.is_set():
                    table.increment("n")
                    done += 1
        except BaseException as failure:
            failures.append(failure)
        totals.append(done)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for server, fail in zip(itertools.cycle(servers), (cut_off, hang, cut_off, hang)):
        time.sleep(0.3)
        fail(server)
        time.sleep(0.5)
        server.log.is_cut_off = False
        server.go_on()
    stop.set()
    for thread in threads:
        thread.join(2 * TIMEOUT_S)
    assert not failures
    with kvzmq.connect(servers[1].url) as table:
        assert table.lookup("n") == sum(totals)


def test_a_project_leads_to_another_of_its_servers(servers: SharedServers, shell: str) -> None:
    """Each server is announced; the one in use is cut off, then the other one killed."""
    catalog = CatalogServer("127.0.0.1", 0)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            catalog.step(0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for number, server in enumerate(servers, start=1):
            fields = {"type": "hashtable", "project": "robots", "port": number, "endpoint": server.url}
            catalog.catalog.update("127.0.0.1", json.dumps(fields | server.store.identity()).encode())
        with open_shell(shell, f"catalog://127.0.0.1:{catalog.port}/robots", TIMEOUT_S) as table:
            table.increment("n")
            first = serving(servers, table)
            cut_off(first)
            assert table.increment("n") == 2
            (second,) = [server for server in servers if server is not first]
            first.log.is_cut_off = False
            second.kill()
            assert table.increment("n") == 3
    finally:
        stop.set()
        thread.join(TIMEOUT_S)
        catalog.close()


@pytest.mark.parametrize("shell", ["blocking", "asyncio"])
def test_a_watch_goes_past_another_table_and_ends_where_no_other_server_has_its_own(
    servers: SharedServers, shell: str
) -> None:
    """Guarantee 12. Red when the first server that it met with another table ended it."""
    with SharedServers(1) as others, open_shell(shell, servers.url, TIMEOUT_S) as home:
        home.insert("k", 1)
        lineage = servers[0].store.identity()["lineage"]
        url = f"{servers[0].url},{others.url}"
        with contextlib.ExitStack() as tables:
            table = tables.enter_context(open_shell(shell, url, TIMEOUT_S))
            while table.stats()["lineage"] != lineage:  # it has come to the other table first
                table = tables.enter_context(open_shell(shell, url, TIMEOUT_S))
            for _ in range(4):  # each begins at a random one of the two
                with table.watch("k", 0) as watch:
                    assert watch.get(TIMEOUT_S).value == 1
            with table.watch("k") as watch:
                servers[0].kill()
                with pytest.raises(kvzmq.TableChanged):
                    watch.get(TIMEOUT_S)


def test_another_table_under_one_of_the_urls_is_told_not_used(servers: SharedServers) -> None:
    """Guarantee 12."""
    with SharedServers(1) as others, kvzmq.connect(f"{servers[0].url},{others.url}", TIMEOUT_S) as table:
        table.ping()
        home = table._connection.lineage
        tables = {
            servers[0].store.identity()["lineage"]: servers[0],
            others[0].store.identity()["lineage"]: others[0],
        }
        tables[home].kill()
        (other,) = [server for lineage, server in tables.items() if lineage != home]
        told(lambda timeout_s: table.insert("a", 1, timeout=timeout_s), "another table", kvzmq.TableChanged)
        assert other.store.revision == 0
