"""Rows and their history, as the dashboard asks a real server for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from support.servers import ServerProcess

import kvzmq
from kvzmq.dashboard.reader import connect
from kvzmq.dashboard.rows import CHANGES_MAX, PAGE_ROWS_MAX, SESSION_DIGITS, Rows


def asked(url: str, test: Callable[[Rows], Awaitable[None]], data: Path | None = None) -> None:
    async def run() -> None:
        table = connect(url)
        try:
            await test(Rows(lambda: table, data))
        finally:
            await table.close()

    asyncio.run(run())


def test_rows_come_in_pages_that_miss_none(tmp_path: Path) -> None:
    async def test(rows: Rows) -> None:
        seen: list[str] = []
        more = True
        while more:
            page = await rows.page("a/", seen[-1] if seen else None)
            seen += [row.key for row in page["rows"]]
            more = page["more"]
        assert seen == [f"a/{number:04}" for number in range(2 * PAGE_ROWS_MAX + 7)]
        found = await rows.query("n", "5")
        assert [row.key for row in found["rows"]] == ["a/0005"] and found["count"] == 1
        assert (await rows.query("name", "bare text"))["count"] == 1
        assert (await rows.query("name", "[" * 100_000))["count"] == 0, "as JSON it would be too deep"

    with ServerProcess(tmp_path / "data") as server, kvzmq.connect(server.url) as table:
        table.insert_many({f"a/{number:04}": {"n": number} for number in range(2 * PAGE_ROWS_MAX + 7)})
        table["b"] = {"name": "bare text"}
        asked(server.url, test)


def test_a_row_has_the_history_that_the_server_has(tmp_path: Path) -> None:
    """Of its own key alone; after a restart the server has what came since, and says from where on."""

    async def before(rows: Rows) -> None:
        (part,) = (await rows.history("key"))["parts"]
        assert (part.source, part.since) == ("server", "after revision 0")
        assert [(change.operation, change.text) for change in part.changes] == [("removed", None), ("set", "1")]
        assert part.changes[0].revision == 3

    async def after(rows: Rows) -> None:
        (part,) = (await rows.history("key"))["parts"]
        assert [(change.operation, change.text, change.revision) for change in part.changes] == [("set", "2", 4)]
        assert part.since == "after revision 3"

    with ServerProcess(tmp_path / "data") as server:
        with kvzmq.connect(server.url) as table:
            table["key"] = 1
            table["key of another"] = 1
            table.remove("key")
            asked(server.url, before)
            for _ in table.backup():  # after which a checkpoint has them, without their history
                pass
        server.kill()
        server.start()
        with kvzmq.connect(server.url) as table:
            table["key"] = 2
            asked(server.url, after)


def test_the_log_tells_times_and_sessions_too(tmp_path: Path) -> None:
    async def test(rows: Rows) -> None:
        (part,) = (await rows.history("key"))["parts"]
        assert part.source == "log" and len(part.changes) == CHANGES_MAX and part.more
        assert all(change.time_s and change.session and change.seq for change in part.changes)
        assert {len(change.session or "") for change in part.changes} == {SESSION_DIGITS}, "not all of it"
        latest = [(change.operation, change.text) for change in part.changes[:4]]
        assert latest == [("remove", None), ("increment", '["key", 2]'), ("insert_many", "7"), ("insert", "209")]

    with ServerProcess(tmp_path / "data") as server:
        with kvzmq.connect(server.url) as table:
            for number in range(CHANGES_MAX + 10):
                table["key"] = number
            table.insert_many({"another": 1, "key": 7})
            table.increment("key", 2)
            table.remove("key")
        asked(server.url, test, tmp_path / "data")
