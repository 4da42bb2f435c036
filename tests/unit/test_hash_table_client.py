"""The raw-TCP client against a server that misbehaves: what its caller sees, and what it must never see."""

from __future__ import annotations

import contextlib
import http.server
import json
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import fake_table_server as fake
from support.fake_table_server import FakeTableServer
from support.servers import PATIENCE_S, hold_port

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients"))

import HashTableClient as module
from HashTableClient import HashTableClient, OutcomeUnknown, ServerError, Unreachable

SHORT_TIMEOUT_S = 0.2
PAUSES_MAX = 50


class Pauses(list[float]):
    """Record the pauses instead of waiting; `then` runs in each, to bring a server back, say."""

    then: Callable[[], object] | None = None

    def __call__(self, pause_s: float) -> None:
        self.append(pause_s)
        assert len(self) < PAUSES_MAX, "tries for ever"
        if self.then:
            self.then()


@pytest.fixture
def server() -> Iterator[FakeTableServer]:
    with FakeTableServer() as server:
        yield server


@pytest.fixture
def gone() -> Iterator[FakeTableServer]:
    """A server that is no longer there, and whose port nobody else is given."""
    with hold_port() as held:
        server = FakeTableServer(port=held.getsockname()[1])
        server.close()
        yield server


@pytest.fixture
def plain_server() -> Iterator[FakeTableServer]:
    with FakeTableServer(sessions=False) as server:
        yield server


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def connect(pauses: Pauses, told: list[str]) -> Iterator[Callable[..., HashTableClient]]:
    clients: list[HashTableClient] = []

    def make(server: FakeTableServer, **options: Any) -> HashTableClient:
        clients.append(HashTableClient(server.name, pause=pauses, tell=told.append, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPLY_TIMEOUT_S", SHORT_TIMEOUT_S)


# ---- operations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sessions", [True, False])
def test_operations_do_what_their_names_say(sessions: bool, connect: Any) -> None:
    with FakeTableServer(sessions=sessions) as server, connect(server) as table:
        table.insert("zebra", {"weight": 100, "name": "fred"})
        table.insert("horse", {"weight": 100, "name": "ann"})
        assert table.lookup("zebra") == {"weight": 100, "name": "fred"}
        assert table.size() == 2
        assert table.query("name", "fred") == [("zebra", {"weight": 100, "name": "fred"})]
        table.remove("zebra")
        assert server.rows == {"horse": {"weight": 100, "name": "ann"}}


def test_a_missing_key_is_a_key_error_that_names_the_key(server: Any, connect: Any) -> None:
    table = connect(server)
    for operation in (table.lookup, table.remove):
        with pytest.raises(KeyError) as caught:
            operation("ghost")
        assert caught.value.args == ("ghost",)
    assert table.size() == 0


@pytest.mark.parametrize("key", ["", " ", "\n", "a\0b", "é", "e\u0301", "\u2028", "😀", '"', "\\", "k" * 300_000])
def test_any_string_is_a_key_and_comes_back_as_it_went(key: str, server: Any, connect: Any) -> None:
    table = connect(server)
    table.insert(key, key)
    assert table.lookup(key) == key
    assert list(server.rows) == [key]


def test_other_errors_of_the_server_say_their_type_and_message(server: Any, connect: Any, pauses: Pauses) -> None:
    with pytest.raises(ServerError, match="InvalidMethod: no method 'frobnicate'") as caught:
        connect(server).call({"method": "frobnicate"})
    assert (caught.value.type, caught.value.message) == ("InvalidMethod", "no method 'frobnicate'")
    assert pauses == []


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        (7, 1, TypeError),
        (None, 1, TypeError),
        (b"k", 1, TypeError),
        ("k", float("nan"), ValueError),
        ("k", float("inf"), ValueError),
        ("k", {1, 2}, TypeError),
        ("k", b"bytes", TypeError),
    ],
)
def test_what_json_cannot_say_fails_before_anything_is_sent(
    key: Any, value: Any, error: type[Exception], server: Any, connect: Any
) -> None:
    table = connect(server)
    with pytest.raises(error):
        table.insert(key, value)
    assert server.requests == []
    table.insert("k", 1)
    assert [request["seq"] for request in server.requests] == [1, 2]


