"""ZMTP 3.1 for the side that connects, a DEALER with the NULL mechanism: bytes in, messages out. No I/O.

ZMTP is what ZeroMQ speaks on a stream: RFC 37 (https://rfc.zeromq.org/spec/37/) is version 3.1, RFC 23 is 3.0,
which libzmq 4.0 to 4.3.2 announce. Of the two only the frames below are used, so peers of both are served alike.

    greeting   signature 10 (FF, 8 of padding, 7F), version 2 (3, 1), mechanism 20 (NULL, zeros), as-server 1, zeros 31
    frame      flags 1, length 1 or (with the flag LONG) 8, body
    flags      1 MORE: the message goes on    2 LONG    4 COMMAND    the others are reserved, and zero
    command    the body of a frame: length of the name 1, name, data
    READY      properties: length of the name 1, name, length of the value 4, value
    ERROR      length of the reason 1, reason
    PING       time to live 2, context of 0 to 16 bytes; answered by PONG: the context

A `Connection` never raises for what a peer sends. It returns the messages that came before the fault, and then stays
in the state FAILED with the fault in `error`, in words that complete "what answers at tcp://host:1 ...".
Timeouts are the caller's: for a peer that is silent, or does not send the PING it has promised.

A request and its reply are one frame each. So a message of several frames is none of the table's: it is taken in whole,
dropped and counted in `ignored`. (A ROUTER takes the identity off what it sends; so does each proxy on the way. A REP
needs a delimiter that we do not send, and answers nothing.)
"""

from __future__ import annotations

import enum
from collections.abc import Callable

MORE, LONG, COMMAND = 1, 2, 4

SHORT_BYTES_MAX = 255
"""The longest body of a frame that is not LONG."""

COMMAND_BYTES_MAX = 8 << 10
"""The longest command; libzmq's READY has 41 bytes, and what its application adds."""

HANDSHAKE_BYTES_MAX = 16 << 10
"""How much a peer may send after its greeting until it is READY."""

PROPERTIES_MAX = 64
"""How many properties READY may have; libzmq sends two, and what its application adds."""

FRAMES_MAX = 1000
"""How many frames a message may have: they are dropped, but have to end."""

CONTEXT_BYTES_MAX = 16
"""What of a PING's context comes back; the rest is cut off, as libzmq does."""

WAITING_BYTES_MAX = 1024
"""How much may wait in `data_to_send`: with so many PONGs unsent, a further PING is not answered."""

_QUOTED_BYTES_MAX = 32
"""How much of what a peer sent is quoted in an error."""

_HEADER_BYTES_MAX = 9
_VERSION_AT, _VERSION_END, _MECHANISM_AT, _MECHANISM_END, _GREETING_BYTES = 10, 11, 12, 32, 64
_NULL = b"NULL".ljust(_MECHANISM_END - _MECHANISM_AT, b"\0")
_GREETING = (b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + _NULL).ljust(_GREETING_BYTES, b"\0")
_FLAGS_OF_MESSAGES = (0, MORE, LONG, MORE | LONG)
_FLAGS_OF_COMMANDS = (COMMAND, COMMAND | LONG)

HEADERS = [bytes([0, length]) for length in range(SHORT_BYTES_MAX + 1)]
"""What stands before a message of one frame that is not LONG, by its length."""

PEERS = (b"ROUTER", b"REP", b"DEALER")
"""The socket types that a DEALER talks to (RFC 37, "The Socket-Type Property")."""

FOREIGNERS = {
    b"HTTP/": "HTTP",
    b"\x15\x03": "TLS",
    b"\x16\x03": "TLS",
    b"SSH-": "SSH",
    b"{": "JSON, as the port of the bridge does",
}
"""How others begin who answer a greeting."""


class State(enum.Enum):
    """How far a connection is: what the peer has yet to send."""

    VERSION = "its version"
    MECHANISM = "its mechanism"
    READY = "READY"
    OPEN = "a message"
    FAILED = "nothing"


