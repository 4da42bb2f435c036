"""What `kvzmq dashboard` says when it cannot start."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.servers import KVZMQ

TIMEOUT_S = 120

WITHOUT = """
import sys
missing, sys.argv[:] = sys.argv[1], ["kvzmq", "dashboard", "--bind", "127.0.0.1:0"]
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
if missing == "nicegui":
    import importlib.util
    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *more: None if name == missing else found(name, *more)
from kvzmq.cli import main
main()
"""


def refused(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [*KVZMQ, "-c", arguments[0], "dashboard", *arguments[1:]],
        capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_a_port_that_is_in_use_is_said_and_how_to_take_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = refused("tcp://127.0.0.1:1", "--bind", f"127.0.0.1:{taken.getsockname()[1]}")
    assert code == 3 and "Address already in use" in said and "--bind" in said and "Traceback" not in said


def test_a_url_that_is_none_is_wrong_usage() -> None:
    code, said = refused("127.0.0.1:5570", "--bind", "127.0.0.1:0")
    assert code == 2 and "is not a server's URL" in said


@pytest.mark.parametrize("bind", ["nothing", "127.0.0.1", "127.0.0.1:99999", ":5580"])
def test_an_address_that_is_none_is_wrong_usage(bind: str) -> None:
    code, said = refused("tcp://127.0.0.1:1", "--bind", bind)
    assert code == 2 and "HOST:PORT" in said


def test_where_others_reach_it_there_is_no_start_without_a_token(tmp_path: Path) -> None:
    """It would have to print one, and what it prints goes to a log here. Seen red with a token printed anyway."""
    code, said = refused("tcp://127.0.0.1:1", "--bind", "0.0.0.0:0")
    assert code == 3 and "--token-file" in said
    short = tmp_path / "token"
    short.write_text("short\n")
    short.chmod(0o600)
    code, said = refused("tcp://127.0.0.1:1", "--bind", "0.0.0.0:0", "--token-file", str(short))
    assert code == 2 and "is no token" in said


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "nicegui"])
def test_what_is_not_installed_is_named_with_the_extra(missing: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, missing], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 3 and "pip install 'kvzmq[web]'" in done.stderr and "Traceback" not in done.stderr
