"""Faults to plant in the loop, the dispatcher, watches, monitors and what else the server does."""

from __future__ import annotations

from planted_faults.mutant import Mutant

READS = "tests/unit/test_reads.py::"
SEVERAL = "tests/integration/test_several_servers.py::"
WATCHES = "tests/unit/test_watches.py::"
COSTLY = "tests/unit/test_costly_requests.py::"
DISPATCHER = "tests/unit/test_dispatcher.py::"
SHARED = "tests/unit/test_shared_log_server.py::"
BUSY = "tests/unit/test_busy_server.py::"
BACKUPS = "tests/unit/test_backups.py::"
BACKED_UP = "tests/fault/test_process_backup.py::"
SERVICE = "tests/integration/test_service.py::"

# fmt: off
MUTANTS = [
    Mutant(
        "an index built at once however long it takes", "server/deferral.py",
        "and self._store.is_indexed(request)\n\n    def _leaves_backlog", "\n\n    def _leaves_backlog",
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
        "much written and looked through in one group", "server/deferral.py",
        "        if written and request.scans and (request.writes or written > RELEASED_BYTES_MAX):", "        if False:",
        COSTLY + "test_a_step_that_wrote_much_looks_through_rows_after_the_indexes_have_followed", 9,
    ),
    Mutant(
        "rows that are due counted and listed", "server/deferral.py",
        "return not self._leaves_backlog(time_us) and self", "return self",
        COSTLY + "test_looking_through_rows_waits_for_those_that_are_due_unless_nothing_can_be_written", 4,
    ),
    Mutant(
        "stats made for each operation", "server/served.py",
        "        if self._described is None:", "        if True:",
        COSTLY + "test_stats_asked_often_in_one_request_are_made_once", 9,
    ),
    Mutant(
        "replies sent while the disk works", "server/dispatcher.py",
        "        self._send(unsent, group.sync())\n",
        "        self._send(unsent, group._replies)\n        for arrival in arrivals:\n            arrival.transport.flush()\n"
        "        group.sync()\n",
        DISPATCHER + "test_no_reply_leaves_before_the_steps_changes_are_durable", 3,
    ),
    Mutant(
        "replies for which there is no room do not wait for the disk", "server/dispatcher.py",
        "                replies = group.release()\n", "                replies, group._replies = group._replies, []\n",
        DISPATCHER + "test_no_reply_leaves_before_the_steps_changes_are_durable", 3,
    ),
    Mutant(
        "replies sent although the sync has failed", "server/dispatcher.py",
        "        self._send(unsent, group.sync())\n",
        "        try:\n            group.sync()\n        finally:\n            self._send(unsent, group._replies)\n",
        DISPATCHER + "test_when_the_disk_fails_nothing_is_sent", 6,
    ),
    Mutant(
        "watches and stats are served last", "server/dispatcher.py",
        "        for arrival in arrivals:\n            request = arrival.request\n            if observed",
        "        unsent = sorted(arrivals, key=lambda one: isinstance(one.request, Request) and one.request.served)\n"
        "        for arrival in unsent:\n            request = arrival.request\n            if observed",
        DISPATCHER + "test_watches_and_stats_keep_their_place_among_the_requests_of_a_step", 2,
    ),
    Mutant("operations of steps that are not timed are not counted", "server/loop.py", "                on_receive(arrivals, timed is not None)",
           "                timed is not None and on_receive(arrivals, timed is not None)",
           "tests/unit/test_metrics.py::test_operations_are_counted_exactly_whether_alone_or_in_batches", 9),
    Mutant("commits that were not counted yet are forgotten at a window's end", "server/metrics.py", "        self._count_commits()\n        self._append.turn()",
           "        self._commits = []\n        self._append.turn()", "tests/unit/test_metrics.py::test_syncs_are_counted_all_and_in_windows", 9),
    Mutant("whoever sends a byte now and then keeps its connection to the metrics", "server/scrape.py", "        connection.received += data\n", "        connection.received += data\n        connection.deadline_s = self._clock() + DEADLINE_S\n",
           "tests/unit/test_scrape.py::test_who_is_slow_is_dropped", 9),
    Mutant("who says nothing keeps the metrics for itself", "server/scrape.py", "                self._drop(next(iter(self._connections.values())))\n", "                sock.close()\n                return\n",
           "tests/unit/test_scrape.py::test_who_connects_and_says_nothing_keeps_nobody_waiting", 9),
    Mutant("the page of metrics is made for each request", "server/scrape.py", "        if self._rendered[0] is not figures:", "        if self._rendered[0] is not None or True:",
           "tests/unit/test_scrape.py::test_the_page_of_metrics_is_made_once_for_what_the_loop_has_left", 9),
    Mutant("metrics without the token", "server/scrape.py", "not hmac.compare_digest(_bearer(lines[1:]), self._token)", "False",
           "tests/unit/test_scrape.py::test_the_metrics_need_the_token_and_health_does_not", 9),
    Mutant("metrics open to other machines", "server/scrape.py", "        if not open_to_others and not", "        if False and not",
           "tests/unit/test_scrape.py::test_other_machines_do_not_reach_it_unless_that_is_said", 9),
    Mutant("errors beside a stats outgrow the reply", "server/served.py", "budget.charge_text(str(error))", "str(error)",
           "tests/unit/test_dispatcher.py::test_the_results_of_one_request_fit_one_reply_whatever_is_among_them", 9),
    Mutant("dispatcher commits each request alone", "server/dispatcher.py", "self._run_all = self._run if group_commit else", "self._run_all = self._run if False else",
           "tests/unit/test_dispatcher.py::test_a_step_commits_all_that_several_clients_change_as_one_group", 3),
    Mutant("clients are looked up for each operation", "server/served.py", "        if self._known is None:", "        if True:",
           COSTLY + "test_clients_asked_for_often_in_one_request_are_looked_up_once", 9),
    Mutant("clients are described for a reply that is full", "server/served.py", "        budget.check()  # before the kernel is asked of each\n", "",
           COSTLY + "test_no_client_is_described_for_a_reply_that_is_full", 9),
    Mutant("stats gives every operation the room of a reply", "server/served.py", "                method = self.methods.get(type(op))\n", "                budget.begin(len(request.ops), table.semantics, table.revision)\n                method = self.methods.get(type(op))\n",
           "tests/unit/test_dispatcher.py::test_the_results_of_one_request_fit_one_reply_whatever_is_among_them", 9),
    Mutant("an event without room is skipped", "server/watches.py", "payload, more):\n                return False\n", "payload, more):\n                pass\n",
           "tests/unit/test_watches.py::test_a_watcher_that_lags_is_caught_up_with_later_and_misses_nothing", 4),
    Mutant("the watches of who has gone stay", "server/watches.py", "            self._send_heartbeats(now_s)\n", "            pass\n",
           "tests/unit/test_watches.py::test_watches_of_peers_that_have_gone_do_not_pile_up_where_nothing_changes", 9),
    Mutant("a watch that resumes within a request is not told its end", "server/watches.py", "watch.mid_request = boundaries and position > 0", "watch.mid_request = False and position > 0",
           WATCHES + "test_the_end_of_a_request_is_told_to_a_watch_that_goes_on_within_it", 2),
    Mutant("the journal warns of clients that end", "server/journal.py", " and not name.endswith(_NOT_WARNED)", "",
           "tests/integration/test_cli_operator.py::test_what_happens_often_is_said_now_and_then_with_its_number", 11),
    Mutant("the journal takes an old refusal for a new one", "server/journal.py", "        if not found:\n            return  # the refused ones", "        if False:\n            return  # the refused ones",
           "tests/integration/test_cli_operator.py::test_a_refusal_that_had_waited_does_not_end_the_server", 10),
    Mutant("broken promises of heartbeats are not noticed", "server/watches.py", "if peer.silence_s_max is not None and now_s", "if False and now_s",
           WATCHES + "test_the_watch_of_who_breaks_the_promise_of_heartbeats_ends_and_says_so", 9),
    Mutant("half a request is not marked", "server/watches.py", "more = watch.boundaries and revision < last", "more = False",
           WATCHES + "test_the_events_of_one_request_say_that_others_follow", 2),
    Mutant("the end of a request is not told where it is filtered", "server/watches.py", "elif watch.mid_request and revision == last:", "elif False:",
           WATCHES + "test_the_events_of_one_request_say_that_others_follow", 2),
    Mutant("watches are told without a bound in time", "server/watches.py", "PUMP_S = 0.02", "PUMP_S = 1e9",
           WATCHES + "test_a_step_spends_a_bounded_time_on_watches_and_all_get_their_turn", 9),
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
        "            while not self._stopping:\n                came = self.step(_IDLE_S)\n",
        "            while (came := self.step(_IDLE_S)) or not self._stopping:\n",
        BUSY + "test_a_busy_server_stops_with_the_step_in_which_sigterm_comes", 9,
    ),
    Mutant(
        "an idle server wakes to look after its peers", "server/loop.py",
        "self.timers.add(self._sweep, wakes=False)", "self.timers.add(self._sweep)",
        BUSY + "test_an_idle_server_wakes_once_a_second", 9,
    ),
    Mutant(
        "a retry is told as executed", "server/dispatcher.py",
        "        runs = group.will_execute(request)", "        runs = True",
        "tests/unit/test_trace.py::test_a_retried_request_is_not_executed_and_has_no_line", 5,
    ),
    Mutant(
        "a full disk leaves nothing in the log", "server/loop.py",
        "        store.on_trouble = self._journal.trouble\n", "",
        "tests/integration/test_cli_operator.py"
        "::test_the_log_tells_when_storage_trouble_begins_and_ends_and_ping_says_so", 9,
    ),
    Mutant(
        "trouble that comes and goes is a line each time", "server/journal.py",
        "            self._log_trouble(self._trouble_limit.count(1, now_s))", "            self._log_trouble(True)",
        "tests/integration/test_cli_operator.py"
        "::test_trouble_that_comes_and_goes_with_each_change_is_not_a_line_each", 9,
    ),
    Mutant(
        "every refused request is a line of the log", "server/journal.py",
        "        self._next_s = now_s + EVERY_S", "        self._next_s = now_s",
        "tests/integration/test_cli_operator.py::test_the_log_tells_who_is_refused_and_does_not_grow_with_it", 9,
    ),
    Mutant(
        "it says that it listens before a signal is a clean stop", "server/loop.py",
        "        with self._signals() as drain:\n            ready()\n", "        ready()\n        with self._signals() as drain:\n",
        "tests/integration/test_cli_operator.py::test_a_signal_at_once_after_it_listens_is_a_clean_stop", 11,
    ),
    Mutant(
        "the first failed hook ends a reload", "server/reloads.py",
        "            return True\n        if said", "            raise\n        if said",
        "tests/unit/test_reloads.py::test_every_hook_is_called_and_the_log_says_what_each_did", 11,
    ),
    Mutant(
        "a stop leaves a step's replies unsent", "server/loop.py",
        "        for transport in self.transports:\n            transport.flush()\n",
        "        if self._stopping:\n            return 0\n        for transport in self.transports:\n            transport.flush()\n",
        SERVICE + "test_sigterm_stops_within_a_second_under_load_and_delivers_the_last_replies", 11,
    ),
    Mutant("every key is let in", "server/zap.py", 'return key, "" if self._knows(key) else f"unknown key {key}"', 'return key, ""',
           "tests/unit/test_zap.py::test_an_unknown_key_is_refused_and_told", 14),
    Mutant("any mechanism is let in", "server/zap.py", 'mechanism != b"CURVE" or ', "",
           "tests/unit/test_zap.py::test_whatever_is_asked_is_answered_and_refused_unless_it_is_a_known_key", 14),
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
    Mutant("a broken clients file takes all rights away", "server/access.py", "        except BadClients as error:\n            self.changed = frozenset()\n", "        except BadClients as error:\n            self.changed = frozenset()\n            self._by_key = {}\n",
           "tests/unit/test_access.py::test_a_broken_file_leaves_the_rights_that_were_in_force", 14),
    Mutant("half a clients file is taken", "server/access.py", 'if text and not text.endswith("\\n"):', "if False:",
           "tests/unit/test_access.py::test_a_file_that_is_cut_anywhere_gives_nobody_more_than_the_whole", 14),
    Mutant("a change of the clients file is not seen", "server/access.py", "return self._signature() != self._seen", "return False",
           "tests/integration/test_secured.py::test_the_clients_file_is_read_again_without_a_signal_when_it_changes", 14),
    Mutant("a clients file that others write is believed", "server/access.py", "mode & (stat.S_IWGRP | stat.S_IWOTH)", "False",
           "tests/unit/test_access.py::test_a_file_that_others_may_write_is_refused", 14),
    Mutant("the log names nobody", "server/loop.py", "name_of=None if access is None else access.name_of,", "name_of=None,",
           "tests/integration/test_secured.py::test_the_log_and_the_trace_name_the_clients", 14),
    Mutant(
        "a backup follows the name of the checkpoint", "server/backups.py",
        "            piece = backup.file.read(offset, BACKUP_CHUNK_BYTES)",
        "            piece = (backup.open_when_written() or backup.file).read(offset, BACKUP_CHUNK_BYTES)",
        BACKUPS + "test_a_backup_is_read_in_pieces_once_its_checkpoint_is_written", 15,
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
        "any number of pieces in a request", "server/served.py",
        "        if isinstance(arrival.request, Request) and len(arrival.request.ops) > 1:", "        if False:",
        BACKUPS + "test_a_backup_goes_in_a_request_of_its_own", 9,
    ),
    Mutant(
        "a watch begins at a server that is cut off", "server/dispatcher.py",
        "group.refuse_cut_off(request) or self.served", "self.served",
        READS + "test_a_server_that_is_cut_off_answers_what_it_can_and_refuses_the_rest", 16,
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
        "a watch stays at a server that is cut off", "server/hearing.py",
        "        if silent_s >= CUT_OFF_S and len(self._watches):", "        if False:",
        SEVERAL + "test_a_watch_goes_on_at_another_server_without_a_gap[blocking-cut_off]", 16,
    ),
    Mutant(
        "a watch is not told that another server has begun an epoch", "server/watches.py",
        "        if watch.boundaries and epoch is not None:", "        if False:",
        SEVERAL + "test_a_watch_goes_on_at_another_server_without_a_gap[blocking-kill]", 16,
    ),
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
        "bool(self.observers) or self.monitors.is_looking, group.execute",
        "bool(self.observers) or self.monitors.is_active, group.execute",
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
        "a signal of the program around it keeps the loop awake", "server/loop.py",
        "if self._signalled or not came:", "if self._signalled:",
        "tests/unit/test_loop_signals.py::test_the_loop_rests_again_after_a_signal_whoever_handles_it", 9,
    ),
]