# ---- the wire -------------------------------------------------------------------------------------


def test_a_session_is_opened_first_and_numbers_every_write_and_no_read(server: Any, connect: Any) -> None:
    table = connect(server)
    table.insert("a", 1)
    table.lookup("a")
    table.size()
    table.remove("a")
    session = server.requests[0]["session"]
    assert len(bytes.fromhex(session)) == 16
    assert server.requests == [
        {"method": "open", "session": session, "seq": 1},
        {"method": "insert", "key": "a", "value": 1, "session": session, "seq": 2},
        {"method": "lookup", "key": "a"},
        {"method": "size"},
        {"method": "remove", "key": "a", "session": session, "seq": 3},
    ]


def test_a_client_that_only_reads_opens_no_session(server: Any, connect: Any) -> None:
    connect(server).size()
    assert server.requests == [{"method": "size"}]


@pytest.mark.parametrize("refusal", ["InvalidMethod", "InvalidRequest"])
def test_a_server_without_sessions_is_asked_for_one_once(refusal: str, plain_server: Any, connect: Any) -> None:
    reply = {"status": "exception", "type": refusal, "message": "open?"}
    plain_server.faults = [fake.reply_with(json.dumps(reply).encode() + b"\n")]
    table = connect(plain_server)
    table.insert("a", 1)
    table.remove("a")
    assert plain_server.requests[1:] == [
        {"method": "insert", "key": "a", "value": 1},
        {"method": "remove", "key": "a"},
    ]


def test_sessions_can_be_switched_off(server: Any, connect: Any) -> None:
    connect(server, sessions=False).insert("a", 1)
    assert server.requests == [{"method": "insert", "key": "a", "value": 1}]


def test_a_refused_session_is_an_error_of_the_write_and_asked_for_again(server: Any, connect: Any) -> None:
    full = {"status": "exception", "type": "WriteRejected", "message": "not applied"}
    server.faults = [fake.reply_with(json.dumps(full).encode() + b"\n")]
    table = connect(server)
    with pytest.raises(ServerError, match="WriteRejected: not applied"):
        table.insert("a", 1)
    table.insert("a", 2)
    assert server.rows == {"a": 2}


def test_a_reply_that_comes_byte_by_byte_is_read_whole(connect: Any) -> None:
    reply = json.dumps({"status": "OK", "result": "é" * 50}, ensure_ascii=False).encode() + b"\n"

    def serve(connection: socket.socket) -> None:
        for at in range(len(reply)):
            connection.sendall(reply[at : at + 1])

    with _scripted_server(serve) as s:
        assert connect(s).lookup("a") == "é" * 50


def test_a_reply_of_several_megabytes_is_read_whole(server: Any, connect: Any) -> None:
    table = connect(server)
    table.insert("a", "v" * 5_000_000)
    assert table.lookup("a") == "v" * 5_000_000


# ---- a server that is gone ------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [fake.hang_up, fake.execute_and_hang_up, fake.reply_with(b'{"status": "O')])
@pytest.mark.parametrize("sessions", [True, False])
def test_a_lost_connection_is_invisible_to_the_caller(
    fault: Any, sessions: bool, connect: Any, pauses: Pauses, told: list[str]
) -> None:
    with FakeTableServer(sessions=sessions) as server:
        table = connect(server)
        table.insert("a", 1)
        server.faults = [fault]
        table.insert("a", 2)
        server.faults = [fault]
        assert table.lookup("a") == 2
    assert pauses == [1.0, 1.0]
    assert len(told) == 2
    assert server.name in told[0] and "trying again in 1 s" in told[0]


def test_pauses_double_up_to_their_maximum(server: Any, connect: Any, pauses: Pauses) -> None:
    server.faults = [fake.hang_up] * 8
    assert connect(server).size() == 0
    assert pauses == [1, 2, 4, 8, 16, 32, 32, 32]


