"""The type of arguments that are files read from any offset; by itself, as other commands need no pathlib: 3 ms."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import click


class RegularFile(click.Path):
    """The path of a file that is read from any offset, more than once; or of a directory, where that is taken.

    A pipe is refused, as opening one waits for somebody who writes into it.
    """

    def __init__(self, directories: bool = False) -> None:
        super().__init__(exists=True, dir_okay=directories, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        super().convert(value, param, ctx)  # fails where there is none
        path = Path(value)
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            self.fail(f"{str(path)!r} is a pipe or a device: write what comes out of it to a file first", param, ctx)
        return path
