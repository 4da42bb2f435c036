"""Faults to plant in the table, its groups, its rows and sessions."""

from __future__ import annotations

from planted_faults.mutant import Mutant

LINEAGE = "tests/integration/test_lineage.py::"
READS = "tests/unit/test_reads.py::"
CRASH = "tests/fault/test_crash_points.py::test_every_crash_point_recovers_what_was_acknowledged[power]"
ETCD = "tests/contract/test_etcd_log.py::"
CALLS = "tests/fault/test_failing_calls.py::"
LOG = "tests/contract/test_log_contract.py::"
SESSIONS = "tests/unit/test_sessions.py::"
TABLE = "tests/unit/test_table.py::"
KILLED = "tests/fault/test_process_kill.py::test_kill_9_under_load_loses_nothing_and_repeats_nothing"
POWER = "tests/fault/test_process_power_loss.py::test_power_cuts_lose_nothing_acknowledged"
LINEARIZABLE = (
    "tests/fault/test_process_linearizability.py::test_what_clients_see_is_linearizable_through_kills_and_restarts"
)
COMPACTED = "tests/fault/test_process_compaction.py::"
TIMED = "tests/fault/test_process_time.py::"
COSTLY = "tests/unit/test_costly_requests.py::"
BACKUP = "tests/integration/test_backup.py::"

