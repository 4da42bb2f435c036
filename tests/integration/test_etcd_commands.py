"""The command line on a server whose log is in etcd: tests of the commands, word for word, over another log.

Each test is a function of another module, which runs it over the log in a directory.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from integration.test_cli_table import (
    run,
    table,
    test_a_watch_from_the_future_is_refused,
    test_bytes_come_back_through_a_pipe_as_they_went_in,
    test_cas_changes_only_what_is_expected,
    test_export_and_import_give_the_same_table,
    test_export_and_import_keep_times_to_live,
    test_import_reads_a_file_and_removes_what_is_said_to_be_removed,
    test_import_stops_at_a_bad_line_with_its_number_and_what_is_done,
    test_incr_takes_negative_and_broken_numbers,
    test_items_go_through_many_pages,
    test_json_for_machines_carries_the_revision_of_a_write,
    test_lookup_of_several_shows_rows_and_names_the_missing,
    test_odd_keys_go_in_and_come_back,
    test_ping_and_stats,
    test_query_keys_and_items,
    test_remove_of_one_or_several,
    test_setdefault_prints_what_is_there,
    test_ttl_shows_and_sets,
    test_watch_of_a_query_follows_what_matches,
    test_watch_prints_each_change_from_a_revision_on,
)
from support.etcd_cluster import EtcdCluster
from support.servers import ServerProcess

__all__ = [
    "run",
    "table",
    "test_a_watch_from_the_future_is_refused",
    "test_bytes_come_back_through_a_pipe_as_they_went_in",
    "test_cas_changes_only_what_is_expected",
    "test_export_and_import_give_the_same_table",
    "test_export_and_import_keep_times_to_live",
    "test_import_reads_a_file_and_removes_what_is_said_to_be_removed",
    "test_import_stops_at_a_bad_line_with_its_number_and_what_is_done",
    "test_incr_takes_negative_and_broken_numbers",
    "test_items_go_through_many_pages",
    "test_json_for_machines_carries_the_revision_of_a_write",
    "test_lookup_of_several_shows_rows_and_names_the_missing",
    "test_odd_keys_go_in_and_come_back",
    "test_ping_and_stats",
    "test_query_keys_and_items",
    "test_remove_of_one_or_several",
    "test_setdefault_prints_what_is_there",
    "test_ttl_shows_and_sets",
    "test_watch_of_a_query_follows_what_matches",
    "test_watch_prints_each_change_from_a_revision_on",
]


@pytest.fixture(scope="module")
def server(etcd_cluster: EtcdCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = etcd_cluster.url(f"commands-{secrets.token_hex(4)}")
    with ServerProcess(tmp_path_factory.mktemp("table") / "data", "--log", log, bridge=True) as running:
        yield running
