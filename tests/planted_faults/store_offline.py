"""Faults to plant in what works on a stopped table: check, repair, restore."""

from __future__ import annotations

from planted_faults.mutant import Mutant

RESTORES = "tests/unit/test_backup_files.py::"
RESTORED = (
    "tests/fault/test_restore.py::test_a_restore_that_is_cut_off_leaves_the_old_table_the_new_one_or_none_that_starts"
)

# fmt: off
MUTANTS = [
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
        "        directory = DiskDirectory(path)\n", "        path.mkdir(exist_ok=True, parents=True)\n        directory = DiskDirectory(path, lock=False)\n",
        RESTORES + "test_a_directory_in_use_is_refused", 15,
    ),
    Mutant(
        "a restore that failed leaves a directory that passes for a new table", "store/offline/restore.py",
        "        if not was_there:", "        if False:",
        RESTORES + "test_every_flipped_bit_and_every_truncation_is_found", 15,
    ),
]
