"""Every contender's client under the same names: insert, lookup, remove, size, query, insert_many, lookup_many.

Each is the client its users would take, set up as its documentation says for the same promise. What a method
maps to is bound as it is, so that no contender pays for a layer of ours. Values are bytes, where the contender
can: text for those that speak JSON.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvzmq.protocol import limits

TIMEOUT_S = 60.0
_RECEIVE_BYTES = 64 << 10


class KvzmqTable:
    """kvzmq.Client over its own plain socket."""

    transport = "plain"  # said, so that KVZMQ_TRANSPORT of whoever measures changes nothing

    def __init__(self, address: Mapping[str, Any]) -> None:
        import kvzmq

        self.client = client = kvzmq.connect(address["url"], timeout=TIMEOUT_S, transport=self.transport)
        self.insert, self.lookup, self.remove = client.insert, client.lookup, client.remove
        self.size, self.query = client.size, client.query
        self.insert_many, self.lookup_many, self.remove_many = (
            client.insert_many,
            client.lookup_many,
            client.remove_many,
        )
        self.close = client.close


class KvzmqPyzmqTable(KvzmqTable):
    """kvzmq.Client over a DEALER socket of libzmq's."""

    transport = "pyzmq"


class RedisTable:
    """redis-py with hiredis; batches as pipelines without MULTI."""

    def __init__(self, address: Mapping[str, Any]) -> None:
        import redis

        self.client = client = redis.Redis("127.0.0.1", address["port"], socket_timeout=TIMEOUT_S)
        self.insert, self.lookup, self.remove = client.set, client.get, client.delete
        self.size = client.dbsize
        self.close = client.close

    def insert_many(self, rows: Mapping[str, bytes]) -> None:
        pipe = self.client.pipeline(transaction=False)
        for key, value in rows.items():
            pipe.set(key, value)
        pipe.execute()

    def lookup_many(self, keys: Sequence[str]) -> dict[str, Any]:
        pipe = self.client.pipeline(transaction=False)
        for key in keys:
            pipe.get(key)
        return dict(zip(keys, pipe.execute()))

    def remove_many(self, keys: Sequence[str]) -> None:
        self.client.delete(*keys)


class RedisMany(RedisTable):
    """redis-py with one MSET or MGET for a batch."""

    def insert_many(self, rows: Mapping[str, bytes]) -> None:
        self.client.mset(rows)

    def lookup_many(self, keys: Sequence[str]) -> dict[str, Any]:
        return dict(zip(keys, self.client.mget(keys)))


class MemcachedTable:
    """pymemcache, waiting for each reply."""

    def __init__(self, address: Mapping[str, Any]) -> None:
        from pymemcache.client.base import Client

        self.client = client = Client(
            ("127.0.0.1", address["port"]), timeout=TIMEOUT_S, no_delay=True, default_noreply=False
        )
        self.insert, self.lookup, self.remove = client.set, client.get, client.delete
        self.insert_many, self.lookup_many, self.remove_many = client.set_many, client.get_many, client.delete_many
        self.close = client.close


