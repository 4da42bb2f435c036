"""Faults to plant in the two shells of the client."""

from __future__ import annotations

from planted_faults.mutant import Mutant

# fmt: off
MUTANTS = [
    Mutant("who came while another thread waited is never sent", "client/sync/connection.py",
           "            elif self._waiting or self._closed:\n                self._pass_turn()\n            else:", "            else:",
           "tests/unit/test_shared_channel.py::test_who_came_while_another_thread_was_answered_is_sent_and_reads", 4),
    Mutant("a thread that is interrupted keeps its turn", "client/sync/connection.py",
           "                self._tick_s = 0.0\n                self._pass_turn()", "                self._tick_s = 0.0",
           "tests/integration/test_client_threads.py::test_an_interrupted_reader_passes_its_turn", 9),
    Mutant("what comes while asyncio sends is not looked at", "client/asyncio/connection.py",
           "socket.readable:  # sending may", "False:  # sending may",
           "tests/integration/test_client_asyncio.py::test_no_wakeup_is_lost_under_load", 9),
    Mutant("a loop watches the descriptors that a socket had first", "client/asyncio/connection.py",
           "        if now is self._followed:\n", "        if now is self._followed or (now and self._followed):\n",
           "tests/unit/test_client_channel.py::test_an_event_loop_follows_the_descriptors_of_a_socket", 9),
    Mutant("the values of a copy are given to whoever asks", "client/sync/views.py",
           "        return frame.f_lasti == self._at and frame.f_code is self._code and threading.get_ident() == self._thread", "        return True",
           "tests/contract/test_client_copies.py::test_a_value_read_by_itself_is_never_an_old_one", 4),
    Mutant("the values of a copy are given out before all keys are", "client/sync/views.py",
           "        for page in self._pages_of_items():\n            copy.rows.update(page)\n", "        self._table._copies.begin(copy)\n        for page in self._pages_of_items():\n            copy.rows.update(page)\n",
           "tests/contract/test_client_copies.py::test_values_that_are_asked_for_between_keys_are_never_old_ones", 4),
    Mutant("a forked child takes its parent's events", "client/core/stream.py", "        if os.getpid() != self._pid:", "        if False:",
           "tests/integration/test_client_processes.py::test_a_watch_is_not_a_forked_childs", 4),
    Mutant("a forked child asks on its parent's asyncio connection", "client/asyncio/connection.py", "        if self._pid != os.getpid():\n            self._channel.forget()", "        if False:\n            self._channel.forget()",
           "tests/integration/test_client_processes.py::test_an_asyncio_client_is_used_in_a_forked_child", 4),
    Mutant("a watch says that nothing came while something is unread", "client/sync/stream.py", " and not self._channel.unread:", ":",
           "tests/integration/test_client_processes.py::test_a_watch_does_not_say_that_nothing_came_while_something_is_unread", 4),
    Mutant("a watch's descriptor stays with the first socket", "client/sync/stream.py", "            if self._descriptor is not None:\n                self._descriptor.follow(self._channel.socket)", "            pass",
           "tests/integration/test_client_processes.py::test_a_watchs_descriptor_stays_when_its_socket_is_another", 9),
    Mutant("a namespace closes its parent", "client/sync/shell.py", "        if self._owner:\n            self._connection.close()", "        if True:\n            self._connection.close()",
           "tests/contract/test_client_contract.py::test_a_namespace_ends_alone", 11),
]
