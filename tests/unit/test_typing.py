"""The public API is typed: a program that uses all of it passes `mypy --strict`, and one that misuses it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("mypy")


def check(program: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    options = ["--strict", "--config-file", str(cache / "none.ini"), "--cache-dir", str(ROOT / ".mypy_cache" / "user")]
    (cache / "none.ini").write_text(
        "[mypy]\nfollow_imports = silent\n[mypy-sortedcontainers.*]\nignore_missing_imports = True\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(program)], cwd=ROOT, capture_output=True, text=True, timeout=1200
    )


def test_a_program_that_uses_everything_is_well_typed(tmp_path: Path) -> None:
    done = check(ROOT / "tests" / "typing" / "user_program.py", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_misuse_is_found(tmp_path: Path) -> None:
    program = tmp_path / "wrong.py"
    program.write_text(
        "import kvzmq\n"
        "with kvzmq.connect('tcp://h:1') as table:\n"
        "    table.insert(5, 1)\n"
        "    x: str = table.size()\n"
        "    y: int = table.lookup('k', type=str)\n"
    )
    done = check(program, tmp_path)
    assert [line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line] == ["3", "4", "5"], (
        done.stdout
    )


def test_a_reply_that_was_executed_and_not_synced_cannot_be_sent(tmp_path: Path) -> None:
    """Guarantee 3, by type: only `Group.sync` and `Group.release` give out what a transport sends."""
    program = tmp_path / "early.py"
    program.write_text(
        "from kvzmq.protocol.messages import Request\n"
        "from kvzmq.server.transport import Transport\n"
        "from kvzmq.store.store import Store\n"
        "def answer(store: Store, transport: Transport, request: Request) -> None:\n"
        "    group = store.begin([request], 1)\n"
        "    transport.send(1, group.execute(request))\n"
        "    transport.send(1, *group.sync())\n"
    )
    done = check(program, tmp_path)
    assert [line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line] == ["6"], done.stdout
