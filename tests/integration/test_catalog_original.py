"""Our side of the name service with the original's, in every role: Debian's coop-computing-tools.

Every process here listens on 127.0.0.1 and reports to 127.0.0.1: without -u, the original reports to its
makers' catalog.
"""

from __future__ import annotations

import base64
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from support.servers import ServerProcess, take_ctrl_c

import kvzmq
from kvzmq.catalog import Announcement, Announcer, NoSuchProject, find, query
from kvzmq.errors import CatalogError

Result = TypeVar("Result")

WAIT_S = 120.0
POLL_S = 0.01
START_ATTEMPTS_MAX = 5


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install coop-computing-tools, or .ci/install-debian-packages")
    return found


def environment(**changes: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CATALOG_", "KVZMQ_"))}
    return {**inherited, **changes}


def eventually(attempt: Callable[[], Result | None]) -> Result:
    """Return the first result that is not None, of attempts made for a bounded time."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        result = attempt()
        if result is not None:
            return result
        time.sleep(POLL_S)
    raise AssertionError("waited in vain")


def wait_for_the_second_after(epoch_s: int) -> None:
    """Wait until the original dates what it hears later: it counts whole seconds, on a clock that may lag."""
    eventually(lambda: time.time() > epoch_s + 1.1 or None)


def send(data: bytes, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(data, ("127.0.0.1", port))


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=WAIT_S) as answer:
        text: str = answer.read().decode()
        return text


def listed(port: int) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(fetch(port, "/query.json"))
    return entries


def announce_and_wait(catalog_port: int, **fields: object) -> None:
    """Announce, and wait until the catalog lists it."""
    send(json.dumps(fields, ensure_ascii=False).encode(), catalog_port)
    eventually(lambda: any(each.port == fields["port"] for each in query("127.0.0.1", catalog_port, WAIT_S)) or None)


def end(process: subprocess.Popen[Any]) -> int:
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


class Ours:
    """`kvzmq catalog` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-c", "from kvzmq.cli.commands.catalog import catalog; catalog()", *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment(), preexec_fn=take_ctrl_c
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], WAIT_S)
        assert ready, "kvzmq catalog did not say that it listens"
        line = self.process.stdout.readline()
        assert line.startswith("Listening on port "), line
        self.port = int(line.split()[-1])


@pytest.fixture
def ours() -> Iterator[Ours]:
    started = Ours("--port", "0")
    yield started
    end(started.process)


@pytest.fixture
def start_original(tmp_path: Path) -> Iterator[Callable[[int], int]]:
    """Give a function that starts the original, reporting to a port, and returns the original's port."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(report_to: int) -> int:
        port_file = tmp_path / "port"
        for _ in range(START_ATTEMPTS_MAX):
            # It takes the first free port from the low one on, and ends if the next one is not free, too.
            low = random.randrange(20_000, 30_000)
            process = subprocess.Popen(
                [
                    *(tool("catalog_server"), "-I", "127.0.0.1", "-u", f"127.0.0.1:{report_to}", "-U", "1"),
                    *("-Z", str(port_file), "-H", str(tmp_path / "history")),
                ],
                cwd=tmp_path,
                env=environment(TCP_LOW_PORT=str(low), TCP_HIGH_PORT=str(low + 1000)),
                stderr=subprocess.DEVNULL,
            )
            processes.append(process)

            def port_or_end(process: subprocess.Popen[bytes] = process) -> int | None:
                written = port_file.read_text() if port_file.exists() else ""
                return int(written) if written else -1 if process.poll() is not None else None

            port = eventually(port_or_end)
            if port > 0:
                return port
        raise AssertionError("catalog_server does not start")

    yield start
    for process in processes:
        end(process)


@pytest.fixture
def original(start_original: Callable[[int], int]) -> Iterator[int]:
    """Give the port of an original whose reports end up in a socket that nobody reads."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        yield start_original(sink.getsockname()[1])


def catalog_query(port: int, *arguments: str) -> list[dict[str, Any]]:
    result = subprocess.run(
        [tool("catalog_query"), "-c", f"127.0.0.1:{port}", "-t", "60", *arguments],
        env=environment(),
        capture_output=True,
        timeout=WAIT_S,
    )
    assert result.returncode == 0, result.stderr
    entries: list[dict[str, Any]] = json.loads(result.stdout)
    return entries


