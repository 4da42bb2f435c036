"""Who is connected: what `clients` says of each, and `kick`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from support.descriptors import none_free_below
from support.stepped import Stepped, ZmqPeer

from kvzmq.server.transport import router_peers
from kvzmq.server.transport.router import RouterTransport


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stepped]:
    """A server that notes its peers with every drain."""
    monkeypatch.setattr("kvzmq.server.transport.router.NOTE_S", 0.0)
    with Stepped() as stepped:
        yield stepped


def listed(table: Stepped, peer: ZmqPeer, *arguments: Any) -> list[dict[str, Any]]:
    code, found = table.call(peer, "clients", *arguments)
    assert code == 0
    return list(found)


def test_of_the_bridge_everything_is_known_exactly(table: Stepped) -> None:
    peer, bridge = table.zmq(), table.tcp()
    lines = b'{"method": "insert", "key": "a", "value": 1}\nrubbish\n'
    bridge.send(lines)
    taken_bytes = sum(len(json.dumps(line, separators=(",", ":"))) + 1 for line in table.lines(bridge, 2))
    table.now_s += 5
    (found,) = [one for one in listed(table, peer) if one["transport"] == "bridge"]
    address = "{}:{}".format(*bridge.socket.getsockname())
    assert found == {
        "name": f"tcp:{address}", "transport": "bridge", "address": address, "connected_s": 5.0, "requests": 2,
        "received_bytes": len(lines), "taken_bytes": taken_bytes, "unread_bytes": 0, "replies_dropped": 0, "watches": 0,
    }  # fmt: skip


def test_of_a_router_peer_the_kernel_knows_the_address_and_the_bytes(table: Stepped) -> None:
    peer, other = table.zmq(), table.zmq()
    for number in range(3):
        table.call(other, "insert", f"k{number}", 1)
    table.call(other, "watch", "")
    table.call(other, "watch", "a")
    found = {one["requests"]: one for one in listed(table, peer)}
    one = found[5]
    assert found.keys() == {1, 5} and re.fullmatch(r"zmq:[0-9a-f]{8}", one["name"])
    assert re.fullmatch(r"127\.0\.0\.1:\d+", one["address"]) and one["received_bytes"] > 64
    assert 64 < one["taken_bytes"] < 2000
    assert (one["watches"], one["replies_dropped"], one["transport"]) == (2, 0, "router")
    table.until(
        lambda: all(
            one["unread_bytes"] == 0
            for one in map(table.router.describe, table.router.clients().values())
            if one["requests"] == 5
        )
    )
    assert 0 <= one["connected_s"] < 60


def test_who_does_not_read_is_seen_by_its_unread_bytes(table: Stepped) -> None:
    """Small replies that fill the kernel's buffers, and large ones that libzmq holds."""
    peer = table.zmq()
    deaf = table.zmq(rcvhwm=1, rcvbuf=4096)
    table.call(peer, "insert", "big", "x" * 1_000_000)
    for _ in range(20):
        deaf.send(["lookup", "big"])
    table.settle()
    most = max(listed(table, peer), key=lambda one: one["unread_bytes"] or 0)
    assert most["requests"] == 20 and most["unread_bytes"] > 5_000_000


def test_who_has_left_is_not_listed_and_a_descriptor_of_somebody_else_is_not_taken_for_its(table: Stepped) -> None:
    """Red when a descriptor was taken for the peer's as long as anything had its number."""
    peer, other = table.zmq(), table.zmq()
    table.call(other, "ping")
    (seen,) = table.router._peers._seen.values()
    assert len(listed(table, peer)) == 2
    descriptor = seen.descriptor
    with contextlib.ExitStack() as decoys, none_free_below(descriptor):
        other.close()
        table.until(lambda: table.router.connections == 1)
        table.await_libzmq()  # whose thread tells of the end before it closes the socket
        numbers = [decoys.enter_context(socket.socket()).fileno() for _ in range(8)]
        assert descriptor in numbers, "another socket has the number"
        assert seen.open() is None and seen.is_gone
        assert [one["requests"] for one in listed(table, peer)] == [2]