class EtcdTable:
    """etcd's JSON gateway over one kept-alive connection: there is no maintained Python client."""

    def __init__(self, address: Mapping[str, Any]) -> None:
        import http.client

        self._http = http.client.HTTPConnection("127.0.0.1", address["port"], timeout=TIMEOUT_S)
        self._http.connect()
        assert self._http.sock is not None
        self._http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.close = self._http.close

    def _call(self, method: str, body: Mapping[str, Any]) -> Any:
        self._http.request("POST", f"/v3/kv/{method}", json.dumps(body), {"Content-Type": "application/json"})
        response = self._http.getresponse()
        data = response.read()
        if response.status != 200:
            raise OSError(f"etcd: {response.status} {data[:200]!r}")
        return json.loads(data)

    def insert(self, key: str, value: bytes) -> None:
        self._call("put", {"key": _base64(key.encode()), "value": _base64(value)})

    def lookup(self, key: str) -> bytes:
        return base64.b64decode(self._call("range", {"key": _base64(key.encode())})["kvs"][0]["value"])

    def remove(self, key: str) -> None:
        self._call("deleterange", {"key": _base64(key.encode())})

    def insert_many(self, rows: Mapping[str, bytes]) -> None:
        """Put 100 rows a transaction: etcd takes 128 operations."""
        pairs = list(rows.items())
        for at in range(0, len(pairs), 100):
            puts = [
                {"requestPut": {"key": _base64(key.encode()), "value": _base64(value)}}
                for key, value in pairs[at : at + 100]
            ]
            self._call("txn", {"success": puts})


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class SqliteTable:
    """One table of a SQLite database in WAL mode; synchronous=FULL makes a commit durable."""

    def __init__(self, address: Mapping[str, Any]) -> None:
        import sqlite3

        self._db = db = sqlite3.connect(address["path"], timeout=TIMEOUT_S, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self.close = db.close

    def insert(self, key: str, value: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO rows VALUES (?, ?)", (key, value))

    def lookup(self, key: str) -> bytes:
        found: bytes = self._db.execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()[0]
        return found

    def remove(self, key: str) -> None:
        self._db.execute("DELETE FROM rows WHERE key = ?", (key,))

    def size(self) -> int:
        count: int = self._db.execute("SELECT count(*) FROM rows").fetchone()[0]
        return count

    def _in_transaction(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(statement, rows)
        self._db.execute("COMMIT")

    def insert_many(self, rows: Mapping[str, bytes]) -> None:
        self._in_transaction("INSERT OR REPLACE INTO rows VALUES (?, ?)", list(rows.items()))

    def remove_many(self, keys: Sequence[str]) -> None:
        self._in_transaction("DELETE FROM rows WHERE key = ?", [(key,) for key in keys])

    def lookup_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for at in range(0, len(keys), 1000):
            chunk = keys[at : at + 1000]
            marks = ",".join("?" * len(chunk))
            found.update(self._db.execute(f"SELECT key, value FROM rows WHERE key IN ({marks})", chunk).fetchall())
        return found


class DiskcacheTable:
    """diskcache with synchronous=FULL, which its default (NORMAL) is not, and nothing evicted."""

    def __init__(self, address: Mapping[str, Any]) -> None:
        import diskcache

        self.cache = cache = diskcache.Cache(
            address["path"], timeout=TIMEOUT_S, sqlite_synchronous=2, eviction_policy="none"
        )
        self.insert, self.lookup, self.remove, self.size = cache.set, cache.get, cache.delete, cache.__len__
        self.close = cache.close

    def insert_many(self, rows: Mapping[str, bytes]) -> None:
        with self.cache.transact():
            for key, value in rows.items():
                self.cache.set(key, value)

    def remove_many(self, keys: Sequence[str]) -> None:
        with self.cache.transact():
            for key in keys:
                self.cache.delete(key)


class ManagerTable:
    """The proxy of `multiprocessing.Manager().dict()`."""

    def __init__(self, address: Mapping[str, Any]) -> None:
        from benchmarks.run.baselines import AUTHKEY, SharedDict

        manager = SharedDict(("127.0.0.1", address["port"]), AUTHKEY)
        manager.connect()
        self._proxy = proxy = manager.table()  # type: ignore[attr-defined]
        self.insert, self.lookup, self.remove, self.size = proxy.__setitem__, proxy.get, proxy.pop, proxy.__len__
        self.insert_many = proxy.update

    def remove_many(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._proxy.pop(key)

    def close(self) -> None:
        self._proxy = None


class JsonLineTable:
    """A plain socket and the json module: what a program in the dialect of the bridge is made of."""

    def __init__(self, address: Mapping[str, Any]) -> None:
        self._socket = socket.create_connection(("127.0.0.1", address["port"]), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.close = self._socket.close

    def _call(self, request: Mapping[str, Any]) -> Any:
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        data = self._socket.recv(_RECEIVE_BYTES)
        while data[-1:] != b"\n":
            more = self._socket.recv(_RECEIVE_BYTES)
            if not more:
                raise ConnectionError("the server has gone")
            data += more
        reply = json.loads(data)
        if reply["status"] != "OK":
            raise KeyError(reply)
        return reply["result"]

    def insert(self, key: str, value: Any) -> None:
        self._call({"method": "insert", "key": key, "value": value})

    def lookup(self, key: str) -> Any:
        return self._call({"method": "lookup", "key": key})

    def remove(self, key: str) -> None:
        self._call({"method": "remove", "key": key})

    def size(self) -> Any:
        return self._call({"method": "size"})

    def query(self, subkey: str, subvalue: Any) -> Any:
        return self._call({"method": "query", "subkey": subkey, "subvalue": subvalue})

    def insert_many(self, rows: Mapping[str, Any]) -> None:
        for key, value in rows.items():
            self.insert(key, value)

    def remove_many(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.remove(key)


class BridgeTable(JsonLineTable):
    """The same on the bridge of a kvzmq server, where several rows go in one line."""

    def __init__(self, address: Mapping[str, Any]) -> None:
        super().__init__({"port": address["bridge"]})

    def insert_many(self, rows: Mapping[str, Any]) -> None:
        self._call({"method": "insert_many", "rows": rows})

    def remove_many(self, keys: Sequence[str]) -> None:
        self._call({"method": "remove_many", "keys": keys})


class FramesTable:
    """A kvzmq client's requests over its plain socket, with no client above: the replies are not looked into.

    It asks a table and an echo alike, so that the two differ in what the servers do.
    """

    def __init__(self, address: Mapping[str, Any]) -> None:
        from kvzmq.bench.load import operation
        from kvzmq.protocol import msgpack

        self._url = address["url"]
        session, seqs = os.urandom(limits.SESSION_BYTES), itertools.count(1)
        encode, exchange = msgpack.encode_request, self._open()

        def lookup(key: str) -> bytes:
            return exchange(encode(session, next(seqs), [operation("lookup", key)]))

        def insert(key: str, value: bytes) -> bytes:
            return exchange(encode(session, next(seqs), [operation("insert", key, value)]))

        self.lookup, self.insert = lookup, insert
        exchange(encode(session, next(seqs), [operation("open")]))

    def _open(self) -> Callable[[bytes], bytes]:
        """Connect, and return what sends a frame and waits for another."""
        from kvzmq.client.core.plain_socket import PlainOpener

        sock = PlainOpener()(self._url)
        self.close = sock.close
        deadline_s = time.monotonic() + TIMEOUT_S
        while not sock.connected and time.monotonic() < deadline_s:
            sock.wait(0.1)
            sock.poll_events()
        send, receive = sock.send, sock.receive

        def exchange(frame: bytes) -> bytes:
            if not send(frame):
                raise ConnectionError("the server has gone")
            deadline_s = time.monotonic() + TIMEOUT_S
            while (reply := receive(1.0)) is None:
                if time.monotonic() > deadline_s:
                    raise TimeoutError("no reply")
            return reply

        return exchange

    def insert_many(self, rows: Mapping[str, bytes]) -> None:
        import kvzmq

        with kvzmq.connect(self._url, timeout=TIMEOUT_S) as client:
            client.insert_many(rows)


class FramesPyzmqTable(FramesTable):
    """The same over a DEALER socket of libzmq's."""

    def _open(self) -> Callable[[bytes], bytes]:
        import zmq

        context = zmq.Context()
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RCVTIMEO, int(TIMEOUT_S * 1000))
        dealer.connect(self._url)
        send, receive = dealer.send, dealer.recv

        def exchange(frame: bytes) -> bytes:
            send(frame)
            return receive()

        def close() -> None:
            dealer.close()
            context.term()

        self.close = close
        return exchange


TABLES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "kvzmq": KvzmqTable,
    "kvzmq-pyzmq": KvzmqPyzmqTable,
    "kvzmq-bridge": BridgeTable,
    "redis": RedisTable,
    "redis-many": RedisMany,
    "memcached": MemcachedTable,
    "etcd": EtcdTable,
    "sqlite": SqliteTable,
    "diskcache": DiskcacheTable,
    "manager": ManagerTable,
    "json-lines": JsonLineTable,
    "frames": FramesTable,
    "frames-pyzmq": FramesPyzmqTable,
}
"""The clients by name."""
