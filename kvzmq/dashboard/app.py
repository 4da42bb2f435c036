"""The routes of the dashboard: its page, what the page loads, and what it asks for. Everything is read-only."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kvzmq import errors
from kvzmq.dashboard import charts
from kvzmq.dashboard.changes import Changes, TooManyPrefixes
from kvzmq.dashboard.collector import Collector
from kvzmq.dashboard.lanes import TRACE_BYTES_MAX, Lanes, of_text
from kvzmq.dashboard.rows import Rows
from kvzmq.dashboard.safety import Safety
from kvzmq.dashboard.servers import Servers
from kvzmq.dashboard.shown import printable
from kvzmq.dashboard.streams import Streams, TooMany, send_within
from kvzmq.dashboard.turns import Busy, Turns
from kvzmq.tracing.interleaving import BadTraceLine

PAGES = ("/", "/clients", "/table", "/lanes", "/servers")
"""All are one page, which shows the part that its address names."""

_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_KEY_CHARS_MAX = 65_536
_DIGITS_MAX = 18
UPLOAD_S_MAX = 60.0
"""How long a trace may take to come."""

UPLOADS_MAX = 2
"""How many traces are taken in at a time: each may take TRACE_BYTES_MAX several times over, while it is read."""

_GZIP_BYTES_MIN = 512

_encode_json = msgspec.json.Encoder().encode


class BadRequest(Exception):
    """The page asked for something that cannot be: 400, with the message."""


class Parts(NamedTuple):
    """What the app is made of."""

    collector: Collector
    streams: Streams
    rows: Rows
    changes: Changes
    servers: Servers
    lanes: Lanes


def make_app(
    parts: Parts, is_loopback: bool = True, hosts: Collection[str] = (), token: bytes | None = None
) -> ASGIApp:
    """Return the app; see Safety for who may ask it.

    Raises:
        NoCharts: the charting library is not there
    """
    static = _Files({"/static": Path(str(files("kvzmq.dashboard") / "static")), "/charts": charts.directory()})
    ask = _Asked(parts)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(parts.collector.run()), asyncio.create_task(parts.changes.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    routes = [Route(path, static.index) for path in PAGES]
    routes += [Route(f"{at}/{{name}}", static.file) for at in static.places]
    routes.append(Route("/events", _EventStream(parts.streams), methods=["GET"]))
    routes += [
        Route(f"/api/{name}", _json(answer), methods=["GET", "POST"] if name == "trace" else ["GET"])
        for name, answer in ask.answers.items()
    ]
    return Safety(Starlette(routes=routes, lifespan=lifespan), is_loopback, hosts, token)


class _Asked:
    """What the page asks for, and what it is answered."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._uploads = Turns("traces", UPLOADS_MAX, 0)
        self.answers: Mapping[str, Callable[[Request], Awaitable[object]]] = {
            "clients": self.clients,
            "rows": self.rows,
            "query": self.query,
            "row": self.row,
            "history": self.history,
            "changes": self.changes,
            "servers": self.servers,
            "lanes": self.lanes,
            "trace": self.trace,
        }

    async def clients(self, _: Request) -> object:
        rates = self._parts.collector.rates
        if rates is None:
            return {"clients": None}
        ours = [
            {**one.client, "requests_per_s": one.requests_per_s, "received_bytes_per_s": one.received_bytes_per_s}
            for one in rates.clients
        ]
        return {"clients": ours, "span_s": rates.span_s}

    async def rows(self, request: Request) -> object:
        return await self._parts.rows.page(_text(request, "prefix", ""), _text(request, "after", None))

    async def query(self, request: Request) -> object:
        return await self._parts.rows.query(_needed(request, "subkey"), _needed(request, "subvalue"))

    async def row(self, request: Request) -> object:
        try:
            return await self._parts.rows.whole(_needed(request, "key"))
        except errors.NoSuchKey:
            return {"row": None}

    async def history(self, request: Request) -> object:
        return await self._parts.rows.history(_needed(request, "key"))

    async def changes(self, request: Request) -> object:
        return self._parts.changes.after(_text(request, "prefix", ""), _number(request, "after"))

    async def lanes(self, request: Request) -> object:
        try:
            seconds = float(_needed(request, "seconds"))
        except ValueError:
            raise BadRequest("seconds is a number") from None
        return await self._parts.lanes.sample(seconds)

    async def trace(self, request: Request) -> object:
        """Draw the trace in the request's body, or else the one that the dashboard was given; `about` asks for that."""
        lanes = self._parts.lanes
        if request.query_params.get("about"):
            return {"served": None if lanes.trace is None else lanes.trace.name}
        first_step = _number(request, "step")
        if request.method == "POST":
            async with self._uploads.one():
                return await _drawn(request, first_step)
        if lanes.trace is None:
            raise BadRequest("no trace: kvzmq dashboard --trace FILE gives it one")
        return await lanes.of_file(first_step)

    async def servers(self, _: Request) -> object:
        return await self._parts.servers.find()


