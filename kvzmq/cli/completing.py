"""Completion of keys in bash, zsh and fish: asks the server for them, with a short timeout, and ignores failures."""

from __future__ import annotations

import re
from itertools import islice

import click
from click.shell_completion import CompletionItem

from kvzmq.cli.connection import URL_OPTION

TIMEOUT_S = 0.5
"""How long a completion may take, seconds."""

KEYS_MAX = 100
"""How many keys are offered."""

_PLAIN = re.compile(r"[\w./@%+,=:^-]+")
"""Matches keys that need no quotes in a shell: others cannot be completed."""


def keys(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return the table's keys that begin with what was typed."""
    root = ctx.find_root().params
    url = ctx.meta.get(URL_OPTION) or root.get("url")
    try:
        from kvzmq.client.sync.client import connect

        with connect(str(url), TIMEOUT_S, curve_key=root.get("curve_key"), server_key=root.get("server_key")) as table:
            found = list(islice(table.keys(incomplete), KEYS_MAX))
    except Exception:  # a message would appear in the middle of the line that is being typed
        return []
    return [CompletionItem(key) for key in found if _PLAIN.fullmatch(key)]
