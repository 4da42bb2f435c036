"""What would be published installs into an empty environment and works there.

Builds once for all tests; needs the package index, or pip's cache of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support import cables
from support.machines import Machine, type_blocks
from support.servers import free_port, take_ctrl_c

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "kvzmq", "pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in", "CHANGELOG.md", "CONTRIBUTING.md",
    "Makefile", "REPORT", "benchmarks", "clients", "docs", "ops", "tests", ".ci", ".git-blame-ignore-revs",
    ".gitignore", ".pre-commit-config.yaml",
)  # fmt: skip
"""What a checkout holds."""
TIMEOUT_S = 900

pytestmark = pytest.mark.xdist_group(cables.GROUP)  # one worker: it also builds once
pytest.importorskip("build", reason="`make test` installs it; by hand: pip install -e '.[test,dist]'")


def run(*command: object, **environment: str) -> str:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KVZMQ", "VIRTUAL_ENV"))
    }
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=TIMEOUT_S, env=clean | environment
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist and the wheel, as `make dist` builds them."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, checkout / name)
    for package in ("kvzmq", "tests"):
        (checkout / package / "__pycache__").mkdir()
        (checkout / package / "__pycache__" / "planted.cpython-310.pyc").touch()
    output = checkout / "dist"
    run(sys.executable, "-m", "build", "--outdir", output, checkout)
    return output


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with nothing but the wheel and what it needs."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", environment)
    (wheel,) = dist.glob("*.whl")
    run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    return environment / "bin"


def test_twine_has_nothing_to_say_against_it(dist: Path) -> None:
    shown = run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir())
    assert shown.count("PASSED") == 2


def test_the_wheel_holds_the_package_and_the_sdist_the_checkout_and_nothing_else(dist: Path) -> None:
    """Seen red without MANIFEST.in, and without its last line."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    checkout = dist.parent
    files = {
        path.relative_to(checkout).as_posix()
        for name in SOURCES
        for path in (checkout / name, *(checkout / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    ours = {name for name in files if name.startswith("kvzmq/")}
    with zipfile.ZipFile(wheel) as file:
        packed = {name for name in file.namelist() if ".dist-info/" not in name}
    assert packed == ours and "kvzmq/dashboard/static/index.html" in packed
    with tarfile.open(sdist) as file:
        packed = {member.name.partition("/")[2] for member in file.getmembers() if member.isfile()}
    added = {"PKG-INFO", "setup.cfg"} | {name for name in packed if name.startswith("kvzmq.egg-info/")}  # by setuptools
    assert packed - added == files
    assert {"docs/protocol.md", "tests/conftest.py", "clients/demo.py", "CHANGELOG.md"} <= files


def test_the_installed_command_serves_and_asks(installed: Path, tmp_path: Path) -> None:
    kvzmq = installed / "kvzmq"
    assert re.fullmatch(r"kvzmq \d\S+\n", run(kvzmq, "--version"))
    server = subprocess.Popen(
        [str(kvzmq), "server", "--data", str(tmp_path / "data"), "--bind", "tcp://127.0.0.1:0", "--compact-after", "5"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=take_ctrl_c,
    )  # fmt: skip
    try:
        assert server.stdout is not None and server.stderr is not None
        url = server.stdout.readline().removeprefix("Listening on ").strip()
        for n in range(8):  # a compaction: its process finds the package, too
            run(kvzmq, "-c", url, "insert", f"k{n}", '{"weight": 100}')
        assert run(kvzmq, "-c", url, "lookup", "k1") == '{"weight":100}\n'
        stats = json.loads(run(kvzmq, "-c", url, "stats", "--json"))
        assert stats["keys"] == 8 and stats["compactions_failed"] == 0
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_S) == 0
    finally:
        server.kill()
        server.communicate()
    assert run(kvzmq, "check", tmp_path / "data").endswith("no damage\n")


def test_a_newcomer_gets_from_pip_to_a_server_that_is_secured_watched_backed_up_and_restored(
    dist: Path, tmp_path: Path
) -> None:
    """By what the documents show, as it stands there, on two machines without a checkout."""
    security, operations = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("security", "operations"))
    (wheel,) = dist.glob("*.whl")
    places = {
        "127.0.0.1:9570": f"127.0.0.1:{free_port()}",
        "/opt/kvzmq": str(tmp_path / "kvzmq"), "kvzmq-VERSION-py3-none-any.whl": str(wheel),
        "python3 -m venv": f"{sys.executable} -m venv",
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        line = stack.enter_context(cables.cable())
        places["10.0.0.5:5570"] = f"{line.here}:{free_port()}"
        server = stack.enter_context(contextlib.closing(Machine(tmp_path / "server", [], None)))
        client = stack.enter_context(contextlib.closing(Machine(tmp_path / "client", line.run, None)))
        type_blocks(operations, {"install": server}, places, TIMEOUT_S)
        client.type(f"export PATH={tmp_path / 'kvzmq' / 'bin'}:$PATH")
        type_blocks(security, {"server": server, "client": client}, places)
        type_blocks(operations, {"server": server, "client": client}, places)
        said = server.said
        assert "answers in" in said and "\nkvzmq_rows 1.0\n" in said and "operator@" in said
        assert "\tinsert\tconfig/colour\tbob\n" in said
        assert client.said.count("\n7\n") == 2, "before, and again after the restore"
    assert any((tmp_path / "server" / "table").glob("replaced-*"))
