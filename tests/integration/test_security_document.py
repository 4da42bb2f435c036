"""docs/security.md: a secured server in five minutes, typed as it stands there, on two machines."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import cables
from support.servers import free_port, wait_until

from kvzmq.protocol.operations import OPERATIONS
from kvzmq.server.access import LOOK_S, RIGHTS, parse_clients

DOCUMENT = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
BLOCKS = re.findall(r"^```sh (server|client)(?: fails with (\d))?\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
STEP_S = 60.0


class Machine:
    """A shell on a machine, with a directory of its own."""

    def __init__(self, path: Path, run: list[str], bin_path: Path) -> None:
        path.mkdir()
        self.path = path
        environment = os.environ | {"PATH": f"{bin_path}:{os.environ['PATH']}", "KVZMQ_TIMEOUT": "30"}
        self._shell = subprocess.Popen(
            [*run, "bash"], cwd=path, env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._steps = 0

    def _read(self) -> None:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            self.said += line

    def type(self, text: str) -> int:
        """Type lines; returns the exit code of the last."""
        assert self._shell.stdin is not None
        self._steps += 1
        mark = f"step {self._steps} ended with "
        self._shell.stdin.write(f"{text}\necho {mark}$?\n")
        self._shell.stdin.flush()
        wait_until(lambda: re.search(rf"{mark}\d+\n", self.said), STEP_S, f"the end of {text!r}")
        found = re.search(rf"{mark}(\d+)\n", self.said)
        assert found is not None
        return int(found[1])

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)  # the shell is the leader of a session of its own
        self._shell.wait()
        self._reader.join()


@pytest.fixture
def bin_path(tmp_path: Path) -> Path:
    path = tmp_path / "bin"
    path.mkdir()
    command = path / "kvzmq"
    command.write_text(f"#!{sys.executable}\nfrom kvzmq.cli import main\nmain(prog_name='kvzmq')\n")
    command.chmod(0o755)
    return path


def test_the_five_minutes_work_as_typed_on_two_machines(tmp_path: Path, bin_path: Path) -> None:
    address = f"{cables.HERE}:{free_port()}"
    with contextlib.ExitStack() as stack:
        run, _ = stack.enter_context(cables.cable())
        server = stack.enter_context(contextlib.closing(Machine(tmp_path / "server", [], bin_path)))
        client = stack.enter_context(contextlib.closing(Machine(tmp_path / "client", run, bin_path)))
        machines = {"server": server, "client": client}
        for where, code, text in BLOCKS:
            for name in ("server.line", "bob.line"):  # exchanged as soon as they are there
                for one, other in ((server, client), (client, server)):
                    if (one.path / name).exists():
                        shutil.copy(one.path / name, other.path / name)
            found = machines[where].type(text.rstrip().replace("10.0.0.5:5570", address))
            assert found == int(code or 0), machines[where].said
            if "kvzmq server" in text:
                wait_until(lambda: f"Listening on tcp://{address}" in server.said, STEP_S, "the server")
        assert "\n7\n" in client.said
        assert "knows the key of this client" in client.said
        assert "bob may not insert 'secret'" in client.said


def test_the_clients_file_of_the_document_is_one() -> None:
    (text,) = re.findall(r"^```\n(# name .*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    keys = iter("123")
    found = parse_clients(re.sub(r"\((?:its|her) key\)", lambda _: next(keys) * 40, text))
    assert [client.name for client in found.values()] == ["bob", "robot-7", "alice"]
    assert [client.prefixes for client in found.values()] == [("config/",), ("robots/7/", "shared notes/"), ()]


def test_the_rights_of_the_document_are_those_there_are() -> None:
    section = DOCUMENT.partition("\n| right | may |\n")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `([a-z,]+)` \| (.*) \|$", section, re.MULTILINE))
    assert set(rows) == {*RIGHTS, "read,write"}
    for word in re.findall(r"[a-z]+_[a-z_]+", section):
        assert word in OPERATIONS, word
    assert LOOK_S == 1.0, "read again within a second or two"