def announcement(project: str, port: int = 5571) -> Announcement:
    return Announcement(owner="me", port=port, project=project, endpoint="tcp://0.0.0.0:5570", revision=7, keys=3)


# --- Our servers and clients with the original catalog -----------------------------------------------------


def test_what_we_announce_to_the_original_we_find_there(original: int) -> None:
    announcer = Announcer("127.0.0.1", original)
    announcer.announce(announcement("zebra"))
    found = eventually(lambda: find_or_none(original, "zebra"))
    announcer.close()
    assert (found.project, found.owner, found.port, found.revision, found.keys) == ("zebra", "me", 5571, 7, 3)
    assert found.address == "127.0.0.1"
    assert found.url() == "tcp://127.0.0.1:5570"
    assert abs(found.lastheardfrom - time.time()) < WAIT_S
    with pytest.raises(NoSuchProject, match="zebra"):
        find("hashtable", "lion", "127.0.0.1", original, WAIT_S)


def find_or_none(port: int, project: str) -> Any:
    try:
        return find("hashtable", project, "127.0.0.1", port, WAIT_S)
    except NoSuchProject:
        return None


def test_a_restarted_server_is_found_where_it_is_now(original: int) -> None:
    send(json.dumps({"type": "hashtable", "project": "zebra", "port": 1}).encode(), original)
    before = eventually(lambda: find_or_none(original, "zebra"))
    wait_for_the_second_after(before.lastheardfrom)
    announce_and_wait(original, type="hashtable", project="zebra", port=2)
    assert find("hashtable", "zebra", "127.0.0.1", original, WAIT_S).port == 2


def test_what_others_announce_to_the_original_does_not_spoil_our_lookups(original: int) -> None:
    """Seen to fail without the line by line reading, and with the last of two equal names counting."""
    send(b'{"type":"hashtable","project":"spoilt","port":6,"v":1e400}', original)
    spoof = b'{"type":"hashtable","project":"zebra","port":7,"lastheardfrom":99999999999,"address":"192.0.2.1"}'
    send(spoof, original)
    spoofed = eventually(lambda: find_or_none(original, "zebra"))
    assert spoofed.address == "127.0.0.1"
    wait_for_the_second_after(spoofed.lastheardfrom)
    announce_and_wait(original, type="hashtable", project="zebra", port=8)
    assert find("hashtable", "zebra", "127.0.0.1", original, WAIT_S).port == 8
    with pytest.raises(json.JSONDecodeError):
        listed(original)


def test_a_server_announces_and_withdraws_itself_and_a_client_finds_it(original: int, tmp_path: Path) -> None:
    """Seen to fail with the ZeroMQ port as `port`, with no uuid, and with the type left as it was.

    The original keeps what asks for a lifetime of a second for up to a minute: the type ends it at once.
    """
    options = ("--project", "zebra", "--catalog", f"127.0.0.1:{original}")
    with ServerProcess(tmp_path / "a", *options) as first, ServerProcess(tmp_path / "b", *options) as second:
        entries = eventually(lambda: found if len(found := query("127.0.0.1", original, WAIT_S)) == 2 else None)
        assert {entry.url() for entry in entries} == {first.url, second.url}
        assert {(entry.type, entry.port) for entry in entries} == {("hashtable-zeromq", 0)}
        with kvzmq.connect(f"catalog://127.0.0.1:{original}/zebra") as table:
            table.insert("k", 1)
        assert first.terminate() == 0
        left = eventually(lambda: found if len(found := query("127.0.0.1", original, WAIT_S)) == 1 else None)
        assert [entry.url() for entry in left] == [second.url]
    with ServerProcess(tmp_path / "a", *options, bridge=True) as bridged:
        found = eventually(lambda: find_or_none(original, "zebra"))
        assert (found.port, found.url()) == (bridged.port, bridged.url)
        assert bridged.terminate() == 0
        eventually(lambda: find_or_none(original, "zebra") is None or None)


def test_lineage_and_epoch_pass_through_the_original(original: int) -> None:
    announcer = Announcer("127.0.0.1", original)
    announcer.announce(msgspec.structs.replace(announcement("zebra"), lineage="0a" * 16, epoch="b0" * 16))
    found = eventually(lambda: find_or_none(original, "zebra"))
    announcer.close()
    assert (found.lineage, found.epoch) == ("0a" * 16, "b0" * 16)


# --- The original's programs with our catalog --------------------------------------------------------------


