"""Sizes and times as people read them."""

from __future__ import annotations

import pytest

from kvzmq.units import brief


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 us"), (0.000_087_4, "87 us"), (0.000_999_4, "999 us"), (0.000_999_6, "1 ms"), (0.001_254, "1.25 ms"),
        (0.9994, "999 ms"), (0.9996, "1 s"), (3.1, "3.1 s"), (99.94, "99.9 s"), (1234.5, "1,234 s"),
    ],
)  # fmt: skip
def test_a_short_time_has_one_unit(seconds: float, text: str) -> None:
    assert brief(seconds) == text
