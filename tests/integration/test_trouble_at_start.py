"""Each row of the table "It does not start" in docs/operations.md is tried: the document says what is seen."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from support.disks import small_disk
from support.servers import DidNotStart, ServerProcess
from support.wire import WireClient

from kvzmq.store.file.file_log import NAME

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2
_prctl = ctypes.CDLL(None).prctl

_SECTION = OPERATIONS.read_text().partition("\n## It does not start\n")[2].partition("\n## ")[0]
SYMPTOMS = re.findall(r"^\| `([^`]*)` \|", _SECTION, re.MULTILINE)


def refused(*arguments: object, code: int = 3, preexec: Callable[[], None] | None = None) -> str:
    """Return what a server says that does not start; it must end with that code, and say one thing."""
    data, *options = map(str, arguments)
    with pytest.raises(DidNotStart) as error:
        ServerProcess(data, *options, preexec=preexec)
    assert error.value.exit_code == code and "Traceback" not in error.value.stderr
    return error.value.stderr.splitlines()[-1].removeprefix("kvzmq: ").removeprefix("Error: ")


def _port_in_use(path: Path) -> str:
    with socket.create_server(("127.0.0.1", 0)) as other:
        return refused(path / "data", "--bind", f"tcp://127.0.0.1:{other.getsockname()[1]}")


def _no_such_address(path: Path) -> str:
    return refused(path / "data", "--bind", "tcp://192.0.2.1:5570", "--insecure")


def _directory_in_use(path: Path) -> str:
    with ServerProcess(path / "data"):
        return refused(path / "data")


def _not_mounted(path: Path) -> str:
    return refused(path / "data", "--must-exist")


def _damaged(path: Path) -> str:
    with ServerProcess(path / "data") as server:
        with WireClient(server.url, session=None) as wire:
            for n in range(3):
                wire.call("insert", f"k{n}", n)
        server.terminate()
    log = path / "data" / NAME
    data = bytearray(log.read_bytes())
    data[data.index(b"k0")] ^= 1
    log.write_bytes(data)
    before = log.read_bytes()
    said = refused(path / "data")
    assert log.read_bytes() == before
    return said


def _full(path: Path) -> str:
    with small_disk(path / "disk", 64) as disk:
        with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(4096))
        return refused(disk / "data")


def _forbidden(path: Path) -> str:
    """As who owns the directory and may not enter it: root does not ask without these capabilities."""
    (path / "data").mkdir(mode=0)
    (path / "data").chmod(0)

    def obey_permissions() -> None:
        if os.getuid() == 0:
            for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
                _prctl(_PR_CAPBSET_DROP, capability)

    try:
        return refused(path / "data", preexec=obey_permissions)
    finally:
        (path / "data").chmod(0o700)


def _unknown_key(path: Path) -> str:
    (path / "kvzmq.toml").write_text('dta = "/var/lib/kvzmq"\n')
    return refused(path / "data", "--config", path / "kvzmq.toml", code=2)


def _not_toml(path: Path) -> str:
    (path / "kvzmq.toml").write_text("data = /var/lib/kvzmq\n")
    return refused(path / "data", "--config", path / "kvzmq.toml", code=2)


def _no_file(path: Path) -> str:
    return refused(path / "data", "--trace", path / "nowhere" / "trace")


SEEN: dict[str, Callable[[Path], str]] = {
    "cannot listen on ...: it is in use": _port_in_use,
    "cannot listen on ...: no such address on this machine": _no_such_address,
    "... is in use by another kvzmq server": _directory_in_use,
    "... holds no table, and --must-exist says not to begin one": _not_mounted,
    "... offset ... Nothing was changed.": _damaged,
    "...: No space left on device": _full,
    "...: Permission denied": _forbidden,
    "...: no option is called 'dta'; did you mean 'data'?": _unknown_key,
    "...: not TOML: ...": _not_toml,
    "...: No such file or directory": _no_file,
}
"""What an operator sees, as the document has it, and how to see it."""


def test_the_document_has_exactly_the_rows_that_are_tried() -> None:
    of_a_newer_version = "... written by a newer version of kvzmq ..."  # is tried in test_earlier_versions.py
    assert [*SEEN, of_a_newer_version] == SYMPTOMS


@pytest.mark.parametrize("symptom", SEEN)
def test_a_server_that_does_not_start_says_what_the_document_shows(symptom: str, tmp_path: Path) -> None:
    said = SEEN[symptom](tmp_path)
    pattern = re.escape(symptom).replace(r"\.\.\.", ".*")
    assert re.search(pattern, said), said
