"""A client of etcd's gRPC API: calls with deadlines, and errors that say what became of a change.

One channel an address, tried in turn: a name is resolved by gRPC, a certificate is checked against the name that the
channel was made for, and a member that answers nothing is left for the next one, which a single channel over several
addresses would not do while its connection stands. Nothing is sent twice behind the caller's back: only requests that
do no harm when they are executed twice, and those that certainly were not sent, go to the next member.

    EtcdError                   base class
    ├── EtcdRefused             certainly not applied
    │   ├── EtcdUnreachable         no connection to any member: it was not sent
    │   ├── EtcdCompacted           the revision is no longer kept
    │   ├── EtcdTooLarge            larger than the cluster takes
    │   └── EtcdNotAllowed          wrong user, password, certificate or rights
    └── EtcdUnknown             no answer: a change may have been applied, or may be yet
        └── EtcdNoSpace             the quota is used up; the request that finds it so is applied all the same
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import grpc

from kvzmq import errors
from kvzmq.store.etcd import messages_pb2 as pb
from kvzmq.store.etcd.url import Security

TIMEOUT_S = 5.0
"""How long a call may take, with all members it tries, unless its caller says otherwise."""

ATTEMPT_S_MIN = 0.25
"""The least time that one member gets before the next one is tried."""

RECONNECT_S_MIN = 0.05
RECONNECT_S_MAX = 1.0
"""How soon a lost connection is tried again, and how rarely at last."""

KEEPALIVE_S = 6.0
KEEPALIVE_TIMEOUT_S = 2.0
"""A silent connection is tried after this long, and lost after this long: etcd closes one that is tried every 5 s."""

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", int(RECONNECT_S_MIN * 1000)),
    ("grpc.min_reconnect_backoff_ms", int(RECONNECT_S_MIN * 1000)),
    ("grpc.max_reconnect_backoff_ms", int(RECONNECT_S_MAX * 1000)),
    ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
    ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_S * 1000)),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),  # of an environment that was made for web browsers
    ("grpc.enable_retries", 0),  # what is sent again is decided here
    ("grpc.use_local_subchannel_pool", 1),
]

_HAS_LEADER = ("hasleader", "true")
"""Of a call that a member is to refuse when it knows no leader; first in the metadata."""

Response = TypeVar("Response")
Call = tuple[str, Callable[[Any], bytes], Callable[[bytes], Any]]


def _method(path: str, request: Any, response: Any) -> Call:
    return f"/etcdserverpb.{path}", request.SerializeToString, response.FromString


_RANGE = _method("KV/Range", pb.RangeRequest, pb.RangeResponse)
_PUT = _method("KV/Put", pb.PutRequest, pb.PutResponse)
_DELETE_RANGE = _method("KV/DeleteRange", pb.DeleteRangeRequest, pb.DeleteRangeResponse)
_TXN = _method("KV/Txn", pb.TxnRequest, pb.TxnResponse)
_COMPACT = _method("KV/Compact", pb.CompactionRequest, pb.CompactionResponse)
_WATCH = _method("Watch/Watch", pb.WatchRequest, pb.WatchResponse)
_LEASE_GRANT = _method("Lease/LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse)
_LEASE_REVOKE = _method("Lease/LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse)
_LEASE_KEEP_ALIVE = _method("Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse)
_STATUS = _method("Maintenance/Status", pb.StatusRequest, pb.StatusResponse)
_DEFRAGMENT = _method("Maintenance/Defragment", pb.DefragmentRequest, pb.DefragmentResponse)
_ALARM = _method("Maintenance/Alarm", pb.AlarmRequest, pb.AlarmResponse)
_AUTHENTICATE = _method("Auth/Authenticate", pb.AuthenticateRequest, pb.AuthenticateResponse)


class EtcdError(errors.KvzmqError):
    """Base class of the errors of calls to etcd."""


class EtcdRefused(EtcdError):
    """The request was not executed, and never will be."""


class EtcdUnreachable(EtcdRefused):
    """No member could be connected to: the request was not sent."""


class EtcdCompacted(EtcdRefused):
    """The revision is no longer kept."""


class EtcdTooLarge(EtcdRefused):
    """The request is larger than the cluster takes (`--max-request-bytes`, 1.5 MiB unless set)."""


class EtcdNotAllowed(EtcdRefused):
    """etcd does not let the client in, or not do this."""


class EtcdUnknown(EtcdError):
    """No answer came, or none that says what was done: a change may have been applied, or may be yet."""


class EtcdNoSpace(EtcdUnknown):
    """The quota of the database is used up.

    The fate of the change is unknown: etcd checks before it proposes the change and again as it applies it, with the
    same error, and the second check applies the change all the same (quotaApplierV3 in etcdserver/apply.go).
    """


_BY_DETAILS: tuple[tuple[str, type[EtcdError]], ...] = (
    ("failed to connect to all addresses", EtcdUnreachable),
    ("required revision has been compacted", EtcdCompacted),
    ("request is too large", EtcdTooLarge),
    ("message larger than max", EtcdTooLarge),
    ("database space exceeded", EtcdNoSpace),
    ("too many requests", EtcdRefused),
    ("auth: permission denied", EtcdNotAllowed),  # of what is asked of a member
)
"""What the text of an error says; etcd uses one status code for several."""

_BY_CODE: dict[grpc.StatusCode, type[EtcdError]] = {
    grpc.StatusCode.UNAUTHENTICATED: EtcdNotAllowed,
    grpc.StatusCode.PERMISSION_DENIED: EtcdNotAllowed,
    grpc.StatusCode.INVALID_ARGUMENT: EtcdRefused,
    grpc.StatusCode.UNIMPLEMENTED: EtcdRefused,
    grpc.StatusCode.FAILED_PRECONDITION: EtcdRefused,
    grpc.StatusCode.NOT_FOUND: EtcdRefused,
    grpc.StatusCode.OUT_OF_RANGE: EtcdRefused,
    grpc.StatusCode.ALREADY_EXISTS: EtcdRefused,
}

_TOKEN_ENDED = ("invalid auth token", "user name is empty", "revision in header is old", "old revision")
"""What a new token mends: the old one has expired, none was sent, or the users were changed since."""


NO_SPACE = (
    "the quota of its database is used up, and it takes no change until there is room. A server frees what it can by "
    "itself, within a minute; `kvzmq doctor` says more"
)
"""What whoever writes is told then."""


def error_of(error: grpc.RpcError, address: str) -> EtcdError:
    """Return what an error of gRPC means for the change it carried."""
    code, details = error.code(), error.details() or ""
    found = next((found for text, found in _BY_DETAILS if text in details), None) or _BY_CODE.get(code, EtcdUnknown)
    text = details.removeprefix("etcdserver: ") or code.name.lower().replace("_", " ")
    if found is EtcdNoSpace:
        text = NO_SPACE
    return found(f"etcd at {address}: {text}")


def prefix_end(prefix: bytes) -> bytes:
    """Return the `range_end` with which a range is all keys that begin with `prefix`."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"


