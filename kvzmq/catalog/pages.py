"""The HTTP answers of a catalog: the bytes of a request in, the bytes of the answer out. No I/O."""

from __future__ import annotations

import base64
import html
import re
import string
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from kvzmq.catalog.addresses import parse_address
from kvzmq.catalog.announce import TABLE, TABLE_TYPES
from kvzmq.catalog.lookup import LINEAGE_DIGITS, entry_of, newest_revisions
from kvzmq.catalog.table import Catalog, Record
from kvzmq.catalog.where import parse_where, satisfies

REQUEST_BYTES_MAX = 8 * 1024
"""The longest head of a request."""

PAGE_ROWS_MAX = 1_000
"""How many entries the HTML page shows, the newest."""

CELL_CHARS_MAX = 120
"""How much of a field a cell of the page has."""

_WIDE_CHARS = 24
"""From how many characters on a cell may be truncated by the style, and so has a title."""

WARNINGS_MAX = 20
"""How many warnings the page shows."""

QUIET_S = 150.0
"""A server is shown as quiet after this: two announcements, one a minute, did not come."""

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (?:http://[^/ \r\n]*)?(/[^ \r\n]*) HTTP/1\.[01]\r?\n")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_TEXT = "text/plain; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_JSON = "application/json"

_NOT_EVALUATED = (
    b'# This catalog evaluates only expressions such as  type=="hashtable" and project=="name".\n'
    b"# Ask for /query.json, and filter what comes.\n"
)


class Pages:
    """The answers to the HTTP requests that come to a catalog."""

    def __init__(self, catalog: Catalog, here: str) -> None:
        """Serve what `catalog` knows. `here` is its address, HOST:PORT, to be shown to people."""
        self._catalog = catalog
        self._here = here
        self._host = parse_address(here)[0]
        self._pages: dict[str, tuple[str, Callable[[], bytes]]] = {
            "/": (_HTML, self.html),
            "/query.html": (_HTML, self.html),
            "/query.json": (_JSON, self.json),
            "/query.text": (_TEXT, self.text),
        }

    def answer(self, received: bytes) -> bytes | None:
        """Return the answer to the bytes received on a connection so far, or None if the request is incomplete."""
        end = _END_OF_HEAD.search(received)
        # Up to three bytes of the end may have been received already: the answer must depend on the bytes, not on how
        # they were split.
        if (end.start() if end else len(received) - 3) > REQUEST_BYTES_MAX:
            return _response("431 Request Header Fields Too Large", _TEXT, b"The request is too long.\n")
        if end is None:
            return None
        line = _REQUEST_LINE.match(received)
        if line is None:
            return _response("400 Bad Request", _TEXT, b"This is not an HTTP/1 request.\n")
        if line[1] not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", _TEXT, b"Only GET and HEAD are served.\n")
        status, content_type, body = self._page(line[2].decode("latin-1").partition("?")[0])
        return _response(status, content_type, body, with_body=line[1] == b"GET")

    def json(self) -> bytes:
        """Return all entries as a JSON array, one a line, the least recently updated first."""
        return _array(self._catalog.records())

    def text(self) -> bytes:
        """Return all entries as lines of name and value, with an empty line after each entry."""
        entries = (record.fields().items() for record in self._catalog.records())
        return "".join(
            "".join(f"{_one_line(name)} {_one_line(value)}\n" for name, value in fields) + "\n" for fields in entries
        ).encode()

    def html(self) -> bytes:
        """Return the HTML page: the newest entries by project, of each project first the one that lookups return."""
        records = self._catalog.records()
        now_s = self._catalog.now_s()
        shown = [(record.fields(), now_s - record.heard_s) for record in reversed(records[-PAGE_ROWS_MAX:])]
        newest = {_kind(fields): fields for fields, _ in reversed(shown)}
        revisions = newest_revisions(entry for fields, _ in shown if (entry := entry_of(fields)) is not None)
        rows = [
            _row(
                self._shown(fields, revisions),
                age_s,
                replaced="project" in fields and fields is not newest[_kind(fields)],
            )
            for fields, age_s in sorted(shown, key=lambda each: _group(each[0]))
        ]
        warnings = _warnings(fields for fields, _ in shown)
        left_out, refused = len(records) - len(rows), self._catalog.refused
        return _PAGE.substitute(
            here=html.escape(self._here),
            count=f"{len(records):,} {'entry' if len(records) == 1 else 'entries'}",
            lifetime=_duration(self._catalog.lifetime_s),
            head="".join(f"<th class={column.kind}>{column.title}</th>" for column in _COLUMNS),
            rows="\n".join(rows) or _NO_ROWS,
            warnings="".join(f"<p class=warning>{html.escape(warning)}</p>\n" for warning in warnings),
            quiet=_duration(QUIET_S),
            left_out=f"<p>{left_out:,} older entries are in the lists only.</p>" if left_out else "",
            refused=f"<p>Updates refused so far: {refused:,}.</p>" if refused else "",
        ).encode()

    def _shown(self, fields: dict[str, Any], newest: dict[str, int]) -> dict[str, Any]:
        """Return an entry's fields as they are shown.

        That is: the endpoint that clients connect to, the lineage in short, and of a table with several servers how
        many changes this one is behind what another has announced.
        """
        entry = entry_of(fields)
        if entry is None:
            return fields
        lineage = entry.lineage[:LINEAGE_DIGITS] or None
        behind = newest[entry.lineage] - entry.revision if entry.lineage in newest else None
        endpoint = entry.url(self._host) or fields.get("endpoint")
        return {**fields, "lineage": lineage, "endpoint": endpoint, "behind": behind}

    def _page(self, path: str) -> tuple[str, str, bytes]:
        if path in self._pages:
            content_type, make = self._pages[path]
            return "200 OK", content_type, make()
        if path.startswith("/query/"):
            return self._filtered(path.removeprefix("/query/"))
        return "404 Not Found", _TEXT, b"There are /, /query.json and /query.text.\n"

    def _filtered(self, encoded: str) -> tuple[str, str, bytes]:
        try:
            expression = base64.b64decode(urllib.parse.unquote(encoded), validate=True).decode()
        except ValueError:
            return "400 Bad Request", _TEXT, b"The expression is not in base64.\n"
        wanted = parse_where(expression)
        if wanted is None:
            # Not an error status: after one, catalog_query gives up. After an answer that is not JSON it asks for
            # /query.json and filters the entries itself; and it accepts a comment without a warning.
            return "200 OK", _TEXT, _NOT_EVALUATED
        records = self._catalog.records()
        if wanted:
            records = [record for record in records if satisfies(record.fields(), wanted)]
        return "200 OK", _JSON, _array(records)


def _response(status: str, content_type: str, body: bytes, with_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\n"
        "Server: kvzmq-catalog\r\n"
        "Connection: close\r\n"
        "Cache-Control: no-store\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; img-src data:\r\n"
        "\r\n"
    )
    return head.encode() + (body if with_body else b"")


def _array(records: Iterable[Record]) -> bytes:
    return b"[\n" + b",\n".join(record.json for record in records) + b"\n]\n"


def _one_line(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return " ".join(text.splitlines())


# --- The HTML page -----------------------------------------------------------------------------------------


class _Column(msgspec.Struct, frozen=True):
    field: str
    title: str
    kind: str = "text"


_COLUMNS = (
    _Column("type", "Type"),
    _Column("project", "Project", "project"),
    _Column("owner", "Owner"),
    _Column("address", "Address", "code"),
    _Column("port", "Port", "id"),
    _Column("endpoint", "Endpoint", "code"),
    _Column("lineage", "Lineage", "code"),
    _Column("revision", "Revision", "number"),
    _Column("behind", "Behind", "number"),
    _Column("keys", "Keys", "number"),
    _Column("clients", "Clients", "number"),
    _Column("", "Last heard", "age"),
)

_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def _kind(fields: dict[str, Any]) -> tuple[str, str]:
    """Return type and project, by which programs that look for a port select: they use the newest entry of both."""
    return str(fields.get("type", "")), str(fields.get("project", ""))


def _group(fields: dict[str, Any]) -> tuple[str, str]:
    """Return by what rows of the page are grouped: type and project, where both types of table servers are one."""
    type, project = _kind(fields)
    return TABLE if type in TABLE_TYPES else type, project


def _warnings(entries: Iterable[dict[str, Any]]) -> list[str]:
    """Return a warning for each project that several tables are announced as."""
    tables: dict[str, set[str]] = {}
    for fields in entries:
        entry = entry_of(fields)
        if entry is not None and entry.type in TABLE_TYPES and entry.lineage:
            tables.setdefault(entry.project, set()).add(entry.lineage)
    several = [(project, sorted(lineages)) for project, lineages in sorted(tables.items()) if len(lineages) > 1]
    return [
        f"{len(lineages)} tables are announced as {_cut(_one_line(project))}, lineages "
        f"{_cut(', '.join(lineage[:LINEAGE_DIGITS] for lineage in lineages))}. A client that has used none of them "
        "takes the newest server that answers: give all tables but one another name."
        for project, lineages in several[:WARNINGS_MAX]
    ]


def _row(fields: dict[str, Any], age_s: float, replaced: bool) -> str:
    marks = [mark for mark, holds in (("replaced", replaced), ("quiet", age_s > QUIET_S)) if holds]
    cells = [_cell(column.kind, fields.get(column.field)) for column in _COLUMNS[:-1]]
    cells.append(f"<td class=age>{_duration(age_s)} ago{', quiet' if 'quiet' in marks else ''}</td>")
    return f'<tr class="{" ".join(marks)}">{"".join(cells)}</tr>'


def _cell(kind: str, value: object) -> str:
    grouped = kind == "number" and isinstance(value, int) and not isinstance(value, bool)
    text = "–" if value is None else f"{value:,}" if grouped else _one_line(value)
    cut = _cut(text)
    shown = html.escape(cut)
    # The style truncates wide cells; the title shows the whole text when the mouse is over it.
    title = f' title="{shown}"' if len(cut) > _WIDE_CHARS else ""
    return f"<td class={kind}{title}>{shown}</td>"


def _cut(text: str) -> str:
    return text if len(text) <= CELL_CHARS_MAX else text[: CELL_CHARS_MAX - 1] + "…"


def _duration(seconds: float) -> str:
    unit_s, unit = next((each for each in _UNITS if seconds >= each[0]), (1.0, "s"))
    return f"{int(seconds / unit_s)} {unit}"


_NO_ROWS = f"<tr><td class=none colspan={len(_COLUMNS)}>Nothing has announced itself yet.</td></tr>"

# No script, no font, no picture; the empty icon keeps browsers from requesting one.
_PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="30">
<link rel="icon" href="data:,">
<title>Catalog $here</title>
<style>
:root { color-scheme: light dark;
  --ink: #1c2430; --soft: #667085; --line: #e3e7ee; --paper: #fff; --band: #f5f7fa; --link: #0b6e4f; --late: #b93815 }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6e9ef; --soft: #98a2b3; --line: #2c3442; --paper: #12161d; --band: #1a202a;
  --link: #5fd3a6; --late: #f79009 } }
body { margin: 0; padding: 2rem clamp(1rem, 4vw, 3rem); background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 1.5rem; font-weight: 650 }
p { margin: .25rem 0; color: var(--soft) }
a { color: var(--link) }
code, td.code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .9em }
p code { display: inline-block }
.frame { margin: 1.25rem 0; overflow-x: auto; border: 1px solid var(--line); border-radius: 8px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .5rem .7rem; text-align: left; white-space: nowrap; unicode-bidi: isolate }
th { background: var(--band); color: var(--soft); font-size: .8rem; font-weight: 600 }
td { max-width: 15rem; overflow: hidden; text-overflow: ellipsis; border-top: 1px solid var(--line) }
td.project { font-weight: 600 }
.number, .id, .age { text-align: right }
.replaced td { color: var(--soft); font-weight: 400 }
.quiet td.age, p.warning { color: var(--late) }
td.none { padding: 2rem; text-align: center; color: var(--soft) }
</style>
</head>
<body>
<h1>Catalog</h1>
<p>$count at <code>$here</code>, each dropped after $lifetime without a word from it.
As a list: <a href="/query.json">JSON</a>, <a href="/query.text">text</a>.</p>
$warnings<div class="frame">
<table>
<thead><tr>$head</tr></thead>
<tbody>
$rows
</tbody>
</table>
</div>
<p>kvzmq's clients try the servers of a project from the newest entry on. Programs that look for a port take
the newest of their type and project; the others are grey. A server is quiet if it was not heard for $quiet: killed or
cut off. Behind is by how many changes the newest server of the same table is ahead, as they were when each was
last heard.
To be listed: <code>kvzmq server --project NAME --catalog $here</code></p>
$left_out$refused
</body>
</html>
""")