def test_catalog_query_lists_what_is_announced_to_ours(ours: Ours) -> None:
    announcer = Announcer("127.0.0.1", ours.port)
    announcer.announce(announcement("zebra"))
    eventually(lambda: find_or_none(ours.port, "zebra"))
    announcer.close()
    (entry,) = catalog_query(ours.port)
    assert entry["lastheardfrom"] == pytest.approx(time.time(), abs=WAIT_S)
    assert {**entry, "lastheardfrom": 0} == {
        "name": "localhost",
        "address": "127.0.0.1",
        "lastheardfrom": 0,
        "type": "hashtable",
        "owner": "me",
        "port": 5571,
        "project": "zebra",
        "endpoint": "tcp://0.0.0.0:5570",
        "revision": 7,
        "keys": 3,
        "clients": 0,
    }


def test_catalog_query_reads_everything_that_ours_takes_in(ours: Ours) -> None:
    """Seen to fail without the refusal of NULs: catalog_query then lists nothing at all."""
    values: list[object] = [
        *(0, -1, 2**63 - 1, -(2**63), 1.5, 1e300, 5e-324, True, None, [], {}, [[[]]], {"": {"a": [1, None]}}),
        *("", "é", "😀", "\u2028", "\x01\x1f\x7f", '"\\/\b\f\n\r\t', "%s%n", "x" * 50_000, "\x00", "a\x00b"),
        *({"\x00": 1}, {"é": "\uffff"}, 2**64),
    ]
    for port, value in enumerate(values, start=1):
        send(json.dumps({"type": "probe", "port": port, "v": value}, ensure_ascii=True).encode(), ours.port)
    for garbage in (b"", b"\xff" * 100, b"{", b"[1]", b'{"v":' + b"[" * 30_000, b"\x1a\x1a", b'{"v":"\\ud83d"}'):
        send(garbage, ours.port)
    announce_and_wait(ours.port, type="probe", port=999)
    ports = {entry["port"] for entry in listed(ours.port)}
    assert ports == {*range(1, len(values) + 1), 999} - {
        port for port, value in enumerate(values, start=1) if "\\u0000" in json.dumps(value) or value == 2**64
    }
    assert {entry["port"] for entry in catalog_query(ours.port)} == ports


FILTERS = [
    "true",
    'type=="hashtable"',
    'type=="hashtable" && project=="a b"',
    'type=="hashtable" and port==5001',
    "port==5001.0",
    'port=="5001"',
    "flag==1",
    "flag==true",
    "real==2",
    'absent=="x"',
    'type=="hashtable" or type=="other"',
    'type!="hashtable"',
    "port>5001",
    "!(port==5001)",
    'project=="q\\"\\\\"',
    '(type=="other")',
]


@pytest.mark.parametrize("role", ["catalog_query", "/query/"])
def test_filters_mean_the_same_to_both_catalogs(ours: Ours, original: int, role: str) -> None:
    for port in (ours.port, original):
        announce_and_wait(port, type="hashtable", project="a b", port=5001, flag=True, real=2.0)
        announce_and_wait(port, type="hashtable", project='q"\\', port=5002, flag=False, real=2)
        announce_and_wait(port, type="other", port=5003, real="2")

    def filtered(port: int, expression: str) -> set[int] | None:
        if role == "catalog_query":
            return {entry["port"] for entry in catalog_query(port, "-w", expression)}
        text = fetch(port, "/query/" + base64.b64encode(expression.encode()).decode())
        return {entry["port"] for entry in json.loads(text)} if text.startswith("[") else None

    answers = {expression: filtered(ours.port, expression) for expression in FILTERS}
    expected = {expression: filtered(original, expression) for expression in FILTERS}
    if role == "/query/":
        # Asked directly, ours says what it does not evaluate.
        understood = {expression for expression, answer in answers.items() if answer is not None}
        assert understood >= set(FILTERS[:4])
        expected = {expression: expected[expression] if expression in understood else None for expression in FILTERS}
    assert answers == expected
    assert expected['type=="hashtable"'] == {5001, 5002}