async def _drawn(request: Request, first_step: int | None) -> object:
    """Return the picture of the trace in a request's body."""
    try:
        body = await asyncio.wait_for(_body(request, TRACE_BYTES_MAX), UPLOAD_S_MAX)
    except asyncio.TimeoutError:
        raise BadRequest(f"the trace did not come within {UPLOAD_S_MAX:g} s") from None
    name = printable(_text(request, "name", "a trace"))
    return await asyncio.to_thread(of_text, io.StringIO(body.decode("utf-8", "replace")), name, first_step)


def _text(request: Request, name: str, absent: str | None) -> Any:
    found = request.query_params.get(name, absent)
    if found is not None and len(found) > _KEY_CHARS_MAX:
        raise BadRequest(f"{name} is longer than {_KEY_CHARS_MAX} characters")
    return found


def _needed(request: Request, name: str) -> str:
    found = _text(request, name, None)
    if found is None:
        raise BadRequest(f"{name} is missing")
    return str(found)


def _number(request: Request, name: str) -> int | None:
    text = _text(request, name, None)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > _DIGITS_MAX:
        raise BadRequest(f"{name} is a number")
    return int(text)


async def _body(request: Request, bytes_max: int) -> bytes:
    """Return the body of a request, which is not read further than that."""
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > bytes_max:
            raise BadRequest(f"that is longer than {bytes_max >> 20} MiB: cut it, with head or tail")
    return bytes(found)


_STATUS: Mapping[type[Exception], int] = {
    BadRequest: 400,
    BadTraceLine: 400,
    ValueError: 400,  # of the client: a key or a prefix that cannot be
    TooManyPrefixes: 503,
    Busy: 503,
    errors.Timeout: 504,
    errors.KvzmqError: 502,
    OSError: 502,
}
"""How the page is told of an error; the first kind that fits counts."""


def _json(answer: Callable[[Request], Awaitable[object]]) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        try:
            status, found = 200, await answer(request)
        except tuple(_STATUS) as error:
            status = next(code for kind, code in _STATUS.items() if isinstance(error, kind))
            found = {"error": str(error)}
        return Response(_encode_json(found), status, media_type="application/json")

    return respond


class _EventStream:
    """Answers /events."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._streams.one() as events:
                sending = asyncio.create_task(_send_events(events, send))
                gone = asyncio.create_task(_until_gone(receive))
                ended = asyncio.create_task(self._streams.ended.wait())
                tasks = (sending, gone, ended)
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                if self._streams.ended.is_set():
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TooMany as full:
            # Without a body of events the browser would give up for good; so the page tries again later by itself.
            await PlainTextResponse(f"{full}\n", 503, {"Retry-After": "5"})(scope, receive, send)


async def _send_events(events: AsyncIterator[bytes], send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for event in events:
        if not await send_within(send({"type": "http.response.body", "body": event, "more_body": True})):
            return


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _File(NamedTuple):
    data: bytes
    packed: bytes | None
    tag: str
    kind: str


class _Files:
    """The files of some directories, kept in memory, packed if the browser takes that.

    Args:
        places: the directories by the path they are served at
    """

    def __init__(self, places: Mapping[str, Path]) -> None:
        self.places = places
        self._names = {(at, path.name): path for at, place in places.items() for path in place.iterdir()}
        self._kept: dict[Path, _File] = {}

    async def index(self, request: Request) -> Response:
        return self._respond(request, self._names["/static", "index.html"])

    async def file(self, request: Request) -> Response:
        at = request.url.path.rpartition("/")[0]
        path = self._names.get((at, request.path_params["name"]))
        if path is None or path.suffix not in _TYPES:
            return PlainTextResponse("no such file\n", 404)
        return self._respond(request, path)

    def _respond(self, request: Request, path: Path) -> Response:
        file = self._kept.get(path)
        if file is None:
            file = self._kept[path] = _read(path)
        headers = {"ETag": file.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        if file.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            return Response(file.packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=file.kind)
        return Response(file.data, headers=headers, media_type=file.kind)


def _read(path: Path) -> _File:
    data = path.read_bytes()
    packed = gzip.compress(data, 6) if len(data) >= _GZIP_BYTES_MIN else None
    return _File(data, packed, f'"{hashlib.sha256(data).hexdigest()[:32]}"', _TYPES[path.suffix])
