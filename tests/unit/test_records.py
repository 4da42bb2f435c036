"""Lines of requests, as wide as the terminal."""

from __future__ import annotations

import pytest

from kvzmq.cli import records

CELLS = ["03:32:26.148", "5.54 ms", "200 us", "103 us", "5.11 ms", "126 us", "zmq:2008654a", "compare_and_set",
         "robots/7", "NoSuchKey", "120 bytes", "3 bytes"]  # fmt: skip


@pytest.mark.parametrize("columns", range(60, 200, 5))
def test_a_line_fits_the_terminal_and_its_head(columns: int) -> None:
    head, line = records.line(records.HEADS, columns), records.line(CELLS, columns)
    assert len(head) <= columns and len(line) <= columns
    assert "robots/7" in line and "compare_and_set" in line and "5.54 ms" in line and "NoSuchKey" in line
    assert line.index("robots/7") == head.index("key")


def test_a_wide_terminal_has_every_column() -> None:
    assert records.line(CELLS, 150).split() == " ".join(CELLS).split()
    assert records.line(records.HEADS, 150).split() == list(records.HEADS)


def test_a_narrow_one_leaves_out_sizes_first_and_then_phases() -> None:
    assert records.line(records.HEADS, 122).split() == list(records.HEADS[:10])
    left = ["received", "took", "executed", "synced", "operation", "key", "answer"]
    assert records.line(records.HEADS, 80).split() == left


def test_a_long_key_takes_what_room_there_is() -> None:
    cells = [*CELLS]
    cells[8] = "k" * 100
    assert records.line(cells, 122).count("k") == 19 and records.line(cells, 200).count("k") == 75
    cells[8] = "a\nb"
    assert "a\\nb" in records.line(cells, 80)