def test_both_catalogs_tell_the_same_servers_apart(ours: Ours, original: int) -> None:
    probes: list[dict[str, object]] = [
        {},
        {"port": 0},
        {"port": 1},
        {"uuid": "a"},
        {"uuid": "b"},
        {"uuid": "a", "port": 1},
        {"uuid": "a", "port": 0},
        {"uuid": ""},
        {"uuid": 5},
        {"uuid": None},
        {"uuid": "x" * 128 + "1"},
        {"uuid": "x" * 128 + "2"},
        {"uuid": "é" * 64 + "1"},
        {"uuid": "é" * 64 + "2"},
        {"uuid": "é" * 63 + "1"},
        {"uuid": "é" * 63 + "2"},
    ]
    lists = []
    for port in (ours.port, original):
        for number, probe in enumerate(probes):
            send(json.dumps({"type": "probe", "number": number, **probe}, ensure_ascii=False).encode(), port)
        announce_and_wait(port, type="last", port=9)
        lists.append({entry["number"] for entry in listed(port) if entry["type"] == "probe"})
    assert lists[0] == lists[1]


def test_the_text_is_the_originals(ours: Ours, original: int) -> None:
    texts = []
    for port in (ours.port, original):
        announce_and_wait(port, type="hashtable", project="a b", port=5001, flag=True, some=[1, {"x": None}])
        lines = fetch(port, "/query.text").strip().split("\n")
        texts.append([line for line in lines if not line.startswith("lastheardfrom ")])
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "how",
    [
        {"CATALOG_UPDATE_PROTOCOL": "udp"},
        {"CATALOG_UPDATE_PROTOCOL": "tcp"},
        {"CATALOG_UPDATE_PROTOCOL": "udp", "CATALOG_UPDATE_LIMIT": "10"},
        {"CATALOG_UPDATE_PROTOCOL": "tcp", "CATALOG_UPDATE_LIMIT": "10"},
        {},
    ],
)
def test_ours_takes_the_updates_of_catalog_update(ours: Ours, tmp_path: Path, how: dict[str, str]) -> None:
    wanted = {"type": "hashtable", "project": "zebra", "port": 77, "note": "x" * 100}
    (tmp_path / "update.json").write_text(json.dumps(wanted))
    subprocess.run(
        [tool("catalog_update"), "-c", f"127.0.0.1:{ours.port}", "-f", str(tmp_path / "update.json")],
        env=environment(**how),
        check=True,
        capture_output=True,
        timeout=WAIT_S,
    )
    eventually(lambda: find_or_none(ours.port, "zebra"))
    (entry,) = listed(ours.port)
    assert wanted.items() <= entry.items()


def test_the_original_reports_to_ours(ours: Ours, start_original: Callable[[int], int]) -> None:
    port = start_original(ours.port)
    entry = eventually(lambda: next((each for each in listed(ours.port) if each["type"] == "catalog"), None))
    assert entry["port"] == port
    assert f"<td class=id>{port}</td>" in fetch(ours.port, "/")


def test_a_compressed_announcement_means_the_same_to_both(ours: Ours, original: int) -> None:
    data = b"\x1a" + zlib.compress(b'{"type":"hashtable","project":"packed","port":5}')
    for port in (ours.port, original):
        send(data, port)
        assert eventually(lambda port=port: find_or_none(port, "packed")).port == 5  # type: ignore[misc]


# --- The command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_at_once_and_cleanly(ours: Ours, how: signal.Signals) -> None:
    connection = socket.create_connection(("127.0.0.1", ours.port))
    ours.process.send_signal(how)
    assert ours.process.wait(WAIT_S) == 0
    connection.close()


def test_the_command_says_where_people_find_the_page(ours: Ours) -> None:
    assert ours.process.stdout is not None
    assert ours.process.stdout.readline() == f"For people: http://127.0.0.1:{ours.port}/\n"
    assert "<title>Catalog" in fetch(ours.port, "/")


def test_a_second_catalog_on_the_port_is_refused_with_what_to_do(ours: Ours) -> None:
    command = [
        sys.executable,
        "-c",
        "from kvzmq.cli.commands.catalog import catalog; catalog()",
        "--port",
        str(ours.port),
    ]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=WAIT_S)
    assert result.returncode == 3
    assert f"port {ours.port}" in result.stderr
    assert "--port" in result.stderr


def test_the_command_takes_a_lifetime() -> None:
    started = Ours("--port", "0", "--lifetime", "1")
    try:
        announce_and_wait(started.port, type="hashtable", project="zebra", port=1)
        eventually(lambda: not listed(started.port) or None)
    finally:
        end(started.process)


def test_an_ended_catalog_is_unreachable(ours: Ours) -> None:
    end(ours.process)
    with pytest.raises(CatalogError, match="cannot reach"):
        find("hashtable", "zebra", "127.0.0.1", ours.port)
