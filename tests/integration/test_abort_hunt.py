"""No process of ours is aborted by libzmq, whatever its peers do: `make abort-hunt` at a hundredth of its size."""

from __future__ import annotations

from collections.abc import Callable

import abort_hunt
import pytest


@pytest.mark.parametrize("hunt", [abort_hunt.hunt_server, abort_hunt.hunt_client], ids=["server", "client"])
def test_no_disconnect_in_any_state_aborts_a_process(hunt: Callable[[int], tuple[abort_hunt.Counts, int]], full: bool, count: Callable[[str, int], None]) -> None:
    """Red with HEARTBEAT_IVL on the attacked side's socket."""
    counts, died = hunt(5000 if full else 1000)
    count("disconnects", counts.total())
    assert died == 0


def test_programs_that_watch_survive_their_servers(full: bool, count: Callable[[str, int], None]) -> None:
    counts, died = abort_hunt.hunt_watcher(30 if full else 5)
    count("servers killed or stopped under a watching program", counts.total())
    assert died == 0