class Event(enum.Enum):
    """What may come from a peer."""

    VERSION = "its version"
    MECHANISM = "its mechanism"
    READY = "READY"
    ERROR = "ERROR"
    PING = "PING"
    COMMAND = "another command"
    MESSAGE = "a message"


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.VERSION: {Event.VERSION: State.MECHANISM},
    State.MECHANISM: {Event.MECHANISM: State.READY},
    State.READY: {Event.READY: State.OPEN, Event.ERROR: State.FAILED, Event.COMMAND: State.READY},
    State.OPEN: {
        Event.MESSAGE: State.OPEN,
        Event.PING: State.OPEN,
        Event.COMMAND: State.OPEN,
        Event.ERROR: State.FAILED,
    },
    State.FAILED: {},
}
"""What may come in which state, and the state afterwards. Whatever else comes, and every fault, leads to FAILED."""

_GREETS = (State.VERSION, State.MECHANISM)
_OPEN = State.OPEN  # each look at a member through its class costs 0.1 us


class Kind(enum.Enum):
    """Why a connection failed, as far as somebody can do something about it."""

    FOREIGN = "it does not speak ZeroMQ: wrong port, most likely"
    OUTDATED = "it speaks ZMTP 1 or 2: libzmq 2 or 3"
    MECHANISM = "it wants another security mechanism than NULL"
    SOCKET_TYPE = "it is no socket that a DEALER talks to"
    REFUSED = "it has sent ERROR"
    TOO_LARGE = "it exceeds a limit"
    MALFORMED = "it breaks the protocol"
    CLOSED = "it has closed the connection"


class ProtocolError(Exception):
    """What is wrong with a peer; a value of `Connection.error`, not raised here.

    Args:
        kind: what to do about it depends on this
        text: completes the sentence "what answers there ..."
    """

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def encode_header(length: int, flags: int = 0) -> bytes:
    """Return what stands before the `length` bytes of a frame."""
    if length > SHORT_BYTES_MAX:
        return bytes([flags | LONG]) + length.to_bytes(8, "big")
    return bytes([flags, length]) if flags else HEADERS[length]


def encode_command(name: bytes, data: bytes) -> bytes:
    """Return the frame of a command."""
    body = bytes([len(name)]) + name + data
    return encode_header(len(body), COMMAND) + body


def _encode_property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value


_READY = encode_command(b"READY", _encode_property(b"Socket-Type", b"DEALER") + _encode_property(b"Identity", b""))


def decode_properties(data: bytes) -> dict[bytes, bytes]:
    """Return the properties of a READY, their names in lower case, in which their case does not matter.

    Raises:
        ValueError: they are cut off, too many, without a name, or twice the same; says which
    """
    properties: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        value_at = name_end + 4
        value_end = value_at + int.from_bytes(data[name_end:value_at], "big")
        if value_at > len(data) or value_end > len(data):
            raise ValueError("a property that is cut off")
        name = data[at + 1 : name_end].lower()
        if not name or name in properties:
            raise ValueError(f"the property {_quote(name)} twice" if name else "a property without a name")
        if len(properties) == PROPERTIES_MAX:
            raise ValueError(f"more than {PROPERTIES_MAX} properties")
        properties[name] = data[value_at:value_end]
        at = value_end
    return properties


