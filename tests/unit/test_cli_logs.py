"""The two forms of the log."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest

from kvzmq.cli.logs import last_word, set_up


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """Give the tests' own handlers back."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    logger.handlers.clear()
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


_log = logging.getLogger("kvzmq.some.where")


def test_a_line_of_json_has_time_level_logger_event_message_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info", "json")
    _log.info("%d rows, said \u00fc\n", 3, extra={"event": "counted", "rows": 3, "where": None})
    _log.debug("nobody asked")
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "info", "logger": "kvzmq.some.where", "event": "counted", "message": "3 rows, said \u00fc\n",
        "rows": 3, "where": None,
    }  # fmt: skip
    assert list(json.loads(line))[:5] == ["time", "level", "logger", "event", "message"]


def test_no_message_can_forge_a_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Seen red with: messages written as they are."""
    set_up("info", "text")
    _log.warning("refused: %s", "a\n2026-01-01 00:00:00,000 INFO stopped\r")
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\S+ \S+ WARNING refused: a\\n2026-01-01 00:00:00,000 INFO stopped\\r", line)


def test_level_and_format_can_be_changed(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("error", "text")
    _log.warning("one")
    set_up("debug", "json")
    _log.debug("two")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "two"


def test_the_last_word_is_said_at_every_level(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("error", "text")
    last_word("port in use", "refused_to_start", 3)
    assert capsys.readouterr().err == "kvzmq: port in use\n"
    set_up("error", "json")
    last_word("port in use", "refused_to_start", 3)
    found = json.loads(capsys.readouterr().err)
    assert (found["event"], found["message"], found["exit_code"]) == ("refused_to_start", "port in use", 3)