def test_pauses_begin_again_at_the_first_after_a_success(server: Any, connect: Any, pauses: Pauses) -> None:
    table = connect(server)
    server.faults = [fake.hang_up, fake.hang_up]
    table.size()
    server.faults = [fake.hang_up]
    table.size()
    assert pauses == [1, 2, 1]


def test_a_server_that_comes_back_on_another_port_is_found_again(pauses: Pauses, told: list[str]) -> None:
    first, second = FakeTableServer(), FakeTableServer()
    servers = [first]
    second.rows = first.rows
    second.results = first.results
    with (
        second,
        HashTableClient(
            "project", locate=lambda: [("127.0.0.1", servers[-1].port)], pause=pauses, tell=told.append
        ) as table,
    ):
        table.insert("a", 1)
        first.close()
        pauses.then = lambda: servers.append(second)
        assert table.lookup("a") == 1
        table.remove("a")
    assert pauses == [1]
    assert second.methods() == ["lookup", "remove"]


def test_a_server_that_is_down_at_first_is_waited_for(gone: FakeTableServer, pauses: Pauses, told: list[str]) -> None:
    back: list[FakeTableServer] = []

    def bring_back() -> None:
        if len(pauses) == 3:
            back.append(FakeTableServer(port=gone.port))

    pauses.then = bring_back
    with HashTableClient(gone.name, pause=pauses, tell=told.append) as table:
        table.insert("a", 1)
    back[0].close()
    assert pauses == [1, 2, 4]
    assert "refused" in told[0]


def test_a_remove_whose_reply_was_lost_is_a_success(server: Any, connect: Any) -> None:
    table = connect(server)
    table.insert("a", 1)
    server.faults = [fake.execute_and_hang_up, fake.execute_and_hang_up]
    table.remove("a")
    assert server.rows == {}
    assert server.methods()[-3:] == ["remove"] * 3


def test_a_remove_whose_reply_was_lost_is_a_key_error_on_a_server_without_sessions(
    plain_server: Any, connect: Any
) -> None:
    table = connect(plain_server)
    table.insert("a", 1)
    plain_server.faults = [fake.execute_and_hang_up]
    with pytest.raises(KeyError):
        table.remove("a")


def test_a_lost_open_is_sent_again_under_the_same_number(server: Any, connect: Any) -> None:
    server.faults = [fake.execute_and_hang_up, fake.hang_up]
    connect(server).insert("a", 1)
    opens = [request for request in server.requests if request["method"] == "open"]
    assert len(opens) == 3 and opens[0] == opens[1] == opens[2]
    assert server.rows == {"a": 1}


# ---- replies that come late -----------------------------------------------------------------------


def test_a_late_reply_is_never_taken_for_the_next_request_s(short_timeout: None, connect: Any) -> None:
    """The first connection answers "late" after the client has given it up; seen red when it was kept."""
    asked_again = threading.Event()

    def serve(connection: socket.socket) -> None:
        if not first.is_set():
            first.set()
            asked_again.wait(60)
            connection.sendall(b'{"status":"OK","result":"late"}\n')
        else:
            asked_again.set()
            connection.sendall(b'{"status":"OK","result":"mine"}\n')

    first = threading.Event()
    with _scripted_server(serve) as server:
        table = connect(server)
        assert [table.lookup("a"), table.lookup("b")] == ["mine", "mine"]


def test_a_silent_server_is_left_after_the_reply_timeout(
    server: Any, connect: Any, short_timeout: None, told: list[str]
) -> None:
    table = connect(server)
    table.insert("a", 1)
    server.faults = [fake.execute_and_stay_silent]
    table.remove("a")
    assert "no reply for 0.2 s" in told[0]


def test_a_reply_that_trickles_is_cut_off_at_the_reply_timeout(short_timeout: None, connect: Any) -> None:
    """A byte now and then would reset a timeout for each receive; seen red with one."""
    over = threading.Event()
    trickled: list[bytes] = []

    def trickle(connection: socket.socket) -> None:
        while len(trickled) < 400 and not over.wait(SHORT_TIMEOUT_S / 4):
            trickled.append(b" ")
            connection.sendall(b" ")

    with _scripted_server(trickle) as server, pytest.raises(Unreachable):
        connect(server, give_up_s=0.1).size()
    over.set()
    assert len(trickled) < 400


