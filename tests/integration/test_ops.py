"""What is in ops/ is right: systemd's own checker, logrotate itself, and the server read it. No Docker here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from support.servers import KVZMQ, PATIENCE_S, ServerProcess, end_with_the_tests, free_port, wait_until
from support.wire import WireClient

from kvzmq.cli import main
from kvzmq.tracing import trace

OPS = Path(__file__).parents[2] / "ops"
INSTALLED = "/opt/kvzmq/bin/kvzmq"


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install {package}, or .ci/install-debian-packages")
    return found


def unit() -> dict[str, list[str]]:
    """Return the settings of the unit, each with its values."""
    found: dict[str, list[str]] = {}
    for line in (OPS / "kvzmq.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def settings_of(words: list[str]) -> click.Context:
    """Return what `kvzmq server` understands of its words; fails where it does not."""
    command = main.get_command(click.Context(main), "server")
    assert command is not None
    return command.make_context("server", words)


def test_the_settings_file_is_one(tmp_path: Path) -> None:
    """With its comments, and with what they propose."""
    with settings_of(["--config", str(OPS / "kvzmq.toml")]) as ctx:
        assert ctx.params["data"] == Path("/var/lib/kvzmq")
    everything = re.sub(r"^# (?=\w+ = )", "", (OPS / "kvzmq.toml").read_text(), flags=re.MULTILINE)
    (tmp_path / "kvzmq.toml").write_text(everything)
    with settings_of(["--config", str(tmp_path / "kvzmq.toml")]) as ctx:
        assert ctx.params["tcp"] == ("127.0.0.1", 5571) and ctx.params["trace_path"] == "/var/log/kvzmq/trace"


def test_the_settings_of_a_server_on_a_cluster_are_ones() -> None:
    with settings_of(["--config", str(OPS / "kvzmq-cluster.toml")]) as ctx:
        assert len(ctx.params["log_url"].addresses) == 3 and ctx.params["log_url"].name == "table"
        assert ctx.params["etcd_quota_bytes"] == 8 << 30


def test_systemd_takes_the_unit_of_a_server_on_a_cluster(tmp_path: Path) -> None:
    """The unit with its drop-in: it restarts whatever the reason but wrong usage."""
    verified = tmp_path / "kvzmq.service"
    verified.write_text((OPS / "kvzmq.service").read_text().replace(INSTALLED, sys.executable))
    (tmp_path / "kvzmq.service.d").mkdir()
    shutil.copy(OPS / "kvzmq-cluster.conf", tmp_path / "kvzmq.service.d" / "cluster.conf")
    command = [program("systemd-analyze", "systemd"), "verify", str(verified)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "RestartPreventExitStatus=\nRestartPreventExitStatus=2\n" in (OPS / "kvzmq-cluster.conf").read_text()


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` says nothing of it, once its program is there."""
    verified = tmp_path / "kvzmq.service"
    verified.write_text((OPS / "kvzmq.service").read_text().replace(INSTALLED, sys.executable))
    command = [program("systemd-analyze", "systemd"), "verify", str(verified)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    verified.write_text(verified.read_text().replace("Type=notify", "Type=notfiy"))
    assert "notfiy" in subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S).stderr, (
        "it checks nothing"
    )


