"""Faults to plant in keys, catalog, trace and bench."""

from __future__ import annotations

from planted_faults.mutant import Mutant

FILLED = "tests/fault/test_process_full_disk.py::"

# fmt: off
MUTANTS = [
    Mutant(
        "servers of another table named to a client", "catalog/lookup.py",
        'if lineage is None or entry.lineage in (lineage, "")]', "]",
        "tests/unit/test_catalog_lookup.py::test_servers_of_another_table_are_left_out_and_those_that_do_not_tell_come_last", 4,
    ),
    Mutant(
        "a trace that cannot be closed ends the stop", "tracing/trace.py",
        "        self._try(self._file.close)", "        self._file.close()",
        FILLED + "test_a_trace_on_a_full_disk_ends_and_the_service_goes_on", 11,
    ),
    Mutant("a disk in memory passes", "bench/disk.py", "    if report.file_system in KEEPS_NOTHING:", "    if False:",
           "tests/unit/test_bench_disk.py::test_a_disk_passes_by_its_usual_and_its_slow_syncs", 9),
    Mutant("a secret key that others read is used", "curve.py", "mode & (stat.S_IRWXG | stat.S_IRWXO)", "False",
           "tests/unit/test_curve.py::test_a_secret_key_that_others_may_read_is_refused", 14),
    Mutant("a pickled client carries its secret key", "curve.py", "return client_keys, (self.path, self.server)", "return ClientKeys, (KeyPair(*self.own), self.server, self.path)",
           "tests/unit/test_curve.py::test_a_pickle_holds_the_path_not_the_keys", 14),
    Mutant("a secret key is shown as a path", "curve.py", "    if is_key(os.fspath(curve_key)) and", "    if False and",
           "tests/unit/test_client_targets.py::test_a_secret_key_where_its_file_is_wanted_is_shown_nowhere", 14),
]