def test_who_has_left_without_an_address_is_forgotten(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if neither had had the last request of a step: one that leaves then is told of by nobody."""
    monkeypatch.setattr(router_peers.RouterPeers, "_locate", lambda *_: None)
    peer, gone = table.zmq(), table.zmq()
    table.call(gone, "size")
    assert len(listed(table, peer)) == 2
    gone.close()
    table.until(lambda: table.router.connections == 1)
    assert len(listed(table, peer)) == 2, "it has only just been silent"
    monkeypatch.setattr(router_peers, "SILENT_S", 0.0)
    (left,) = listed(table, peer)
    assert left["address"] is None and left["requests"] == 3
    assert len(listed(table, peer)) == 1, "as many as there are connections stay"


def test_who_has_left_is_forgotten_when_something_is_sent_to_it(
    table: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_peers.RouterPeers, "_locate", lambda *_: None)
    peer, gone = table.zmq(), table.zmq()
    table.call(gone, "watch", "")
    gone.close()
    table.until(lambda: table.router.connections == 1)
    table.call(peer, "insert", "a", 1)
    table.until(lambda: len(table.router.clients()) == 1)


def test_a_client_that_was_kicked_connects_again_and_a_bridge_connection_ends(table: Stepped) -> None:
    peer, other, bridge = table.zmq(), table.zmq(reconnect_ivl=1), table.tcp()
    table.call(other, "size")
    own, its = sorted(
        (one for one in listed(table, peer) if one["transport"] == "router"), key=lambda one: one["received_bytes"]
    )
    own, its = (own, its) if own["received_bytes"] > its["received_bytes"] else (its, own)
    assert table.call(peer, "kick", its["name"]) == (0, True)
    table.until(lambda: its["name"] not in table.router.clients())
    assert table.call(other, "size") == (0, 0)
    table.until(lambda: len(listed(table, peer)) == 3)
    assert table.call(peer, "kick", "tcp:{}:{}".format(*bridge.socket.getsockname())) == (0, True)
    table.until(lambda: bridge.ended, first=bridge.read)
    assert table.call(peer, "kick", "zmq:00000000") == (0, False)
    assert table.router.stats()["router_connections_kicked"] == table.bridge.stats()["tcp_connections_kicked"] == 1


def test_clients_come_in_pages_by_name(table: Stepped) -> None:
    peer = table.zmq()
    bridges = [table.tcp() for _ in range(5)]
    whole = listed(table, peer)
    assert len(whole) == 6 == len(bridges) + 1
    assert [one["name"] for one in whole] == sorted(one["name"] for one in whole)
    pages: list[dict[str, Any]] = []
    while page := listed(table, peer, pages[-1]["name"] if pages else "", 4):
        pages += page
    assert [one["name"] for one in pages] == [one["name"] for one in whole]


def test_peers_that_are_remembered_are_bounded(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_peers, "PEERS_MAX", 4)
    peers = [table.zmq() for _ in range(7)]
    for peer in peers:
        table.call(peer, "ping")
    assert len(table.router._peers._seen) == 4
    assert len(listed(table, peers[-1])) == 4


def test_requests_of_a_busy_server_are_estimated(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that came are shared out among those that were looked at."""
    monkeypatch.setattr("kvzmq.server.transport.router.NOTE_S", 0.005)
    peer, other = table.zmq(), table.zmq()
    for _ in range(50):
        for _ in range(30):
            peer.send(["ping"])
        other.send(["ping"])
        table.gather(31)
        table.replies(peer, 30), table.replies(other, 1)
    table.until(lambda: table.call(peer, "ping") and not table.router._unnoted)
    found = [table.router.describe(client)["requests"] for client in table.router.clients().values()]
    assert 1500 <= sum(found) <= 1700 and max(found) > 1000


def test_the_peer_at_the_other_end_of_ipc_is_named_by_its_process(tmp_path: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    transport = RouterTransport(context, [f"ipc://{tmp_path}/s"])
    peer = ZmqPeer(context, f"ipc://{tmp_path}/s")
    try:
        peer.send(["ping"])
        while not transport.drain():
            pass
        ((_, client),) = transport.clients().items()
        found = transport.describe(client)
        assert (found["address"], found["received_bytes"]) == (f"process {os.getpid()}", None)
    finally:
        peer.close()
        transport.close()
        context.destroy(linger=0)


def test_a_probe_is_not_taken_for_the_peer_that_asked(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are there when the socket is drained, the probe last."""
    request = zmq.Frame(msgspec.msgpack.encode([None, 1, [["ping"]]]))
    script: list[Any] = [b"asks", request, b"probes", zmq.Frame(b"")]

    class Scripted:
        def recv(self, flags: int = 0, copy: bool = True) -> Any:
            if not script:
                raise zmq.Again
            return script.pop(0)

    noted: list[zmq.Frame] = []
    with monkeypatch.context() as patched:
        patched.setattr(table.router, "_receive", Scripted().recv)
        patched.setattr(zmq, "zmq_poll", lambda *_: script)
        patched.setattr(table.router._peers, "note", lambda arrivals, last, requests: noted.append(last))
        arrivals = table.router.drain()
    assert [arrival.peer for arrival in arrivals] == [(b"asks", (), "")] and noted == []
