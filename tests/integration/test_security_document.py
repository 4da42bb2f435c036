"""docs/security.md: a secured server in five minutes, typed as it stands there, on two machines."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

import pytest
from support import cables
from support.machines import Machine, type_blocks
from support.servers import free_port

from kvzmq.protocol.operations import OPERATIONS
from kvzmq.server.access import LOOK_S, RIGHTS, parse_clients

DOCUMENT = (Path(__file__).parents[2] / "docs" / "security.md").read_text()


@pytest.fixture
def bin_path(tmp_path: Path) -> Path:
    path = tmp_path / "bin"
    path.mkdir()
    command = path / "kvzmq"
    command.write_text(f"#!{sys.executable}\nfrom kvzmq.cli import main\nmain(prog_name='kvzmq')\n")
    command.chmod(0o755)
    return path


@pytest.mark.xdist_group(cables.GROUP)
def test_the_five_minutes_work_as_typed_on_two_machines(tmp_path: Path, bin_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        line = stack.enter_context(cables.cable())
        server = stack.enter_context(contextlib.closing(Machine(tmp_path / "server", [], bin_path)))
        client = stack.enter_context(contextlib.closing(Machine(tmp_path / "client", line.run, bin_path)))
        type_blocks(DOCUMENT, {"server": server, "client": client}, {"10.0.0.5:5570": f"{line.here}:{free_port()}"})
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
    assert set(rows) == {*RIGHTS, "read,write"} and "| `read,admin`, all keys |" in section
    for word in re.findall(r"[a-z]+_[a-z_]+", section):
        assert word in OPERATIONS, word
    assert LOOK_S == 1.0, "read again within a second or two"
