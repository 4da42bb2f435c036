"""Planted faults: does every guarantee's test go red when the guarantee is broken?

    python tests/mutants.py            all of them; exits 1 if one survives
    python tests/mutants.py NAME ...   those whose names begin so
    python tests/mutants.py --list     the table without running anything
    python tests/mutants.py --jobs 4   four at a time

Each mutant is one edit of the package's source. The script copies the package to a temporary
directory, makes the edit there, runs the named test with PYTHONPATH pointing at the copy, and
expects it to fail. A snippet that does not stand exactly once in its file is an error, so the list
cannot rot unseen; so is a test that fails without any mutant.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 300


class Mutant(NamedTuple):
    """One planted fault.

    name       what it breaks, for people
    file       the file under kvzmq/
    snippet    what stands there, exactly once
    replaced   what stands there instead
    test       the pytest node that has to fail
    guarantee  the number in docs/guarantees.md that it breaks
    """

    name: str
    file: str
    snippet: str
    replaced: str
    test: str
    guarantee: int


KEPT = "tests/unit/test_etcd_checkpoints.py::"
UPKEEP = "tests/unit/test_etcd_upkeep.py::"
COPIED = "tests/unit/test_etcd_local_copy.py::"
LINEAGE = "tests/integration/test_lineage.py::"
READS = "tests/unit/test_reads.py::"
SEVERAL = "tests/integration/test_several_servers.py::"
ZMTP = "tests/unit/test_zmtp.py::"
PLAIN = "tests/unit/test_plain_socket.py::"
ZMTP_CONVERSATIONS = ZMTP + "test_a_conversation_gives_the_same_however_it_is_cut"
WATCHES = "tests/unit/test_watches.py::"
CRASH = "tests/fault/test_crash_points.py::test_every_crash_point_recovers_what_was_acknowledged[power]"
RECOVERY = "tests/fault/test_crash_points.py::test_a_crash_at_every_call_of_the_recovery_loses_nothing"
FAILED_LOG = "tests/unit/test_file_log.py::test_after_"
ETCD = "tests/contract/test_etcd_log.py::"
HISTORY = "tests/fault/test_forgetful_disk.py::test_no_history_on_a_forgetful_disk_loses_what_was_acknowledged"
CALLS = "tests/fault/test_failing_calls.py::"
FILES = "tests/unit/test_file_log.py::"
LOG = "tests/contract/test_log_contract.py::"
SESSIONS = "tests/unit/test_sessions.py::"
TABLE = "tests/unit/test_table.py::"
KILLED = "tests/fault/test_process_kill.py::test_kill_9_under_load_loses_nothing_and_repeats_nothing"
POWER = "tests/fault/test_process_power_loss.py::test_power_cuts_lose_nothing_acknowledged"
LINEARIZABLE = (
    "tests/fault/test_process_linearizability.py::test_what_clients_see_is_linearizable_through_kills_and_restarts"
)
CALLED = "tests/fault/test_process_syscalls.py::"
COMPACTED = "tests/fault/test_process_compaction.py::"
TIMED = "tests/fault/test_process_time.py::"
SESSION = "tests/unit/test_client_session.py::"
COSTLY = "tests/unit/test_costly_requests.py::"
DISPATCHER = "tests/unit/test_dispatcher.py::"
OPERATIONS = "tests/unit/test_operations.py::"
SHARED = "tests/unit/test_shared_log_server.py::"
BUSY = "tests/unit/test_busy_server.py::"
FILLED = "tests/fault/test_process_full_disk.py::"
BACKUPS = "tests/unit/test_backups.py::"
BACKUP = "tests/integration/test_backup.py::"
BACKED_UP = "tests/fault/test_process_backup.py::"
RESTORES = "tests/unit/test_backup_files.py::"
RESTORED = (
    "tests/fault/test_restore.py::test_a_restore_that_is_cut_off_leaves_the_old_table_the_new_one_or_none_that_starts"
)
CONFIG = "tests/unit/test_cli_config.py::"
SERVICE = "tests/integration/test_service.py::"

# fmt: off
MUTANTS: list[Mutant] = [
    # ---- requests that would hold everybody up
    Mutant(
        "booleans taken for numbers", "store/equality.py",
        "    return _same_booleans(decoded, wanted)", "    return True",
        COSTLY + "test_booleans_are_told_from_numbers_at_every_depth", 4,
    ),
    Mutant(
        "a large value decoded to be compared with a small one", "store/table.py",
        "            if longer > ENCODING_RATIO_MAX * shorter:", "            if False:",
        COSTLY + "test_a_large_value_is_not_decoded_to_be_compared_with_a_small_one", 9,
    ),
    Mutant(
        "bytes compared not counted over a request", "store/budget.py",
        "        self._compared_bytes += size", "        self._compared_bytes = size",
        COSTLY + "test_one_request_compares_so_many_bytes", 9,
    ),
    Mutant(
        "an index of plain numbers", "store/equality.py",
        "    data = _encode(_whole(value) if kind is float else value)",
        "    if kind is int or kind is float:\n        return value\n    data = _encode(_whole(value) if kind is float else value)",
        COSTLY + "test_an_index_holds_nothing_whose_hash_can_be_chosen", 9,
    ),
    Mutant(
        "an index that keeps long subvalues", "store/equality.py",
        "        return value if len(value) <= _SHORT else _digest(_encode(value))", "        return value",
        COSTLY + "test_what_an_index_holds_of_a_long_subvalue_is_short", 9,
    ),
    Mutant(
        "any number of arrays and maps in a value", "protocol/validation.py",
        "    if count > most:", "    if False:",
        COSTLY + "test_a_value_of_nothing_but_empty_arrays_is_refused", 9,
    ),
    Mutant(
        "heads of arrays seen within numbers", "protocol/validation.py",
        'b"%b*(%b?)" % (_SCALAR, _HEAD)', 'b"%b" % _HEAD',
        COSTLY + "test_arrays_and_maps_are_counted_right", 9,
    ),
    Mutant(
        "names without limit", "protocol/operations.py",
        "    if len(name or \"\") > KEY_CHARS_MAX:", "    if False:",
        COSTLY + "test_names_rows_and_transactions_have_limits", 9,
    ),
    Mutant(
        "rows of an operation without limit", "protocol/operations.py",
        "    if count > ROWS_MAX:", "    if False:",
        COSTLY + "test_names_rows_and_transactions_have_limits", 9,
    ),
    Mutant(
        "arrays and maps counted in each value alone", "protocol/validation.py",
        "    _check_count(data)\n    check = ", "    check = ",
        COSTLY + "test_a_value_of_nothing_but_empty_arrays_is_refused", 9,
    ),
    Mutant(
        "transactions without limit", "protocol/operations.py",
        "        if size > TRANSACTION_MAX:", "        if False:",
        COSTLY + "test_names_rows_and_transactions_have_limits", 9,
    ),
    Mutant(
        "rows looked through as often as one request likes", "store/budget.py",
        "        if self._scans > SCANS_MAX:", "        if False:",
        COSTLY + "test_one_request_looks_through_rows_so_often_and_finds_so_many", 9,
    ),
    Mutant(
        "rows found without limit", "store/budget.py",
        "        if self._semantics >= 2 and self._rows_found > ROWS_FOUND_MAX:", "        if False:",
        COSTLY + "test_one_request_looks_through_rows_so_often_and_finds_so_many", 9,
    ),
    Mutant(
        "much changed and looked through in one request", "store/budget.py",
        "            revision - self._revision_before > CHANGES_BEFORE_SCAN_MAX\n", "            False\n",
        COSTLY + "test_a_request_that_changes_much_looks_through_rows_afterwards_only_in_another_one", 9,
    ),
    Mutant(
        "changes during the building of an index not followed", "store/indexes.py",
        "            if next(self._building, self) is self:\n                self._building = None\n",
        "            if next(self._building, self) is self:\n                self._building = None\n                self.position = self._changes.end\n",
        COSTLY + "test_an_index_built_while_rows_change_is_the_one_built_at_once", 4,
    ),
    Mutant(
        "changes noted without bound", "store/indexes.py",
        "        changes.add(key, before, after)\n        if changes.bytes > CHANGES_BYTES_MAX or len(changes.keys) > CHANGES_MAX:",
        "        changes.add(key, before, after)\n        if False:",
        COSTLY + "test_who_is_too_far_behind_is_built_again", 9,
    ),
    Mutant(
        "indexes not bounded in bytes", "store/indexes.py",
        "        if len(self._by_subkey) <= INDEXES_MAX and self._subkey_bytes() <= INDEX_BYTES_MAX:\n            return",
        "        if len(self._by_subkey) <= INDEXES_MAX:\n            return",
        COSTLY + "test_indexes_are_bounded_in_bytes", 9,
    ),
    Mutant(
        "an index built at once however long it takes", "server/deferral.py",
        "and self._store.is_indexed(request)\n\n    def _is_overdue", "\n\n    def _is_overdue",
        COSTLY + "test_others_are_served_while_an_index_is_built_and_a_peer_keeps_its_order", 9,
    ),
    Mutant(
        "later requests overtake the one that waits", "server/deferral.py",
        "            if self._queues and peer in self._queues:", "            if False:",
        COSTLY + "test_others_are_served_while_an_index_is_built_and_a_peer_keeps_its_order", 4,
    ),
    Mutant(
        "waiting requests not bounded for each peer", "server/deferral.py",
        "                len(queue.arrivals) > WAITING_OF_ONE_MAX\n", "                False\n",
        COSTLY + "test_who_sends_too_much_meanwhile_is_refused_what_is_not_built", 9,
    ),
    Mutant(
        "waiting bytes not bounded in all", "server/deferral.py",
        "                or self._bytes > WAITING_BYTES_MAX\n", "",
        COSTLY + "test_who_sends_too_much_meanwhile_is_refused_what_is_not_built", 9,
    ),
    Mutant(
        "indexes built that drive each other out", "server/deferral.py",
        "        if self._store.fit_indexes(request):", "        if True:",
        COSTLY + "test_a_request_whose_indexes_are_too_large_together_is_refused", 9,
    ),
    Mutant(
        "much written and looked through in one group", "server/dispatcher.py",
        "            if written and request.scans and (request.writes or written > RELEASED_BYTES_MAX):", "            if False:",
        COSTLY + "test_a_step_that_wrote_much_looks_through_rows_after_the_indexes_have_followed", 9,
    ),
    Mutant(
        "reads of rows that are due", "store/table.py",
        "        if self._late and self.expiries.is_past(key, self.time_us):\n            return None", "        if False:\n            return None",
        COSTLY + "test_rows_that_are_due_are_gone_before_they_are_removed", 4,
    ),
    Mutant(
        "reads by themselves of rows that are due", "store/table.py", " is operations.Lookup and not self._late:", " is operations.Lookup:",
        COSTLY + "test_rows_that_are_due_are_gone_before_they_are_removed", 4,
    ),
    Mutant(
        "a row read by itself is sent at once, however large", "store/table.py",
        "            if value is not None and len(value) < LARGE_BYTES_MIN:", "            if value is not None:",
        "tests/unit/test_table.py::test_a_lookup_by_itself_is_answered_as_among_others", 9,
    ),
    Mutant(
        "writes that meet rows that are due", "store/table.py",
        "        if self._late and self.expiries.is_past(key, self.time_us):\n            self._drop(key)", "        if False:\n            self._drop(key)",
        COSTLY + "test_rows_that_are_due_are_gone_before_they_are_removed", 4,
    ),
    Mutant(
        "all rows that are due removed at once", "store/table.py",
        "EXPIRED_ROWS_MAX if bounded else None):", "None):",
        COSTLY + "test_rows_that_are_due_are_gone_before_they_are_removed", 9,
    ),
    Mutant(
        "rows that are due counted and listed", "server/deferral.py",
        "return not self._is_overdue(time_us) and self", "return self",
        COSTLY + "test_looking_through_rows_waits_for_those_that_are_due_unless_nothing_can_be_written", 4,
    ),
    Mutant(
        "stats made for each operation", "server/dispatcher.py",
        "        if self._described is None:", "        if True:",
        COSTLY + "test_stats_asked_often_in_one_request_are_made_once", 9,
    ),
    # ---- store, in process
    Mutant(
        "no sync in commit", "store/file/file_log.py",
        "        try:\n            self._file.sync()\n", "        try:\n            pass\n",
        CRASH, 1,
    ),
    Mutant(
        "no directory sync between the renames of a rotation", "store/file/file_log.py",
        "            directory.sync()\n            directory.rename(NAME_TMP, NAME)",
        "            directory.rename(NAME_TMP, NAME)",
        CRASH, 1,
    ),
    Mutant(
        "no directory sync after a rotation", "store/file/file_log.py",
        "            directory.rename(NAME_TMP, NAME)\n            directory.sync()",
        "            directory.rename(NAME_TMP, NAME)",
        CRASH, 1,
    ),
    Mutant(
        "no directory sync when a table is begun", "store/file/file_log.py",
        "        self.directory.rename(NAME_TMP, NAME)\n        self.directory.sync()",
        "        self.directory.rename(NAME_TMP, NAME)",
        CRASH, 1,
    ),
    Mutant(
        "no sync of a new log's header", "store/file/file_log.py",
        "            file.write(0, frames.encode_header(header))\n            file.sync()",
        "            file.write(0, frames.encode_header(header))",
        CRASH, 1,
    ),
    Mutant(
        "no sync of a new checkpoint", "store/file/checkpoint.py",
        "        length = _write_sections(file, group, sections)\n        file.sync()",
        "        length = _write_sections(file, group, sections)",
        CRASH, 8,
    ),
    Mutant(
        "no directory sync after a new checkpoint", "store/file/checkpoint.py",
        "        directory.rename(NAME_TMP, NAME)\n        directory.sync()",
        "        directory.rename(NAME_TMP, NAME)",
        CRASH, 8,
    ),
    Mutant(
        "the replaced checkpoint let go before its name is on the disk", "store/file/checkpoint.py",
        "            held.callback(directory.open(NAME).close)", "            pass",
        CRASH, 8,
    ),
    Mutant(
        "the sealed log let go before its removal is on the disk", "store/file/file_log.py",
        "            self.directory.unlink(NAME_SEALED)\n            self.directory.sync()",
        "            self.directory.unlink(NAME_SEALED)\n            self._sealed.close()  # type: ignore[attr-defined]\n"
        "            self._sealed = self.directory.create(\"other\")\n            self.directory.sync()",
        CRASH, 8,
    ),
    Mutant(
        "sealed log removed before the checkpoint is renamed", "store/store.py",
        "    log.write_checkpoint(Checkpoint(log.group, store.table.dump()))\n    log.truncate(log.group)",
        "    log.truncate(log.group)\n    log.write_checkpoint(Checkpoint(log.group, store.table.dump()))",
        CRASH, 8,
    ),
    Mutant(
        "checkpoint written over the old one", "store/file/checkpoint.py",
        "    file = directory.create(NAME_TMP)",
        "    file = directory.create(NAME)\n    directory.rename(NAME, NAME_TMP)",
        CRASH, 8,
    ),
    Mutant(
        "a late compaction compares only the name", "store/file/compaction.py",
        "        return present.read(0, HEADER_BYTES) == opened.read(0, HEADER_BYTES)",
        "        return True",
        "tests/fault/test_crash_points.py::test_a_late_compaction_does_not_remove_a_log_sealed_after_it_looked", 8,
    ),
    Mutant(
        "tail not made durable at recovery", "store/file/file_log.py",
        "        if end > start:\n            file.write(start, file.read(start, end - start))\n        file.sync()",
        "        pass",
        RECOVERY + "[power-kill]", 3,
    ),
    Mutant(
        "tail synced at recovery but not written again", "store/file/file_log.py",
        "        if end > start:\n            file.write(start, file.read(start, end - start))\n        file.sync()",
        "        file.sync()",
        CALLS + "test_what_a_failed_sync_left_in_the_cache_is_made_durable_before_it_is_shown", 3,
    ),
    Mutant(
        "names not made durable before a new log is begun", "store/file/file_log.py",
        "            # renamed over the old one's name must not be on the disk before the old one's new name is.\n"
        "            directory.sync()",
        "            pass",
        RECOVERY + "[power-kill]", 1,
    ),
    Mutant(
        "going on after a failed sync", "store/file/file_log.py",
        'raise self._fail(f"{self.directory.path / NAME}: sync failed: {error.strerror}") from error',
        "file.sync()",
        CALLS + "test_a_failing_call_is_answered_for_what_it_did[once-EIO-sync]", 6,
    ),
    Mutant(
        "not cut back after a failed write", "store/file/file_log.py",
        "            file.truncate(self.log_bytes)\n            file.sync()",
        "            pass",
        CALLS + "test_a_failing_call_leaves_no_part_of_a_refused_group_behind", 2,
    ),
    Mutant(
        "executed although it could not be written", "store/store.py",
        "            if reply is None and self.state is not _OPEN:", "            if False:",
        CALLS + "test_a_change_that_was_refused_is_not_there_and_runs_when_it_is_sent_again", 11,
    ),
    Mutant(
        "applied before the log has it", "store/store.py",
        "        try:\n            others = self.log.append(group)",
        "        for request, _ in step._writes:\n            self.table.execute(request)\n"
        "        try:\n            others = self.log.append(group)",
        CALLS + "test_a_change_that_was_refused_is_not_there_and_runs_when_it_is_sent_again", 11,
    ),
    Mutant(
        "half a checkpoint left behind", "store/file/checkpoint.py",
        "            directory.unlink(NAME_TMP)  # a disk",
        "            pass  # a disk",
        FILES + "test_a_checkpoint_that_cannot_be_written_leaves_no_half_of_it", 6,
    ),
    Mutant(
        "no payload CRC", "store/file/frames.py",
        "        if crc32(payload) != payload_crc:", "        if False:",
        FILES + "test_every_flipped_bit_of_a_log_is_found", 7,
    ),
    Mutant(
        "no payload CRC in a torn group", "store/file/frames.py",
        "        if crc32(payload) != payload_crc:", "        if False:",
        FILES + "test_any_subset_of_the_last_group_s_pages_recovers_a_prefix", 2,
    ),
    Mutant(
        "no frame header CRC", "store/file/frames.py",
        "        if found != mark or header_crc != crc32(window[at : at + _FRAME.size], salt_crc):",
        "        if found != mark:",
        FILES + "test_every_flipped_bit_of_a_log_is_found", 7,
    ),
    Mutant(
        "a later version is read as if it were this one", "store/file/frames.py",
        "    if semantics > SEMANTICS:", "    if False:",
        "tests/integration/test_earlier_versions.py::test_a_server_refuses_what_a_later_version_wrote", 7,
    ),
    Mutant(
        "no file header CRC", "store/file/frames.py",
        "    if _CRC.unpack_from(data, _HEADER.size)[0] != crc32(data[: _HEADER.size]):", "    if False:",
        FILES + "test_every_flipped_bit_of_a_checkpoint_is_found", 7,
    ),
    Mutant(
        "the checkpoint's footer not asked for", "store/file/checkpoint.py",
        '        raise errors.CorruptionError(f"{path}: offset {file.size()}: the footer is missing")', "        return",
        FILES + "test_every_prefix_of_a_checkpoint_and_anything_after_it_is_refused", 7,
    ),
    Mutant(
        "torn tail taken for damage", "store/file/file_log.py",
        "        if not last:\n            raise errors.CorruptionError(f\"{path}: {bad}: a sealed",
        "        if True:\n            raise errors.CorruptionError(f\"{path}: {bad}: a sealed",
        FILES + "test_every_prefix_of_a_log_recovers_an_exact_prefix", 2,
    ),
    Mutant(
        "damage taken for a torn tail", "store/file/file_log.py",
        "        if after is not None:\n            raise", "        if False:\n            raise",
        FILES + "test_every_flipped_bit_of_a_log_is_found", 7,
    ),
    Mutant(
        "a torn sealed log taken for the last log", "store/file/file_log.py",
        "        if not last:\n            raise", "        if False:\n            raise",
        FILES + "test_a_torn_sealed_log_is_damage", 7,
    ),
    Mutant(
        "a stored piece of the log taken for a frame of it", "store/file/file_log.py",
        "frames.find_frame(file, salt, bad.offset, expected + 1)", "frames.find_frame(file, salt, bad.offset)",
        FILES + "test_a_torn_group_that_holds_a_piece_of_its_own_log_is_a_torn_tail", 2,
    ),
    Mutant(
        "a missing log not noticed", "store/file/file_log.py",
        "        elif sealed_file is None and directory.exists(checkpoint.NAME):", "        elif False:",
        FILES + "test_a_log_missing_beside_a_checkpoint_is_refused", 1,
    ),
    Mutant(
        "a gap between the logs not noticed", "store/file/file_log.py",
        "        if expected > self.group + 1:", "        if False:",
        FILES + "test_a_log_is_missing_between_checkpoint_and_log", 1,
    ),
    Mutant(
        "sealed groups applied again", "store/file/file_log.py",
        "                if frame.number > self.group:\n", "                if True:\n",
        FILES + "test_a_sealed_log_already_in_the_checkpoint_is_not_applied_again", 8,
    ),
    Mutant(
        "sections of a checkpoint not bounded in bytes", "store/sections.py",
        "    if len(chunk) == 1 or sum(map(bytes_of, chunk)) <= _SECTION_BYTES:", "    if True:",
        TABLE + "test_no_section_outgrows_what_is_read_in_one_piece", 1,
    ),
    Mutant(
        "results not kept", "store/table.py",
        "            self.sessions.add(session, request.seq, cached)", "            pass",
        LOG + "test_a_retry_after_recovery_gets_the_first_result[file]", 5,
    ),
    Mutant(
        "results not in the checkpoint", "store/sessions.py",
        "[(seq, *astuple(reply)) for seq, reply in session.replies.items()]", "[]",
        CRASH, 5,
    ),
    Mutant(
        "floor ignored", "store/sessions.py",
        "            if seq <= session.floor:", "            if False:",
        SESSIONS + "test_numbers_below_the_floor_are_refused_not_executed", 5,
    ),
    Mutant(
        "a forgotten session opened again", "store/sessions.py",
        "            if seq == 1:", "            if True:",
        SESSIONS + "test_the_session_longest_silent_goes_first", 5,
    ),
    Mutant(
        "a number used for another request", "store/sessions.py",
        "        if reply.digest != digest:", "        if False:",
        SESSIONS + "test_a_number_may_not_be_used_twice", 5,
    ),
    Mutant(
        "a retry executed unlogged when its step pushed its session out", "store/store.py",
        "                cached = table.find_cached(request)\n                writes.append((request, cached))\n",
        "                cached = table.find_cached(request)\n                writes.append((request, None))\n",
        LOG + "test_a_retry_whose_session_its_own_step_pushes_out_is_answered_not_executed[file]", 5,
    ),
    Mutant(
        "results bounded in number alone", "store/sessions.py",
        "session.bytes + grown > CACHED_BYTES_MAX and len(session.replies) > 1", "False",
        SESSIONS + "test_results_are_bounded_in_bytes_but_the_latest_is_kept", 9,
    ),
    Mutant(
        "expiry by the local clock", "store/store.py",
        "        if frames or (table.expiries.deadlines and table.is_due(time_us)):\n", "        table.advance(time_us)\n        if frames:\n",
        LOG + "test_rows_expire_by_a_commit_of_their_own[file]", 2,
    ),
    Mutant(
        "time runs back", "store/table.py",
        "        self.time_us = max(self.time_us, time_us)\n", "        self.time_us = time_us\n",
        LOG + "test_the_table_s_time_never_runs_back[file]", 2,
    ),
    Mutant(
        "no barrier before a read", "store/store.py",
        "            groups = self.log.barrier()\n", "            groups: Sequence[bytes] = ()\n",
        LOG + "test_a_read_sees_what_the_other_store_has_acknowledged", 4,
    ),
    Mutant(
        "others' groups skipped", "store/store.py",
        "        for group in others:\n            self._replay(group)\n", "",
        LOG + "test_stores_on_one_log_stay_equal_under_interleaved_commits", 4,
    ),
    Mutant(
        "a rollback that forgets deadlines", "store/undo.py",
        "                rows[key] = before\n            expiries.set(key, deadline_us)\n",
        "                rows[key] = before\n",
        TABLE + "test_a_transaction_that_fails_leaves_no_trace", 2,
    ),
    Mutant(
        "a rollback that forgets the indexes", "store/table.py",
        "            self.history.add(key, before, after)\n            if self.indexes.active:\n                self.indexes.add(",
        "            self.history.add(key, before, after)\n        if True:\n            if self.indexes.active:\n                self.indexes.add(",
        TABLE + "test_a_transaction_that_fails_leaves_no_trace", 4,
    ),
    Mutant(
        "a short write taken for a whole one", "store/file/files.py",
        "            while written < len(data):", "            while False:",
        "tests/unit/test_files.py::test_a_short_write_goes_on_until_all_is_written", 1,
    ),
    Mutant(
        "the directory's own name not synced", "store/file/files.py",
        "        _sync_directory(path.parent)", "        pass",
        "tests/unit/test_files.py::test_every_directory_that_leads_to_the_table_is_synced", 1,
    ),
    # ---- real processes
    Mutant(
        "no fdatasync at all", "store/file/files.py",
        "            os.fdatasync(self._fd)", "            pass",
        POWER + "[ext4]", 1,
    ),
    Mutant(
        "no fsync of the directory at all", "store/file/files.py",
        "        try:\n            os.fsync(self._fd)", "        try:\n            pass",
        POWER + "[ext2]", 1,
    ),
    Mutant(
        "synced before it is written", "store/file/file_log.py",
        '        self._write(file, frame)\n'
        '        file.start_sync(self.log_bytes, len(frame))\n'
        '        self.group += 1\n'
        '        self.log_bytes += len(frame)\n'
        '        return ()\n'
        '\n'
        '    def sync(self) -> None:\n'
        '        """Return when what was appended is on the disk; see Log.sync."""\n'
        '        self._check()\n'
        '        assert self._file is not None, "sync before recover"\n'
        '        try:\n'
        '            self._file.sync()\n',
        '        file.sync()\n'
        '        self._write(file, frame)\n'
        '        file.start_sync(self.log_bytes, len(frame))\n'
        '        self.group += 1\n'
        '        self.log_bytes += len(frame)\n'
        '        return ()\n'
        '\n'
        '    def sync(self) -> None:\n'
        '        """Return when what was appended is on the disk; see Log.sync."""\n'
        '        self._check()\n'
        '        assert self._file is not None, "sync before recover"\n'
        '        try:\n'
        '            pass\n',
        POWER + "[ext4]", 3,
    ),
    Mutant(
        "replies sent while the disk works", "server/dispatcher.py",
        "        self._send(unsent, step.sync())\n",
        "        self._send(unsent, step._replies)\n        for arrival in arrivals:\n            arrival.transport.flush()\n"
        "        step.sync()\n",
        DISPATCHER + "test_no_reply_leaves_before_the_steps_changes_are_durable", 3,
    ),
    Mutant(
        "replies for which there is no room do not wait for the disk", "server/dispatcher.py",
        "                replies = step.release()\n", "                replies, step._replies = step._replies, []\n",
        DISPATCHER + "test_no_reply_leaves_before_the_steps_changes_are_durable", 3,
    ),
    Mutant(
        "replies sent although the sync has failed", "server/dispatcher.py",
        "        self._send(unsent, step.sync())\n",
        "        try:\n            step.sync()\n        finally:\n            self._send(unsent, step._replies)\n",
        DISPATCHER + "test_when_the_disk_fails_nothing_is_sent", 6,
    ),
    Mutant(
        "a second sync after one that failed", "store/file/file_log.py",
        "        if self._failed is not None:", "        if False:",
        FAILED_LOG + "a_sync_that_failed_nothing_is_committed_any_more", 6,
    ),
    Mutant(
        "a failed cut forgotten", "store/file/file_log.py",
        'raise self._fail(\n                f"{self.directory.path / NAME}: could not cut back',
        'raise errors.StorageFatal(\n                f"{self.directory.path / NAME}: could not cut back',
        FAILED_LOG + "a_cut_that_failed_nothing_is_committed_any_more", 6,
    ),
    Mutant(
        "reads answered after a failed sync", "store/file/file_log.py",
        "        self._check()\n        return ()", "        return ()",
        FAILED_LOG + "a_sync_that_failed_nothing_is_committed_any_more", 6,
    ),
    Mutant(
        "a rotation after a failed sync", "store/file/file_log.py",
        "        self._check()\n        assert self._file is not None and", "        assert self._file is not None and",
        FAILED_LOG + "a_sync_that_failed_nothing_is_committed_any_more", 6,
    ),
    Mutant(
        "nobody waits for the disk", "store/store.py",
        "        self.log.sync()\n", "",
        POWER + "[ext4]", 3,
    ),
    Mutant(
        "watches and stats are served last", "server/dispatcher.py",
        "        for arrival in arrivals:\n            request = arrival.request\n            if observed",
        "        unsent = sorted(arrivals, key=lambda one: isinstance(one.request, Request) and one.request.served)\n"
        "        for arrival in unsent:\n            request = arrival.request\n            if observed",
        DISPATCHER + "test_watches_and_stats_keep_their_place_among_the_requests_of_a_step", 2,
    ),
    Mutant(
        "replies sent before the log is written", "store/store.py",
        "            others = self.log.append(group)",
        "            late, self._late = getattr(self, '_late', None), group\n"
        "            others = self.log.append(late) if late else ()",
        KILLED, 3,
    ),
    Mutant(
        "retries not recognised by a real server", "store/sessions.py",
        "        reply = session.replies.get(seq)", "        reply = None",
        KILLED, 5,
    ),
    Mutant(
        "kept results not in the checkpoint", "store/sessions.py",
        "[(seq, *astuple(reply)) for seq, reply in session.replies.items()]", "[]",
        "tests/fault/test_process_compaction.py::test_a_retry_is_recognised_when_only_a_checkpoint_knows_the_request", 5,
    ),
    Mutant(
        "a stale read now and then", "store/table.py",
        "            value = self.rows.get(ops[0].key)\n",
        "            seen = self.__dict__.setdefault('_seen', {})\n"
        "            if self.revision % 50:\n                seen[ops[0].key] = self.rows.get(ops[0].key)\n"
        "            value = seen.get(ops[0].key, self.rows.get(ops[0].key))\n",
        LINEARIZABLE, 4,
    ),
    Mutant(
        "servers of another table named to a client", "catalog/lookup.py",
        'if lineage is None or entry.lineage in (lineage, "")]', "]",
        "tests/unit/test_catalog_lookup.py::test_servers_of_another_table_are_left_out_and_those_that_do_not_tell_come_last", 4,
    ),
    Mutant(
        "a failed sync answered like a full disk", "store/file/file_log.py",
        'raise self._fail(f"{self.directory.path / NAME}: sync failed: {error.strerror}") from error',
        'raise errors.WriteRejected("sync failed") from error',
        CALLED + "test_a_failed_sync_of_the_log_ends_the_server_at_once[4]", 6,
    ),
    Mutant(
        "0 bytes written taken for progress", "store/file/files.py",
        "                if not more:", "                if False:",
        CALLED + "test_a_disk_that_writes_nothing_and_says_so_is_a_full_one", 11,
    ),
    Mutant(
        "a torn tail cut before it is saved", "store/file/file_log.py",
        "        aside = self.directory.create(name)\n        try:\n"
        "            aside.write(0, file.read(bad.offset, self.torn_bytes))",
        "        tail = file.read(bad.offset, self.torn_bytes)\n        file.truncate(bad.offset)\n"
        "        aside = self.directory.create(name)\n        try:\n            aside.write(0, tail)",
        CALLED + "test_a_kill_at_any_call_of_recovery_recovers[torn]", 2,
    ),
    Mutant(
        "the directory not locked", "store/file/files.py",
        "        if lock and not _lock(self._fd, self.path, wait=False):", "        if False:",
        COMPACTED + "test_a_second_server_is_refused_and_told_what_to_do", 1,
    ),
    Mutant(
        "the sealed log not locked", "store/file/compaction.py",
        "        if not sealed.lock(wait=False) or not _is_sealed(directory, sealed):",
        "        if not _is_sealed(directory, sealed):",
        COMPACTED + "test_two_children_never_work_on_one_log", 8,
    ),
    Mutant(
        "the compaction's process outlives its server", "store/child.py",
        "        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)", "        pass",
        COMPACTED + "test_a_stopped_child_holds_up_neither_the_server_nor_the_next_one[True]", 8,
    ),
    Mutant(
        "an orphaned compaction goes on", "store/child.py",
        "    if os.getppid() != parent:", "    if False:",
        COMPACTED + "test_a_child_whose_server_has_ended_touches_nothing", 8,
    ),
    Mutant(
        "a failed compaction not tried again", "store/file/compaction.py",
        "        self._next_s = self._clock() + self._retry_s", "        self._next_s = self._clock() + 1e9",
        COMPACTED + "test_a_failing_child_is_tried_again_until_it_can", 8,
    ),
    Mutant(
        "the tail not written again by a real server", "store/file/file_log.py",
        "            file.write(start, file.read(start, end - start))", "            pass",
        TIMED + "test_what_only_the_page_cache_held_is_written_and_synced_again", 3,
    ),
    Mutant(
        "time runs back with the clock", "store/table.py",
        "        self.time_us = max(self.time_us, time_us)\n", "        self.time_us = time_us\n",
        TIMED + "test_a_clock_that_jumps_never_runs_the_table_back", 2,
    ),
    Mutant(
        "a trace that cannot be closed ends the stop", "tracing/trace.py",
        "        self._try(self._file.close)", "        self._file.close()",
        FILLED + "test_a_trace_on_a_full_disk_ends_and_the_service_goes_on", 11,
    ),
    Mutant(
        "not cut back on a really full disk", "store/file/file_log.py",
        "            file.truncate(self.log_bytes)\n            file.sync()",
        "            pass",
        FILLED + "test_full_disk_refuses_writes_serves_reads_and_recovers", 2,
    ),
    # ---- transports, the loop, the wire
    Mutant("bridge closes before its replies are out", "server/transport/tcp_connection.py", "return self.state is CLOSING and not self.queued and not self.owed", "return self.state is CLOSING",
           "tests/unit/test_tcp_transport.py::test_a_half_closed_peer_still_gets_all_its_replies", 10),
    Mutant("bridge keeps the rest of a line too long", "server/transport/tcp_connection.py", "self.received += rest", "self.received += data",
           "tests/unit/test_tcp_transport.py::test_an_endless_line_is_refused_once_and_costs_no_memory", 9),
    Mutant("bridge reads from who has lines waiting", "server/transport/tcp.py", "if connection.state is READING or connection.state is DRAINING else 0", "if not connection.ended else 0",
           "tests/unit/test_tcp_transport.py::test_a_slow_reader_gets_everything_and_never_holds_more_than_its_share", 9),
    Mutant("bridge takes in all that is pipelined", "server/transport/tcp_connection.py", "for _ in range(min(lines_max, self.lines_max)):", "while True:",
           "tests/unit/test_tcp_transport.py::test_a_client_that_pipelines_100_000_requests_delays_another_by_few_steps", 9),
    Mutant("bridge gives every connection 64 lines a step", "server/transport/tcp.py", "REQUESTS_MAX = 1024", "REQUESTS_MAX = 1 << 30",
           "tests/unit/test_tcp_transport.py::test_several_hundred_pipelining_clients_share_a_step", 9),
    Mutant("bridge takes any number of bytes a step", "server/transport/tcp_connection.py", "return self.bytes >= STEP_BYTES_MAX or", "return",
           "tests/unit/test_tcp_transport.py::test_a_step_takes_in_a_bounded_number_of_bytes", 9),
    Mutant("bridge reads from who had no turn", "server/transport/tcp.py", "                left[number] = connection\n                self._watch(connection)\n", "                left[number] = connection\n",
           "tests/unit/test_tcp_transport.py::test_who_had_no_turn_is_not_read_from", 9),
    Mutant("bridge bounds only each connection", "server/transport/tcp.py", "while total > HELD_BYTES_MAX:", "while False:",
           "tests/unit/test_tcp_transport.py::test_all_connections_together_hold_a_bounded_amount", 9),
    Mutant("bridge keeps stalled connections", "server/transport/tcp.py", "if connection.queued and now_s - connection.moved_s > STALLED_S:", "if False:",
           "tests/unit/test_tcp_transport.py::test_a_stalled_peer_is_dropped_and_an_idle_one_is_not", 9),
    Mutant("bridge goes on accepting without descriptors", "server/transport/tcp.py", "        self._selector.unregister(self._listener)\n\n    def _receive", "        self._selector.modify(self._listener, selectors.EVENT_READ)\n\n    def _receive",
           "tests/unit/test_tcp_transport.py::test_when_descriptors_run_out_clients_go_on_and_the_loop_rests", 9),
    Mutant("bridge takes in as many lines whatever the replies", "server/transport/tcp.py", "connection.lines_max = 1\n", "pass\n",
           "tests/unit/test_tcp_transport.py::test_many_large_replies_at_once_reach_a_client_that_reads", 10),
    Mutant("bridge takes any transition", "server/transport/tcp_connection.py", "        except KeyError:\n            raise RuntimeError(", "        except KeyError:\n            return\n            raise RuntimeError(",
           "tests/unit/test_tcp_connection.py::test_a_transition_that_is_not_in_the_table_raises", 10),
    Mutant("bridge takes in requests of who does not read", "server/transport/tcp_connection.py", "        if self.queued_bytes > UNREAD_BYTES_MAX:\n", "        if False:\n",
           "tests/unit/test_tcp_transport.py::test_who_never_reads_is_not_read_from_and_holds_a_bounded_amount", 9),
    Mutant("router forgets the delimiter", "server/transport/router.py", "        for part in envelope:\n            send(", "        for part in ():\n            send(",
           "tests/unit/test_router_transport.py::test_a_req_socket_gets_its_delimiter_back_and_a_dealer_gets_none", 10),
    Mutant("router takes the rest of a message for the next", "server/transport/router.py", "            part = self._socket.recv(copy=False)\n\n    def pending", "            break\n\n    def pending",
           "tests/unit/test_router_transport.py::test_a_message_of_several_frames_is_refused_whole_and_the_next_is_served", 10),
    Mutant("libzmq's heartbeats at the server", "server/transport/router.py", "(zmq.BACKLOG, 1024),", "(zmq.BACKLOG, 1024),\n    (zmq.HEARTBEAT_IVL, 500),",
           "tests/unit/test_router_transport.py::test_a_connection_that_breaks_while_its_queue_is_full_does_not_abort_the_server", 10),
    Mutant("libzmq's heartbeats at the client", "client/core/pyzmq_socket.py", "(zmq.RCVHWM, 10_000),", "(zmq.RCVHWM, 10_000),\n    (zmq.HEARTBEAT_IVL, 2000),\n    (zmq.HEARTBEAT_TIMEOUT, 6000),",
           "tests/integration/test_abort_hunt.py::test_a_program_that_is_busy_while_its_server_vanishes_is_not_aborted", 10),
    Mutant("identities begin where C's rand does", "server/transport/router.py", "        _seed_identities()\n", "",
           "tests/unit/test_router_transport.py::test_claiming_the_identities_that_libzmq_would_give_does_not_abort_the_server", 10),
    Mutant("names give identities away", "server/transport/router.py", "hashlib.blake2b(identity, digest_size=4, key=self._salt).hexdigest()", "identity.hex()[-8:]",
           "tests/unit/test_router_transport.py::test_names_do_not_give_identities_away", 10),
    Mutant("identities of any length", "server/transport/router.py", "if len(identity) > IDENTITY_BYTES_MAX:", "if False:",
           "tests/unit/test_router_transport.py::test_an_identity_has_a_length", 9),
    Mutant("a client that comes back is ignored", "server/transport/router.py", "(zmq.ROUTER_HANDOVER, 1)", "(zmq.ROUTER_HANDOVER, 0)",
           "tests/unit/test_router_transport.py::test_a_client_that_left_without_a_word_is_served_again_at_once", 10),
    Mutant("a vanished machine is not noticed", "server/transport/router.py", "    (zmq.TCP_MAXRT, UNACKNOWLEDGED_MS_MAX),\n", "",
           "tests/unit/test_router_transport.py::test_a_vanished_machine_is_noticed_by_tcp_within_ten_seconds", 9),
    Mutant("a probe is answered", "server/transport/router.py", "return (), None  # PROBE", "return (), _refusal(\"\")  # PROBE",
           "tests/unit/test_router_transport.py::test_a_probe_is_not_answered", 10),
    Mutant("a step takes in any amount of work", "server/transport/router.py", " and weight < STEP_WEIGHT_MAX", "",
           "tests/unit/test_router_transport.py::test_a_step_takes_in_a_bounded_amount_of_work", 9),
    Mutant("router takes in any number of bytes a step", "server/transport/router.py", " and taken_bytes < STEP_BYTES_MAX", "",
           "tests/unit/test_router_transport.py::test_a_step_takes_in_a_bounded_number_of_bytes", 9),
    Mutant("router encodes all large replies at once", "server/transport/router.py", "while self._queues and sent_bytes < STEP_REPLY_BYTES_MAX:", "while self._queues:",
           "tests/unit/test_router_transport.py::test_large_replies_take_turns_and_small_ones_do_not_wait_for_them", 9),
    Mutant("router lets small replies overtake large ones", "server/transport/router.py", "        if not large and peer[0] not in self._queues:", "        if not large:",
           "tests/unit/test_router_transport.py::test_large_replies_take_turns_and_small_ones_do_not_wait_for_them", 4),
    Mutant("bridge encodes all large replies at once", "server/transport/tcp.py", "        if self._encode_bytes <= 0:", "        if False:",
           "tests/unit/test_tcp_transport.py::test_large_replies_take_turns_and_small_ones_do_not_wait_for_them", 9),
    Mutant("bridge executes what a browser posts", "server/transport/tcp.py", "if protocol is not None:", "if False:",
           "tests/unit/test_tcp_transport.py::test_a_line_in_the_body_of_a_browsers_request_is_not_executed", 10),
    Mutant("idle connections keep newcomers out", "server/transport/tcp.py", "            self._by_request[number] = self._by_request.pop(number)\n", "            pass\n",
           "tests/unit/test_tcp_transport.py::test_when_full_whoever_has_asked_for_nothing_the_longest_makes_room", 9),
    Mutant("a watch through an envelope is served", "server/transport/router.py", "return not cast(Peer, peer)[1]", "return True",
           "tests/unit/test_dispatcher.py::test_a_watch_through_an_envelope_is_refused_with_all_of_its_request", 4),
    Mutant("connections are not told apart", "server/transport/router_monitor.py", "zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED", "zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED",
           "tests/unit/test_dispatcher.py::test_stats_counts_the_connections_there_are", 9),
    Mutant("rows that were replaced still count as bytes", "store/history.py", "            grown = -len(before)\n", "            grown = 0\n",
           "tests/unit/test_metrics.py::test_the_bytes_of_rows_follow_every_kind_of_change", 9),
    Mutant("operations of steps that are not timed are not counted", "server/loop.py", "                on_receive(arrivals, timed is not None)",
           "                timed is not None and on_receive(arrivals, timed is not None)",
           "tests/unit/test_metrics.py::test_operations_are_counted_exactly_whether_alone_or_in_batches", 9),
    Mutant("commits that were not counted yet are forgotten at a window's end", "server/metrics.py", "        self._count_commits()\n        self._append.turn()",
           "        self._commits = []\n        self._append.turn()", "tests/unit/test_metrics.py::test_syncs_are_counted_all_and_in_windows", 9),
    Mutant("a descriptor of somebody else is taken for a peer's", "server/transport/router_peers.py", "            if os.fstat(copy).st_ino == self.inode:", "            if True:",
           "tests/unit/test_clients_listed.py::test_who_has_left_is_not_listed_and_a_descriptor_of_somebody_else_is_not_taken_for_its", 9),
    Mutant("a probe is taken for the peer that asked", "server/transport/router.py", "        if arrivals and part is not probe and", "        if arrivals and",
           "tests/unit/test_clients_listed.py::test_a_probe_is_not_taken_for_the_peer_that_asked", 9),
    Mutant("peers are remembered without limit", "server/transport/router_peers.py", "            del self._seen[next(iter(self._seen))]", "            pass",
           "tests/unit/test_clients_listed.py::test_peers_that_are_remembered_are_bounded", 9),
    Mutant("whoever sends a byte now and then keeps a thread of the metrics", "server/scrape.py", "            connection.settimeout(max(0.001, deadline_s - self._clock()))\n            data", "            connection.settimeout(DEADLINE_S)\n            data",
           "tests/unit/test_scrape.py::test_who_is_slow_is_dropped_and_only_so_many_are_served_at_a_time", 9),
    Mutant("metrics without the token", "server/scrape.py", "not hmac.compare_digest(_bearer(lines[1:]), self._token)", "False",
           "tests/unit/test_scrape.py::test_the_metrics_need_the_token_and_health_does_not", 9),
    Mutant("metrics open to other machines", "server/scrape.py", "        if not open_to_others and not", "        if False and not",
           "tests/unit/test_scrape.py::test_other_machines_do_not_reach_it_unless_that_is_said", 9),
    Mutant("a slow disk is compared with nothing", "observing/doctor.py", "p99_s > SLOWER_TIMES * first[\"p99_s\"]", "False",
           "tests/unit/test_doctor.py::test_what_is_wrong_is_said_in_a_sentence_with_a_command", 9),
    Mutant("figures of two runs of a server are compared", "observing/rates.py", "names = (\"pid\", \"lineage\", \"epoch\", \"version\")", "names = (\"pid\", \"lineage\", \"version\")",
           "tests/unit/test_rates.py::test_a_server_that_was_started_anew_has_no_rates_yet", 13),
    Mutant("prefixes are counted without limit", "observing/prefixes.py", "len(self._counts) >= PREFIXES_MAX", "False",
           "tests/unit/test_top.py::test_prefixes_are_bounded_and_the_hot_ones_stay", 9),
    Mutant("a client's name draws on the terminal", "cli/top/drawing.py", "(show.printable(one.client[\"name\"]), -name_columns)", "(one.client[\"name\"], -name_columns)",
           "tests/unit/test_top.py::test_names_that_clients_have_chosen_cannot_draw", 10),
    Mutant("top ends with its server", "cli/top/gathering.py", "        except (errors.KvzmqError, OSError) as error:\n            self.missed(str(error))", "        except ZeroDivisionError as error:\n            self.missed(str(error))",
           "tests/integration/test_cli_top.py::test_a_server_that_dies_and_comes_back_is_told_of", 13),
    Mutant("a page shows a text as HTML", "dashboard/static/dom.js", "if (text !== null) element.textContent = text;", "if (text !== null) element.innerHTML = text;",
           "tests/integration/test_dashboard_pages.py::test_a_row_with_a_script_in_key_and_value_stays_text", 10),
    Mutant("a disk in memory passes", "bench/disk.py", "    if report.file_system in KEEPS_NOTHING:", "    if False:",
           "tests/unit/test_bench_disk.py::test_a_disk_passes_by_its_usual_and_its_slow_syncs", 9),
    Mutant("errors beside a stats outgrow the reply", "server/dispatcher.py", "budget.charge_text(str(error))", "str(error)",
           "tests/unit/test_dispatcher.py::test_the_results_of_one_request_fit_one_reply_whatever_is_among_them", 9),
    Mutant("the number of an unreadable request is lost", "protocol/msgpack.py", "        head = _SEQ_AT_HEAD.match(frame)", "        head = None",
           "tests/unit/test_encodings.py::test_the_number_of_a_refused_request_survives_what_is_wrong_behind_it", 11),
    Mutant("results have less room than requests", "protocol/messages.py", "RESULT_BYTES_MAX = REQUEST_BYTES_LIMIT + 4 * KEY_CHARS_MAX + 1024", "RESULT_BYTES_MAX = REQUEST_BYTES_LIMIT - 1024",
           "tests/unit/test_limits.py::test_the_router_takes_requests_up_to_the_limit_and_every_row_can_be_read", 11),
    Mutant("lines have the length of frames", "protocol/messages.py", "    return JSON_GROWTH * request_bytes_max + _LINE_HEAD_BYTES", "    return request_bytes_max",
           "tests/unit/test_limits.py::test_a_line_of_the_bridge_carries_what_a_frame_does", 11),
    Mutant("six peers pile up a hundred requests each", "server/transport/router.py", "RECEIVED_MESSAGES_MAX = 32", "RECEIVED_MESSAGES_MAX = 1000",
           "tests/integration/test_hostile_peers.py::test_peers_that_pile_up_requests_hold_no_more_than_their_budget", 9),
    Mutant("router sends large replies without bound", "server/transport/router_replies.py", "return sum(size for _, size in messages) + length <= UNSENT_BYTES_MAX", "return True",
           "tests/unit/test_router_transport.py::test_who_never_reads_large_replies_holds_a_bounded_amount_and_they_are_counted", 9),
    Mutant("router lets pyzmq copy what it follows", "server/transport/router.py", "self._socket.copy_threshold = 0", "self._socket.copy_threshold = 65536",
           "tests/unit/test_router_transport.py::test_who_never_reads_large_replies_holds_a_bounded_amount_and_they_are_counted", 9),
    Mutant("router never forgets whom it followed", "server/transport/router_replies.py", "if len(self.messages) > self._look_through_at:", "if False:",
           "tests/unit/test_router_transport.py::test_short_connections_leave_nothing_behind", 9),
    Mutant("router drops replies unseen", "server/transport/router.py", "(zmq.ROUTER_MANDATORY, 1)", "(zmq.ROUTER_MANDATORY, 0)",
           "tests/unit/test_router_transport.py::test_replies_to_a_peer_that_has_gone_are_counted", 9),
    Mutant("router's ipc socket is for everyone", "server/transport/listen.py", "os.umask(0o077)", "os.umask(0o022)",
           "tests/unit/test_router_transport.py::test_an_ipc_endpoint_is_for_its_owner_alone", 10),
    Mutant("dispatcher commits each request alone", "server/dispatcher.py", "self._run_all = self._run if group_commit else", "self._run_all = self._run if False else",
           "tests/unit/test_dispatcher.py::test_a_step_commits_all_that_several_clients_change_as_one_group", 3),
    Mutant("stats gives every operation the room of a reply", "server/dispatcher.py", "                serve = self._served.get(type(op))\n", "                budget.begin(len(request.ops), table.semantics, table.revision)\n                serve = self._served.get(type(op))\n",
           "tests/unit/test_dispatcher.py::test_the_results_of_one_request_fit_one_reply_whatever_is_among_them", 9),
    Mutant("an event without room is skipped", "server/watches.py", "payload, more):\n                return False\n", "payload, more):\n                pass\n",
           "tests/unit/test_watches.py::test_a_watcher_that_lags_is_caught_up_with_later_and_misses_nothing", 4),
    Mutant("the watches of who has gone stay", "server/watches.py", "            self._send_heartbeats(now_s)\n", "            pass\n",
           "tests/unit/test_watches.py::test_watches_of_peers_that_have_gone_do_not_pile_up_where_nothing_changes", 9),
    Mutant("every watcher walks the whole history", "store/history.py", "            if chunk.after <= revision:\n", "            if chunk is self._chunks[0]:\n",
           "tests/unit/test_watches.py::test_many_watchers_cost_a_step_only_what_is_new", 9),
    Mutant("every watcher walks its whole chunk", "store/history.py", "skip = max(0, revision - self.after)\n        changes = zip(self.keys[skip:], self.befores[skip:], self.afters[skip:])", "skip = max(0, revision - self.after)\n        changes = zip(*[column[:][skip:] for column in (self.keys, self.befores, self.afters)])",
           "tests/unit/test_watches.py::test_many_watchers_cost_a_step_only_what_is_new", 9),
    Mutant("history lets a chunk go too early", "store/history.py", "changes, size = self.revision - end, self._bytes - oldest.bytes", "changes, size = self.revision - oldest.after, self._bytes",
           "tests/unit/test_table.py::test_history_gives_every_change_it_keeps_and_keeps_enough", 9),
    Mutant("history counts no keys", "store/history.py", "size = sum(map(len, keys)) + before", "size = before",
           "tests/unit/test_table.py::test_history_is_bounded_and_says_what_is_gone", 9),
    Mutant("setdefault inserts what its reply has no room for", "store/table.py",
           "payload = self.budget.charge(bytes(op.value) if present is None else present)", "payload = self.budget.charge(b'' if present is None else present)",
           "tests/unit/test_dispatcher.py::test_a_setdefault_without_room_for_its_result_changes_nothing", 2),
    Mutant("an error of the decoder is not caught", "protocol/msgpack.py",
           "    except errors.InvalidRequest as error:\n        return Refusal(wire.seq",
           "    except errors.InvalidMethod as error:\n        return Refusal(wire.seq",
           "tests/integration/test_wire_fuzz.py::test_every_mutated_frame_gets_one_reply", 10),
    Mutant("router drains one client dry", "server/transport/router.py", "            arrivals.append(Arrival(self, (identity, envelope, user), request))\n",
           "            arrivals.append(Arrival(self, (identity, envelope, user), request))\n            break\n",
           "tests/integration/test_interleaving.py::test_every_request_was_traced_and_most_steps_served_several_clients", 9),
    Mutant("a revision is counted twice", "store/table.py", "        self.revision += 1\n        if self._scanning", "        self.revision += 1 + (self.revision % 1000 == 999)\n        if self._scanning",
           "tests/integration/test_interleaving.py::test_each_request_executed_alone", 4),
    # ---- the client
    Mutant("rows are gone through twice", "client/core/calls.py", "dict(rows.items() if isinstance(rows, Mapping) else rows)", "dict(zip(list(rows), list(rows.values())) if isinstance(rows, Mapping) else rows)",
           "tests/contract/test_client_contract.py::test_rows_come_as_any_mapping_or_pairs_and_are_gone_through_once", 2),
    Mutant("a retried request gets a new number", "client/core/session.py", "        request.note_sent_again(now_s, self._jitter)\n",
           "        if request.calls:\n"
           "            self._last_seq += 1\n            request.frame = msgpack.encode_request(self.id, self._last_seq, [op for call in request.calls for op in call.ops])\n"
           "            self._in_flight[self._last_seq] = self._in_flight.pop(request.seq)\n            request.seq = self._last_seq\n"
           "        request.note_sent_again(now_s, self._jitter)\n",
           SESSION + "test_a_retry_is_the_same_bytes_and_gets_the_first_result", 5),
    Mutant("a call by itself is not kept for a retry", "client/core/session.py",
           "[call], call.writes, now_s + RESEND_S)\n        self._in_flight[seq] = request\n", "[call], call.writes, now_s + RESEND_S)\n",
           SESSION + "test_a_call_by_itself_is_kept_for_a_retry_like_others", 5),
    Mutant("a call by itself does not wait for hello", "client/core/session.py",
           "            or hello.held\n            or hello.seq\n", "",
           "tests/unit/test_client_channel.py::test_a_call_by_itself_is_not_sent_on_another_connection_either", 12),
    Mutant("a call by itself leaves on a connection that is not known to be new", "client/core/session_channel.py",
           "(call.writes or socket.reconnects_itself) and", "call.writes and",
           "tests/unit/test_client_channel.py::test_a_call_by_itself_is_not_sent_on_another_connection_either", 12),
    Mutant("a write by itself leaves on a connection that may be lost", "client/core/session_channel.py",
           "(call.writes or socket.reconnects_itself) and", "socket.reconnects_itself and",
           "tests/unit/test_client_channel.py::test_before_a_write_alone_a_socket_that_does_not_reconnect_itself_is_asked", 5),
    Mutant("a write by itself does not wait for its session", "client/core/session.py",
           "            or (call.writes and not self._opened)\n", "",
           SESSION + "test_a_call_does_not_leave_by_itself_where_there_is_more_to_do", 5),
    Mutant("a call by itself that was not taken is lost", "client/core/session_channel.py",
           "            self.session.unsent((request,))\n", "",
           "tests/unit/test_client_channel.py::test_a_call_by_itself_that_the_connection_does_not_take_waits", 4),
    Mutant("who came while another thread waited is never sent", "client/sync/connection.py",
           "            elif self._waiting or self._closed:\n                self._pass_turn()\n            else:", "            else:",
           "tests/integration/test_client_threads.py::test_threads_share_messages_and_never_get_each_others_replies", 4),
    Mutant("a forgotten session's requests are always sent again", "client/core/session.py",
           "            if call.writes and request.sent > request.refused + 1:\n                call.fail(errors.OutcomeUnknown(\n                    \"the server has forgotten",
           "            if False:\n                call.fail(errors.OutcomeUnknown(\n                    \"the server has forgotten",
           SESSION + "test_a_forgotten_session_is_an_error_for_what_was_sent_twice", 5),
    Mutant("a refused write that was sent twice is called not applied", "client/core/session.py",
           "            certain = request.sent == request.refused + 1", "            certain = True",
           SESSION + "test_a_refused_write_that_was_sent_twice_is_unknown", 5),
    Mutant("a write begins without its session opened", "client/core/session.py", "        self._opened = False\n        self._opening = False\n",
           "        self._opened = True\n        self._opening = False\n",
           SESSION + "test_a_session_opens_before_its_first_write_and_only_then", 5),
    Mutant("numbers run ahead of an unanswered write", "client/core/session.py", "        return self._last_seq - oldest >= AHEAD_MAX", "        return False",
           SESSION + "test_numbers_do_not_run_ahead_of_an_unanswered_write", 5),
    Mutant("an unanswered write is called a Timeout", "client/core/call.py",
           "        if self.writes:\n            return errors.OutcomeUnknown(", "        if self.writes:\n            return errors.Timeout(",
           SESSION + "test_an_unanswered_write_is_unknown_and_an_unanswered_read_a_timeout", 5),
    Mutant("a cancelled call's reply goes to the next", "client/core/session.py",
           "            mine = results[at:end]\n            at = end\n            if call.done:\n                continue",
           "            mine = results[at:end]\n            if call.done:\n                continue\n            at = end",
           SESSION + "test_a_cancelled_calls_reply_is_not_given_to_the_next", 4),
    Mutant("refused calls are put back the wrong way round", "client/core/session.py",
           "            call.alone = True\n        self._waiting.extendleft(reversed(calls))", "            call.alone = True\n        self._waiting.extendleft(calls)",
           SESSION + "test_order_is_kept_when_a_bad_operation_refuses_them_all", 4),
    Mutant("what no connection took is sent later, whoever waits", "client/core/session.py",
           "                del self._in_flight[request.seq]\n                self._waiting.extendleft(reversed(request.calls))",
           "                request.resend_at_s = 0.0",
           SESSION + "test_a_call_whose_time_is_over_does_not_leave_later_with_others", 5),
    Mutant("a watch gives the next server no time to connect", "client/core/push_channel.py", "            self.state.refused = False  # of the next one", "            # of the next one",
           "tests/unit/test_push_channel.py::test_a_server_that_is_slow_to_connect_may_have_the_table", 12),
    Mutant("a server that is slow to connect counts as another table", "client/core/push_channel.py", "            unknown = not self._has_failed", "            unknown = False",
           "tests/unit/test_push_channel.py::test_a_server_that_is_slow_to_connect_may_have_the_table", 12),
    Mutant("a server that refuses for now counts as another table", "client/core/push_channel.py", "            self._changes = 0\n            at_once", "            at_once",
           "tests/unit/test_push_channel.py::test_a_server_that_refuses_for_now_may_have_the_table", 12),
    Mutant("a watch goes on where it had begun", "client/core/watch_state.py", "            self.position = revision\n            self._add(", "            self._add(",
           "tests/integration/test_client_watches.py::test_no_gaps_and_no_repeats_through_kills_and_cuts", 4),
    Mutant("a thread that is interrupted keeps its turn", "client/sync/connection.py",
           "                self._tick_s = 0.0\n                self._pass_turn()", "                self._tick_s = 0.0",
           "tests/integration/test_client_threads.py::test_an_interrupted_reader_passes_its_turn", 9),
    Mutant("what comes while asyncio sends is not looked at", "client/asyncio/connection.py",
           "socket.readable:  # sending may", "False:  # sending may",
           "tests/integration/test_client_asyncio.py::test_no_wakeup_is_lost_under_load", 9),
    Mutant("what waits leaves on a connection that is not known to be new", "client/core/session_channel.py",
           "        return socket.has_events\n", "        return False\n",
           "tests/unit/test_client_channel.py::test_nothing_is_sent_on_another_connection_than_the_one_that_is_known", 12),
    Mutant("a failed handshake is told as a failed try", "client/core/pyzmq_socket.py",
           "zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: Change.REFUSED,", "zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: Change.FAILED,",
           "tests/contract/test_client_socket.py::test_who_does_not_speak_zeromq_is_told_from_who_is_not_there[pyzmq]", 11),
    Mutant("a loop watches the descriptors that a socket had first", "client/asyncio/connection.py",
           "        if now is self._followed:\n", "        if now is self._followed or (now and self._followed):\n",
           "tests/unit/test_client_channel.py::test_an_event_loop_follows_the_descriptors_of_a_socket", 9),
    Mutant("plain socket: what the connection does not take is dropped", "client/core/plain_socket.py",
           "            self._keep(memoryview(data)[sent:])", "            pass",
           PLAIN + "test_what_a_peer_does_not_take_of_a_small_frame_follows_later", 10),
    Mutant("plain socket: a part of a frame is sent twice", "client/core/plain_socket.py",
           "                    unsent.appendleft(part[sent:])", "                    unsent.appendleft(part)",
           PLAIN + "test_frames_leave_whole_and_in_order_through_a_peer_that_takes_little_at_a_time", 10),
    Mutant("plain socket: what is unsent has no bound", "client/core/plain_socket.py",
           "        if self._unsent and self._unsent_bytes + len(frame) > UNSENT_BYTES_MAX:", "        if False:",
           PLAIN + "test_what_a_peer_does_not_take_is_bounded", 9),
    Mutant("plain socket: PONGs pile up", "client/core/plain_socket.py",
           "        if connection.waiting and self._stage is _OPEN and not self._unsent:\n", "        if connection.waiting and self._stage is _OPEN:\n",
           PLAIN + "test_pings_without_end_cost_no_memory_and_keep_nobody_waiting", 9),
    Mutant("plain socket: an interrupt leaves the connection as it is", "client/core/plain_socket.py",
           "        if not self._intact:\n            self._drop(", "        if False:\n            self._drop(",
           PLAIN + "test_an_interrupt_anywhere_leaves_whole_frames_or_another_connection", 10),
    Mutant("plain socket: events are forgotten before they are told", "client/core/plain_socket.py",
           "        events = self._events\n", "        events = self._events\n        self._events = []\n        self._intact = True\n",
           PLAIN + "test_an_interrupt_anywhere_while_it_connects_leaves_a_socket_that_connects", 10),
    Mutant("plain socket: a peer that does not shake hands is waited for", "client/core/plain_socket.py",
           "        if now_s >= self._handshake_ends_s:", "        if False:",
           PLAIN + "test_a_peer_that_does_not_shake_hands_is_told_and_then_given_up", 11),
    Mutant("plain socket: a peer that closes at once is asked again and again", "client/core/plain_socket.py",
           "now_s - self._made_s >= RECONNECT_S_MAX:", "True:",
           PLAIN + "test_the_pause_grows_until_a_connection_lasts", 9),
    Mutant("plain socket: what is lost takes a frame", "client/core/plain_socket.py",
           "        if self._stage is _OPEN and self._intact:\n            self._intact = False\n            self._look()", "        if False:\n            self._intact = False\n            self._look()",
           PLAIN + "test_a_connection_that_is_lost_is_noticed_before_a_send", 11),
    Mutant("plain socket: closing leaves the connection to forked children", "client/core/plain_socket.py",
           "                self._sock.shutdown(socket.SHUT_RDWR)", "                pass",
           PLAIN + "test_a_forked_child_lets_go_and_the_parent_goes_on", 10),
    Mutant("plain socket: a loop is not told of what is closed", "client/core/plain_socket.py",
           "            self._before_closing(sock.fileno())", "            pass",
           PLAIN + "test_a_loop_is_told_of_each_descriptor_before_it_is_closed", 9),
    Mutant("plain socket: a loop is told of what is left unread", "client/core/plain_socket.py",
           "        return self._watched_unread if self._frames else self._watched", "        return self._watched",
           PLAIN + "test_a_descriptor_says_nothing_while_frames_are_left_unread", 9),
    Mutant("dial: one address after the other", "client/core/dial.py",
           "(now_s >= self._next_s or not self._pending)", "not self._pending",
           PLAIN + "test_an_address_that_answers_nothing_costs_a_moment", 11),
    Mutant("dial: a family has to fail first", "client/core/dial.py",
           "    pairs = zip_longest(first, second)\n    return [address for pair in pairs for address in pair if address is not None]", "    return (first + second)",
           PLAIN + "test_addresses_of_both_families_take_turns", 11),
    Mutant("dial: tries have no end", "client/core/dial.py",
           "        elif now_s >= self._ends_s:", "        elif False:",
           PLAIN + "test_when_none_answers_the_time_is_bounded", 11),
    Mutant("dial: lookups have no bound", "client/core/dial.py",
           "        if len(self._under_way) >= LOOKUPS_MAX:", "        if False:",
           PLAIN + "test_a_name_server_that_is_silent_holds_nobody_up_and_binds_few_threads", 9),
    Mutant("dial: a socket is connected with itself", "client/core/dial.py",
           "and _leads_to_itself(sock):", "and False:",
           PLAIN + "test_a_socket_that_tcp_has_connected_with_itself_is_not_taken", 11),
    Mutant("a read that nobody can answer says only that it was asked", "client/core/session.py",
           "if reachable or call.writes else not_sent())", "if True else not_sent())",
           SESSION + "test_a_read_says_that_no_server_is_there_though_it_was_asked", 11),
    Mutant("the values of a copy are given to whoever asks", "client/sync/views.py",
           "        return frame.f_lasti == self._at and frame.f_code is self._code and threading.get_ident() == self._thread", "        return True",
           "tests/contract/test_client_copies.py::test_a_value_read_by_itself_is_never_an_old_one", 4),
    Mutant("the values of a copy are given out before all keys are", "client/sync/views.py",
           "        for page in self._pages_of_items():\n            copy.rows.update(page)\n", "        self._table._copies.begin(copy)\n        for page in self._pages_of_items():\n            copy.rows.update(page)\n",
           "tests/contract/test_client_copies.py::test_values_that_are_asked_for_between_keys_are_never_old_ones", 4),
    Mutant("a forked child takes its parent's events", "client/sync/stream.py", "        if os.getpid() != self._pid:\n            raise ValueError", "        if False:\n            raise ValueError",
           "tests/integration/test_client_processes.py::test_a_watch_is_not_a_forked_childs", 4),
    Mutant("a forked child asks on its parent's asyncio connection", "client/asyncio/connection.py", "        if self._pid != os.getpid():\n            self._channel.forget()", "        if False:\n            self._channel.forget()",
           "tests/integration/test_client_processes.py::test_an_asyncio_client_is_used_in_a_forked_child", 4),
    Mutant("a watch says that nothing came while something is unread", "client/sync/stream.py", " and not self._channel.unread:", ":",
           "tests/integration/test_client_processes.py::test_a_watch_does_not_say_that_nothing_came_while_something_is_unread", 4),
    Mutant("a watch's descriptor stays with the first socket", "client/sync/stream.py", "            if self._descriptor is not None:\n                self._descriptor.follow(self._channel.socket)", "            pass",
           "tests/integration/test_client_processes.py::test_a_watchs_descriptor_stays_when_its_socket_is_another", 9),
    Mutant("a namespace closes its parent", "client/sync/client.py", "        if self._owner:\n            self._connection.close()", "        if True:\n            self._connection.close()",
           "tests/contract/test_client_contract.py::test_a_namespace_ends_alone", 11),
    Mutant("the epoch of a kept position is not sent", "client/core/calls.py", "values.check_revision(from_revision), values.check_epoch(epoch)))\n\n    def watch_query", "values.check_revision(from_revision), None))\n\n    def watch_query",
           LINEAGE + "test_a_position_that_a_program_has_kept_is_refused_by_another_history", 12),
    Mutant("a half-closed connection does not wait for what waits", "server/transport/tcp_connection.py", " and not self.owed", "",
           "tests/unit/test_costly_requests.py::test_who_sends_no_more_still_gets_the_reply_that_waits_for_an_index", 10),
    Mutant("late for ever", "store/table.py", "        self._late = False  # rows that were due", "        pass  # rows that were due",
           "tests/unit/test_costly_requests.py::test_nothing_is_late_when_what_was_due_has_been_written_again", 9),
    Mutant("an ipc endpoint in use is taken over", "server/transport/listen.py", "if path and _somebody_listens(path):", "if False:",
           "tests/unit/test_router_transport.py::test_an_ipc_endpoint_in_use_is_not_taken_over_and_its_file_goes_with_the_server", 9),
    Mutant("a watch that resumes within a request is not told its end", "server/watches.py", "watch.mid_request = marks and position > 0", "watch.mid_request = False and position > 0",
           WATCHES + "test_the_end_of_a_request_is_told_to_a_watch_that_goes_on_within_it", 2),
    Mutant("a dead URL costs a second", "client/core/channel.py", "FAILED_S = 0.03", "FAILED_S = 1.0",
           "tests/integration/test_client_reconnects.py::test_a_server_that_is_not_there_costs_a_moment_where_there_is_another", 11),
    Mutant("progress is not asked for again", "client/core/watch_state.py", "        self.begin_progress()\n        return", "        self._asking_progress = 0\n        return",
           "tests/integration/test_client_watches.py::test_progress_is_asked_for_again_on_a_new_connection", 11),
    Mutant("the journal warns of clients that end", "server/journal.py", " and not name.endswith(_NOT_WARNED)", "",
           "tests/integration/test_cli_operator.py::test_what_happens_often_is_said_now_and_then_with_its_number", 11),
    Mutant("all of a first line is looked at again and again", "server/transport/tcp_connection.py", "if len(self.received) - received_bytes >= _HEAD_BYTES:", "if False:",
           "tests/unit/test_tcp_transport.py::test_a_first_line_without_end_is_looked_at_only_at_its_head", 9),
    Mutant("the journal takes an old refusal for a new one", "server/journal.py", "        if not found:\n            return  # the refused ones", "        if False:\n            return  # the refused ones",
           "tests/integration/test_cli_operator.py::test_a_refusal_that_had_waited_does_not_end_the_server", 10),
    Mutant("every epoch reaches for ever", "store/epochs.py", "return revision <= end", "return True",
           LINEAGE + "test_a_watch_is_told_when_the_table_went_on_from_an_older_copy", 12),
    Mutant("the lineage is not compared", "client/core/hello.py", "elif self.lineage != info.lineage:", "elif False:",
           LINEAGE + "test_another_table_under_the_same_url_is_told", 12),
    Mutant("epochs not in the checkpoint", "store/sections.py", "    if epochs.lineage is not None:\n        yield", "    if False:\n        yield",
           LINEAGE + "test_a_table_keeps_its_lineage_and_each_start_begins_an_epoch", 12),
    Mutant("an epoch is not written", "store/store.py", "            frames = [self._beginning.frame, *frames]", "            pass",
           LINEAGE + "test_a_table_keeps_its_lineage_and_each_start_begins_an_epoch", 12),
    Mutant("a stopped server is not noticed", "client/core/push_channel.py", "gone = now_s - self._heard_s > SILENCE_S_MAX", "gone = False",
           "tests/integration/test_silence.py::test_a_stopped_server_is_noticed_by_an_idle_watcher", 9),
    Mutant("broken promises of heartbeats are not noticed", "server/watches.py", "if peer.silence_s_max is not None and now_s", "if False and now_s",
           WATCHES + "test_the_watch_of_who_breaks_the_promise_of_heartbeats_ends_and_says_so", 9),
    Mutant("half a request is not marked", "server/watches.py", "more = watch.marks and revision < last", "more = False",
           WATCHES + "test_the_events_of_one_request_say_that_others_follow", 2),
    Mutant("the end of a request is not told where it is filtered", "server/watches.py", "elif watch.mid_request and revision == last:", "elif False:",
           WATCHES + "test_the_events_of_one_request_say_that_others_follow", 2),
    Mutant("the last step is not kept", "store/history.py", "if end > step_began or (", "if (",
           TABLE + "test_history_waits_for_who_reads_within_larger_limits_and_keeps_the_last_step", 9),
    Mutant("history does not wait for who reads", "store/history.py", "if end > needed and changes", "if False and changes",
           TABLE + "test_history_waits_for_who_reads_within_larger_limits_and_keeps_the_last_step", 9),
    Mutant("watches are told without a bound in time", "server/watches.py", "PUMP_S = 0.02", "PUMP_S = 1e9",
           WATCHES + "test_a_step_spends_a_bounded_time_on_watches_and_all_get_their_turn", 9),
    Mutant("an old log is replayed with new limits", "store/budget.py", "{1: (8 << 20) - 1024,", "{1: messages.RESULT_BYTES_MAX,",
           "tests/unit/test_table.py::test_the_semantics_of_a_log_decide_what_its_requests_gave", 2),
    # ---- steps, the log's outcomes, timers, observers
    Mutant(
        "a step gives its replies out before its sync", "store/store.py",
        "        if store._is_unsynced:\n            store._sync()\n        self.state = _ENDED", "        self.state = _ENDED",
        LOG + "test_the_replies_of_a_step_come_when_its_group_is_durable[file]", 3,
    ),
    Mutant(
        "appended while the fate of a group is unknown", "store/store.py",
        "        if self._step is not None:\n            raise AssertionError(\"a step begins", "        if False:\n            raise AssertionError(\"a step begins",
        LOG + "test_nothing_is_appended_while_the_fate_of_a_group_is_unknown", 5,
    ),
    Mutant(
        "an unknown fate taken for a refusal", "store/store.py",
        "            step.state = _UNKNOWN\n", "            step.state = _REJECTED\n",
        LOG + "test_a_step_of_unknown_fate_is_executed_or_refused_when_it_is_known[True]", 11,
    ),
    Mutant(
        "writes of a step executed in another order", "store/store.py",
        "            if expected is not request:", "            if False:",
        LOG + "test_a_step_that_is_misused_fails_at_once[file]", 2,
    ),
    Mutant(
        "groups truncated that the checkpoint does not hold", "store/file/file_log.py",
        "        if self.sealed and self._sealed_group <= group:", "        if self.sealed:",
        LOG + "test_a_truncation_keeps_what_the_checkpoint_does_not_hold[file]", 8,
    ),
    Mutant(
        "an idle server does not hear what others append", "server/loop.py",
        "            self._poller.register(descriptor, zmq.POLLIN)\n", "            pass\n",
        SHARED + "test_a_watch_at_an_idle_server_sees_what_another_server_writes", 4,
    ),
    Mutant(
        "a server that is woken does not catch up", "server/loop.py",
        "            self.store.catch_up()\n", "            pass\n",
        SHARED + "test_a_watch_at_an_idle_server_sees_what_another_server_writes", 4,
    ),
    Mutant(
        "a copy of a request of unknown fate is refused", "server/unknown.py",
        " or _number(arrival) in self._writes", "",
        SHARED + "test_a_copy_of_a_request_of_unknown_fate_is_not_said_to_be_refused", 11,
    ),
    Mutant(
        "later requests overtake one of unknown fate", "server/unknown.py",
        "(arrival.transport, arrival.peer) in self._peers or ", "",
        SHARED + "test_while_the_log_cannot_tell_what_needs_it_waits_and_the_rest_is_answered[True]", 4,
    ),
    Mutant(
        "requests wait for the log without bound", "server/loop.py",
        "[] if is_full else self._drain(ready)", "self._drain(ready)",
        SHARED + "test_what_waits_for_the_log_is_bounded", 9,
    ),
    Mutant(
        "a timer that is late is never called", "server/timers.py",
        "if timer.due_s <= now_s)", "if now_s - 1.0 < timer.due_s <= now_s)",
        "tests/unit/test_timers.py::test_a_late_timer_is_called_once_and_takes_no_turn_from_the_others", 9,
    ),
    Mutant(
        "a timer that is always due takes every turn", "server/timers.py",
        "key=lambda timer: timer.due_s):", "key=lambda timer: timer.due_s)[:1]:",
        "tests/unit/test_timers.py::test_a_late_timer_is_called_once_and_takes_no_turn_from_the_others", 9,
    ),
    Mutant(
        "the loop does not wake for a timer", "server/loop.py",
        "self.timers.wait_s(self.dispatcher.wait_s(timeout_s))", "self.dispatcher.wait_s(timeout_s)",
        "tests/unit/test_timers.py::test_the_loop_calls_a_timer_in_time_and_late_ones_beside_requests", 9,
    ),
    Mutant(
        "a busy router keeps the loop from the bridge", "server/loop.py",
        "                arrivals += transport.drain()\n", "                arrivals += transport.drain()\n                break\n",
        BUSY + "test_a_busy_router_takes_no_turn_from_the_bridge", 9,
    ),
    Mutant(
        "a busy step calls no timers", "server/loop.py",
        "        self.timers.run()\n        return len(arrivals)\n", "        if not arrivals:\n            self.timers.run()\n        return len(arrivals)\n",
        BUSY + "test_a_busy_router_takes_no_turn_from_a_timer_or_from_what_others_append", 9,
    ),
    Mutant(
        "a busy server does not stop", "server/loop.py",
        "            while not self._stopping:\n                self.step(_IDLE_S)\n", "            while self.step(_IDLE_S) or not self._stopping:\n",
        BUSY + "test_a_busy_server_stops_with_the_step_in_which_sigterm_comes", 9,
    ),
    Mutant(
        "router takes in no more requests than it asks for", "server/transport/router.py",
        "if requests <= ASKED_MAX and not zmq.zmq_poll(self._asked, 0):", "if requests >= ASKED_MAX or not zmq.zmq_poll(self._asked, 0):",
        BUSY + "test_a_step_takes_in_more_requests_than_it_asks_for_one_by_one", 3,
    ),
    Mutant(
        "an idle server wakes to look after its peers", "server/loop.py",
        "self.timers.add(self._sweep, wakes=False)", "self.timers.add(self._sweep)",
        BUSY + "test_an_idle_server_wakes_once_a_second", 9,
    ),
    Mutant(
        "commits are timed though nobody listens", "store/store.py",
        "        began_ns = time.perf_counter_ns() if self.observers or self.keeps_times else 0\n        self.log.sync()", "        began_ns = time.perf_counter_ns()\n        self.log.sync()",
        "tests/unit/test_observers.py::test_nothing_is_timed_when_nobody_listens", 9,
    ),
    Mutant(
        "a retry is told as executed", "server/dispatcher.py",
        "        runs = step.will_execute(request)", "        runs = True",
        "tests/unit/test_trace.py::test_a_retried_request_is_not_executed_and_has_no_line", 5,
    ),
    # ---- what the operator is told
    Mutant(
        "a full disk leaves nothing in the log", "server/loop.py",
        "        store.on_trouble = self._journal.trouble\n", "",
        "tests/integration/test_cli_operator.py"
        "::test_the_log_tells_when_storage_trouble_begins_and_ends_and_ping_says_so", 9,
    ),
    Mutant(
        "every refused request is a line of the log", "server/journal.py",
        "        self._next_s = now_s + EVERY_S", "        self._next_s = now_s",
        "tests/integration/test_cli_operator.py::test_the_log_tells_who_is_refused_and_does_not_grow_with_it", 9,
    ),
    Mutant(
        "a file that lost rows is imported", "cli/commands/transfer.py",
        "        if counted != self._lines:", "        if False:",
        "tests/integration/test_cli_transfer.py::test_a_count_that_is_wrong_is_refused_before_anything_is_imported", 11,
    ),
    Mutant(
        "import --replace takes a file that was cut off", "cli/commands/transfer.py",
        "    if not (tally.whole or without_count):", "    if False:",
        "tests/integration/test_cli_transfer.py::test_replace_refuses_a_file_that_may_have_been_cut_off", 11,
    ),
    Mutant(
        "export writes over the file it replaces", "cli/commands/transfer.py",
        "            with replacing(output) as file:", "            with output.open(\"wb\") as file:",
        "tests/integration/test_cli_transfer.py::test_an_export_that_fails_leaves_the_old_file_as_it_was", 11,
    ),
    Mutant(
        "ping is content with a server that cannot write", "cli/commands/ping.py",
        "    if trouble:\n", "    if False:\n",
        "tests/integration/test_cli_operator.py"
        "::test_the_log_tells_when_storage_trouble_begins_and_ends_and_ping_says_so", 11,
    ),
    Mutant(
        "a table is begun where one must exist", "cli/serving/log.py",
        "    if options.must_exist and options.log_url", "    if False and options.log_url",
        "tests/integration/test_cli_operator.py::test_must_exist_refuses_a_directory_without_a_table", 11,
    ),
    Mutant(
        "it says that it listens before a signal is a clean stop", "server/loop.py",
        "        with self._signals() as drain:\n            ready()\n", "        ready()\n        with self._signals() as drain:\n",
        "tests/integration/test_cli_operator.py::test_a_signal_at_once_after_it_listens_is_a_clean_stop", 11,
    ),
    # ---- settings, the service manager, signals
    Mutant(
        "a file of options wins over the environment", "cli/config.py",
        "        ctx.default_map = _read(ctx, path)\n",
        "        ctx.default_map = _read(ctx, path)\n"
        "        os.environ.update({f'KVZMQ_{name.upper()}': str(raw) for name, raw in ctx.default_map.items()})\n",
        CONFIG + "test_the_command_line_wins_over_the_environment_and_that_over_the_file", 11,
    ),
    Mutant(
        "settings are printed as their types have made them", "cli/config.py",
        "    if option.is_flag:\n        return ctx.params", "    if True:\n        return ctx.params",
        CONFIG + "test_what_is_printed_is_a_file_that_says_the_same", 11,
    ),
    Mutant(
        "a key that is no option is passed over", "cli/config.py",
        '            raise BadConfig(f"{path}: {_unknown(ctx, key, value)}")', "            continue",
        CONFIG + "test_what_is_wrong_names_file_and_key_and_what_is_right", 11,
    ),
    Mutant(
        "a reload forgets what the command line says", "cli/config.py",
        "list(ctx.meta[_ARGUMENTS])", '["--config", str(ctx.meta[_FILE])]',
        CONFIG + "test_reading_again_tells_what_is_not_as_it_was", 11,
    ),
    Mutant(
        "a broken file is taken for an unchanged one", "cli/config.py",
        "        raise BadConfig(error.format_message()) from error", "        return {}",
        SERVICE + "test_a_broken_file_leaves_the_settings_as_they_were", 11,
    ),
    Mutant(
        "the first failed hook ends a reload", "server/reloads.py",
        "            return True\n        if said", "            raise\n        if said",
        "tests/unit/test_reloads.py::test_every_hook_is_called_and_the_log_says_what_each_did", 11,
    ),
    Mutant(
        "a peer can forge lines of the log", "cli/logs.py",
        '.replace("\\r", "\\\\r").replace("\\n", "\\\\n")', "",
        "tests/unit/test_cli_logs.py::test_no_message_can_forge_a_line_of_text", 10,
    ),
    Mutant(
        "a thread feeds the watchdog", "cli/serving/running.py",
        "        built.timers.add(notifier.beat)\n",
        "        import threading, time\n        threading.Thread("
        "target=lambda: [time.sleep(notifier.beat() or 9) for _ in range(10**6)], daemon=True).start()\n",
        SERVICE + "test_the_watchdog_hears_of_a_loop_that_turns_and_nothing_of_one_that_hangs", 9,
    ),
    Mutant(
        "a SIGHUP during recovery ends the server", "cli/serving/running.py",
        "        signal.signal(signal.SIGHUP, lambda number, _: caught.append(number))", "        pass",
        SERVICE + "test_a_sighup_before_the_server_serves_is_taken_when_it_does", 11,
    ),
    Mutant(
        "a reload waits for the reader of a pipe", "cli/serving/trace.py",
        "flags | os.O_NONBLOCK", "flags",
        SERVICE + "test_a_trace_into_a_pipe_that_nobody_reads_does_not_hold_a_reload_up", 9,
    ),
    Mutant(
        "a trace goes on in the file that was renamed", "cli/serving/running.py",
        '            built.reloads.add("trace", functools.partial(reopen_trace, trace, options.trace_path))', "            pass",
        SERVICE + "test_a_trace_that_is_rotated_loses_no_line", 11,
    ),
    Mutant(
        "a reload cuts a trace off", "cli/serving/trace.py",
        'open(path, "a", ', 'open(path, "w", ',
        SERVICE + "test_a_trace_that_is_rotated_loses_no_line", 11,
    ),
    Mutant(
        "a stop leaves a step's replies unsent", "server/loop.py",
        "        for transport in self.transports:\n            transport.flush()\n",
        "        if self._stopping:\n            return 0\n        for transport in self.transports:\n            transport.flush()\n",
        SERVICE + "test_sigterm_stops_within_a_second_under_load_and_delivers_the_last_replies", 11,
    ),
    # ---- what an operation declares
    Mutant(
        "a write declared as a read", "protocol/operations.py",
        'class Expire(Write, tag="expire"):', 'class Expire(Operation, tag="expire"):',
        OPERATIONS + "test_what_changes_the_table_is_declared_as_a_write", 1,
    ),
    Mutant(
        "a read declared as a write", "protocol/operations.py",
        'class Ttl(Operation, tag="ttl"):', 'class Ttl(Write, tag="ttl"):',
        OPERATIONS + "test_an_operation_is_declared_in_full", 1,
    ),
    Mutant(
        "the rows of an insert_many are not among the keys it touches", "protocol/operations.py",
        "        return (Access(True, tuple(self.rows)),)", "        return ()",
        OPERATIONS + "test_an_operation_changes_only_keys_that_it_says_it_writes", 10,
    ),
    Mutant(
        "what a transaction checks is not among the keys it touches", "protocol/operations.py",
        "        checked = Access(False, tuple(key for key, _ in self.checks))", "        checked = Access(False, ())",
        OPERATIONS + "test_an_operation_tells_only_of_keys_that_it_says_it_touches", 10,
    ),
    Mutant(
        "a query touches no key", "protocol/operations.py",
        "    accesses = the_whole_table\n    weight = _a_page\n    values = _its_subvalue\n    check = _check_subkey\n\n    def subkey",
        "    accesses = no_key\n    weight = _a_page\n    values = _its_subvalue\n    check = _check_subkey\n\n    def subkey",
        OPERATIONS + "test_an_operation_tells_only_of_keys_that_it_says_it_touches", 10,
    ),
    Mutant(
        "the values of a compare_and_set are not checked", "protocol/operations.py",
        "        return (*self.expected, *self.value)", "        return ()",
        OPERATIONS + "test_every_key_prefix_and_value_among_the_arguments_is_declared", 10,
    ),
    Mutant(
        "items does not say that it goes through rows", "protocol/operations.py",
        '    mark = "i"\n    scans = True\n', '    mark = "i"\n    scans = False\n',
        OPERATIONS + "test_who_goes_through_rows_says_so_and_which_index_it_asks", 9,
    ),
    Mutant(
        "the store loads zmq by a detour", "store/epochs.py",
        "from itertools import pairwise\n", "from itertools import pairwise\n\nfrom kvzmq import Client\n",
        "tests/unit/test_imports.py::test_protocol_and_store_never_load_zmq", 9,
    ),
    Mutant(
        "the audit trail does not look into transactions", "store/offline/audit.py",
        "            yield from map(method_of, self.op.operations)", "            pass",
        "tests/unit/test_cli_check.py::test_log_shows_what_the_filters_let_through", 11,
    ),
    Mutant(
        "the audit trail passes over damage", "store/offline/audit.py",
        "            if not found.torn:\n                gaps.append(found.what)", "            pass",
        "tests/unit/test_cli_check.py::test_log_shows_what_comes_after_damage_too_and_exits_with_1", 7,
    ),
    # ---- the command line
    Mutant(
        "broken JSON is a string", "cli/arguments.py",
        "        if _ALMOST_JSON.match(written):", "        if False:",
        "tests/integration/test_cli_table.py"
        "::test_what_looks_like_json_and_is_not_is_an_error_unless_it_is_said_to_be_a_string", 11,
    ),
    Mutant(
        "setdefault with a time to live sets what is there", "cli/commands/write.py",
        "            _insert_if(connection, key, ABSENT, default, ttl_s)",
        "            connection.table.insert(key, default, ttl_s)",
        "tests/integration/test_cli_writes.py::test_setdefault_leaves_alone_what_is_there", 11,
    ),
    Mutant(
        "a time to live that its increment does not have", "cli/commands/write.py",
        "        total = batch.increment(key, by)\n        batch.expire(key, ttl_s)",
        "        batch.expire(key, ttl_s)\n        total = batch.increment(key, by)",
        "tests/integration/test_cli_writes.py::test_every_write_of_a_value_takes_a_time_to_live", 11,
    ),
    Mutant(
        "nobody is told that the server is not there", "cli/connection.py",
        "            self._notice.start()", "            pass",
        "tests/integration/test_cli_reach.py::test_a_person_is_told_at_once_what_is_waited_for", 11,
    ),
    Mutant(
        "a port above 65,535 wraps around", "client/core/urls.py",
        "port.isdigit() and 1 <= int(port) <= PORT_MAX:", "port.isdigit():",
        "tests/integration/test_cli_reach.py::test_a_port_that_is_none_is_refused_by_every_client", 11,
    ),
    # ---- the client's ZMTP
    Mutant(
        "ZMTP: the limit of a frame's length is ignored", "client/core/zmtp.py",
        "            if length > self._limits.get(flags, -1):", "            if flags not in self._limits:",
        ZMTP + "test_a_length_beyond_the_limit_reserves_nothing", 9,
    ),
    Mutant(
        "ZMTP: what looks like a message is one, in the midst of another", "client/core/zmtp.py",
        "self._body is None and not self._head and not self._frames", "True",
        ZMTP + "test_what_looks_like_a_message_is_none_in_the_midst_of_another", 10,
    ),
    Mutant(
        "ZMTP: reserved flags are accepted", "client/core/zmtp.py",
        "            if length > self._limits.get(flags, -1):", "            if length > self._limits.get(flags & 7, -1):",
        ZMTP_CONVERSATIONS, 10,
    ),
    Mutant(
        "ZMTP: the frames of a message are messages", "client/core/zmtp.py",
        "            if flags & ~LONG or self._frames:", "            if flags & COMMAND:",
        ZMTP_CONVERSATIONS, 11,
    ),
    Mutant(
        "ZMTP: the last frame of a message is a message", "client/core/zmtp.py",
        "            if flags & ~LONG or self._frames:", "            if flags & ~LONG:",
        ZMTP + "test_a_rep_answers_who_sends_a_delimiter_and_nobody_is_confused", 11,
    ),
    Mutant(
        "ZMTP: a message may have any number of frames", "client/core/zmtp.py",
        "            if self._frames == FRAMES_MAX:", "            if False:",
        ZMTP_CONVERSATIONS, 10,
    ),
    Mutant(
        "ZMTP: PONG has no context", "client/core/zmtp.py",
        "data[2 : 2 + CONTEXT_BYTES_MAX])", "b\"\")",
        ZMTP_CONVERSATIONS, 10,
    ),
    Mutant(
        "ZMTP: a context may be of any length", "client/core/zmtp.py",
        "data[2 : 2 + CONTEXT_BYTES_MAX])", "data[2:])",
        ZMTP_CONVERSATIONS, 9,
    ),
    Mutant(
        "ZMTP: PING is not answered", "client/core/zmtp.py",
        "            self.waiting += pong", "            pass",
        ZMTP + "test_heartbeats_are_answered", 10,
    ),
    Mutant(
        "ZMTP: any number of PONGs waits for a peer that does not read", "client/core/zmtp.py",
        "        if len(self.waiting) + len(pong) <= WAITING_BYTES_MAX:", "        if True:",
        ZMTP + "test_endless_commands_and_frames_cost_no_memory", 9,
    ),
    Mutant(
        "ZMTP: messages are taken before READY", "client/core/zmtp.py",
        "Event.MECHANISM: State.READY}", "Event.MECHANISM: State.OPEN}",
        ZMTP_CONVERSATIONS, 10,
    ),
    Mutant(
        "ZMTP: commands before READY have no end", "client/core/zmtp.py",
        "            self._handshake_bytes_left -= _HEADER_BYTES_MAX + len(body)", "            pass",
        ZMTP_CONVERSATIONS, 10,
    ),
    Mutant(
        "ZMTP: any mechanism is taken for ours", "client/core/zmtp.py",
        "        if mechanism != _NULL:", "        if False:",
        ZMTP + "test_a_server_with_plain_is_told_from_one_that_fails", 10,
    ),
    Mutant(
        "ZMTP: our mechanism is told before the peer's version is there", "client/core/zmtp.py",
        "        self.waiting = _GREETING[:_VERSION_END]", "        self.waiting = _GREETING",
        ZMTP + "test_a_server_with_plain_is_told_from_one_that_fails", 10,
    ),
    Mutant(
        "ZMTP: a peer of ZMTP 2.0 is spoken to", "client/core/zmtp.py",
        "        elif data[_VERSION_AT] < 3:", "        elif False:",
        ZMTP_CONVERSATIONS, 10,
    ),
    Mutant(
        "ZMTP: a socket of any type is spoken to", "client/core/zmtp.py",
        "        if kind not in PEERS:", "        if kind is None:",
        ZMTP_CONVERSATIONS, 10,
    ),
    Mutant(
        "ZMTP: ERROR is skipped", "client/core/zmtp.py",
        "    b\"ERROR\": (Event.ERROR, Connection._take_error),\n", "",
        ZMTP + "test_a_refusal_by_authentication_says_its_code", 11,
    ),
    Mutant(
        "ZMTP: a fault takes the messages before it along", "client/core/zmtp.py",
        "            at = self._read_frames(data, at, messages)",
        "            at = self._read_frames(data, at, messages)\n            messages = messages if self.error is None else []",
        ZMTP_CONVERSATIONS, 11,
    ),
    Mutant(
        "ZMTP: the parts of a frame are written over each other", "client/core/zmtp.py",
        "memoryview(self._body)[self._filled :]", "memoryview(self._body)[: len(self._body) - self._filled]",
        ZMTP + "test_a_frame_received_in_its_place_is_the_same", 10,
    ),
    Mutant(
        "ZMTP: a property may reach beyond its READY", "client/core/zmtp.py",
        "        if value_at > len(data) or value_end > len(data):", "        if False:",
        ZMTP_CONVERSATIONS, 10,
    ),
    Mutant(
        "ZMTP: READY may have any number of properties", "client/core/zmtp.py",
        "        if len(properties) == PROPERTIES_MAX:", "        if False:",
        ZMTP_CONVERSATIONS, 9,
    ),
    Mutant("ZAP is not insisted on", "server/transport/curve.py", "(zmq.ZAP_ENFORCE_DOMAIN, 1)", "(zmq.ZAP_ENFORCE_DOMAIN, 0)",
           "tests/unit/test_curve_router.py::test_without_a_handler_nobody_is_let_in", 14),
    Mutant("every key is let in", "server/zap.py", 'return key, "" if self._knows(key) else f"unknown key {key}"', 'return key, ""',
           "tests/unit/test_zap.py::test_an_unknown_key_is_refused_and_told", 14),
    Mutant("any mechanism is let in", "server/zap.py", 'mechanism != b"CURVE" or ', "",
           "tests/unit/test_zap.py::test_whatever_is_asked_is_answered_and_refused_unless_it_is_a_known_key", 14),
    Mutant("connections in plain beside those with CURVE", "server/transport/curve.py", "    (zmq.CURVE_SERVER, 1),\n", "",
           "tests/unit/test_curve_router.py::test_a_stranger_is_not_heard", 14),
    Mutant("rights are not looked at", "server/transport/curve.py", "why = self.refuse(user, request.ops)", 'why = ""',
           "tests/unit/test_curve_router.py::test_a_request_beyond_the_rights_is_refused_whole_and_not_logged", 14),
    Mutant("only the first operation's rights are looked at", "server/transport/curve.py", "self.refuse(user, request.ops)", "self.refuse(user, request.ops[:1])",
           "tests/unit/test_curve_router.py::test_a_request_beyond_the_rights_is_refused_whole_and_not_logged", 14),
    Mutant("a connection takes over another's identity", "server/transport/curve.py", "(zmq.ROUTER_HANDOVER, 0)", "(zmq.ROUTER_HANDOVER, 1)",
           "tests/unit/test_curve_router.py::test_who_claims_the_identity_of_a_connected_client_gets_neither_its_rights_nor_its_replies", 14),
    Mutant("a revoked key is still served", "server/access.py", "        client = self._by_key.get(key)\n        if client is None:\n            return \"the key", "        self._ever = {**getattr(self, \"_ever\", {}), **self._by_key}\n        client = self._ever.get(key)\n        if client is None:\n            return \"the key",
           "tests/unit/test_curve_router.py::test_a_revoked_key_is_refused_at_its_next_request_on_the_connection_it_has", 14),
    Mutant("watches outlive a change of rights", "server/loop.py", "        self.dispatcher.watches.end_those_of(access.changed)\n", "",
           "tests/unit/test_curve_router.py::test_a_watch_ends_when_the_rights_of_its_client_change", 14),
    Mutant("prefixes are ignored", "server/access.py", "            if self.prefixes:\n", "            if False:\n",
           "tests/unit/test_access.py::test_an_operation_needs_its_keys_within_the_prefixes", 14),
    Mutant("a prefix is compared the other way round", "server/access.py", "not access.prefix.startswith(self.prefixes)", "not any(own.startswith(access.prefix) for own in self.prefixes)",
           "tests/unit/test_access.py::test_an_operation_on_a_prefix_needs_that_prefix_within_an_allowed_one", 14),
    Mutant("the whole table is read with a right to a part", "server/access.py", "if access.prefix is not None and not access.prefix.startswith", "if access.prefix and not access.prefix.startswith",
           "tests/unit/test_access.py::test_an_operation_needs_its_keys_within_the_prefixes", 14),
    Mutant("who may only write reads by setting a default", "protocol/declaration.py", "return (Access(False, (op.key,)), Access(True, (op.key,)))", "return (Access(True, (op.key,)),)",
           "tests/unit/test_access.py::test_an_operation_needs_each_of_its_rights", 14),
    Mutant("everybody is told of the server", "protocol/operations.py", "    mark = \"?\"\n    ordered_by_log = False\n    scope = Scope.SERVER\n    administers = True\n", "    mark = \"?\"\n    ordered_by_log = False\n    scope = Scope.SERVER\n",
           "tests/unit/test_access.py::test_an_operation_needs_each_of_its_rights", 14),
    Mutant("a broken clients file takes all rights away", "server/access.py", "        except BadClients as error:\n            self.changed = frozenset()\n", "        except BadClients as error:\n            self.changed = frozenset()\n            self._by_key = {}\n",
           "tests/unit/test_access.py::test_a_broken_file_leaves_the_rights_that_were_in_force", 14),
    Mutant("half a clients file is taken", "server/access.py", 'if text and not text.endswith("\\n"):', "if False:",
           "tests/unit/test_access.py::test_a_file_that_is_cut_anywhere_gives_nobody_more_than_the_whole", 14),
    Mutant("a change of the clients file is not seen", "server/access.py", "return self._signature() != self._seen", "return False",
           "tests/integration/test_secured.py::test_the_clients_file_is_read_again_without_a_signal_when_it_changes", 14),
    Mutant("a clients file that others write is believed", "server/access.py", "mode & (stat.S_IWGRP | stat.S_IWOTH)", "False",
           "tests/unit/test_access.py::test_a_file_that_others_may_write_is_refused", 14),
    Mutant("a secret key that others read is used", "curve.py", "mode & (stat.S_IRWXG | stat.S_IRWXO)", "False",
           "tests/unit/test_curve.py::test_a_secret_key_that_others_may_read_is_refused", 14),
    Mutant("a pickled client carries its secret key", "curve.py", "return client_keys, (self.path, self.server)", "return ClientKeys, (KeyPair(*self.own), self.server, self.path)",
           "tests/unit/test_curve.py::test_a_pickle_holds_the_path_not_the_keys", 14),
    Mutant("keys are made with the umask's permissions", "cli/commands/keygen.py", "umask = os.umask(0o077)", "umask = os.umask(0o022)",
           "tests/unit/test_keygen.py::test_it_writes_two_files_for_their_owner_alone_as_zmq_auth_reads_them", 14),
    Mutant("keys are written over", "cli/commands/keygen.py", "os.link(path, target)", "os.replace(path, target)",
           "tests/unit/test_keygen.py::test_it_writes_no_key_over", 14),
    Mutant("any address is listened on without keys", "cli/securing.py", "    if insecure:\n        return\n", "    return\n",
           "tests/integration/test_secured.py::test_an_address_that_others_reach_is_refused_without_curve", 14),
    Mutant("a refused client never tries again", "client/core/pyzmq_socket.py", "            elif number in _FINAL:\n", "            elif False:\n",
           "tests/integration/test_secured.py::test_a_client_that_was_refused_is_served_as_soon_as_it_is_known", 14),
    Mutant("a refused key is told as silence", "client/core/pyzmq_socket.py", "zmq.EVENT_HANDSHAKE_FAILED_AUTH: Change.NOT_ALLOWED", "zmq.EVENT_HANDSHAKE_FAILED_AUTH: Change.REFUSED",
           "tests/integration/test_secured.py::test_a_stranger_is_told_at_its_deadline_that_it_is_not_allowed", 14),
    Mutant("who does not show the token goes on", "server/transport/tcp_connection.py", "                    taken.append(self._refuse_token())\n                    begin = 0\n                    break\n", "                    taken.append(Refusal(None, errors.NotAllowed.code, \"\"))\n                    self.token = None\n",
           "tests/unit/test_tcp_transport.py::test_who_does_not_show_the_token_is_told_once_and_disconnected", 14),
    Mutant("a list of URLs goes on in plain", "client/core/targets.py", "    if open_to_all is not None and any(", "    if False and any(",
           "tests/unit/test_client_targets.py::test_a_list_is_protected_as_a_whole_or_not_at_all", 14),
    Mutant("a secret key is shown as a path", "curve.py", "    if is_key(os.fspath(curve_key)) and", "    if False and",
           "tests/unit/test_client_targets.py::test_a_secret_key_where_its_file_is_wanted_is_shown_nowhere", 14),
    Mutant("a server's key is taken for each URL's", "client/core/endpoints.py", "self._targets[self._at].keys", "self._targets[0].keys",
           "tests/integration/test_secured.py::test_a_list_of_urls_follows_a_server_to_its_new_key", 14),
    Mutant("the log names the senders of reads as those of changes", "store/store.py", "    of_writes = [sender for request, sender in zip(requests, senders) if request.writes]\n", "    of_writes = list(senders)\n",
           "tests/unit/test_curve_router.py::test_names_are_those_of_what_is_logged", 14),
    Mutant("the log names nobody", "server/loop.py", "name_of=None if access is None else access.name_of,", "name_of=None,",
           "tests/integration/test_secured.py::test_the_log_and_the_trace_name_the_clients", 14),
    Mutant("a refused peer is closed while it sends", "server/transport/tcp.py", "        if not connection.refused:\n", "        if True:\n",
           "tests/unit/test_tcp_transport.py::test_who_sends_on_behind_a_wrong_token_is_told_before_the_end", 14),
    Mutant("a refused peer may send for ever", "server/transport/tcp.py", "            if not received_bytes or connection.received_bytes > DRAINED_BYTES_MAX:\n", "            if not received_bytes:\n",
           "tests/unit/test_tcp_transport.py::test_who_never_stops_sending_behind_a_wrong_token_is_closed_at_last", 14),
    Mutant("the token is not asked for", "cli/serving/building.py", "request_bytes_max=options.request_bytes_max, token=token)", "request_bytes_max=options.request_bytes_max)",
           "tests/integration/test_secured.py::test_the_bridge_asks_for_its_token", 14),
    # ---- backups
    Mutant(
        "a backup of the checkpoint that was there", "store/file/compaction.py",
        "            if self._log.checkpoint_group >= group:", "            if self._log.checkpoint_group >= 0:",
        BACKUP + "test_a_backup_under_load_is_the_table_at_its_revision", 15,
    ),
    Mutant(
        "a compaction that runs is the one that was asked for", "store/file/compaction.py",
        "        group, failed = self._log.group, self.failed", "        group, failed = self._log._sealed_group, self.failed",
        BACKUP + "test_what_is_acknowledged_while_a_compaction_runs_is_in_the_backup", 15,
    ),
    Mutant(
        "a backup follows the name of the checkpoint", "server/backups.py",
        "            piece = backup.file.read(offset, BACKUP_CHUNK_BYTES)",
        "            piece = (backup.open_when_written() or backup.file).read(offset, BACKUP_CHUNK_BYTES)",
        BACKUPS + "test_a_backup_is_read_in_pieces_once_its_checkpoint_is_written", 15,
    ),
    Mutant(
        "a backup is written in its place", "cli/commands/backup.py",
        "        with replacing(destination, _MODE) as file:", "        with destination.open(\"wb\") as file:",
        BACKED_UP + "test_a_server_killed_in_the_middle_leaves_the_destination_as_it_was", 15,
    ),
    Mutant(
        "a backup without its footer is whole", "store/file/checkpoint.py",
        '        raise errors.CorruptionError(f"{path}: offset {file.size()}: the footer is missing")', "        return",
        "tests/unit/test_backup_files.py::test_every_flipped_bit_and_every_truncation_is_found", 15,
    ),
    Mutant(
        "a vanished client's backup stays open", "server/backups.py",
        "if now_s - backup.asked_s > IDLE_S_MAX]:", "if False]:",
        BACKED_UP + "test_a_client_killed_in_the_middle_is_let_go", 9,
    ),
    Mutant(
        "any number of backups", "server/backups.py",
        "        if len(self._backups) < OPEN_MAX:", "        if True:",
        BACKUPS + "test_so_many_backups_are_open_and_a_vanished_one_makes_room", 9,
    ),
    Mutant(
        "any number of pieces in a request", "server/dispatcher.py",
        "        if isinstance(arrival.request, Request) and len(arrival.request.ops) > 1:", "        if False:",
        BACKUPS + "test_a_backup_goes_in_a_request_of_its_own", 9,
    ),
    Mutant(
        "nobody is told that a checkpoint could not be written", "store/file/compaction.py",
        "            if self.failed > failed:", "            if False:",
        BACKED_UP + "test_a_full_disk_at_the_server_is_said_and_a_backup_is_made_when_there_is_room", 15,
    ),
    Mutant(
        "a restored checkpoint beside the old log", "store/offline/restore.py",
        "    if has_checkpoint:\n        remove(NAME)\n", "    if has_checkpoint:\n",
        RESTORED, 15,
    ),
    Mutant(
        "a restored log beside the old sealed one", "store/offline/restore.py",
        "    if has_checkpoint or directory.exists(NAME):\n        remove(NAME_SEALED)\n", "",
        RESTORED, 15,
    ),
    Mutant(
        "the table that is replaced is not kept", "store/offline/restore.py",
        "        replaced = _keep(directory)", "        replaced = None",
        RESTORES + "test_a_table_is_replaced_only_when_that_is_said_and_kept_then", 15,
    ),
    Mutant(
        "a table is replaced unasked", "store/offline/restore.py",
        "    if any(map(directory.exists, NAMES)) and not replace:", "    if False:",
        RESTORES + "test_a_table_is_replaced_only_when_that_is_said_and_kept_then", 15,
    ),
    Mutant(
        "a restore beside a server", "store/offline/restore.py",
        "    directory = DiskDirectory(path)\n", "    path.mkdir(exist_ok=True, parents=True)\n    directory = DiskDirectory(path, lock=False)\n",
        RESTORES + "test_a_directory_in_use_is_refused", 15,
    ),
    Mutant(
        "a restore that failed leaves a directory that passes for a new table", "store/offline/restore.py",
        "        if not was_there:", "        if False:",
        RESTORES + "test_every_flipped_bit_and_every_truncation_is_found", 15,
    ),
    Mutant(
        "sessions are not in a backup", "store/sections.py",
        '    for some_sessions in _chunks(sessions.dump(),', '    for some_sessions in _chunks((),',
        BACKUP + "test_a_restored_table_knows_what_a_retry_got_and_lets_rows_expire", 5,
    ),
    Mutant(
        "a barrier for reads that need none", "store/store.py",
        "        if not any(map(needs_newest, requests)):", "        if not requests:",
        READS + "test_neither_a_session_read_nor_a_local_one_asks_the_log", 16,
    ),
    Mutant(
        "a server that is cut off takes its own table for the newest", "store/store.py",
        "            if self.state is _CUT_OFF and not request.writes:", "            if False:",
        READS + "test_a_server_that_is_cut_off_answers_what_it_can_and_refuses_the_rest", 4,
    ),
    Mutant(
        "a watch begins at a server that is cut off", "server/dispatcher.py",
        "step.refuse_cut_off(request) or self._serve", "self._serve",
        READS + "test_a_server_that_is_cut_off_answers_what_it_can_and_refuses_the_rest", 16,
    ),
    Mutant(
        "an append that was rejected taken for a barrier", "store/store.py",
        "        if step.state is _REJECTED and self.is_shared:", "        if False:",
        READS + "test_a_linearizable_read_beside_a_rejected_write_sees_what_others_have_written", 4,
    ),
    Mutant(
        "a log that cannot be asked is asked in every step", "store/store.py",
        "            self._barrier_again_s = self._monotonic() + BARRIER_AGAIN_S\n", "",
        READS + "test_a_log_that_cannot_be_asked_is_left_alone_for_a_moment", 9,
    ),
    Mutant(
        "a session read does not wait for what its client has seen", "server/seen.py",
        "        return seen is not None and seen > self._store.revision", "        return False",
        READS + "test_a_session_read_waits_until_the_server_has_applied_what_its_client_has_seen", 16,
    ),
    Mutant(
        "a session read waits without end", "server/seen.py",
        "                if queue.due_s > now_s:", "                if True:",
        READS + "test_a_session_read_that_waits_too_long_is_refused_and_what_came_after_it_answered", 9,
    ),
    Mutant(
        "requests overtake the one of their peer that waits for a revision", "server/seen.py",
        "            queue = self.queues.get(peer)\n            if queue is None:",
        "            queue = self.queues.get(peer)\n            if queue is None or not self._is_ahead(arrival):",
        READS + "test_a_session_read_waits_until_the_server_has_applied_what_its_client_has_seen", 4,
    ),
    Mutant(
        "any number of requests wait for revisions", "server/seen.py",
        "            elif self._count > WAITING_MAX or self._bytes > WAITING_BYTES_MAX:", "            elif False:",
        READS + "test_what_waits_for_revisions_is_bounded", 9,
    ),
    Mutant(
        "session reads wait for a group of unknown fate", "server/dispatcher.py",
        "        if request.seen is not None and (not request.scans or self.deferral.is_still_ready(request)):",
        "        if False:",
        READS + "test_while_a_group_is_unknown_the_table_before_it_is_read_and_nothing_is_taken_back", 16,
    ),
    Mutant(
        "linearizable reads wait for a group of unknown fate without end", "server/unknown.py",
        "        if self._looked_s > late_s:", "        if True:",
        READS + "test_a_linearizable_read_waits_for_an_unknown_group_so_long_and_then_is_refused", 9,
    ),
    Mutant(
        "every copy of a request of unknown fate waits", "server/dispatcher.py",
        "            elif not unknown.repeats(arrival):", "            else:",
        READS + "test_copies_of_a_request_of_unknown_fate_wait_once", 9,
    ),
    Mutant(
        "progress of a watch as far as this server has come", "protocol/operations.py",
        '    mark = "g"\n', '    mark = "g"\n    ordered_by_log = False\n',
        READS + "test_progress_of_a_watch_counts_what_others_have_acknowledged", 4,
    ),
    Mutant(
        "an append to etcd without a comparison", "store/etcd/appends.py",
        "            compare=[was_changed_at(self._server_key, self._registered_at)],\n            success=[\n                put_op(self._server_key",
        "            compare=[],\n            success=[\n                put_op(self._server_key",
        ETCD + "test_an_append_whose_answer_is_lost_is_sent_again_and_in_the_log_once", 5,
    ),
    Mutant(
        "an append to etcd that is looked for and not fenced", "store/etcd/appends.py",
        "            success=[delete_op(self._server_key)],", "            success=[range_op(self._server_key)],",
        ETCD + "test_a_group_that_never_got_there_is_refused_and_cannot_get_there_later", 11,
    ),
    Mutant(
        "an etcd key that was trimmed taken for one that never was", "store/etcd/appends.py",
        '        if own and own[0].value == b"%d" % self._seq:', "        if False:",
        ETCD + "test_a_group_of_unknown_fate_that_was_trimmed_meanwhile_is_not_appended_again", 5,
    ),
    Mutant(
        "an attempt that may have been executed forgotten for the next one", "store/etcd/client.py",
        "                    if unknown is not None and error is not unknown:", "                    if False:",
        ETCD + "test_what_one_member_may_have_done_is_not_refused_as_the_next_cannot_be_reached", 11,
    ),
    Mutant(
        "an etcd without room taken for a refusal", "store/etcd/client.py",
        "class EtcdNoSpace(EtcdUnknown):", "class EtcdNoSpace(EtcdRefused):",
        ETCD + "test_a_change_for_which_etcd_says_it_has_no_room_may_be_in_the_log_all_the_same", 11,
    ),
    Mutant(
        "a read on etcd without a barrier", "store/etcd/etcd_log.py",
        "            while feed.number < tail.number and self.group < tail.number:", "            while False:",
        ETCD + "test_a_read_waits_for_the_watch_and_is_refused_when_it_lags", 4,
    ),
    Mutant(
        "groups on etcd in the order of their keys", "store/etcd/reader.py",
        "            return sorted(found)", "            return sorted(found, key=lambda pair: pair[1])",
        ETCD + "test_the_order_is_that_of_the_appends_whatever_the_keys_are_called", 2,
    ),
    Mutant(
        "an append to etcd returned before what others had appended has come", "store/etcd/etcd_log.py",
        "        if landed is None or landed[0] != self.group + 1:", "        if landed is None:",
        ETCD + "test_the_order_is_that_of_the_appends_whatever_the_keys_are_called", 2,
    ),
    Mutant(
        "what comes behind a group of unknown fate on etcd handed out before it", "store/etcd/etcd_log.py",
        "        return self._return_before(feed.number + 1 if landed is None else landed[0])",
        "        return self._return_before(feed.number + 1)",
        ETCD + "test_what_comes_behind_a_group_of_unknown_fate_waits_for_it", 2,
    ),
    Mutant(
        "a group that is missing on etcd skipped", "store/etcd/reader.py",
        "    if len(found) != tail.number - number:", "    if False:",
        ETCD + "test_a_group_that_is_missing_is_noticed", 7,
    ),
    Mutant(
        "a watch on etcd begun anew from now on", "store/etcd/feed.py",
        "            self._add(group)\n        self._position = tail.revision",
        "            break\n        self._position = tail.revision",
        ETCD + "test_a_watch_goes_on_where_etcd_has_forgotten_the_history", 1,
    ),
    Mutant(
        "a server behind the trimming goes on with what it has", "store/store.py",
        "            self.table.clear()\n            self.recover()\n", "            list(self.log.recover())\n",
        ETCD + "test_a_store_behind_the_trimming_is_built_anew_and_its_watches_end", 7,
    ),
    Mutant(
        "any number of groups wait to be applied", "store/etcd/feed.py",
        "            self._changed.wait_for(lambda: self._closed or self._bytes < QUEUE_BYTES_MAX)\n", "",
        ETCD + "test_what_waits_to_be_applied_is_bounded", 9,
    ),
    Mutant(
        "a client does not leave a server that refuses for now", "client/core/session_channel.py",
        "session.hello.changed_to is not None or refuses", "session.hello.changed_to is not None",
        SEVERAL + "test_a_client_goes_on_at_another_server_within_its_deadline[blocking-cut_off]", 16,
    ),
    Mutant(
        "a refusal for now is the call's error", "client/core/session.py",
        "return code == errors.Unavailable.code or", "return False and",
        SEVERAL + "test_a_client_goes_on_at_another_server_within_its_deadline[blocking-cut_off]", 11,
    ),
    Mutant(
        "a write refused by one of two servers is said not to be applied", "client/core/outgoing.py",
        "        return self.refused == self.sent", "        return self.refused > 0",
        SESSION + "test_a_write_is_known_not_to_be_applied_only_if_every_copy_was_refused", 11,
    ),
    Mutant(
        "a session read does not say what its client has seen", "client/core/session.py",
        "0 if self._any else self.revision", "0",
        SEVERAL + "test_a_session_read_at_another_server_sees_what_the_client_has_written", 16,
    ),
    Mutant(
        "what a watch has seen does not count for its client", "client/core/push_channel.py",
        "                self._note_seen(self.state.position or 0)", "                pass",
        SEVERAL + "test_what_a_watch_has_seen_counts_for_session_reads", 16,
    ),
    Mutant(
        "a watch stays at a server that is cut off", "server/hearing.py",
        "        if silent_s >= CUT_OFF_S and len(self._watches):", "        if False:",
        SEVERAL + "test_a_watch_goes_on_at_another_server_without_a_gap[blocking-cut_off]", 16,
    ),
    Mutant(
        "a watch is not told that another server has begun an epoch", "server/watches.py",
        "        if watch.marks and epoch is not None:", "        if False:",
        SEVERAL + "test_a_watch_goes_on_at_another_server_without_a_gap[blocking-kill]", 16,
    ),
    Mutant(
        "a session read is sent to a server that does not know of it", "client/core/session.py",
        " or not self.hello.knows_seen:", ":",
        SESSION + "test_a_server_of_an_earlier_version_is_asked_as_it_understands_it", 16,
    ),
    Mutant("any name may be the dashboard's", "dashboard/safety.py", "        if not self._may_be_host(host):", "        if False:",
           "tests/unit/test_dashboard_rules.py::test_other_names_may_not_so_that_dns_rebinding_leads_nowhere", 14),
    Mutant("the pages of others may ask the dashboard", "dashboard/safety.py", "        if not _is_own(headers, host):", "        if False:",
           "tests/unit/test_dashboard_rules.py::test_pages_of_others_may_not_ask", 14),
    Mutant("the dashboard does not look at Sec-Fetch-Site", "dashboard/safety.py", "    return site in (\"same-origin\", \"none\") or opens_page", "    return True",
           "tests/unit/test_dashboard_rules.py::test_pages_of_others_may_not_ask", 14),
    Mutant("the dashboard asks for no token", "dashboard/safety.py", "        return _refused(401,", "        return None and _refused(401,",
           "tests/unit/test_dashboard_rules.py::test_without_the_token_nothing_is_told", 14),
    Mutant("the dashboard's cookie is the token", "dashboard/safety.py", "response.set_cookie(COOKIE, self._cookie,", "response.set_cookie(COOKIE, token.decode(),",
           "tests/unit/test_dashboard_rules.py::test_the_token_sets_a_cookie_once_and_leaves_the_address", 14),
    Mutant("any number of browsers follow a dashboard", "dashboard/streams.py", "        if self.open >= STREAMS_MAX:", "        if False:",
           "tests/unit/test_dashboard_figures.py::test_the_number_of_browsers_is_bounded", 9),
    Mutant("a browser that does not read is waited for", "dashboard/streams.py", "        await asyncio.wait_for(sending, timeout_s)", "        await sending",
           "tests/unit/test_dashboard_figures.py::test_a_browser_that_does_not_read_is_given_up", 9),
    Mutant("the dashboard keeps any number of columns", "dashboard/rings.py", "if name not in self._columns and len(self._columns) < COLUMNS_MAX:", "if name not in self._columns:",
           "tests/unit/test_dashboard_figures.py::test_the_number_of_columns_is_bounded", 9),
    Mutant("the dashboard counts across a silence", "dashboard/collector.py", "        self._before = self._before_coarse = self._with_clients = None\n        self.rates", "        self.rates",
           "tests/unit/test_dashboard_figures.py::test_silence_is_said_leaves_a_gap_and_ends", 13),
    Mutant("the dashboard keeps to a table that is gone", "dashboard/collector.py", "            if isinstance(error, errors.TableChanged):", "            if False:",
           "tests/unit/test_dashboard_figures.py::test_another_table_behind_the_same_address_is_shown_with_another_client", 12),
    Mutant("the dashboard shows what cannot be seen", "dashboard/shown.py", "    if text.isprintable():", "    if True:",
           "tests/unit/test_dashboard_shown.py::test_what_cannot_be_seen_is_escaped", 9),
    Mutant("lanes never doubt", "dashboard/lanes.py", "        if bar.began_us < before.ended_us - OVERLAP_US:", "        if False:",
           "tests/unit/test_dashboard_shown.py::test_requests_that_did_not_execute_alone_are_noticed", 4),
    Mutant("any number of prefixes are watched for browsers", "dashboard/changes.py", "            if len(self._watched) >= WATCHES_MAX:", "            if False:",
           "tests/unit/test_dashboard_changes.py::test_the_number_of_prefixes_is_bounded", 9),
    Mutant("prefixes are watched for browsers that are gone", "dashboard/changes.py", "            if now_s - watched.asked_s > IDLE_S:", "            if False:",
           "tests/unit/test_dashboard_changes.py::test_a_watch_that_nobody_asks_for_ends", 9),
    Mutant("the dashboard prints its token into a log", "cli/commands/dashboard.py", "        if not sys.stdout.isatty():", "        if False:",
           "tests/integration/test_dashboard_start.py::test_where_others_reach_it_there_is_no_start_without_a_token", 14),
    Mutant(
        "of two servers that begin a table the last one's lineage counts", "store/table.py",
        "        if op.lineage is not None and self.epochs.lineage is None:", "        if op.lineage is not None:",
        READS + "test_of_two_servers_that_begin_a_table_the_first_one_s_lineage_counts", 12,
    ),
    Mutant(
        "servers that share a log are taken for copies", "cli/explain.py",
        "        if copies > 1 and lineage not in shared:", "        if copies > 1:",
        "tests/integration/test_cli_explain.py::test_servers_of_one_table_are_listed_with_how_far_they_are_behind", 12,
    ),
    Mutant(
        "what is written during a copy is not read again", "cli/commands/copy.py",
        "            if not changed:", "            if True:",
        "tests/integration/test_cli_transfer.py::"
        "test_copy_of_a_table_that_is_written_to_is_the_table_at_the_revision_it_tells", 15,
    ),
    # ---- checkpoints on etcd
    Mutant(
        "a piece of a checkpoint put without the lock", "store/etcd/checkpoints.py",
        "held.transact(put=[(chunk_key(name, held.id, chunks), data)])",
        "keys.transact([], put=[(chunk_key(name, held.id, chunks), data)])",
        KEPT + "test_a_writer_that_stops_at_any_call_and_wakes_up_later_changes_nothing", 8,
    ),
    Mutant(
        "a checkpoint switched without the lock", "store/etcd/checkpoints.py",
        "held.transact(put=[(key, msgspec.json.encode(head))], equal=[(key, before)])",
        "keys.transact([], put=[(key, msgspec.json.encode(head))])",
        KEPT + "test_a_writer_that_stops_at_any_call_and_wakes_up_later_changes_nothing", 8,
    ),
    Mutant(
        "a checkpoint switched before it is all there", "store/etcd/checkpoints.py",
        "    remove_garbage(held, keys, name)\n    chunks = crc = offset = 0\n",
        "    remove_garbage(held, keys, name)\n    chunks = crc = offset = 0\n"
        "    held.transact(put=[(key, msgspec.json.encode(Head(held.id, content.group, 0, 0, 0, 0)))])\n",
        KEPT + "test_a_writer_that_ends_at_any_call_leaves_the_old_checkpoint_or_the_new_one", 8,
    ),
    Mutant(
        "the old checkpoint deleted before the new one is there", "store/etcd/checkpoints.py",
        "        if head is None or id != head.id:\n            held.transact", "        if True:\n            held.transact",
        KEPT + "test_a_writer_that_ends_at_any_call_leaves_the_old_checkpoint_or_the_new_one", 8,
    ),
    Mutant(
        "half-written checkpoints left in etcd", "store/etcd/checkpoints.py",
        "            held.transact(delete=[(pieces, end_of(pieces))])\n", "",
        KEPT + "test_a_writer_that_ends_at_any_call_leaves_the_old_checkpoint_or_the_new_one", 9,
    ),
    Mutant(
        "the lock of a checkpoint taken over from one who is at work", "store/etcd/checkpoints.py",
        "        if clock() - since_s >= stale_s:", "        if True:",
        KEPT + "test_a_lock_that_is_put_again_is_respected_and_an_abandoned_one_taken_over", 8,
    ),
    Mutant(
        "a lock that was taken with a lost answer not known", "store/etcd/checkpoints.py",
        "        if present is not None and present.value == id.encode():", "        if False:",
        KEPT + "test_transactions_that_are_executed_twice_do_no_harm", 8,
    ),
    Mutant(
        "a checkpoint from etcd not compared with its head", "store/etcd/checkpoints.py",
        "    if (offset, crc) != (head.bytes, head.crc):", "    if False:",
        KEPT + "test_a_checkpoint_that_is_not_what_was_written_is_refused", 7,
    ),
    Mutant(
        "an older checkpoint written over a newer one", "store/etcd/checkpoints.py",
        "decode_head(name, before).group >= content.group:", "False:",
        KEPT + "test_a_checkpoint_that_holds_less_than_the_present_one_is_not_written", 8,
    ),
    Mutant(
        "groups trimmed that the checkpoint does not hold", "store/etcd/checkpoints.py",
        "    if head is None or decode_head(name, head.value).position < position:", "    if head is None:",
        KEPT + "test_trimming_deletes_the_groups_up_to_a_number_of_every_server", 1,
    ),
    Mutant(
        "groups trimmed whenever they were put", "store/etcd/checkpoints.py",
        "RANGE_KEYS_MAX, put_until=position):", "RANGE_KEYS_MAX):",
        KEPT + "test_trimming_deletes_the_groups_up_to_a_number_of_every_server", 1,
    ),
    Mutant(
        "the pieces of a group trimmed that is being appended", "store/etcd/checkpoints.py",
        'deletes += [(first, f"{last}\\0"), (pieces, end_of(f"{pieces}{seq}/"))]',
        'deletes += [(first, f"{last}\\0"), (pieces, end_of(pieces))]',
        KEPT + "test_trimming_takes_the_pieces_of_long_groups_along_and_leaves_those_of_later_ones", 1,
    ),
    Mutant(
        "the log trimmed without a margin", "store/etcd/upkeep.py",
        "if self._clock() - each[0] >= margin_s]", "]",
        UPKEEP + "test_the_log_is_trimmed_a_margin_after_a_checkpoint_was_seen", 9,
    ),
    Mutant(
        "all servers write a checkpoint at the same moment", "store/etcd/upkeep.py",
        "self._clock() + JITTER_S * self._jitter() if", "self._clock() if",
        UPKEEP + "test_a_log_that_has_outgrown_the_checkpoint_gets_a_new_one_after_a_while_of_its_own", 9,
    ),
    Mutant(
        "a backup of the checkpoint that was in etcd", "store/etcd/upkeep.py",
        "if head is not None and head.group >= group and self._copy.has(head):",
        "if head is not None and self._copy.has(head):",
        UPKEEP + "test_a_backup_waits_for_a_checkpoint_that_holds_everything", 15,
    ),
    Mutant(
        "a copy of a checkpoint looked at for its length alone", "store/etcd/local_copy.py",
        "        return crc == head.crc", "        return True",
        COPIED + "test_a_damaged_copy_is_fetched_again", 7,
    ),
    Mutant(
        "any copy of a checkpoint is the newest", "store/etcd/local_copy.py",
        "            return os.stat(self.path / _name_of(head)).st_size == head.bytes",
        "            return bool(list(self.path.glob('*.ckpt'))) or bool(os.stat(self.path / _name_of(head)))",
        COPIED + "test_the_newest_checkpoint_is_fetched_once_and_is_the_only_one_kept", 2,
    ),
    Mutant(
        "what a server has served of etcd's table not compared", "store/etcd/local_copy.py",
        "if is_lineage and epochs.contains(epoch, seen.revision) and seen.revision <= revision:", "if True:",
        COPIED + "test_a_history_that_lacks_what_was_seen_is_refused", 12,
    ),
    Mutant(
        "the revision that was served of etcd's table not compared", "store/etcd/local_copy.py",
        " and seen.revision <= revision:", ":",
        COPIED + "test_a_history_that_lacks_what_was_seen_is_refused", 12,
    ),
    Mutant(
        "an etcd that was put back is served", "store/etcd/local_copy.py",
        "if noted is not None and index < int(noted) and not is_accepted:", "if False:",
        COPIED + "test_an_etcd_that_has_begun_anew_is_refused_until_somebody_says_to_go_on", 12,
    ),
    Mutant(
        "a half-written checkpoint deleted under the feet of its writer", "store/etcd/space.py",
        '    members.delete(lock_key(name), lock_key(name) + "\\0")\n', "",
        KEPT + "test_half_written_checkpoints_are_removed_without_a_lock_at_any_moment_of_their_writer", 8,
    ),
    Mutant(
        "a used-up quota of etcd without defragmentation", "store/etcd/space.py",
        "            members.defragment(address)\n", "            pass\n",
        "tests/integration/test_etcd_upkeep_real.py::test_a_quota_that_is_used_up_is_recovered", 9,
    ),
    Mutant(
        "a used-up quota of etcd without compaction", "store/etcd/space.py",
        "    members.compact(keys.get()[0])\n", "",
        "tests/integration/test_etcd_upkeep_real.py::test_a_quota_that_is_used_up_is_recovered", 9,
    ),
    Mutant(
        "etcd's alarm left raised", "store/etcd/space.py",
        "        members.disarm()\n", "        pass\n",
        "tests/integration/test_etcd_upkeep_real.py::test_a_quota_that_is_used_up_is_recovered", 9,
    ),
    Mutant(
        "a head that was put with a lost answer not known", "store/etcd/checkpoints.py",
        "        if read_head(keys, name) != head:\n            raise", "        raise",
        KEPT + "test_transactions_that_are_executed_twice_do_no_harm", 8,
    ),
    Mutant(
        "any number of short groups before a checkpoint", "store/etcd/upkeep.py",
        "or groups > max(", "or 0 * groups > max(",
        UPKEEP + "test_many_groups_get_a_checkpoint_however_short_they_are", 9,
    ),
    Mutant(
        "a margin kept while etcd's quota fills", "store/etcd/upkeep.py",
        "margin_s = 0.0 if self._is_filling else self._settings.margin_s", "margin_s = self._settings.margin_s",
        UPKEEP + "test_when_the_quota_fills_the_log_is_shortened_early_and_without_a_margin", 9,
    ),
    Mutant(
        "groups of the checkpoint kept in an etcd without room", "store/etcd/space.py",
        "trimmable(keys, name, head.position)[0]", "trimmable(keys, name, 0)[0]",
        KEPT + "test_groups_that_the_checkpoint_holds_are_trimmed_without_a_lock", 9,
    ),
    Mutant(
        "a server that was stopped answers from its past", "store/etcd/etcd_log.py",
        "            tail = read_tail(self.client, self._keys, timeout_s=self._barrier_s)",
        "            tail = self.__dict__.setdefault('_told', read_tail(self.client, self._keys, timeout_s=self._barrier_s))",
        "tests/fault/test_cluster_kill.py::test_a_server_that_was_stopped_answers_no_lookup_from_its_past", 4,
    ),
    # ---- monitors and the slow log
    Mutant(
        "a monitor buffers without a bound", "server/monitors.py",
        "        if self.buffered_bytes + len(encoded) > BUFFER_BYTES_MAX:",
        "        if False:",
        "tests/unit/test_monitors.py::test_who_never_reads_costs_a_bounded_buffer_and_its_drops_are_counted", 9,
    ),
    Mutant(
        "what a monitor drops is not counted", "server/monitors.py",
        "            self.dropped += 1\n            return",
        "            return",
        "tests/unit/test_monitors.py::test_who_never_reads_costs_a_bounded_buffer_and_its_drops_are_counted", 9,
    ),
    Mutant(
        "monitors take all the time they want", "server/monitors.py",
        "            self._left_ns -= spent_ns - began_ns\n",
        "            pass\n",
        "tests/unit/test_monitors.py::test_a_monitor_takes_its_share_of_the_time_and_counts_what_it_did_not_look_at", 9,
    ),
    Mutant(
        "requests are measured though no monitor looks", "server/dispatcher.py",
        "bool(self.observers) or self.monitors.is_looking, step.execute",
        "bool(self.observers) or self.monitors.is_active, step.execute",
        "tests/unit/test_monitors.py::test_requests_are_measured_only_while_a_monitor_looks", 9,
    ),
    Mutant(
        "any number of monitors", "server/monitors.py",
        "        if len(self._monitors) >= MONITORS_MAX:",
        "        if False:",
        "tests/unit/test_monitors.py::test_there_are_only_so_many_monitors", 9,
    ),
    Mutant(
        "a monitor is sent any number of bytes unheard", "server/monitors.py",
        "monitor.unheard_bytes >= UNHEARD_BYTES_MAX or not",
        "not",
        "tests/unit/test_monitors.py::test_nothing_more_is_sent_to_who_gives_no_heartbeat", 9,
    ),
    Mutant(
        "a monitor needs no heartbeat", "server/monitors.py",
        "            if now_s - monitor.heard_s > SILENCE_S_MAX and",
        "            if False and",
        "tests/unit/test_monitors.py::test_a_monitor_without_heartbeats_ends_and_says_so", 9,
    ),
    Mutant(
        "who has gone leaves its monitors", "server/monitors.py",
        "            except errors.PeerGone:\n                self._end(monitor)",
        "            except errors.PeerGone:\n                pass",
        "tests/unit/test_monitors.py::test_a_peer_that_has_gone_takes_its_monitors_along", 9,
    ),
    Mutant(
        "a monitor of a prefix is told of other keys", "server/answers.py",
        "        if touches(op, prefix):",
        "        if True:",
        "tests/unit/test_monitors.py::test_a_monitor_of_a_prefix_is_told_nothing_of_other_keys", 9,
    ),
    Mutant(
        "times are kept for nobody", "server/loop.py",
        "        keeps_times = dispatcher.slow_log is not None or dispatcher.monitors.is_active\n",
        "        keeps_times = True\n",
        "tests/unit/test_monitors.py::test_a_server_without_monitors_attaches_nothing", 9,
    ),
    Mutant(
        "what waits for an index is not stamped", "server/dispatcher.py",
        "            if len(admitted) < count:\n                self._stamp(arrivals)\n",
        "",
        "tests/unit/test_slow_log.py::test_a_request_that_waited_for_an_index_is_slow_by_what_it_waited", 9,
    ),
    Mutant(
        "quick steps hide who has waited long", "server/dispatcher.py",
        " or self._has_waited",
        "",
        "tests/unit/test_slow_log.py::test_a_request_that_waited_for_an_index_is_slow_by_what_it_waited", 9,
    ),
    Mutant(
        "what is slow in a step has one time", "server/dispatcher.py",
        "            if observed or isinstance(request, Refusal) or not request.is_quick:",
        "            if observed or isinstance(request, Refusal) or request.served or request.scans:",
        "tests/unit/test_slow_log.py::test_who_waited_for_a_slow_one_is_told_apart_from_it", 9,
    ),
    Mutant(
        "the slow log grows without a bound", "server/slow_log.py",
        "heapq.heappushpop(self._slowest, entry)",
        "heapq.heappush(self._slowest, entry)",
        "tests/unit/test_slow_log.py::test_the_log_is_bounded_and_keeps_the_slowest_and_the_latest", 9,
    ),
    Mutant(
        "monitors outlive a change of rights", "server/loop.py",
        "        self.dispatcher.monitors.end_those_of(access.changed)\n",
        "",
        "tests/unit/test_curve_router.py::test_a_monitor_ends_when_the_rights_of_its_client_change", 14,
    ),
    Mutant(
        "one refusal of several copies taken for all", "client/core/outgoing.py",
        "        return self.refused == self.sent", "        return self.refused > 0",
        SESSION + "test_a_refusal_for_now_by_one_of_several_servers_is_never_taken_for_the_truth", 11,
    ),
    Mutant(
        "a refusal for good after one for now taken for all", "client/core/session.py",
        "            certain = request.sent == request.refused + 1", "            certain = request.refused > 0 or request.sent == 1",
        SESSION + "test_a_refusal_for_now_by_one_of_several_servers_is_never_taken_for_the_truth", 11,
    ),
    Mutant(
        "a watch never tells that another table answers", "client/core/push_channel.py",
        "        if not self.endpoints.has_alternatives or self._changes > self.endpoints.count:", "        if False:",
        SEVERAL + "test_a_watch_goes_past_another_table_and_ends_where_no_other_server_has_its_own[blocking]", 12,
    ),
]
# fmt: on


def misplaced() -> list[str]:
    """Say which snippets do not stand exactly once in their files."""
    counts = [(mutant, (ROOT / "kvzmq" / mutant.file).read_text().count(mutant.snippet)) for mutant in MUTANTS]
    return [
        f"{mutant.name}: the snippet stands {count} times in {mutant.file}" for mutant, count in counts if count != 1
    ]


def run(mutant: Mutant | None, test: str, scratch: Path) -> bool:
    """Run one test against a copy of the package, mutated or not; True if it passed."""
    home = Path(tempfile.mkdtemp(dir=scratch))
    shutil.copytree(ROOT / "kvzmq", home / "kvzmq", ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        path = home / "kvzmq" / mutant.file
        path.write_text(path.read_text().replace(mutant.snippet, mutant.replaced))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(ROOT / test)]
    environment = os.environ | {"PYTHONPATH": str(home), "KVZMQ_MUTANT": "1"}
    with subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT / "tests",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return False  # a test that hangs does not pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the servers it has started
            shutil.rmtree(home)
    if process.returncode not in (0, 1):
        raise SystemExit(f"{test}: pytest could not run it\n{said}")
    return process.returncode == 0


def main() -> int:
    """Run the mutants that were asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if found := misplaced():
        parser.error("\n".join(found))
    chosen = [m for m in MUTANTS if not options.names or any(m.name.startswith(name) for name in options.names)]
    print("| mutant | guarantee | test | caught |\n|---|---|---|---|")
    if options.list:
        for mutant in chosen:
            print(f"| {mutant.name} | {mutant.guarantee} | `{mutant.test}` | |")
        return 0
    started_s = time.monotonic()
    survived = 0
    with tempfile.TemporaryDirectory(prefix="kvzmq-mutants-") as scratch, ThreadPoolExecutor(options.jobs) as pool:
        tests = sorted({mutant.test for mutant in chosen})
        sound = dict(zip(tests, pool.map(lambda test: run(None, test, Path(scratch)), tests)))
        passed = pool.map(lambda mutant: run(mutant, mutant.test, Path(scratch)), chosen)
        for mutant, missed in zip(chosen, passed):
            verdict = "no: the test fails without it" if not sound[mutant.test] else "no" if missed else "yes"
            survived += verdict != "yes"
            print(f"| {mutant.name} | {mutant.guarantee} | `{mutant.test}` | {verdict} |", flush=True)
    print(f"\n{len(chosen)} mutants, {survived} not caught, {time.monotonic() - started_s:.0f} s")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
