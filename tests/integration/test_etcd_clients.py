"""Clients of a server whose log is in etcd: tests of the clients, word for word, over another log.

Each test is a function of another module, which runs it over the log in a directory. Here every server that it starts
has its log in the session's cluster, one table for all servers of a test; but one whose directory holds a table, such
as a backup was restored to, serves that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from integration import test_client_reconnects, test_client_watches
from integration.test_backup import (
    test_a_backup_under_load_is_the_table_at_its_revision,
    test_a_restored_table_knows_what_a_retry_got_and_lets_rows_expire,
)
from integration.test_client_asyncio import (
    test_an_unsent_cancelled_write_is_not_executed,
    test_cancelled_calls_never_mix_up_replies,
    test_what_tasks_ask_in_one_turn_travels_together,
)
from integration.test_client_threads import (
    test_increments_of_threads_add_up,
    test_interrupts_anywhere_leave_a_client_that_works,
    test_operations_of_all_kinds_at_once,
    test_threads_share_messages_and_never_get_each_others_replies,
)
from integration.test_client_watches import (
    test_cancelling_an_iteration_loses_no_event,
    test_many_watches_of_one_client,
)
from integration.test_monitor import test_a_monitor_goes_on_after_a_restart_and_says_so
from support.etcd_cluster import EtcdCluster
from support.servers import ServerProcess

import kvzmq
from kvzmq.store.offline.reading import NAMES

__all__ = [
    "test_a_backup_under_load_is_the_table_at_its_revision",
    "test_a_monitor_goes_on_after_a_restart_and_says_so",
    "test_a_restored_table_knows_what_a_retry_got_and_lets_rows_expire",
    "test_an_unsent_cancelled_write_is_not_executed",
    "test_cancelled_calls_never_mix_up_replies",
    "test_cancelling_an_iteration_loses_no_event",
    "test_increments_of_threads_add_up",
    "test_interrupts_anywhere_leave_a_client_that_works",
    "test_many_watches_of_one_client",
    "test_operations_of_all_kinds_at_once",
    "test_threads_share_messages_and_never_get_each_others_replies",
    "test_what_tasks_ask_in_one_turn_travels_together",
]

TIMEOUT_S = 60.0


@pytest.fixture(autouse=True)
def log_in_etcd(etcd_cluster: EtcdCluster, etcd_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the servers of a test share one log in etcd."""
    command_in_a_directory = ServerProcess.command

    def command(self: ServerProcess) -> list[str]:
        has_table = any((self.data / name).exists() for name in NAMES)
        return [*command_in_a_directory(self), *(() if has_table else ("--log", etcd_cluster.url(etcd_name)))]

    monkeypatch.setattr(ServerProcess, "command", command)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data", bridge=True) as server:
        with kvzmq.connect(server.url, TIMEOUT_S) as table:
            assert table.stats()["log_shared"]
        yield server


@pytest.fixture
def table(server: ServerProcess) -> Iterator[kvzmq.Client]:
    with kvzmq.connect(server.url, TIMEOUT_S) as table:
        yield table


# ---- with each of the blocking and the asyncio client, over one transport, as this is about the server


KINDS = ("blocking", "asyncio")


@pytest.mark.parametrize("kind", KINDS)
def test_no_gaps_and_no_repeats_through_kills_and_cuts(
    kind: str, server: ServerProcess, full: bool, count: Callable[[str, int], None]
) -> None:
    test_client_watches.test_no_gaps_and_no_repeats_through_kills_and_cuts(kind, server, full, count)


@pytest.mark.parametrize("kind", KINDS)
def test_a_watch_that_nothing_concerns_keeps_its_place(kind: str, server: ServerProcess) -> None:
    test_client_watches.test_a_watch_that_nothing_concerns_keeps_its_place(kind, server)


@pytest.mark.parametrize("kind", KINDS)
def test_a_remove_whose_reply_was_lost_returns_also_after_a_restart(kind: str, server: ServerProcess) -> None:
    test_client_reconnects.test_a_remove_whose_reply_was_lost_returns_also_after_a_restart(kind, server)