class Connection:
    """One connection to a peer, from the greeting on: a new one for each new socket.

    Send what `data_to_send` returns at the start and whenever something was received; messages, each after its
    `encode_header`, may be sent as soon as the state is OPEN. To receive, while the state is not FAILED:

        room = connection.room
        messages = connection.receive_data(sock.recv(65536)) if room is None else connection.fill(sock.recv_into(room))

    Args:
        message_bytes_max: the longest frame of a message that is taken from the peer. Memory is bounded by twice as
            much, while a frame is handed over, and what was received at once
    """

    def __init__(self, message_bytes_max: int) -> None:
        self.state = State.VERSION
        self.error: ProtocolError | None = None
        """Why the state is FAILED."""
        self.version = (0, 0)
        """The peer's version of ZMTP, major and minor."""
        self.mechanism = "NULL"
        """What the peer's greeting asks for."""
        self.properties: dict[bytes, bytes] = {}
        """What the peer's READY said; names in lower case."""
        self.ignored = 0
        """How many messages of several frames have come, and were dropped."""
        self._message_bytes_max = message_bytes_max
        self._limits: dict[int, int] = {}  # by a frame's flags: how long it may be in this state; others may not come
        self._handshake_bytes_left = HANDSHAKE_BYTES_MAX
        self._whole_bytes_max = 0  # how long a message may be that is taken as it comes; see _note_between
        self._frames = 0  # of a message of several that has not ended
        self._head = b""  # a part of a greeting or of a frame's header
        self._flags = self._filled = 0  # of the frame whose body has come in part
        self._body: bytearray | None = None
        self.room: memoryview | None = None
        """The room for the rest of a frame whose body has come in part, or None; `fill` tells how much was received."""
        # The version alone: libzmq closes without sending its mechanism to one who has sent another, and then
        # nobody could be told that it wants CURVE. RFC 37 has this order, too.
        self.waiting = _GREETING[:_VERSION_END]
        """What `data_to_send` would return."""

    # ---- to the peer

    def data_to_send(self) -> bytes:
        """Return what the protocol itself has to send, once; b"" if there is nothing."""
        waiting, self.waiting = self.waiting, b""
        return waiting

    # ---- from the peer

    def receive_data(self, data: bytes) -> list[bytes]:
        """Take in what has come, b"" for the end of the stream, and return the messages that it completes."""
        length = len(data) - 2
        if 0 < length <= self._whole_bytes_max and length == data[1] and not data[0]:
            return [data[2:]]  # one short message, whole, and nothing before it: as replies come most often
        messages = self._receive(data)
        self._note_between()
        return messages

    def _note_between(self) -> None:
        """Note how long a message may be that needs no look at what came before it, as nothing has come in part."""
        between = self.state is _OPEN and self._body is None and not self._head and not self._frames
        self._whole_bytes_max = min(SHORT_BYTES_MAX, self._message_bytes_max) if between else 0

    def _receive(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        if self._body is not None:
            part = data[: len(self._body) - self._filled]
            self._body[self._filled : self._filled + len(part)] = part
            messages = self._fill(len(part))
            data = data[len(part) :]
            if not data:
                return messages
        elif self._head:
            data = self._head + data if data else b""
        if not data:
            self._end()
            return messages
        at = self._read_greeting(data) if self.state in _GREETS else 0
        if self._limits:
            at = self._read_frames(data, at, messages)
        self._head = data[at:] if self.error is None else b""
        return messages

    def fill(self, count: int) -> list[bytes]:
        """Take in `count` bytes that were written to the start of `room`, and return the message that they complete.

        0 stands for the end of the stream.
        """
        messages = self._fill(count)
        self._note_between()
        return messages

    def _fill(self, count: int) -> list[bytes]:
        assert self._body is not None
        messages: list[bytes] = []
        self._filled += count
        if count == 0:
            self._end()
        elif self._filled == len(self._body):
            body, self._body, self.room = bytes(self._body), None, None
            self._take(self._flags, body, messages)
        else:
            self._make_room()
        return messages

    def _make_room(self) -> None:
        assert self._body is not None
        self.room = memoryview(self._body)[self._filled :]

    def _read_frames(self, data: bytes, at: int, messages: list[bytes]) -> int:
        """Read frames from `at` on; return where a header begins that is cut off."""
        end = len(data)
        while end - at >= 2:
            flags = data[at]
            start = at + 2
            length = data[at + 1]
            if flags & LONG:
                start = at + _HEADER_BYTES_MAX
                if start > end:
                    break
                length = int.from_bytes(data[at + 1 : start], "big")
            if length > self._limits.get(flags, -1):
                self._refuse(flags, length)
                break
            at = start + length
            if at > end:
                self._flags = flags
                self._filled = end - start
                self._body = bytearray(length)
                self._body[: self._filled] = data[start:]
                self._make_room()
                return end
            if flags & ~LONG or self._frames:
                self._take(flags, data[start:at], messages)
                if self.state is State.FAILED:
                    break
            else:
                messages.append(data[start:at])
        return at

    def _take(self, flags: int, body: bytes, messages: list[bytes]) -> None:
        """Take in a frame of whichever flags."""
        if flags & COMMAND:
            self._take_command(body)
        elif flags & MORE:
            self._frames += 1
            if self._frames == FRAMES_MAX:
                self._fail(Kind.TOO_LARGE, f"sent a message of more than {FRAMES_MAX:,} frames")
        elif self._frames:
            self._frames = 0
            self.ignored += 1
        else:
            messages.append(body)

    def _refuse(self, flags: int, length: int) -> None:
        """Fail for a frame's header."""
        if flags not in _FLAGS_OF_MESSAGES + _FLAGS_OF_COMMANDS:
            self._fail(Kind.MALFORMED, f"sent a frame with the flags 0x{flags:02x}, which mean nothing")
        elif flags not in self._limits:
            self._advance(Event.MESSAGE)  # which the table does not have
        else:
            what = "command" if flags & COMMAND else "message"
            self._fail(Kind.TOO_LARGE, f"sent a {what} of {length:,} bytes where {self._limits[flags]:,} were allowed")

    # ---- the greeting

    def _read_greeting(self, data: bytes) -> int:
        """Look at a greeting as far as it has come; return where the frames begin, or 0."""
        if self.state is State.VERSION:
            self._read_version(data)
        if self.state is not State.MECHANISM or len(data) < _GREETING_BYTES:
            return 0
        self.version = (data[_VERSION_AT], data[_VERSION_END])
        mechanism = data[_MECHANISM_AT:_MECHANISM_END]
        if mechanism != _NULL:
            wanted = mechanism.rstrip(b"\0").decode("ascii", "backslashreplace")
            self.mechanism = wanted if wanted.isprintable() and wanted else _quote(mechanism)
            self._fail(Kind.MECHANISM, f"wants {self.mechanism}, and this side speaks NULL: no encryption, no password")
        elif self._advance(Event.MECHANISM):
            self.waiting += _READY
        return _GREETING_BYTES

    def _read_version(self, data: bytes) -> None:
        if data[0] != 0xFF:
            self._recognize(data)
        elif len(data) < _VERSION_END:
            pass
        elif data[_VERSION_AT - 1] == 0:  # the flags of an identity of more than 253 bytes
            self._fail(Kind.OUTDATED, "speaks ZMTP 1.0 (libzmq 2): version 3 is needed, libzmq 4")
        elif data[_VERSION_AT - 1] != 0x7F:
            self._fail(Kind.FOREIGN, f"does not speak ZeroMQ: it sent {_quote(data)}")
        elif data[_VERSION_AT] < 3:
            self._fail(Kind.OUTDATED, "speaks ZMTP 2.0 (libzmq 3): version 3 is needed, libzmq 4")
        elif self._advance(Event.VERSION):
            self.waiting += _GREETING[_VERSION_END:]

    def _recognize(self, data: bytes) -> None:
        """Fail for a peer that does not greet, as soon as its first bytes show what it speaks."""
        name = next((name for start, name in FOREIGNERS.items() if data.startswith(start)), None)
        if name is not None:
            self._fail(Kind.FOREIGN, f"does not speak ZeroMQ, but {name}")
        elif len(data) == 1 or any(start.startswith(data) for start in FOREIGNERS):
            pass  # it may become anything, or one of them
        elif data[0] and data[1] == 0:  # the header of an identity: a length above 0, the flags
            self._fail(Kind.OUTDATED, "speaks ZMTP 1.0 (libzmq 2): version 3 is needed, libzmq 4")
        else:
            self._fail(Kind.FOREIGN, f"does not speak ZeroMQ: it sent {_quote(data)}")

    # ---- commands

    def _take_command(self, body: bytes) -> None:
        data_at = 1 + body[0] if body else 1
        name, data = body[1:data_at], body[data_at:]
        if not name or data_at > len(body):
            self._fail(Kind.MALFORMED, "sent a command without a name")
            return
        event, take = _COMMANDS.get(name, (Event.COMMAND, None))
        if self.state is State.READY:
            self._handshake_bytes_left -= _HEADER_BYTES_MAX + len(body)
        if self._advance(event) and take is not None:
            take(self, data)

    def _take_ready(self, data: bytes) -> None:
        try:
            self.properties = decode_properties(data)
        except ValueError as error:
            self._fail(Kind.MALFORMED, f"sent READY with {error}")
            return
        kind = self.properties.get(b"socket-type")
        if kind not in PEERS:
            what = "a socket without a type" if kind is None else f"a socket of type {_quote(kind)}"
            self._fail(Kind.SOCKET_TYPE, f"is {what}, not a ROUTER")

    def _take_error(self, data: bytes) -> None:
        reason = data[1 : 1 + data[0]] if data else b""
        self._fail(Kind.REFUSED, f"refuses the connection: {_quote(reason, SHORT_BYTES_MAX)}")

    def _take_ping(self, data: bytes) -> None:
        if len(data) < 2:
            self._fail(Kind.MALFORMED, "sent PING without a time to live")
            return
        pong = encode_command(b"PONG", data[2 : 2 + CONTEXT_BYTES_MAX])
        if len(self.waiting) + len(pong) <= WAITING_BYTES_MAX:
            self.waiting += pong

    # ---- states

    def _advance(self, event: Event) -> bool:
        """Go where the table says; False if the event may not come now."""
        after = TRANSITIONS[self.state].get(event)
        if after is None:
            self._fail(Kind.MALFORMED, f"sent {event.value} where {self.state.value} was due")
            return False
        self.state = after
        self._limits = {}
        if Event.COMMAND in TRANSITIONS[after]:
            left = max(0, self._handshake_bytes_left) if after is State.READY else COMMAND_BYTES_MAX
            self._limits |= dict.fromkeys(_FLAGS_OF_COMMANDS, min(COMMAND_BYTES_MAX, left))
        if Event.MESSAGE in TRANSITIONS[after]:
            self._limits |= dict.fromkeys(_FLAGS_OF_MESSAGES, self._message_bytes_max)
        return True

    def _end(self) -> None:
        """Fail for the end of the stream."""
        if self.state is State.VERSION and len(self._head) < _VERSION_AT:
            sent = f" after {_quote(self._head)}" if self._head else ""
            self._fail(Kind.FOREIGN, f"does not speak ZeroMQ: it closed the connection{sent} when it was greeted")
        elif self.state is State.OPEN:
            where = " in the middle of a frame" if self._body is not None or self._head else ""
            self._fail(Kind.CLOSED, f"closed the connection{where}")
        elif self.state is not State.FAILED:  # libzmq does so when a PUB, say, meets a DEALER
            self._fail(Kind.CLOSED, f"closed the connection where {self.state.value} was due (is it a ROUTER?)")

    def _fail(self, kind: Kind, text: str) -> None:
        self.state = State.FAILED
        self.error = ProtocolError(kind, text)
        self._limits = {}
        self._head = self.waiting = b""
        self._body = self.room = None


_COMMANDS: dict[bytes, tuple[Event, Callable[[Connection, bytes], None]]] = {
    b"READY": (Event.READY, Connection._take_ready),
    b"ERROR": (Event.ERROR, Connection._take_error),
    b"PING": (Event.PING, Connection._take_ping),
}
"""Who takes in which command; of the others (PONG, SUBSCRIBE, CANCEL and those to come) none is for a client."""


def _quote(data: bytes, bytes_max: int = _QUOTED_BYTES_MAX) -> str:
    """Return the start of what a peer sent, fit for a terminal."""
    return repr(data[:bytes_max])[1:] + ("..." if len(data) > bytes_max else "")
