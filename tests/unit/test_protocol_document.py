"""docs/protocol.md is right: its bytes, its tables, its lines of JSON and its client, against the code."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.stepped import Stepped

from kvzmq import errors
from kvzmq.protocol import limits, messages, msgpack, operations, validation
from kvzmq.server import watches
from kvzmq.server.transport import router, router_replies, tcp, tcp_connection
from kvzmq.store import history, sessions

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
UNWRAPPED = " ".join(DOCUMENT.split())


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    section = DOCUMENT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    assert len(found) > 2
    return found[2:]


def test_the_exchange_in_bytes_is_what_the_server_does() -> None:
    requests = [bytes.fromhex(block) for block in blocks("hex request")]
    replies = [bytes.fromhex(block) for block in blocks("hex reply")]
    assert len(requests) == len(replies) == 2
    with Stepped() as table:
        table.store.table.epochs.load(bytes(range(0xD0, 0xE0)), [(bytes(range(0xE0, 0xF0)), 0)])
        peer = table.zmq()
        for request, reply in zip(requests, replies):
            peer.send_frames(request)
            table.until(lambda: peer.socket.poll(0))
            assert peer.socket.recv() == reply


def test_the_exchange_in_bytes_is_what_the_text_beside_it_says() -> None:
    written = re.findall(r"`(\[(?:session|\d), [^`]*\])`:", DOCUMENT)
    frames = [bytes.fromhex(block) for block in blocks("hex (?:request|reply)")]
    assert len(written) == len(frames) == 4
    for text, frame in zip(written, frames):
        message = json.loads(text.replace("nil", "null").replace("session", '"session"'))
        if message[0] == "session":
            message[0] = bytes(range(16))
        assert msgspec.msgpack.encode(message) == frame
        if isinstance(message[0], bytes):
            assert isinstance(msgpack.decode_request(frame), messages.Request)


def test_every_operation_is_listed_with_its_arguments() -> None:
    listed = {
        name.strip("`"): arguments.strip("`") for name, arguments, *_ in rows("Operations") if name.startswith("`")
    }
    assert listed.keys() == operations.OPERATIONS.keys()
    for name, kind in operations.OPERATIONS.items():
        fields = msgspec.structs.fields(kind)
        signature = ", ".join(field.name for field in fields if field.required)
        optional = [field.name for field in fields if not field.required]
        for argument in optional:
            signature += (" [, " if signature else "[") + argument
        assert listed[name] == signature + "]" * len(optional), name


def test_writes_and_reads_stand_under_their_headings() -> None:
    heading = ""
    for name, *_ in rows("Operations"):
        if name.startswith("**"):
            heading = name.strip("*")
        else:
            kind = operations.OPERATIONS[name.strip("`")]
            assert heading == ("writes" if kind.writes else "the server's" if kind in operations.SERVED else "reads")


def test_every_error_is_listed_with_its_code() -> None:
    assert {int(code): name for code, name, _ in rows("Errors")} == {
        code: kind.__name__ for code, kind in errors.BY_CODE.items()
    }


def test_every_limit_is_what_the_code_says() -> None:
    listed = {what: int(re.sub(r"[^\d]", "", value)) for what, value in rows("Limits")}
    assert list(listed.values()) == [
        limits.REQUEST_BYTES_MAX, limits.REQUEST_BYTES_LIMIT, limits.REPLY_BYTES_MAX,
        limits.request_line_bytes_max(limits.REQUEST_BYTES_MAX), limits.REPLY_LINE_BYTES_MAX,
        limits.OPERATIONS_MAX, limits.KEY_CHARS_MAX, validation.DEPTH_MAX, limits.PAGE_ROWS_MAX,
        limits.TTL_S_MAX, sessions.CACHED_REPLIES_MAX, watches.WATCHES_OF_ONE_MAX, watches.WATCHES_MAX,
        router_replies.QUEUED_MESSAGES_MAX, router_replies.UNSENT_BYTES_MAX, router.RECEIVED_MESSAGES_MAX,
        router.IDENTITY_BYTES_MAX, router.ENVELOPE_FRAMES_MAX, router.ENVELOPE_BYTES_MAX, tcp.CONNECTIONS_MAX,
        tcp_connection.UNREAD_BYTES_MAX, tcp.HELD_BYTES_MAX,
    ]  # fmt: skip
    assert limits.LARGE_BYTES_MIN == 16 << 10 and limits.JSON_GROWTH == 7 and "seven" in DOCUMENT
    for stated, number in (
        ("65,536 sessions", sessions.SESSIONS_MAX), ("latest 128 replies", sessions.CACHED_REPLIES_MAX),
        ("latest 65,536 changes", history.CHANGES_KEPT), ("exceed 32 MiB", tcp.QUEUED_BYTES_MAX >> 20),
        ("32 MiB of keys and values", history.BYTES_KEPT >> 20), ("1 MiB of them", sessions.CACHED_BYTES_MAX >> 20),
        ("128 MiB in all", sessions.ALL_CACHED_BYTES_MAX >> 20),
        ("nothing for 10 seconds", int(limits.SILENCE_S_MAX)),
        ("after 1,000 changes", watches.PROGRESS_CHANGES),
    ):  # fmt: skip
        assert stated in UNWRAPPED and int(re.sub(r"[^\d]", "", stated)) == number
    assert tcp.STALLED_S == 10 and router.UNACKNOWLEDGED_MS_MAX == 10_000 and "for ten seconds" in UNWRAPPED
    assert history.CHANGES_KEPT_MAX == 4 * history.CHANGES_KEPT and history.BYTES_KEPT_MAX == 4 * history.BYTES_KEPT
    assert limits.HEARTBEAT_S + watches.HEARTBEAT_CHECK_S + 1.0 < 5.0 and "at least every 5 seconds" in UNWRAPPED


def test_the_lines_of_the_bridge_are_what_the_server_answers() -> None:
    with Stepped() as table:
        peer = table.tcp()
        exchanged = 0
        for block in blocks("json"):
            lines = block.splitlines()
            for request, reply in zip(lines[::2], lines[1::2]):
                peer.send(request.encode() + b"\n")
                assert table.lines(peer, 1) == [json.loads(reply)], request
                exchanged += 1
    assert exchanged == 11


def test_the_client_of_the_document_works_and_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = blocks("python")
    names: dict[str, Any] = {"pack": msgspec.msgpack.encode, "unpack": msgspec.msgpack.decode}
    exec(compile(source, "docs/protocol.md", "exec"), names)
    with Stepped() as table:
        done: list[Any] = []
        failed: list[BaseException] = []
        dropped: list[int] = []
        send = table.router.send

        def drop_every_third(peer: Any, reply: messages.Reply) -> None:
            if len(dropped) < 3 and reply.seq is not None and reply.seq % 3 == 0 and reply.seq not in dropped:
                dropped.append(reply.seq)
            else:
                send(peer, reply)

        monkeypatch.setattr(table.router, "send", drop_every_third)

        def use() -> None:
            try:
                client = names["Table"](table.url)
                done.extend(client.call("increment", "n") for _ in range(9))
                done.append(client.call("lookup", "n"))
                done.append(client.revision)
                with pytest.raises(KeyError):
                    client.call("lookup", "ghost")
                with pytest.raises(RuntimeError):
                    client.call("frobnicate")
                client.socket.context.destroy(linger=0)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        table.until(lambda: not thread.is_alive())
        assert not failed, failed
        assert done == [*range(1, 10), 9, 9], "every increment was executed once, also those whose reply was lost"
        assert len(dropped) == 3
