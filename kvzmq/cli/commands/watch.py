"""`kvzmq watch`: follow changes of the table as they are made."""

from __future__ import annotations

import click

from kvzmq.cli.arguments import KEY, VALUE, read_value, string_option
from kvzmq.cli.connection import Connection, TableCommand, json_option


@click.command(cls=TableCommand)
@click.argument("prefix", default="", type=KEY)
@click.option(
    "--from-revision",
    type=click.IntRange(min=0),
    metavar="N",
    help="Begin with the changes after revision N, not with now.",
)
@click.option(
    "--epoch",
    metavar="HEX",
    help="The epoch in which revision N was reached, from `kvzmq stats` then: refuse another history.",
)
@click.option(
    "--query",
    "subkey_subvalue",
    nargs=2,
    type=(str, VALUE),
    default=None,
    metavar="SUBKEY SUBVALUE",
    help="Rows whose value is a map in which SUBKEY equals SUBVALUE; removed when they cease to.",
)
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="N", help="Stop after so many changes.")
@string_option
@json_option
@click.pass_obj
def watch(
    connection: Connection,
    prefix: str,
    from_revision: int | None,
    epoch: str | None,
    subkey_subvalue: tuple[str, str] | None,
    count: int | None,
    as_string: bool,
    as_json: bool,
) -> None:
    """Print each change of a key that begins with PREFIX, until Ctrl-C.

    A line is REVISION TAB set TAB KEY TAB VALUE, or REVISION TAB removed TAB KEY. The revision is what
    --from-revision takes to go on later without a gap, as long as the server's history reaches back; with --epoch it
    is refused, too, where the table was put back from an older copy meanwhile.
    """
    from kvzmq.cli import show

    table = connection.table
    if subkey_subvalue is not None:
        if prefix:
            raise click.UsageError("either PREFIX or --query")
        subkey, subvalue = subkey_subvalue
        events = table.watch_query(subkey, read_value(subvalue, as_string), from_revision=from_revision, epoch=epoch)
    else:
        events = table.watch(prefix=prefix, from_revision=from_revision, epoch=epoch)
    terminal = show.on_terminal()
    for seen, event in enumerate(events, start=1):
        if as_json:
            change = {"removed": True} if event.removed else {"value": event.value}
            line = show.encode_json({"revision": event.revision, "key": event.key, **change})
        else:
            key = show.printable(event.key).encode() if terminal else show.bare_field(event.key)
            fields = [str(event.revision).encode(), b"removed" if event.removed else b"set", key]
            if not event.removed:
                fields.append(show.on_screen(event.value).encode() if terminal else show.bare_field(event.value))
            line = b"\t".join(fields)
        show.put([line])  # flushed at once, for readers of a pipe
        if seen == count:
            return
