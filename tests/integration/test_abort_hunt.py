"""No process of ours is aborted by libzmq, whatever its peers do: `make abort-hunt` at a hundredth of its size."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import abort_hunt
import pytest
from support.ending_peers import Counts

pytestmark = pytest.mark.unmeasured  # what it counts is disconnects


@pytest.mark.parametrize("hunt", [abort_hunt.hunt_server, abort_hunt.hunt_client], ids=["server", "client"])
def test_no_disconnect_in_any_state_aborts_a_process(
    hunt: Callable[[int], tuple[Counts, int]], full: bool, count: Callable[[str, int], None]
) -> None:
    counts, died = hunt(5000 if full else 1000)
    count("disconnects", counts.total())
    assert died == 0


def test_programs_that_watch_survive_their_servers(full: bool, count: Callable[[str, int], None]) -> None:
    counts, died = abort_hunt.hunt_watcher(30 if full else 5)
    count("servers killed or stopped under a watching program", counts.total())
    assert died == 0


SERVER_GONE_WHILE_BUSY = """
import socket, struct, time, zmq
from support.ending_servers import AS_ROUTER, FLOOD
from kvzmq.client.core.pyzmq_socket import PyzmqSocket
listener = socket.create_server(("127.0.0.1", 0))
url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
client = PyzmqSocket(url, zmq.Context())
server, _ = listener.accept()
server.settimeout(2.0)
try:
    server.sendall(AS_ROUTER)
    while b"DEALER" not in server.recv(4096):
        pass
    while True:
        server.sendall(FLOOD)
except TimeoutError:
    pass  # nobody reads: the queue is full, and the kernel's buffers are
server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
server.close()
time.sleep(4.0)  # still busy; a heartbeat would be due
client.poll_events()
"""


def test_a_program_that_is_busy_while_its_server_vanishes_is_not_aborted() -> None:
    """Red with HEARTBEAT_IVL: libzmq's heartbeat wrote to the engine that had failed, Assertion failed: !_io_error."""
    command = [sys.executable, "-c", SERVER_GONE_WHILE_BUSY]
    done = subprocess.run(command, cwd=Path(abort_hunt.__file__).parent, timeout=300, capture_output=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