class EtcdClient:
    """Calls to one etcd cluster; may be used from several threads.

    Args:
        addresses: of its members, HOST:PORT each
        security: how to be let in
        timeout_s: how long a call may take, unless it says otherwise
    """

    def __init__(
        self, addresses: Sequence[str], security: Security | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.addresses = tuple(addresses)
        self.timeout_s = timeout_s
        self._security = Security() if security is None else security
        self._lock = threading.Lock()
        self._channels: dict[str, grpc.Channel] = {}
        self._calls: dict[tuple[str, str], Any] = {}
        self._current = 0  # which address is asked first
        self._metadata: tuple[tuple[str, str], ...] = (_HAS_LEADER,)
        self._authenticated = self._security.user is None

    def __repr__(self) -> str:
        return f"EtcdClient({self.addresses!r})"

    # ---- keys and values

    def range(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        newest_first: bool = False,
        timeout_s: float | None = None,
    ) -> pb.RangeResponse:
        """Return the keys from `key` to before `range_end`, or `key` alone: a linearizable read, in the order of keys.

        Args:
            limit: the number of keys at most; 0 for all
            revision: as of when; 0 for now
            newest_first: order by the revision of the last change, from the last one on
        """
        request = pb.RangeRequest(
            key=key, range_end=range_end, limit=limit, revision=revision, keys_only=keys_only, count_only=count_only
        )
        if newest_first:
            request.sort_order, request.sort_target = pb.RangeRequest.DESCEND, pb.RangeRequest.MOD
        found: pb.RangeResponse = self._ask(_RANGE, request, timeout_s, repeatable=True)
        return found

    def put(self, key: bytes, value: bytes, lease: int = 0, timeout_s: float | None = None) -> pb.PutResponse:
        """Set a key; never sent twice."""
        found: pb.PutResponse = self._ask(_PUT, pb.PutRequest(key=key, value=value, lease=lease), timeout_s)
        return found

    def delete_range(self, key: bytes, range_end: bytes = b"", timeout_s: float | None = None) -> int:
        """Remove the keys from `key` to before `range_end`, or `key` alone; return how many, of the last attempt."""
        request = pb.DeleteRangeRequest(key=key, range_end=range_end)
        found: pb.DeleteRangeResponse = self._ask(_DELETE_RANGE, request, timeout_s, repeatable=True)
        return found.deleted

    def txn(
        self,
        compare: Iterable[pb.Compare],
        success: Iterable[pb.RequestOp],
        failure: Iterable[pb.RequestOp] = (),
        *,
        repeatable: bool = False,
        timeout_s: float | None = None,
    ) -> pb.TxnResponse:
        """Execute `success` if all of `compare` hold, else `failure`; at one revision, all or nothing.

        Args:
            repeatable: its comparisons see to it that it does no harm when it is executed twice
        """
        request = pb.TxnRequest(compare=compare, success=success, failure=failure)
        return self.transact(request, repeatable=repeatable, timeout_s=timeout_s)

    def transact(
        self, request: pb.TxnRequest, *, repeatable: bool = False, timeout_s: float | None = None
    ) -> pb.TxnResponse:
        """Execute a transaction; see `txn`."""
        found: pb.TxnResponse = self._ask(_TXN, request, timeout_s, repeatable=repeatable)
        return found

    def compact(self, revision: int, physical: bool = False, timeout_s: float | None = None) -> None:
        """Drop what was overwritten or removed before `revision`.

        Args:
            physical: return only when the member has removed it from its database

        Raises:
            EtcdCompacted: it was done before
        """
        self._ask(_COMPACT, pb.CompactionRequest(revision=revision, physical=physical), timeout_s, repeatable=True)

    # ---- leases

    def lease_grant(self, ttl_s: int, timeout_s: float | None = None) -> int:
        """Return the number of a new lease: keys put with it go when it has not been kept alive for `ttl_s`."""
        found: pb.LeaseGrantResponse = self._ask(_LEASE_GRANT, pb.LeaseGrantRequest(TTL=ttl_s), timeout_s)
        return found.ID

    def lease_keep_alive(self, lease: int, timeout_s: float | None = None) -> int:
        """Renew a lease; return how long it lasts now, seconds: 0 if it has ended."""
        request = pb.LeaseKeepAliveRequest(ID=lease)
        found: pb.LeaseKeepAliveResponse = self._ask(_LEASE_KEEP_ALIVE, request, timeout_s, repeatable=True)
        return found.TTL

    def lease_revoke(self, lease: int, timeout_s: float | None = None) -> None:
        """End a lease; its keys go."""
        self._ask(_LEASE_REVOKE, pb.LeaseRevokeRequest(ID=lease), timeout_s, repeatable=True)

    # ---- maintenance: of one member each

    def status(self, address: str, timeout_s: float | None = None) -> pb.StatusResponse:
        """Return version, size of the database and leader, as one member sees them."""
        found: pb.StatusResponse = self._ask(_STATUS, pb.StatusRequest(), timeout_s, addresses=(address,))
        return found

    def defragment(self, address: str, timeout_s: float | None = None) -> None:
        """Have one member give back the space of what was compacted; it serves nobody meanwhile."""
        self._ask(_DEFRAGMENT, pb.DefragmentRequest(), timeout_s, addresses=(address,))

    def alarms(self, timeout_s: float | None = None) -> list[pb.AlarmMember]:
        """Return the alarms that are raised."""
        return self._alarm(pb.AlarmRequest(action=pb.AlarmRequest.GET), timeout_s)

    def disarm(self, alarm: pb.AlarmMember, timeout_s: float | None = None) -> None:
        """End an alarm; etcd raises it again while its cause lasts."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=alarm.memberID, alarm=alarm.alarm)
        self._alarm(request, timeout_s)

    def _alarm(self, request: pb.AlarmRequest, timeout_s: float | None) -> list[pb.AlarmMember]:
        found: pb.AlarmResponse = self._ask(_ALARM, request, timeout_s, repeatable=True)
        return list(found.alarms)

    # ---- watch

    def watch(self, request: pb.WatchCreateRequest, address: str) -> Any:
        """Return an iterator over one member's WatchResponses; it ends with grpc.RpcError. `cancel` it from any thread.

        The request is sent, and then this side of the stream is closed: etcd reads no more of it, and goes on.
        """
        self._authenticate(address)
        path, serialize, parse = _WATCH
        channel = self._channel(address)
        call = channel.unary_stream(path, request_serializer=serialize, response_deserializer=parse)
        return call(pb.WatchRequest(create_request=request), metadata=self._metadata, wait_for_ready=False)

    # ---- calls

    def future(self, request: pb.TxnRequest | pb.RangeRequest, timeout_s: float) -> Any:
        """Begin a transaction or a range at the member that is asked first, and return its future."""
        self._authenticate(timeout_s=timeout_s)
        method = _TXN if isinstance(request, pb.TxnRequest) else _RANGE
        return self._call_of(self.address, method).future(request, timeout=timeout_s, metadata=self._metadata)

    def explain(self, error: grpc.RpcError, address: str) -> EtcdError:
        """Return what an error of a future or a watch means; if its token has ended, the next call gets another one."""
        if any(text in (error.details() or "") for text in _TOKEN_ENDED):
            self._authenticated = self._security.user is None
        return error_of(error, address)

    @property
    def address(self) -> str:
        """The member that is asked first."""
        return self.addresses[self._current]

    def move_on(self, address: str) -> None:
        """Ask the next member first, if `address` is the one that is now."""
        with self._lock:
            if self.addresses[self._current] == address:
                self._current = (self._current + 1) % len(self.addresses)

    def _ask(
        self,
        method: Call,
        request: Any,
        timeout_s: float | None = None,
        repeatable: bool = False,
        addresses: Sequence[str] | None = None,
    ) -> Any:
        """Return the answer of the first member that gives one.

        Each address is tried once. What may have been executed is tried again if it is `repeatable`.
        """
        deadline_s = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        if addresses is None:
            current = self._current
            addresses = self.addresses[current:] + self.addresses[:current]
        unknown: EtcdUnknown | None = None
        for tried, address in enumerate(addresses, start=1):
            left_s = max(deadline_s - time.monotonic(), 0.001)
            more = tried < len(addresses)
            attempt_s = min(left_s, max(left_s / 2, ATTEMPT_S_MIN)) if more and repeatable else left_s
            try:
                return self._ask_one(address, method, request, attempt_s)
            except EtcdError as error:
                retried = isinstance(error, EtcdUnreachable) or (repeatable and isinstance(error, EtcdUnknown))
                if not isinstance(error, EtcdRefused) or isinstance(error, EtcdUnreachable):
                    self.move_on(address)
                unknown = error if isinstance(error, EtcdUnknown) else unknown
                if not more or not retried or time.monotonic() >= deadline_s:
                    if unknown is not None and error is not unknown:
                        raise unknown from error  # an earlier attempt may have been executed, whatever became of this
                    raise
        raise AssertionError("a client has at least one address")

    def _ask_one(self, address: str, method: Call, request: Any, timeout_s: float) -> Any:
        deadline_s = time.monotonic() + timeout_s
        self._authenticate(address, timeout_s)
        try:
            return self._exchange(address, method, request, timeout_s)
        except grpc.RpcError as error:
            if self._security.user is None or not any(text in (error.details() or "") for text in _TOKEN_ENDED):
                raise error_of(error, address) from error
        self._authenticated = False  # the request was refused for its token, so it can be sent again
        left_s = max(deadline_s - time.monotonic(), 0.001)
        self._authenticate(address, left_s)
        try:
            return self._exchange(address, method, request, left_s)
        except grpc.RpcError as error:
            raise error_of(error, address) from error

    def _exchange(self, address: str, method: Call, request: Any, timeout_s: float) -> Any:
        call = self._call_of(address, method)
        if method is _LEASE_KEEP_ALIVE:
            return next(call(iter((request,)), timeout=timeout_s, metadata=self._metadata))
        # A member that knows no leader tells of itself all the same, and refuses everything else at once.
        metadata = self._metadata[1:] if method is _STATUS else self._metadata
        return call(request, timeout=timeout_s, metadata=metadata)

    def _authenticate(self, address: str | None = None, timeout_s: float | None = None) -> None:
        """Get a token, if there is a user and none was got yet.

        Raises:
            EtcdRefused: nothing was sent in the user's name
        """
        if self._authenticated:
            return
        address = self.address if address is None else address
        user, password = self._security.user, self._security.password
        request = pb.AuthenticateRequest(name=user or "", password=password or "")
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        try:
            token = self._call_of(address, _AUTHENTICATE)(request, timeout=timeout_s).token
        except grpc.RpcError as error:
            details = error.details() or ""
            if "authentication is not enabled" not in details:
                found = error_of(error, address)
                refused = EtcdNotAllowed if isinstance(found, EtcdRefused) else EtcdUnreachable
                raise (found if isinstance(found, EtcdUnreachable) else refused(str(found))) from error
            token = ""
        self._metadata = (_HAS_LEADER, ("token", token)) if token else (_HAS_LEADER,)
        self._authenticated = True

    def _call_of(self, address: str, method: Call) -> Any:
        call = self._calls.get((address, method[0]))
        if call is None:
            path, serialize, parse = method
            channel = self._channel(address)
            kind = channel.stream_stream if method is _LEASE_KEEP_ALIVE else channel.unary_unary
            call = kind(path, request_serializer=serialize, response_deserializer=parse)
            self._calls[(address, path)] = call
        return call

    def _channel(self, address: str) -> grpc.Channel:
        with self._lock:
            channel = self._channels.get(address)
            if channel is None:
                channel = self._channels[address] = self._connect(address)
            return channel

    def _connect(self, address: str) -> grpc.Channel:
        security = self._security
        if not security.uses_tls:
            return grpc.insecure_channel(address, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(security.ca, security.key, security.certificate)
        return grpc.secure_channel(address, credentials, options=_OPTIONS)

    def close(self) -> None:
        """Close all connections; calls in flight end with an error."""
        with self._lock:
            channels, self._channels = list(self._channels.values()), {}
            self._calls.clear()
        for channel in channels:
            channel.close()


# ---- parts of transactions


def put_op(key: bytes, value: bytes, prev_kv: bool = False) -> pb.RequestOp:
    """Return the operation that sets a key."""
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, prev_kv=prev_kv))


def range_op(key: bytes, range_end: bytes = b"", keys_only: bool = False) -> pb.RequestOp:
    """Return the operation that reads a key, or a range of keys."""
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=range_end, keys_only=keys_only))


def delete_op(key: bytes, range_end: bytes = b"") -> pb.RequestOp:
    """Return the operation that removes a key, or a range of keys."""
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=range_end))


def is_absent(key: bytes) -> pb.Compare:
    """Return the comparison that holds while there is no such key."""
    return pb.Compare(target=pb.Compare.CREATE, key=key, create_revision=0)


def was_changed_at(key: bytes, mod_revision: int) -> pb.Compare:
    """Return the comparison that holds while a key's last change was at a revision; 0 while there is no such key."""
    return pb.Compare(target=pb.Compare.MOD, key=key, mod_revision=mod_revision)
