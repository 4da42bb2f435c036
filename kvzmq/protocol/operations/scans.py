"""Operations that scan: their results depend on all rows, or on all below a prefix."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw

from kvzmq.protocol.declaration import Operation, its_prefix, the_whole_table
from kvzmq.protocol.limits import PAGE_ROWS_MAX
from kvzmq.protocol.operations.arguments import a_page, check_page, check_subkey, its_limit, its_subvalue


class Size(Operation, tag="size"):
    """Count the rows. Payload: an integer."""

    mark = "s"
    scans = True
    accesses = the_whole_table


class Query(Operation, tag="query"):
    """Find the rows whose value is a map in which `subkey` equals `subvalue`.

    Payload: an array of `[key, value]`, sorted by key.
    """

    subkey: str
    subvalue: Raw

    mark = "q"
    scans = True
    accesses = the_whole_table
    weight = a_page
    values = its_subvalue
    check = check_subkey

    def subkey_asked(self) -> str | None:
        return self.subkey


class Keys(Operation, tag="keys"):
    """List at most `limit` keys that begin with `prefix` and sort after `after`. Payload: an array."""

    prefix: str = ""
    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_ROWS_MAX)] = 1000

    mark = "k"
    scans = True
    ordered = True
    accesses = its_prefix
    weight = its_limit
    check = check_page


class Items(Operation, tag="items"):
    """List rows as `keys` does. Payload: an array of `[key, value]`.

    A page ends early where the reply would grow too large; only an empty page is the last.
    """

    prefix: str = ""
    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_ROWS_MAX)] = 1000

    mark = "i"
    scans = True
    ordered = True
    accesses = its_prefix
    weight = its_limit
    check = check_page
