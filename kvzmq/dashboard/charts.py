"""Where the charting library is found: Apache ECharts, as the package nicegui has it.

Nothing of nicegui is imported, and none of its code runs. It is chosen in docs/design.md.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

_WITHIN = Path("elements", "echart", "dist")
ENTRY = "index.js"
"""The module that exports `echarts`; it imports the others of its directory by relative names."""


class NoCharts(Exception):
    """The charting library is not there; the message says what to install."""


def directory() -> Path:
    """Return the directory of the library's modules.

    Raises:
        NoCharts: it is not installed, or not where it is expected
    """
    found = find_spec("nicegui")
    if found is None or not found.submodule_search_locations:
        raise NoCharts("the charts need a package that is not installed: pip install 'kvzmq[web]'")
    for place in found.submodule_search_locations:
        if (Path(place) / _WITHIN / ENTRY).is_file():
            return Path(place) / _WITHIN
    raise NoCharts("the installed nicegui has its charts in another place: pip install 'nicegui>=3.18,<4'")
