"""`kvzmq keygen`: a pair of keys for CURVE, in two files as `zmq.auth` writes and reads them.

Keys are made here and nowhere else in the package: making them while another thread closes a context aborts the
process in libzmq 4.3.5 (libzmq issue 4241), and a command does nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

import click

from kvzmq.cli.param_type import ParamType
from kvzmq.server.access import NAME_FORM, is_name


class _Name(ParamType[str]):
    """The name of a client or a server."""

    name = "NAME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name = str(value)
        if not is_name(name):
            self.fail(f"{name!r} is no name: a name is {NAME_FORM}", param, ctx)
        return name


@click.command()
@click.argument("name", type=_Name())
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="Where to put the files; made if it is not there.",
)
def keygen(name: str, directory: Path) -> None:
    """Make a pair of keys: NAME.key, which may be told, and NAME.key_secret, which may not.

    For a client, the line that is printed goes into the server's clients file, with the rights it should have. For a
    server, start it with --curve-key NAME.key_secret, and give its clients the public key as --server-key.
    """
    key = make_keys(name, directory)
    public, secret = directory / f"{name}.key", directory / f"{name}.key_secret"
    click.echo(f"{name} {key} read,write")
    click.echo(
        f"made {public} and {secret}. For a client: add the line above to the server's clients file (kvzmq server "
        f"--clients FILE), give the rights and prefixes it should have, and use `kvzmq --curve-key {secret} "
        f"--server-key KEY_OF_THE_SERVER`. For a server: start it with --curve-key {secret}; its clients need "
        f"--server-key {key!r}",
        err=True,
    )


def make_keys(name: str, directory: Path) -> str:
    """Make NAME.key and NAME.key_secret in a directory, each 0600, and return the public key (Z85).

    Raises:
        FileExistsError: one of them is there: no key is ever written over
        OSError: they cannot be written
    """
    from zmq.auth import create_certificates, load_certificate

    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    umask = os.umask(0o077)  # zmq.auth opens its files as any program does
    try:
        with tempfile.TemporaryDirectory(prefix=".keygen-", dir=directory) as place:
            made = [Path(path) for path in create_certificates(place, name)]
            _put_in_place(made, directory)
            public_key, _ = load_certificate(directory / f"{name}.key")
    finally:
        os.umask(umask)
    return public_key.decode("ascii")


def _put_in_place(made: list[Path], directory: Path) -> None:
    """Give files their names in a directory: all of them, or none if one is taken."""
    placed: list[Path] = []
    try:
        for path in made:
            target = directory / path.name
            try:
                os.link(path, target)  # unlike a rename it fails where there is something already
            except FileExistsError:
                raise FileExistsError(
                    errno.EEXIST,
                    "it is there already, and keys are not written over; choose another NAME or --dir",
                    str(target),
                ) from None
            placed.append(target)
    except OSError:
        for target in placed:
            with contextlib.suppress(OSError):
                target.unlink()
        raise
