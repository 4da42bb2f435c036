"""The type of options that are a number of seconds, or of another unit: its errors name the unit, with an example."""

from __future__ import annotations

import math
from typing import Any

import click


class Quantity(click.FloatRange):
    """A number of some unit, within bounds. Click's own error calls it a float range.

    Args:
        unit: in the plural, as in "a number of seconds"
        lowest: the least that is taken
        highest: the most that is taken
        above: whether `lowest` itself is refused
    """

    def __init__(self, unit: str, lowest: float = 0.0, highest: float | None = None, above: bool = False) -> None:
        super().__init__(lowest, highest, min_open=above)
        bounds = f"above {lowest:g}" if above else f"from {lowest:g} on" if highest is None else ""
        self._wanted = f"a number of {unit} {bounds or f'from {lowest:g} to {highest:g}'}: 5, or 2.5"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            found = float(super().convert(value, param, ctx))
        except click.BadParameter:
            found = math.nan
        if math.isnan(found):
            self.fail(f"{value!r} is not {self._wanted}", param, ctx)
        return found
