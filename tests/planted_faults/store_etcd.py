"""Faults to plant in the log on etcd."""

from __future__ import annotations

from planted_faults.mutant import Mutant

KEPT = "tests/unit/test_etcd_checkpoints.py::"
UPKEEP = "tests/unit/test_etcd_upkeep.py::"
COPIED = "tests/unit/test_etcd_local_copy.py::"
FORMER = "tests/unit/test_etcd_former.py::"
ETCD = "tests/contract/test_etcd_log.py::"
DOCTOR = "tests/integration/test_etcd_doctor.py::"
REAL = "tests/integration/test_etcd_upkeep_real.py::"

# fmt: off
MUTANTS = [
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
        "a read on etcd that never waits for long once one has failed", "store/etcd/etcd_log.py",
        "        is_patient = began_s >= self._patient_from_s", "        is_patient = not self._patient_from_s",
        ETCD + "test_reads_go_on_where_etcd_answers_again_and_takes_its_time", 11,
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
        "any number of groups wait to be applied", "store/etcd/feed.py",
        "            self._changed.wait_for(lambda: self._closed or self._bytes < QUEUE_BYTES_MAX)\n", "",
        ETCD + "test_what_waits_to_be_applied_is_bounded", 9,
    ),
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
        "if noted is not None and index - revision < int(noted.value) - noted.put_at and not is_accepted:", "if False:",
        COPIED + "test_an_etcd_that_has_begun_anew_is_refused_until_somebody_says_to_go_on", 12,
    ),
    Mutant(
        "an etcd that was put back and has changed much since is served", "store/etcd/local_copy.py",
        "index - revision < int(noted.value) - noted.put_at", "index < int(noted.value)",
        COPIED + "test_an_etcd_that_has_begun_anew_is_refused_however_much_it_has_changed_since", 12,
    ),
    Mutant(
        "an etcd that goes on while a server looks taken for one that was put back", "store/etcd/local_copy.py",
        "        index = index_at(revision)\n", "        index = index_at(revision)\n        revision, _ = keys.get(key)\n",
        COPIED + "test_an_etcd_that_goes_on_is_never_refused", 12,
    ),
    Mutant(
        "a server's key that somebody has removed taken for a group that never was", "store/etcd/appends.py",
        "elif not own and self._removed_at != self._registered_at:", "elif False:",
        ETCD + "test_a_server_whose_key_somebody_else_has_removed_ends_and_says_nothing_of_its_group", 11,
    ),
    Mutant(
        "the keys of servers that were killed left in etcd", "store/etcd/former.py",
        "    if former is not None and former.name == name:", "    if False:",
        FORMER + "test_the_next_server_of_a_directory_removes_the_key_of_the_one_that_was_killed", 9,
    ),
    Mutant(
        "the note of a copied directory believed", "store/etcd/former.py",
        "if (found.device, found.inode) == (place.st_dev, place.st_ino):", "if True:",
        FORMER + "test_the_note_of_a_copied_directory_or_of_another_table_is_not_believed", 11,
    ),
    Mutant(
        "pieces removed of a group that lands at that moment", "store/etcd/former.py",
        "keys.transact([(key, seq)], ", "keys.transact([], ",
        FORMER + "test_a_group_that_lands_while_its_server_is_succeeded_keeps_its_pieces", 1,
    ),
    Mutant(
        "a recovery that etcd's compaction overtakes gives up", "store/etcd/etcd_log.py",
        "except (errors.LogTrimmed, EtcdCompacted):", "except errors.LogTrimmed:",
        ETCD + "test_a_recovery_during_which_etcd_forgets_the_history_begins_again", 1,
    ),
    Mutant(
        "a half-written checkpoint deleted under the feet of its writer", "store/etcd/space.py",
        '    members.delete(lock_key(name), lock_key(name) + "\\0")\n', "",
        KEPT + "test_half_written_checkpoints_are_removed_without_a_lock_at_any_moment_of_their_writer", 8,
    ),
    Mutant(
        "a used-up quota of etcd without defragmentation", "store/etcd/space.py",
        "DEFRAGMENT_SHARE * quota_bytes:\n            members.defragment(address)\n",
        "DEFRAGMENT_SHARE * quota_bytes:\n            pass\n",
        "tests/integration/test_etcd_upkeep_real.py::test_a_quota_that_is_used_up_is_recovered", 9,
    ),
    Mutant(
        "a used-up quota of etcd without compaction", "store/etcd/space.py",
        "    trim_by_force(keys, members, name)\n    members.compact(keys.get()[0])\n",
        "    trim_by_force(keys, members, name)\n",
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
        "a log that takes the room of the next checkpoint", "store/etcd/etcd_log.py",
        "        self.reserve.admit(self.stored_bytes + stored_bytes(len(group), 1))\n", "",
        ETCD + "test_a_group_for_which_there_is_no_room_is_refused_and_nothing_is_sent", 17,
    ),
    Mutant(
        "room in etcd counted without a checkpoint", "store/etcd/upkeep.py",
        "left_bytes = max(0, reserve.with_margin(self._checkpoint_bytes()) - written_bytes)", "left_bytes = 0",
        UPKEEP + "test_changes_are_refused_while_there_is_room_for_a_checkpoint_and_one_is_written", 17,
    ),
    Mutant(
        "room in etcd counted without what was appended since", "store/etcd/upkeep.py",
        "grown_bytes = self._log.stored_bytes - measured.stored_bytes", "grown_bytes = 0",
        UPKEEP + "test_changes_are_refused_while_there_is_room_for_a_checkpoint_and_one_is_written", 17,
    ),
    Mutant(
        "a checkpoint that is being written needs its room twice", "store/etcd/poller.py",
        "        return self._pieces * CHUNK_BYTES", "        return 0",
        UPKEEP + "test_a_poll_counts_the_pieces_of_a_checkpoint_that_is_being_written", 17,
    ),
    Mutant(
        "a member that does not answer for a moment has no size", "store/etcd/members.py",
        "states = (state for state in self._states.values() if state.told_s > since_s)",
        "states = (state for state in self._states.values() if state.answers)",
        UPKEEP + "test_a_poll_counts_the_pieces_of_a_checkpoint_that_is_being_written", 17,
    ),
    Mutant(
        "changes refused for want of room for good", "store/etcd/reserve.py",
        "            self.is_used_up = False\n", "            pass\n",
        UPKEEP + "test_changes_are_taken_again_when_there_is_room_for_more_than_a_handful", 17,
    ),
    Mutant(
        "a checkpoint written for a handful of changes", "store/etcd/reserve.py",
        "        elif room_bytes >= slack_bytes(quota_bytes):", "        else:",
        UPKEEP + "test_changes_are_taken_again_when_there_is_room_for_more_than_a_handful", 17,
    ),
    Mutant(
        "pages that are free in a member's file counted in any case", "store/etcd/upkeep.py",
        "if room.growth_bytes <= reserve.slack_bytes(self._quota_bytes):", "if False:",
        UPKEEP + "test_a_file_that_has_grown_to_the_quota_takes_no_changes_though_pages_are_free", 17,
    ),
    Mutant(
        "any etcd has the quota that it has by default", "store/etcd/upkeep.py",
        "not status.no_space and status.file_bytes > space.QUOTA_BYTES", "False",
        UPKEEP + "test_a_file_longer_than_the_quota_that_etcd_has_by_default_shows_that_it_has_another", 17,
    ),
    Mutant(
        "room made in etcd without compaction", "store/etcd/space.py",
        "            trim(held, keys, name, head.position)\n        members.compact(keys.get()[0])\n",
        "            trim(held, keys, name, head.position)\n",
        REAL + "test_room_is_made_before_the_quota_is_used_up", 17,
    ),
    Mutant(
        "room made in etcd without defragmentation", "store/etcd/space.py",
        "FREED_SHARE_MIN:\n                _defragment(members, address)\n", "FREED_SHARE_MIN:\n                pass\n",
        REAL + "test_room_is_made_before_the_quota_is_used_up", 17,
    ),
    Mutant(
        "a log that goes on compacted to make room", "store/etcd/upkeep_process.py",
        "            elif self._goes_on_behind(head):", "            elif False:",
        REAL + "test_room_is_made_before_the_quota_is_used_up", 17,
    ),
    Mutant(
        "members of etcd asked only while it has a leader", "store/etcd/poller.py",
        "                self.members.ask()\n", "",
        UPKEEP + "test_members_tell_of_themselves_while_etcd_answers_nothing_else", 13,
    ),
    Mutant(
        "a member of etcd that knows no leader tells nothing", "store/etcd/client.py",
        "        metadata = self._metadata[1:] if method is _STATUS else self._metadata",
        "        metadata = self._metadata",
        DOCTOR + "test_doctor_tells_of_members_that_are_down_of_a_missing_leader_and_of_alarms", 13,
    ),
    Mutant(
        "a member of etcd that is down tells what it told", "store/etcd/members.py",
        "                states[address] = last._replace(answers=False)\n", "                states[address] = last\n",
        UPKEEP + "test_members_are_told_of_one_by_one", 13,
    ),
    Mutant(
        "watches that are given up keep memory", "store/etcd/client.py",
        '    ("grpc.use_local_subchannel_pool", 1),\n',
        '    ("grpc.use_local_subchannel_pool", 1),\n    ("SingleThreadedUnaryStream", 1),\n',
        ETCD + "test_a_watch_that_was_given_up_leaves_no_memory_behind", 9,
    ),
    Mutant(
        "a server that was stopped answers from its past", "store/etcd/etcd_log.py",
        "            tail = read_tail(self.client, self._keys, timeout_s=wait_s)",
        "            tail = self.__dict__.setdefault('_told', read_tail(self.client, self._keys, timeout_s=wait_s))",
        "tests/fault/test_cluster_kill.py::test_a_server_that_was_stopped_answers_no_lookup_from_its_past", 4,
    ),
]
