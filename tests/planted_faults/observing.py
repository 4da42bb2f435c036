"""Faults to plant in the dashboard and in what it shows."""

from __future__ import annotations

from planted_faults.mutant import Mutant

# fmt: off
MUTANTS = [
    Mutant("a slow disk is compared with nothing", "observing/doctor.py", "p99_s > SLOWER_TIMES * first[\"p99_s\"]", "False",
           "tests/unit/test_doctor.py::test_what_is_wrong_is_said_in_a_sentence_with_a_command", 9),
    Mutant("a doctor that may not ask finds nothing wrong", "cli/commands/doctor.py", "        evidence.refusal = str(error)", "        pass",
           "tests/integration/test_secured.py::test_doctor_says_that_it_may_not_ask_and_not_that_nothing_is_wrong", 13),
    Mutant("figures of two runs of a server are compared", "observing/rates.py", "names = (\"pid\", \"lineage\", \"epoch\", \"version\")", "names = (\"pid\", \"lineage\", \"version\")",
           "tests/unit/test_rates.py::test_a_server_that_was_started_anew_has_no_rates_yet", 13),
    Mutant("prefixes are counted without limit", "observing/prefixes.py", "len(self._counts) >= PREFIXES_MAX", "False",
           "tests/unit/test_top.py::test_prefixes_are_bounded_and_the_hot_ones_stay", 9),
    Mutant("a page shows a text as HTML", "dashboard/static/dom.js", "if (text !== null) element.textContent = text;", "if (text !== null) element.innerHTML = text;",
           "tests/integration/test_dashboard_pages.py::test_a_row_with_a_script_in_key_and_value_stays_text", 10),
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
    Mutant("a cancellation is lost where something else ends", "observing/waiting.py", "    finally:\n", "    except asyncio.CancelledError:\n        return True\n    finally:\n",
           "tests/unit/test_waiting.py::test_a_cancellation_is_not_lost_when_the_work_ends_in_the_same_turn", 9),
    Mutant("a browser that does not read is waited for", "dashboard/streams.py", "    return await ends_within(sending, timeout_s)", "    await sending\n    return True",
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
]