def test_a_reply_in_many_parts_takes_nothing_from_the_next_one_s_time(server: Any, connect: Any) -> None:
    table = connect(server)
    table.insert("a", "v" * 3 * module.RECEIVE_BYTES)
    table.lookup("a")
    assert table._connection._socket.gettimeout() == module.REPLY_TIMEOUT_S


def test_an_interrupted_request_leaves_no_reply_behind(server: Any, connect: Any) -> None:
    """Ctrl-C while a reply is awaited: the next request must not read it, nor the server find a gap."""
    table = connect(server)
    table.insert("a", 1)

    def interrupt(server: FakeTableServer, request: dict[str, Any]) -> bytes:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        assert interrupted.wait(60)
        return fake.do_normally(server, request) or b""

    interrupted = threading.Event()

    def on_alarm(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        server.faults = [interrupt]
        with pytest.raises(KeyboardInterrupt):
            table.lookup("a")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert table.size() == 1
    table.insert("b", 2)
    assert server.requests[-2]["method"] == "open"


def test_a_second_line_for_one_request_costs_the_connection(server: Any, connect: Any, pauses: Pauses) -> None:
    server.faults = [fake.reply_with(b'{"status":"OK","result":1}\n{"status":"OK","result":2}\n')]
    table = connect(server)
    assert table.size() == 0
    assert pauses == [1]


@pytest.mark.parametrize(
    "reply", [b"\n", b"HTTP/1.1 400 Bad Request\n", b"[]\n", b"{}\n", b"\xff\n", b'{"status":1}\n']
)
def test_what_does_not_speak_the_dialect_is_told_at_once(reply: bytes, server: Any, connect: Any) -> None:
    server.faults = [fake.reply_with(reply)]
    with pytest.raises(module.BadReply):
        connect(server).size()


@pytest.mark.parametrize("result", [None, "7", 7.0, True])
def test_a_size_that_is_no_number_is_a_bad_reply(result: Any, server: Any, connect: Any) -> None:
    server.faults = [fake.reply_with(json.dumps({"status": "OK", "result": result}).encode() + b"\n")]
    with pytest.raises(module.BadReply):
        connect(server).size()


@pytest.mark.parametrize("result", [None, 7, [1], [["key"]], [["key", 1, 2]]])
def test_matches_that_are_no_pairs_are_a_bad_reply(result: Any, server: Any, connect: Any) -> None:
    server.faults = [fake.reply_with(json.dumps({"status": "OK", "result": result}).encode() + b"\n")]
    with pytest.raises(module.BadReply):
        connect(server).query("a", 1)


# ---- sessions that expire -------------------------------------------------------------------------


def test_a_write_of_an_expired_session_that_was_sent_once_is_sent_in_a_new_one(server: Any, connect: Any) -> None:
    table = connect(server)
    table.insert("a", 1)
    server.results.clear()
    table.remove("a")
    assert server.rows == {}
    assert server.methods() == ["open", "insert", "remove", "open", "remove"]
    assert [request["seq"] for request in server.requests] == [1, 2, 3, 1, 2]


def test_a_write_of_an_expired_session_that_was_sent_twice_has_an_unknown_outcome(server: Any, connect: Any) -> None:
    table = connect(server)
    table.insert("a", 1)

    def execute_and_forget(server: FakeTableServer, request: dict[str, Any]) -> None:
        server.execute(request)
        server.results.clear()

    server.faults = [execute_and_forget]
    with pytest.raises(OutcomeUnknown):
        table.remove("a")
    assert server.methods() == ["open", "insert", "remove", "remove"]
    table.insert("b", 1)
    assert server.rows == {"b": 1}


def test_a_server_that_forgets_every_session_is_reported_in_the_end(server: Any, connect: Any) -> None:
    expired = b'{"status":"exception","type":"SessionExpired","message":"which?"}\n'
    server.faults = [fake.do_normally, fake.reply_with(expired)] * 10
    with pytest.raises(ServerError, match="SessionExpired"):
        connect(server).insert("a", 1)
    assert server.methods() == ["open", "insert"] * module.SESSIONS_TRIED_MAX


# ---- giving up ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sessions", [True, False])
def test_giving_up_on_a_write_that_was_never_sent_says_nothing_was_changed(
    sessions: bool, gone: FakeTableServer, connect: Any
) -> None:
    with pytest.raises(Unreachable, match=r"gave up on .* after 0.5 s: .*refused"):
        connect(gone, give_up_s=0.5, sessions=sessions).insert("a", 1)


@pytest.mark.parametrize("sessions", [True, False])
def test_giving_up_on_a_write_that_was_sent_says_the_outcome_is_unknown(sessions: bool, connect: Any) -> None:
    with FakeTableServer(sessions=sessions) as server:
        table = connect(server, give_up_s=0.5)
        table.insert("a", 1)
        server.faults = [fake.execute_and_hang_up]
        with pytest.raises(OutcomeUnknown):
            table.remove("a")
        assert server.rows == {}


def test_giving_up_on_a_read_or_on_opening_a_session_is_no_unknown_outcome(server: Any, connect: Any) -> None:
    table = connect(server, give_up_s=0.5)
    for operation in (table.size, lambda: table.insert("a", 1)):
        server.faults = [fake.hang_up]
        with pytest.raises(Unreachable):
            operation()


def test_a_write_after_an_unknown_outcome_begins_a_new_session(server: Any, connect: Any) -> None:
    """The number given up may never reach the server, and the next one would leave a gap."""
    table = connect(server, give_up_s=0.5)
    table.insert("a", 1)
    server.faults = [fake.hang_up]
    with pytest.raises(OutcomeUnknown):
        table.insert("a", 2)
    table.insert("a", 3)
    assert server.methods() == ["open", "insert", "insert", "open", "insert"]
    assert server.requests[0]["session"] != server.requests[3]["session"]


# ---- finding the server ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("127.0.0.1:9000", ("127.0.0.1", 9000)),
        ("student00.cse.nd.edu:1", ("student00.cse.nd.edu", 1)),
        ("[::1]:5571", ("::1", 5571)),
        ("my-project", None),
        ("project:", None),
        ("project:one", None),
        ("a project:7", None),
        (":7", None),
    ],
)
def test_a_name_is_a_host_and_port_or_a_project(name: str, address: Any) -> None:
    assert module.parse_host_and_port(name) == address


