"""docs/operations.md: every figure of `stats` is explained, and every row of the table of symptoms can be typed."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.servers import ServerProcess
from support.wire import WireClient

from kvzmq.cli import main

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()


def rows(heading: str) -> list[list[str]]:
    section = DOCUMENT.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines][2:]


SYMPTOMS = rows("When something is wrong")


def test_every_figure_of_stats_is_explained(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", bridge=True) as server, WireClient(server.url, session=None) as wire:
        found = wire.call("stats")[1][1]
    explained = set(re.findall(r"`(\w+)`", " ".join(cell[0] for cell in rows("What stats says"))))
    assert {name for name in found if not name.startswith(("router_", "tcp_"))} == explained
    text = DOCUMENT.partition("### What stats says")[2]
    for group in ("step", "disk", "bounds"):
        assert [name for name in found[group] if f"`{name}`" not in text] == []
    assert [name for name in found["by_operation"]["stats"] if f"`{name}`" not in text] == []


@pytest.mark.parametrize("row", SYMPTOMS, ids=[row[0][:40] for row in SYMPTOMS])
def test_every_command_for_a_symptom_does_something(row: list[str], tmp_path: Path) -> None:
    commands = re.findall(r"`([^`]+)`", row[2].replace("(`lineage`)", ""))
    assert commands
    data, trace = tmp_path / "data", tmp_path / "trace"
    with ServerProcess(data, "--trace", str(trace)) as server:
        with WireClient(server.url, session=None) as wire:
            wire.call("insert", "a", 1)
            lineage = wire.call("hello")[1][1]["lineage"]
        listed = CliRunner().invoke(main, ["-c", server.url, "clients"]).stdout
        for command in commands:
            words = [
                {"DIR": str(data), "FILE": str(trace), "NAME": listed.split("\t")[0], "HEX": lineage}.get(word, word)
                for word in shlex.split(command)
            ]
            if words[0] == "kvzmq":
                done = CliRunner().invoke(main, words[1:], env={"KVZMQ_URL": server.url})
                # 1: a finding, or a client that has left meanwhile; never wrong usage, never no answer
                assert done.exit_code in (0, 1) and (done.stdout or done.stderr or "kick" in words), done.stderr
            else:
                assert subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_there_are_rows_for_the_worst() -> None:
    assert len(SYMPTOMS) >= 12 and all(len(row) == 3 for row in SYMPTOMS)