# fmt: off
MUTANTS = [
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
    Mutant("an increment decodes whatever is there", "store/table.py", "present is None or len(present) <= msgpack.NUMBER_BYTES_MAX", "True",
           COSTLY + "test_an_increment_does_not_decode_what_cannot_be_a_number", 9),
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
        "reads of rows that are due", "store/table.py",
        "        if self._has_backlog and self.expiries.is_past(key, self.time_us):\n            return None", "        if False:\n            return None",
        COSTLY + "test_rows_that_are_due_are_gone_before_they_are_removed", 4,
    ),
    Mutant(
        "reads by themselves of rows that are due", "store/table.py", " is operations.Lookup and not self._has_backlog:", " is operations.Lookup:",
        COSTLY + "test_rows_that_are_due_are_gone_before_they_are_removed", 4,
    ),
    Mutant(
        "a row read by itself is sent at once, however large", "store/table.py",
        "            if value is not None and len(value) < LARGE_BYTES_MIN:", "            if value is not None:",
        "tests/unit/test_table.py::test_a_lookup_by_itself_is_answered_as_among_others", 9,
    ),
    Mutant(
        "writes that meet rows that are due", "store/table.py",
        "        if self._has_backlog and self.expiries.is_past(key, self.time_us):\n            self._drop(key)", "        if False:\n            self._drop(key)",
        COSTLY + "test_rows_that_are_due_are_gone_before_they_are_removed", 4,
    ),
    Mutant(
        "all rows that are due removed at once", "store/table.py",
        "EXPIRED_ROWS_MAX if bounded else None):", "None):",
        COSTLY + "test_rows_that_are_due_are_gone_before_they_are_removed", 9,
    ),
    Mutant(
        "sealed log removed before the checkpoint is renamed", "store/store.py",
        "    log.write_checkpoint(Checkpoint(log.group, store.table.dump()))\n    log.truncate(log.group)",
        "    log.truncate(log.group)\n    log.write_checkpoint(Checkpoint(log.group, store.table.dump()))",
        CRASH, 8,
    ),
    Mutant(
        "executed although it could not be written", "store/group.py",
        "            if reply is None and self.state is not OPEN:", "            if False:",
        CALLS + "test_a_change_that_was_refused_is_not_there_and_runs_when_it_is_sent_again", 11,
    ),
    Mutant(
        "applied before the log has it", "store/store.py",
        "        try:\n            others = self.log.append(encoded)",
        "        for request, _ in group._writes:\n            self.table.execute(request)\n"
        "        try:\n            others = self.log.append(encoded)",
        CALLS + "test_a_change_that_was_refused_is_not_there_and_runs_when_it_is_sent_again", 11,
    ),
    Mutant(
        "sections of a checkpoint not bounded in bytes", "store/sections.py",
        "    if len(chunk) == 1 or sum(map(bytes_of, chunk)) <= _SECTION_BYTES:", "    if True:",
        TABLE + "test_no_section_outgrows_what_is_read_in_one_piece", 1,
    ),
    Mutant(
        "replies not cached", "store/table.py",
        "            self.sessions.add(session, request.seq, cached)", "            pass",
        LOG + "test_a_retry_after_recovery_gets_the_first_result[file]", 5,
    ),
    Mutant(
        "cached replies not in the checkpoint", "store/sessions.py",
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
        "a retry executed unlogged when its group pushed its session out", "store/store.py",
        "                cached = table.find_cached(request)\n                writes.append((request, cached))\n",
        "                cached = table.find_cached(request)\n                writes.append((request, None))\n",
        LOG + "test_a_retry_whose_session_its_own_group_pushes_out_is_answered_not_executed[file]", 5,
    ),
    Mutant(
        "cached replies bounded in number alone", "store/sessions.py",
        "session.bytes + grown > CACHED_BYTES_MAX and len(session.replies) > 1", "False",
        SESSIONS + "test_results_are_bounded_in_bytes_but_the_latest_is_kept", 9,
    ),
    Mutant(
        "expiry by the local clock", "store/store.py",
        "        if frames or (table.expiries.deadlines and table.has_due_rows(time_us)):\n", "        table.advance(time_us)\n        if frames:\n",
        LOG + "test_rows_expire_by_a_commit_of_their_own[file]", 2,
    ),
    Mutant(
        "time runs back", "store/table.py",
        "        self.time_us = max(self.time_us, time_us)\n", "        self.time_us = time_us\n",
        LOG + "test_the_table_s_time_never_runs_back[file]", 2,
    ),
    Mutant(
        "no barrier before a read", "store/barrier.py",
        "            groups = self._log.barrier()\n", "            groups: Sequence[bytes] = ()\n",
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
        "nobody waits for the disk", "store/store.py",
        "        self.log.sync()\n", "",
        POWER + "[ext4]", 3,
    ),
    Mutant(
        "replies sent before the log is written", "store/store.py",
        "            others = self.log.append(encoded)",
        "            late, self._late = getattr(self, '_late', None), encoded\n"
        "            others = self.log.append(late) if late else ()",
        KILLED, 3,
    ),
    Mutant(
        "retries not recognised by a real server", "store/sessions.py",
        "        reply = session.replies.get(seq)", "        reply = None",
        KILLED, 5,
    ),
    Mutant(
        "cached replies not in the checkpoint of a real server", "store/sessions.py",
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
        "a child of another version goes to work", "store/child.py",
        "    if version != __version__:", "    if False:",
        COMPACTED + "test_a_server_goes_on_when_a_newer_version_is_installed_beneath_it", 8,
    ),
    Mutant(
        "time runs back with the clock", "store/table.py",
        "        self.time_us = max(self.time_us, time_us)\n", "        self.time_us = time_us\n",
        TIMED + "test_a_clock_that_jumps_never_runs_the_table_back", 2,
    ),
    Mutant("rows that were replaced still count as bytes", "store/history.py", "            grown = -len(before)\n", "            grown = 0\n",
           "tests/unit/test_metrics.py::test_the_bytes_of_rows_follow_every_kind_of_change", 9),
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
    Mutant("a revision is counted twice", "store/table.py", "        self.revision += 1\n        if self._scanning", "        self.revision += 1 + (self.revision % 1000 == 999)\n        if self._scanning",
           "tests/integration/test_interleaving.py::test_each_request_executed_alone", 4),
    Mutant("an expiry backlog for ever", "store/table.py", "        self._has_backlog = False  # rows that were due", "        pass  # rows that were due",
           "tests/unit/test_costly_requests.py::test_no_backlog_is_left_when_what_was_due_has_been_written_again", 9),
    Mutant("every epoch reaches for ever", "store/epochs.py", "return revision <= end", "return True",
           LINEAGE + "test_a_watch_is_told_when_the_table_went_on_from_an_older_copy", 12),
    Mutant("epochs not in the checkpoint", "store/sections.py", "    if epochs.lineage is not None:\n        yield", "    if False:\n        yield",
           LINEAGE + "test_a_table_keeps_its_lineage_and_each_start_begins_an_epoch", 12),
    Mutant("an epoch is not written", "store/store.py", "            frames = [self._beginning.frame, *frames]", "            pass",
           LINEAGE + "test_a_table_keeps_its_lineage_and_each_start_begins_an_epoch", 12),
    Mutant("the last step is not kept", "store/history.py", "if end > step_began or (", "if (",
           TABLE + "test_history_waits_for_who_reads_within_larger_limits_and_keeps_the_last_step", 9),
    Mutant("history does not wait for who reads", "store/history.py", "if end > needed and changes", "if False and changes",
           TABLE + "test_history_waits_for_who_reads_within_larger_limits_and_keeps_the_last_step", 9),
    Mutant("an old log is replayed with new limits", "store/budget.py", "{1: (8 << 20) - 1024,", "{1: limits.RESULT_BYTES_MAX,",
           "tests/unit/test_table.py::test_the_semantics_of_a_log_decide_what_its_requests_gave", 2),
    Mutant(
        "a group gives its replies out before its sync", "store/group.py",
        "        if store.is_unsynced:\n            store.sync()\n        self.state = ENDED", "        self.state = ENDED",
        LOG + "test_the_replies_of_a_group_come_when_it_is_durable[file]", 3,
    ),
    Mutant(
        "appended while the fate of a group is unknown", "store/store.py",
        "        if self.open_group is not None:\n            raise AssertionError(\"a group begins", "        if False:\n            raise AssertionError(\"a group begins",
        LOG + "test_nothing_is_appended_while_the_fate_of_a_group_is_unknown", 5,
    ),
    Mutant(
        "an unknown fate taken for a refusal", "store/store.py",
        "            group.state = UNKNOWN\n", "            group.state = REJECTED\n",
        LOG + "test_a_group_of_unknown_fate_is_executed_or_refused_when_it_is_known[True]", 11,
    ),
    Mutant(
        "writes of a group executed in another order", "store/group.py",
        "            if expected is not request:", "            if False:",
        LOG + "test_a_group_that_is_misused_fails_at_once[file]", 2,
    ),
    Mutant(
        "commits are timed though nobody listens", "store/store.py",
        "        began_ns = time.perf_counter_ns() if self.observers or self.keeps_times else 0\n        self.log.sync()", "        began_ns = time.perf_counter_ns()\n        self.log.sync()",
        "tests/unit/test_observers.py::test_nothing_is_timed_when_nobody_listens", 9,
    ),
    Mutant(
        "the store loads zmq by a detour", "store/epochs.py",
        "from itertools import pairwise\n", "from itertools import pairwise\n\nfrom kvzmq import Client\n",
        "tests/unit/test_imports.py::test_protocol_and_store_never_load_zmq", 9,
    ),
    Mutant("the log names the senders of reads as those of changes", "store/store.py", "    of_writes = [sender for request, sender in zip(requests, senders) if request.writes]\n", "    of_writes = list(senders)\n",
           "tests/unit/test_curve_router.py::test_names_are_those_of_what_is_logged", 14),
    Mutant(
        "sessions are not in a backup", "store/sections.py",
        '    for some_sessions in _chunks(sessions.dump(),', '    for some_sessions in _chunks((),',
        BACKUP + "test_a_restored_table_knows_what_a_retry_got_and_lets_rows_expire", 5,
    ),
    Mutant(
        "a barrier for reads that need none", "store/store.py",
        "        if any(map(needs_newest, requests)) and", "        if requests and",
        READS + "test_neither_a_session_read_nor_a_local_one_asks_the_log", 16,
    ),
    Mutant(
        "a server that is cut off takes its own table for the newest", "store/group.py",
        "            if self.state is CUT_OFF and not request.writes:", "            if False:",
        READS + "test_a_server_that_is_cut_off_answers_what_it_can_and_refuses_the_rest", 4,
    ),
    Mutant(
        "an append that was rejected taken for a barrier", "store/store.py",
        "        if group.state is REJECTED and self.is_shared:", "        if False:",
        READS + "test_a_linearizable_read_beside_a_rejected_write_sees_what_others_have_written", 4,
    ),
    Mutant(
        "a log that cannot be asked is asked in every step", "store/barrier.py",
        "            self._again_s = self._monotonic() + AGAIN_S\n", "",
        READS + "test_a_log_that_cannot_be_asked_is_left_alone_for_a_moment", 9,
    ),
    Mutant(
        "a server behind the trimming goes on with what it has", "store/store.py",
        "            self.table.clear()\n            self.recover()\n", "            list(self.log.recover())\n",
        ETCD + "test_a_store_behind_the_trimming_is_built_anew_and_its_watches_end", 7,
    ),
    Mutant(
        "of two servers that begin a table the last one's lineage counts", "store/table.py",
        "        if op.lineage is not None and self.epochs.lineage is None:", "        if op.lineage is not None:",
        READS + "test_of_two_servers_that_begin_a_table_the_first_one_s_lineage_counts", 12,
    ),
]
