"""Faults to plant in what travels, and in what an operation declares."""

from __future__ import annotations

from planted_faults.mutant import Mutant

READS = "tests/unit/test_reads.py::"
COSTLY = "tests/unit/test_costly_requests.py::"
OPERATIONS = "tests/unit/test_operations.py::"

# fmt: off
MUTANTS = [
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
        "names without limit", "protocol/operations/arguments.py",
        "    if len(name or \"\") > KEY_CHARS_MAX:", "    if False:",
        COSTLY + "test_names_rows_and_transactions_have_limits", 9,
    ),
    Mutant(
        "rows of an operation without limit", "protocol/operations/arguments.py",
        "    if count > ROWS_MAX:", "    if False:",
        COSTLY + "test_names_rows_and_transactions_have_limits", 9,
    ),
    Mutant(
        "arrays and maps counted in each value alone", "protocol/validation.py",
        "    _check_count(data)\n    check = ", "    check = ",
        COSTLY + "test_a_value_of_nothing_but_empty_arrays_is_refused", 9,
    ),
    Mutant(
        "transactions without limit", "protocol/operations/transactions.py",
        "        if size > TRANSACTION_MAX:", "        if False:",
        COSTLY + "test_names_rows_and_transactions_have_limits", 9,
    ),
    Mutant("the number of an unreadable request is lost", "protocol/msgpack.py", "        head = _SEQ_AT_HEAD.match(frame)", "        head = None",
           "tests/unit/test_encodings.py::test_the_number_of_a_refused_request_survives_what_is_wrong_behind_it", 11),
    Mutant("results have less room than requests", "protocol/limits.py", "RESULT_BYTES_MAX = REQUEST_BYTES_LIMIT + 4 * KEY_CHARS_MAX + 1024", "RESULT_BYTES_MAX = REQUEST_BYTES_LIMIT - 1024",
           "tests/unit/test_limits.py::test_the_router_takes_requests_up_to_the_limit_and_every_row_can_be_read", 11),
    Mutant("lines have the length of frames", "protocol/limits.py", "    return JSON_GROWTH * request_bytes_max + _LINE_HEAD_BYTES", "    return request_bytes_max",
           "tests/unit/test_limits.py::test_a_line_of_the_bridge_carries_what_a_frame_does", 11),
    Mutant("an error of the decoder is not caught", "protocol/msgpack.py",
           "    except errors.InvalidRequest as error:\n        return Refusal(wire.seq",
           "    except errors.InvalidMethod as error:\n        return Refusal(wire.seq",
           "tests/integration/test_wire_fuzz.py::test_every_mutated_frame_gets_one_reply", 10),
    Mutant(
        "a write declared as a read", "protocol/operations/rows.py",
        'class Expire(Write, tag="expire"):', 'class Expire(Operation, tag="expire"):',
        OPERATIONS + "test_what_changes_the_table_is_declared_as_a_write", 1,
    ),
    Mutant(
        "a read declared as a write", "protocol/operations/rows.py",
        'class Ttl(Operation, tag="ttl"):', 'class Ttl(Write, tag="ttl"):',
        OPERATIONS + "test_an_operation_is_declared_in_full", 1,
    ),
    Mutant(
        "the rows of an insert_many are not among the keys it touches", "protocol/operations/rows.py",
        "        return (Access(True, tuple(self.rows)),)", "        return ()",
        OPERATIONS + "test_an_operation_changes_only_keys_that_it_says_it_writes", 10,
    ),
    Mutant(
        "what a transaction checks is not among the keys it touches", "protocol/operations/transactions.py",
        "        checked = Access(False, tuple(key for key, _ in self.checks))", "        checked = Access(False, ())",
        OPERATIONS + "test_an_operation_tells_only_of_keys_that_it_says_it_touches", 10,
    ),
    Mutant(
        "a query touches no key", "protocol/operations/scans.py",
        "    accesses = the_whole_table\n    weight = a_page\n    values = its_subvalue\n    check = check_subkey\n\n    def subkey",
        "    accesses = lambda op: ()\n    weight = a_page\n    values = its_subvalue\n    check = check_subkey\n\n    def subkey",
        OPERATIONS + "test_an_operation_tells_only_of_keys_that_it_says_it_touches", 10,
    ),
    Mutant(
        "the values of a compare_and_set are not checked", "protocol/operations/rows.py",
        "        return (*self.expected, *self.value)", "        return ()",
        OPERATIONS + "test_every_key_prefix_and_value_among_the_arguments_is_declared", 10,
    ),
    Mutant(
        "items does not say that it goes through rows", "protocol/operations/scans.py",
        '    mark = "i"\n    scans = True\n', '    mark = "i"\n    scans = False\n',
        OPERATIONS + "test_who_goes_through_rows_says_so_and_which_index_it_asks", 9,
    ),
    Mutant("who may only write reads by setting a default", "protocol/declaration.py", "return (Access(False, (op.key,)), Access(True, (op.key,)))", "return (Access(True, (op.key,)),)",
           "tests/unit/test_access.py::test_an_operation_needs_each_of_its_rights", 14),
    Mutant("everybody is told of the server", "protocol/operations/server.py", "    mark = \"?\"\n    ordered_by_log = False\n    scope = Scope.SERVER\n    administers = True\n", "    mark = \"?\"\n    ordered_by_log = False\n    scope = Scope.SERVER\n",
           "tests/unit/test_access.py::test_an_operation_needs_each_of_its_rights", 14),
    Mutant(
        "progress of a watch as far as this server has come", "protocol/operations/pushes.py",
        '    mark = "g"\n', '    mark = "g"\n    ordered_by_log = False\n',
        READS + "test_progress_of_a_watch_counts_what_others_have_acknowledged", 4,
    ),
]
