"""CURVE on the server's ROUTER, a step at a time: who is let in, what each may do, and what a change of rights ends."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import zmq
from msgspec import Raw
from support.curve import ALICE, BOB, OTHER_SERVER, SERVER, STRANGER, Keys, SecuredStepped
from support.stepped import DEADLINE_S, MemoryLog, ZmqPeer

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.messages import Request
from kvzmq.protocol.operations import Insert, Open, Senders, Size
from kvzmq.store.log import Log
from kvzmq.store.offline.audit import by_client
from kvzmq.store.store import Store

NOT_ALLOWED = errors.NotAllowed.code
CLIENTS = f"alice {ALICE.public} read,write,admin\nbob {BOB.public} read config/\n"


@pytest.fixture
def table(tmp_path: Path) -> Iterator[SecuredStepped]:
    with SecuredStepped(tmp_path / "clients", CLIENTS) as table:
        yield table


def ask(table: SecuredStepped, peer: ZmqPeer, *ops: list[Any]) -> list[Any]:
    peer.send(*ops)
    (_, _, results), *_ = table.replies(peer, 1)
    return list(results)


def test_a_client_is_served_within_its_rights(table: SecuredStepped) -> None:
    alice, bob = table.peer(ALICE), table.peer(BOB)
    assert ask(table, alice, ["insert", "config/a", 1], ["insert", "secret", 2]) == [[0, None], [0, None]]
    assert ask(table, bob, ["lookup", "config/a"], ["items", "config/"]) == [[0, 1], [0, [["config/a", 1]]]]


BEYOND = [
    ["lookup", "secret"],
    ["insert", "config/a", 2],
    ["size"],
    ["query", "name", "fred"],
    ["items", "conf"],
    ["watch", ""],
    ["stats"],
    ["transaction", [["config/a", []]], [["lookup", "config/a"]]],
]


@pytest.mark.parametrize("op", BEYOND, ids=str)
def test_a_request_beyond_the_rights_is_refused_whole_and_not_logged(table: SecuredStepped, op: list[Any]) -> None:
    """Red when rights were not looked at, when only the first operation was, and when they were after the log."""
    bob, groups = table.peer(BOB), len(table.log.groups)
    for ops in itertools.permutations([["lookup", "config/a"], op]):
        ((code, message),) = ask(table, bob, *ops)
        assert code == NOT_ALLOWED and message.startswith("bob may not ")
    assert len(table.log.groups) == groups
    assert table.server.store.table.revision == 0


def test_the_next_request_of_a_refused_client_is_served(table: SecuredStepped) -> None:
    bob = table.peer(BOB)
    assert ask(table, bob, ["size"])[0][0] == NOT_ALLOWED
    assert ask(table, bob, ["ping"]) == [[0, "pong"]]


def test_a_revoked_key_is_refused_at_its_next_request_on_the_connection_it_has(table: SecuredStepped) -> None:
    """Red when the key was only looked at in the handshake, and when rights were remembered for an identity."""
    alice, bob = table.peer(ALICE), table.peer(BOB)
    assert ask(table, bob, ["ping"]) == [[0, "pong"]]
    table.write_clients(f"alice {ALICE.public} read,write,admin\n")
    assert ask(table, bob, ["ping"]) == [
        [NOT_ALLOWED, "the key of this connection is not, or no longer, in the server's clients file"]
    ]
    assert ask(table, alice, ["ping"]) == [[0, "pong"]]
    table.write_clients(CLIENTS.replace("read config/", "read,write config/"))
    assert ask(table, bob, ["insert", "config/a", 1]) == [[0, None]]


def test_a_retry_of_a_revoked_client_does_not_get_the_kept_result(table: SecuredStepped) -> None:
    alice = table.peer(ALICE)
    alice.session = b"s" * 16
    for op in (["open"], ["setdefault", "a", "secret"]):
        assert ask(table, alice, op)[0][0] == 0
    table.write_clients(f"bob {BOB.public} read config/\n")
    alice.send(["setdefault", "a", "secret"], seq=2)
    assert table.replies(alice, 1)[0][2][0][0] == NOT_ALLOWED


def test_a_watch_ends_when_the_rights_of_its_client_change(table: SecuredStepped) -> None:
    """Red when only requests were looked at: a watch makes none, and went on telling a client that was revoked."""
    alice, bob = table.peer(ALICE), table.peer(BOB)
    ((_, number),) = ask(table, bob, ["watch", "config/"])
    ((_, others),) = ask(table, alice, ["watch", ""])
    table.write_clients(f"alice {ALICE.public} read,write,admin\n")
    alice.send(["insert", "config/a", "secret"])
    found = table.replies(bob, 1)
    assert found == [[0, 0, [number, errors.WatchIdle.code, "the rights of this client have changed: watch again"]]]
    assert ask(table, bob, ["watch", "config/"])[0][0] == NOT_ALLOWED
    seen = table.replies(alice, 2)
    assert [0, 1, [others, 0, ["config/a", ["secret"]]]] in seen
    assert bob.replies() == []


def test_a_monitor_ends_when_the_rights_of_its_client_change(table: SecuredStepped) -> None:
    table.write_clients(f"alice {ALICE.public} read,write\nbob {BOB.public} read,admin config/\n")
    monitors = table.server.dispatcher.monitors
    monitors._left_ns = 10**15
    alice, bob = table.peer(ALICE), table.peer(BOB)
    assert ask(table, alice, ["monitor"])[0][0] == NOT_ALLOWED
    assert ask(table, bob, ["monitor"])[0][0] == NOT_ALLOWED, "its rights end with the prefix"
    ((_, number),) = ask(table, bob, ["monitor", "", "", "config/"])
    ask(table, alice, ["insert", "config/a", 1], ["insert", "secret", 2])
    table.now_s += 0.1
    ((_, _, (_, code, (records, _))),) = table.replies(bob, 1)
    assert code == 0 and [op for record in records for op in record[5]] == [["insert", "config/a"]]
    assert records[0][3].startswith("alice@zmq:")
    table.write_clients(f"alice {ALICE.public} read,write\n")
    ask(table, alice, ["insert", "config/a", 3])
    table.now_s += 0.1
    *_, last = table.replies(bob, 1)
    assert last[2] == [number, errors.WatchIdle.code, "the rights of this client have changed: ask again"]
    assert not monitors.is_active


def test_a_broken_file_changes_nothing(table: SecuredStepped) -> None:
    bob = table.peer(BOB)
    ((_, number),) = ask(table, bob, ["watch", "config/"])
    with pytest.raises(ValueError, match="a line is NAME KEY RIGHTS"):
        table.write_clients("nonsense\n")
    assert ask(table, bob, ["lookup_many", ["config/a"]]) == [[0, {}]]
    ask(table, table.peer(ALICE), ["insert", "config/a", 1])
    found = table.replies(bob, 1)
    assert found == [[0, 1, [number, 0, ["config/a", [1]]]]]


def test_who_claims_the_identity_of_a_connected_client_gets_neither_its_rights_nor_its_replies(
    table: SecuredStepped,
) -> None:
    """Red with ROUTER_HANDOVER, as without CURVE: the other was sent the replies."""
    alice = table.peer(ALICE, routing_id=b"alice")
    assert ask(table, alice, ["insert", "secret", 1]) == [[0, None]]
    bob = table.peer(BOB, routing_id=b"alice")
    bob.send(["lookup", "secret"])
    alice.send(["lookup", "secret"])
    assert table.replies(alice, 1)[0][2] == [[0, 1]]
    assert all(code != 0 for _, _, results in bob.replies() for code, _ in results)


def test_rights_are_those_of_the_key_not_of_an_identity_that_comes_back(table: SecuredStepped) -> None:
    """Red when the key was read once for an identity."""
    alice = table.peer(ALICE, routing_id=b"one")
    assert ask(table, alice, ["insert", "secret", 1]) == [[0, None]]
    alice.close()
    table.until(lambda: table.router.connections == 0)
    bob = table.peer(BOB, routing_id=b"one")
    assert ask(table, bob, ["lookup", "secret"])[0][0] == NOT_ALLOWED


def test_an_envelope_changes_nothing_about_rights(table: SecuredStepped) -> None:
    bob = table.peer(BOB, zmq.REQ)
    assert ask(table, bob, ["size"])[0][0] == NOT_ALLOWED
    assert ask(table, bob, ["ping"]) == [[0, "pong"]]


def test_a_client_is_named_in_the_log_and_the_trace(table: SecuredStepped, caplog: pytest.LogCaptureFixture) -> None:
    bob = table.peer(BOB)
    ask(table, bob, ["lookup", "secret"])
    refusals = [record.message for record in caplog.records if record.message.startswith("refused a request")]
    assert len(refusals) == 1
    assert "the latest from bob@zmq:" in refusals[0] and "bob may not lookup 'secret'" in refusals[0]


@pytest.mark.parametrize("keys", [STRANGER, None], ids=["unknown key", "no key"])
def test_a_stranger_is_not_heard(table: SecuredStepped, keys: Keys | None) -> None:
    stranger, alice = table.peer(keys), table.peer(ALICE)
    stranger.send(["insert", "a", 1])
    assert ask(table, alice, ["size"]) == [[0, 0]]
    if keys is not None:
        table.until(lambda: table.zap.stats()["connections_refused"])
    assert stranger.replies() == [] and ask(table, alice, ["size"]) == [[0, 0]]


def test_without_a_handler_nobody_is_let_in(table: SecuredStepped) -> None:
    """Red without ZAP_ENFORCE_DOMAIN: libzmq lets any key in where no handler answers."""
    table.server._poller.unregister(table.zap.socket)
    table.zap.close()
    table.server._zap = None
    alice = table.peer(ALICE)
    alice.send(["ping"])
    reports = alice.socket.get_monitor_socket()
    table.until(lambda: reports.poll(0))  # the handshake has ended
    table.settle()
    assert alice.replies() == []


def test_two_endpoints_may_have_two_keys(tmp_path: Path) -> None:
    with SecuredStepped(tmp_path / "clients", CLIENTS, keys=(SERVER, OTHER_SERVER)) as table:
        for url, server in zip(table.router.endpoints, (SERVER, OTHER_SERVER)):
            assert ask(table, table.peer(ALICE, url=url, server=server), ["size"]) == [[0, 0]]
        wrong = table.peer(ALICE, url=table.router.endpoints[0], server=OTHER_SERVER)
        wrong.send(["size"])
        assert ask(table, table.peer(ALICE), ["size"]) == [[0, 0]]
        assert wrong.replies() == []


def test_a_thousand_handshakes_of_strangers_hold_nobody_up_and_leave_nothing(table: SecuredStepped) -> None:
    alice = table.peer(ALICE)
    slowest_s = 0.0
    for turn in range(20):
        strangers = [table.peer(STRANGER) for _ in range(50)]
        began_s = time.monotonic()
        assert ask(table, alice, ["ping"]) == [[0, "pong"]]
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        wanted = 50 * (turn + 1)
        while table.zap.stats()["connections_refused"] < wanted:
            assert time.monotonic() < began_s + DEADLINE_S
            table.step()
        for stranger in strangers:
            stranger.close()
    assert table.zap.stats() == {"connections_admitted": 1, "connections_refused": 1000}
    assert slowest_s < DEADLINE_S / 2
    table.until(lambda: table.router.connections == 1)


# ---- the log


def senders_of(group: bytes) -> list[list[Any]]:
    """Return the runs of names in a group of the log, [] if there are none."""
    _, requests = msgpack.decode_group(group)
    first = requests[0].ops[0] if requests else None
    return [list(run) for run in first.runs] if isinstance(first, Senders) else []


def senders(table: SecuredStepped) -> list[list[list[Any]]]:
    return [senders_of(group) for group in table.log.groups]


class ReplayedLog(MemoryLog):
    """A log of groups that were written before."""

    def __init__(self, groups: list[bytes]) -> None:
        super().__init__()
        self.groups = groups

    def recover(self) -> Iterator[bytes]:
        return iter(self.groups)


def logged(session: bytes | None, seq: int, op: Operation) -> Request:
    return Request(session, seq, [op], msgpack.encode_request(session, seq, [op]))


def test_the_log_says_who_has_sent_each_request(table: SecuredStepped) -> None:
    alice, bob, bridge = table.peer(ALICE), table.peer(BOB), table.tcp()
    table.write_clients(CLIENTS.replace("read config/", "read,write config/"))
    ask(table, alice, ["insert", "a", 1])
    ask(table, bob, ["lookup", "config/a"])
    ask(table, bob, ["insert", "config/a", 1], ["insert", "config/b", 1])
    bridge.send(b'{"method": "insert", "key": "a", "value": 2}\n')
    table.lines(bridge, 1)
    assert senders(table) == [[["alice", 1]], [["bob", 1]], []]


def test_names_are_those_of_what_is_logged() -> None:
    """Not of reads, nor of what is sent again. Seen red with the names of all requests of the step."""
    log = MemoryLog()
    store = Store(cast("Log", log))
    again = logged(b"s" * 16, 1, Open())
    store.begin([again], 1, ["alice"]).execute(again)
    store.open_group = None
    write, read = (logged(None, 1, op) for op in (Insert("a", Raw(b"\x01")), Size()))
    requests = [again, read, write, write, write, write, read]
    names = ["alice", "eve", "alice", None, "bob", "bob", "eve"]
    group = store.begin(requests, 2, names)
    for request in requests:
        group.execute(request)
    group.sync()
    assert [senders_of(encoded) for encoded in log.groups] == [
        [["alice", 1]],
        [["alice", 1], [None, 1], ["bob", 2]],
    ]
    _, found = msgpack.decode_group(log.groups[1])
    assert [name for name, _ in by_client(found)] == ["alice", None, "bob", "bob"]


def test_a_table_is_the_same_with_and_without_names_in_its_log(table: SecuredStepped) -> None:
    alice = table.peer(ALICE)
    for number in range(5):
        ask(table, alice, ["insert", "a", number], ["increment", "n"])
    replayed = Store(cast("Log", ReplayedLog(table.log.groups)))
    replayed.recover()
    assert senders(table) == [[["alice", 1]]] * 5 and replayed.records == table.store.records == 5
    assert list(replayed.table.dump()) == list(table.store.table.dump())