def test_systemd_finds_the_unit_hardened() -> None:
    """An exposure of 2 of 10 at most, as `systemd-analyze security` counts; seen red without the filter of calls."""
    command = [program("systemd-analyze", "systemd"), "security", "--offline=yes", "--threshold=20"]
    done = subprocess.run([*command, str(OPS / "kvzmq.service")], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout[-300:]


def test_the_units_commands_start_reload_and_stop_a_server(tmp_path: Path) -> None:
    """Typed as systemd would, with its socket and watchdog, and the settings of ops/ but for the places."""
    found = unit()
    settings = (OPS / "kvzmq.toml").read_text()
    settings = settings.replace("/var/lib/kvzmq", str(tmp_path / "data")).replace(":5570", f":{free_port()}")
    (tmp_path / "kvzmq.toml").write_text(settings)
    command = found["ExecStart"][0].replace("/etc/kvzmq/kvzmq.toml", str(tmp_path / "kvzmq.toml"))
    assert command.startswith(f"{INSTALLED} ")
    environment = {
        **os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": str(int(found["WatchdogSec"][0]) * 1_000_000),
    }  # fmt: skip
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, contextlib.ExitStack() as stack:
        manager.bind(environment["NOTIFY_SOCKET"])
        manager.settimeout(PATIENCE_S)
        heard: list[str] = []

        def hear(word: str) -> None:
            deadline_s = time.monotonic() + PATIENCE_S
            while not any(word in line for line in heard):  # a status comes now and then, whatever happens
                assert time.monotonic() < deadline_s, f"no {word} in {heard}"
                heard.extend(manager.recv(4096).decode().splitlines())

        server = subprocess.Popen(
            [*KVZMQ, *shlex.split(command)[1:]], env=environment, cwd="/", umask=int(found["UMask"][0], 8),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=end_with_the_tests,
        )  # fmt: skip
        stack.callback(server.wait)
        stack.callback(server.kill)
        hear("READY=1")
        hear("STATUS=0 rows")
        heard.clear()
        subprocess.run(shlex.split(found["ExecReload"][0].replace("$MAINPID", str(server.pid))), check=True)
        hear("RELOADING=1")
        hear("READY=1")
        server.terminate()
        hear("STOPPING=1")
        assert server.wait(PATIENCE_S) == 0
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["table.txn"]


def test_the_unit_starts_what_there_is_and_hears_of_it() -> None:
    found = unit()
    installed, name, option, path = shlex.split(found["ExecStart"][0])
    assert (installed, name, option) == (INSTALLED, "server", "--config")
    with settings_of([option, str(OPS / Path(path).name)]) as ctx:
        assert f"/var/lib/{found['StateDirectory'][0]}" == str(ctx.params["data"])
    assert found["Type"] == ["notify"] and float(found["WatchdogSec"][0]) >= 10
    assert found["RestartPreventExitStatus"] == ["2 3 5"] and found["Restart"] == ["on-failure"]
    for hardening in ("NoNewPrivileges", "ProtectSystem", "MemoryMax", "LimitNOFILE"):
        assert hardening in found


def _allowed(name: str) -> set[str]:
    """Return the system calls of a set of systemd's."""
    shown = subprocess.run(
        [program("systemd-analyze", "systemd"), "syscall-filter", name],
        capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    ).stdout  # fmt: skip
    words = [line.strip() for line in shown.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return {call for word in words for call in (_allowed(word) if word.startswith("@") else {word})}


def test_the_units_filter_allows_every_system_call_of_a_server_and_its_compaction(tmp_path: Path) -> None:
    """A call that is refused would show in production first. Seen red with: the set @basic-io in its place."""
    calls = tmp_path / "calls"
    wrapper = (program("strace", "strace"), "-D", "-f", "-q", "-o", str(calls))
    with ServerProcess(tmp_path / "data", "--compact-after", "20", bridge=True, wrapper=wrapper) as server:
        with WireClient(server.url, session=None) as wire:
            for n in range(25):
                wire.call("insert", f"k{n}", n)
        wait_until(lambda: "compaction done" in server.stderr, what="a compaction")
        assert server.terminate() == 0
        ended = re.compile(rf"^{server.pid} +\+\+\+ exited", re.MULTILINE)
        wait_until(lambda: ended.search(calls.read_text()), what="the end of the calls")
    used = set(re.findall(r"^\d+ +(\w+)\(", calls.read_text(), re.MULTILINE))
    assert {"fdatasync", "setpriority", "prctl"} <= used
    (allowed,) = unit()["SystemCallFilter"]
    assert used - _allowed(allowed) == set()


def test_logrotate_rotates_a_trace_and_the_server_goes_on_in_a_new_one(tmp_path: Path) -> None:
    """The file of ops/, with the paths, the user and the process of here."""
    rotating = program("logrotate", "logrotate")
    path = tmp_path / "log" / "trace"
    path.parent.mkdir(mode=0o755)
    with ServerProcess(tmp_path / "data", "--trace", str(path)) as server:
        with WireClient(server.url, session=None) as wire:
            wire.call("insert", "a", 1)
            wait_until(lambda: '"a"' in path.read_text(), what="a line")  # after the reply; an empty file is left alone
            text = (OPS / "logrotate").read_text().replace("/var/log/kvzmq/trace", str(path))
            text = text.replace("su kvzmq kvzmq", "")
            text, changed = re.subn("systemctl kill .*", f"kill -HUP {server.pid}", text)
            assert changed == 1
            (tmp_path / "logrotate").write_text(text)
            (tmp_path / "logrotate").chmod(0o644)
            done = subprocess.run(
                [rotating, "--force", "--state", str(tmp_path / "state"), str(tmp_path / "logrotate")],
                capture_output=True, text=True, timeout=PATIENCE_S,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (0, "")
            wait_until(lambda: "trace reloaded" in server.stderr, what="a reload")
            wire.call("insert", "b", 1)
        assert server.terminate() == 0
    keys = [
        [line.key for text in file.read_text().splitlines() if (line := trace.parse(text)) is not None]
        for file in (path.with_name("trace.1"), path)
    ]
    assert keys == [['"a"'], ['"b"']]


def test_the_dockerfile_starts_and_asks_what_there_is() -> None:
    text = (OPS / "Dockerfile").read_text()
    health, start = (json.loads(found) for found in re.findall(r"CMD (\[.*\])$", text, re.MULTILINE))
    with settings_of(start[2:]) as ctx:
        assert ctx.params["binds"] == ("tcp://0.0.0.0:5570",)
    assert health[0] == start[0] == "kvzmq"
    asked = subprocess.run(
        [*KVZMQ, *health[1:]], capture_output=True, text=True, timeout=PATIENCE_S,
        env=os.environ | {"KVZMQ_URL": "tcp://127.0.0.1:1"},
    )  # fmt: skip
    assert asked.returncode == 4, asked.stderr
    for source in re.findall(r"^COPY ((?:[\w.]+ )+)", text, re.MULTILINE):
        assert all((OPS.parent / name).exists() for name in source.split())
