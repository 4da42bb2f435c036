"""Faults to plant in the log on this machine, its recovery and compaction."""

from __future__ import annotations

from planted_faults.mutant import Mutant

CRASH = "tests/fault/test_crash_points.py::test_every_crash_point_recovers_what_was_acknowledged[power]"
RECOVERY = "tests/fault/test_crash_points.py::test_a_crash_at_every_call_of_the_recovery_loses_nothing"
FAILED_LOG = "tests/unit/test_file_log.py::test_after_"
CALLS = "tests/fault/test_failing_calls.py::"
FILES = "tests/unit/test_file_log.py::"
LOG = "tests/contract/test_log_contract.py::"
POWER = "tests/fault/test_process_power_loss.py::test_power_cuts_lose_nothing_acknowledged"
CALLED = "tests/fault/test_process_syscalls.py::"
COMPACTED = "tests/fault/test_process_compaction.py::"
TIMED = "tests/fault/test_process_time.py::"
FILLED = "tests/fault/test_process_full_disk.py::"
BACKUP = "tests/integration/test_backup.py::"
BACKED_UP = "tests/fault/test_process_backup.py::"

# fmt: off
MUTANTS = [
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
        "self._file.sync()",
        CALLS + "test_a_failing_call_is_answered_for_what_it_did[once-EIO-sync]", 6,
    ),
    Mutant(
        "not cut back after a failed write", "store/file/file_log.py",
        "            file.truncate(self.log_bytes)\n            file.sync()",
        "            pass",
        CALLS + "test_a_failing_call_leaves_no_part_of_a_refused_group_behind", 2,
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
        "        if found != marker or frame_crc != crc32(window[at : at + _FRAME.size], salt_crc):",
        "        if found != marker:",
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
        "a short write taken for a whole one", "store/file/files.py",
        "            while written < len(data):", "            while False:",
        "tests/unit/test_files.py::test_a_short_write_goes_on_until_all_is_written", 1,
    ),
    Mutant(
        "the directory's own name not synced", "store/file/files.py",
        "        _sync_directory(path.parent)", "        pass",
        "tests/unit/test_files.py::test_every_directory_that_leads_to_the_table_is_synced", 1,
    ),
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
        "not cut back on a really full disk", "store/file/file_log.py",
        "            file.truncate(self.log_bytes)\n            file.sync()",
        "            pass",
        FILLED + "test_full_disk_refuses_writes_serves_reads_and_recovers", 2,
    ),
    Mutant(
        "groups truncated that the checkpoint does not hold", "store/file/file_log.py",
        "        if self.sealed and self._sealed_group <= group:", "        if self.sealed:",
        LOG + "test_a_truncation_keeps_what_the_checkpoint_does_not_hold[file]", 8,
    ),
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
        "a backup without its footer is whole", "store/file/checkpoint.py",
        '        raise errors.CorruptionError(f"{path}: offset {file.size()}: the footer is missing")', "        return",
        "tests/unit/test_backup_files.py::test_every_flipped_bit_and_every_truncation_is_found", 15,
    ),
    Mutant(
        "nobody is told that a checkpoint could not be written", "store/file/compaction.py",
        "            if self.failed > failed:", "            if False:",
        BACKED_UP + "test_a_full_disk_at_the_server_is_said_and_a_backup_is_made_when_there_is_room", 15,
    ),
    Mutant(
        "a newer checkpoint ends the server", "store/file/compaction.py",
        "(errors.CorruptionError, errors.WrittenByNewer)", "errors.CorruptionError",
        COMPACTED + "test_a_checkpoint_of_a_newer_version_does_not_end_the_server", 8,
    ),
]
