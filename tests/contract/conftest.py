"""What the contract's tests of logs share."""

from __future__ import annotations

import pytest
from support.etcd_log import wait_at_most
from support.servers import PATIENCE_S


@pytest.fixture(autouse=True)
def waits_for_etcd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine's disk may stand still for longer than a server waits for etcd."""
    wait_at_most(monkeypatch, PATIENCE_S)
