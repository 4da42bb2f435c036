"""Click's base class of types of parameters, which says what a type converts to: generic with every click since 8.2.1.

Click's own is since 8.4; for the type checker it is that one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click import ParamType
else:

    class ParamType(click.ParamType):
        """Base class of types of parameters; `ParamType[int]` is the class itself."""

        def __class_getitem__(cls, _: Any) -> type:
            return cls


__all__ = ["ParamType"]