def test_a_server_is_found_by_host_and_port_apart_or_together(server: FakeTableServer) -> None:
    for client in (HashTableClient(host="127.0.0.1", port=server.port), HashTableClient(server.name)):
        with client as table:
            assert (table.size(), table.name) == (0, server.name)


def test_a_client_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="say the project's name"):
        HashTableClient()


class Catalog:
    """Answer every GET with `body`, and note the paths asked for."""

    def __init__(self) -> None:
        catalog = self
        self.body: bytes = b"[]"
        self.status = 200
        self.paths: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                catalog.paths.append(self.path)
                self.send_response(catalog.status)
                self.end_headers()
                self.wfile.write(catalog.body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def list(self, *entries: Any) -> None:
        self.body = json.dumps(entries).encode()


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    catalog = Catalog()
    monkeypatch.setenv("CATALOG_HOST", "127.0.0.1")
    monkeypatch.setenv("CATALOG_PORT", str(catalog.server.server_port))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    yield catalog
    catalog.server.shutdown()
    catalog.server.server_close()


def entry(**fields: Any) -> dict[str, Any]:
    return {
        "type": "hashtable",
        "project": "p",
        "address": "10.0.0.1",
        "port": 1,
        "lastheardfrom": 1,
        **fields,
    }


def test_the_newest_entry_of_the_type_and_project_is_taken(catalog: Catalog) -> None:
    catalog.list(
        entry(port=1, lastheardfrom=100),
        entry(port=2, lastheardfrom=300, name="host.example"),
        entry(port=3, lastheardfrom=200),
        entry(port=4, lastheardfrom=400, project="q"),
        entry(port=5, lastheardfrom=500, type="chirp"),
        "not an entry",
    )
    assert module.find_in_catalog("p") == [("10.0.0.1", 2), ("host.example", 2)]
    assert catalog.paths == ["/query.json"]


def test_numbers_that_the_catalog_gives_as_strings_are_read(catalog: Catalog) -> None:
    catalog.list(
        entry(port="7", lastheardfrom="1000"),
        entry(port=8, lastheardfrom=999),
        entry(lastheardfrom="?"),
        entry(port=None),
    )
    assert module.find_in_catalog("p") == [("10.0.0.1", 7)]


def test_another_entry_in_a_foreign_encoding_hides_nothing(catalog: Catalog) -> None:
    catalog.body = b'[{"type":"chirp","owner":"\xff\xfe"},' + json.dumps(entry()).encode() + b"]"
    assert module.find_in_catalog("p") == [("10.0.0.1", 1)]


def test_a_server_cannot_date_its_own_entry(catalog: Catalog) -> None:
    """The original catalog leaves announced fields standing behind its own; seen red with the last one counting."""
    forged = b'{"lastheardfrom":7,"type":"hashtable","project":"p","address":"6.6.6.6","port":6,"lastheardfrom":9999}'
    catalog.body = b"[\n" + forged + b",\n" + json.dumps(entry(lastheardfrom=8)).encode() + b"\n]\n"
    assert module.find_in_catalog("p") == [("10.0.0.1", 1)]


def test_an_entry_that_is_no_json_hides_only_itself(catalog: Catalog) -> None:
    """The original catalog prints 1e999 as inf."""
    lines = [b'{"type":"chirp","x":inf}', json.dumps(entry()).encode(), b'{"project":"p","x":inf}']
    catalog.body = b"[\n" + b",\n".join(lines) + b"\n]\n"
    assert module.find_in_catalog("p") == [("10.0.0.1", 1)]


def test_of_entries_heard_in_the_same_second_the_last_listed_is_taken(catalog: Catalog) -> None:
    catalog.list(entry(port=1), entry(port=2))
    assert module.find_in_catalog("p") == [("10.0.0.1", 2)]


@pytest.mark.parametrize(
    "body", [b"[]", b"", b"<html>", b"{}", b'[{"type":"hashtable","project":"p","lastheardfrom":1}]']
)
def test_a_catalog_without_the_project_is_a_reason_to_wait(
    body: bytes, catalog: Catalog, server: Any, pauses: Pauses, told: list[str]
) -> None:
    catalog.body = body
    pauses.then = lambda: catalog.list(entry(address="127.0.0.1", port=server.port))
    with HashTableClient("p", pause=pauses, tell=told.append) as table:
        assert table.size() == 0
    assert pauses == [1]
    assert "catalog" in told[0]


def test_a_catalog_that_refuses_is_a_reason_to_wait(catalog: Catalog) -> None:
    catalog.status = 503
    with pytest.raises(OSError, match="503"):
        module.find_in_catalog("p")


def test_a_catalog_that_is_down_is_named_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with hold_port() as held:
        port = held.getsockname()[1]
        monkeypatch.setenv("CATALOG_HOST", "127.0.0.1")
        monkeypatch.setenv("CATALOG_PORT", str(port))
        with pytest.raises(OSError, match=f"no answer from the catalog at 127.0.0.1:{port}"):
            module.find_in_catalog("p")


def test_the_name_is_tried_where_the_address_does_not_answer(
    catalog: Catalog, server: Any, gone: FakeTableServer, pauses: Pauses
) -> None:
    catalog.list(entry(address="", name="127.0.0.1", port=server.port))
    with HashTableClient("p", pause=pauses) as table:
        assert table.size() == 0
    with HashTableClient("p", locate=lambda: [("127.0.0.1", gone.port), ("127.0.0.1", server.port)]) as table:
        assert table.size() == 0
    assert pauses == []


class _scripted_server:
    """Accept connections and, for each, read a line and let `serve` do the rest in a thread."""

    def __init__(self, serve: Callable[[socket.socket], object]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> _scripted_server:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(PATIENCE_S)
        for connection in self._connections:
            with contextlib.suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._converse, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                for _ in lines:
                    self._serve(connection)
        except OSError:
            pass
