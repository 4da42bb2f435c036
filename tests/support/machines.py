"""Machines on which a test types what a document shows."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from support.servers import PATIENCE_S, wait_until

STEP_S = PATIENCE_S
"""How long what is typed at once may take."""

LETTERS = ("server.line", "bob.line")
"""Files that go from one machine to the others as soon as they are there."""

_BLOCK = re.compile(r"^```sh (\w+)(?: fails with (\d))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Machine:
    """A shell on a machine, with a directory of its own.

    Args:
        path: the directory, which is made
        run: what runs a command on the machine; nothing for this one
        bin_path: where `kvzmq` is, or None if that is still to be installed
    """

    def __init__(self, path: Path, run: list[str], bin_path: Path | None) -> None:
        path.mkdir()
        self.path = path
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KVZMQ")}
        if bin_path is not None:
            environment["PATH"] = f"{bin_path}:{environment['PATH']}"
        else:  # of a newcomer, who has nothing
            environment = {
                name: value for name, value in environment.items() if not name.startswith(("PYTHON", "VIRT"))
            }
        environment["KVZMQ_TIMEOUT"] = "60"
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

    def type(self, text: str, timeout_s: float = STEP_S) -> int:
        """Type lines; returns the exit code of the last."""
        assert self._shell.stdin is not None
        self._steps += 1
        mark = f"step {self._steps} ended with "
        self._shell.stdin.write(f"{text}\necho {mark}$?\n")
        self._shell.stdin.flush()
        wait_until(lambda: re.search(rf"{mark}\d+\n", self.said), timeout_s, f"the end of {text!r}")
        found = re.search(rf"{mark}(\d+)\n", self.said)
        assert found is not None
        return int(found[1])

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)  # the shell is the leader of a session of its own
        self._shell.wait()
        self._reader.join()


def type_blocks(
    document: str, machines: Mapping[str, Machine], places: Mapping[str, str], timeout_s: float = STEP_S
) -> None:
    """Type the blocks of a document that begin with "```sh MACHINE", each where it says, and check how each ends.

    A block that starts a server in the background is over when it listens.

    Args:
        machines: by name; blocks of others are left out
        places: what to type in place of the document's addresses and paths
        timeout_s: how long each block may take
    """
    for where, code, text in _BLOCK.findall(document):
        if where not in machines:
            continue
        for name in LETTERS:
            for one in machines.values():
                for other in machines.values():
                    if (one.path / name).exists() and not (other.path / name).exists():
                        shutil.copy(one.path / name, other.path / name)
        for shown, there in places.items():
            text = text.replace(shown, there)
        machine = machines[where]
        listening = machine.said.count("Listening on tcp://")
        found = machine.type(text.rstrip(), timeout_s)
        assert found == int(code or 0), f"{text} ended with {found}:\n{machine.said}"
        if "kvzmq server" in text:
            wait_until(lambda: machine.said.count("Listening on tcp://") > listening, STEP_S, "the server")  # noqa: B023
