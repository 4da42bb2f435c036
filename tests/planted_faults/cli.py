"""Faults to plant on the command line."""

from __future__ import annotations

from planted_faults.mutant import Mutant

BACKED_UP = "tests/fault/test_process_backup.py::"
CONFIG = "tests/unit/test_cli_config.py::"
SERVICE = "tests/integration/test_service.py::"

# fmt: off
MUTANTS = [
    Mutant("a client's name draws on the terminal", "cli/top/drawing.py", "(show.printable(one.client[\"name\"]), -name_columns)", "(one.client[\"name\"], -name_columns)",
           "tests/unit/test_top.py::test_names_that_clients_have_chosen_cannot_draw", 10),
    Mutant("top ends with its server", "cli/top/gathering.py", "        except (errors.KvzmqError, OSError) as error:\n            self.missed(str(error))", "        except ZeroDivisionError as error:\n            self.missed(str(error))",
           "tests/integration/test_cli_top.py::test_a_server_that_dies_and_comes_back_is_told_of", 13),
    Mutant(
        "a file that lost rows is imported", "cli/rows/lines.py",
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
        "broken JSON is a string", "cli/arguments.py",
        "        if _ALMOST_JSON.match(written):", "        if False:",
        "tests/integration/test_cli_table.py"
        "::test_what_looks_like_json_and_is_not_is_an_error_unless_it_is_said_to_be_a_string", 11,
    ),
    Mutant(
        "a wrong argument is told again with its control characters", "cli/__init__.py",
        "    if printable(text) == text:\n", "    if True:\n",
        "tests/unit/test_cli_help.py::test_an_argument_that_is_told_again_cannot_move_the_terminals_cursor", 10,
    ),
    Mutant(
        "setdefault with a time to live sets what is there", "cli/commands/write.py",
        "        if connection.table.compare_and_set(key, ABSENT, default, ttl_s):\n            return default",
        "        connection.table.insert(key, default, ttl_s)\n        return default",
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
    Mutant("keys are made with the umask's permissions", "cli/commands/keygen.py", "umask = os.umask(0o077)", "umask = os.umask(0o022)",
           "tests/unit/test_keygen.py::test_it_writes_two_files_for_their_owner_alone_as_zmq_auth_reads_them", 14),
    Mutant("keys are written over", "cli/commands/keygen.py", "os.link(path, target)", "os.replace(path, target)",
           "tests/unit/test_keygen.py::test_it_writes_no_key_over", 14),
    Mutant("any address is listened on without keys", "cli/serving/securing.py", "    if insecure:\n        return\n", "    return\n",
           "tests/integration/test_secured.py::test_an_address_that_others_reach_is_refused_without_curve", 14),
    Mutant("the token is not asked for", "cli/serving/building.py", "request_bytes_max=options.request_bytes_max, token=token)", "request_bytes_max=options.request_bytes_max)",
           "tests/integration/test_secured.py::test_the_bridge_asks_for_its_token", 14),
    Mutant(
        "a backup is written in its place", "cli/commands/backup.py",
        "        with replacing(destination, _MODE) as file:", "        with destination.open(\"wb\") as file:",
        BACKED_UP + "test_a_server_killed_in_the_middle_leaves_the_destination_as_it_was", 15,
    ),
    Mutant("the dashboard prints its token into a log", "cli/commands/dashboard.py", "        if not sys.stdout.isatty():", "        if False:",
           "tests/integration/test_dashboard_start.py::test_where_others_reach_it_there_is_no_start_without_a_token", 14),
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
    Mutant("JSON reaches the terminal as a pipe gets it", "cli/show.py", "printable(data.decode()).encode() if on_terminal() else data", "data",
           "tests/unit/test_cli_show.py::test_json_on_a_terminal_says_the_same_and_cannot_move_its_cursor", 10),
]
