"""What kvzmq has logged in a test. asyncio, say, may log something of an earlier test's, as it is collected."""

from __future__ import annotations

import logging

import pytest


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.partition(".")[0] == "kvzmq"]
