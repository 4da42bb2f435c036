"""The address of a table on an etcd cluster: `etcd://H:P,H:P,H:P/NAME`, and how to be let in there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

SCHEME = "etcd://"
PORT = 2379
"""etcd's port, where an address names none."""

NAME_CHARS_MAX = 200

RESERVED = frozenset(("log", "chunk", "tail", "server", "checkpoint", "trimmed", "generation", "raft-index"))
"""What the keys of a table go on with behind its name: the table lab/log would lie in the log of the table lab."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class EtcdUrl:
    """Where a table is.

    addresses  of etcd's members, HOST:PORT each, at least one
    name       the table's: every key of it begins so; no slash at either end
    """

    addresses: tuple[str, ...]
    name: str

    def __str__(self) -> str:
        return f"{SCHEME}{','.join(self.addresses)}/{self.name}"


def parse_url(text: str) -> EtcdUrl:
    """Return what `etcd://H:P,H:P/NAME` says.

    Raises:
        ValueError: it is not of this form; the message says what to write, and repeats no password
    """
    form = "write etcd://HOST:PORT,HOST:PORT,HOST:PORT/NAME"
    if not text.startswith(SCHEME):
        raise ValueError(f"the address of an etcd cluster begins with {SCHEME}: {form}")
    hosts, slash, name = text.removeprefix(SCHEME).partition("/")
    if "@" in hosts:
        raise ValueError(f"an address names no user and no password, which have options of their own: {form}")
    if not slash or not name:
        raise ValueError(f"{text!r} names no table: {form}")
    if len(name) > NAME_CHARS_MAX or not _NAME.fullmatch(name) or name.endswith("/") or "//" in name:
        raise ValueError(
            f"{name!r} cannot be the name of a table: up to {NAME_CHARS_MAX} letters, digits, dots, hyphens and "
            "underscores, in parts separated by single slashes"
        )
    for part in name.split("/")[1:]:
        if part in RESERVED:
            raise ValueError(f"{name!r} cannot be the name of a table: {part!r} may only be its first part")
    return EtcdUrl(tuple(_parse_address(address, form) for address in hosts.split(",")), name)


def _parse_address(text: str, form: str) -> str:
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no HOST:PORT: {form}")
    host, port = found[1], int(found[2] or PORT)
    if not 0 < port < 65536:
        raise ValueError(f"{text!r}: a port is 1 to 65535")
    return f"{host}:{port}"


@dataclass(frozen=True)
class Security:
    """What a connection to etcd needs to be let in; nothing of it is ever printed.

    ca            certificates of the authorities to trust, PEM; with it or a certificate, connections use TLS
    certificate   the client's own certificate, PEM
    key           its private key, PEM
    user          etcd's user
    password      and their password
    """

    ca: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate for etcd needs its private key, and a key its certificate")
        if (self.user is None) != (self.password is None):
            raise ValueError("a user of etcd needs a password, and a password a user")

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.ca is not None or self.certificate is not None


def read_security(
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    user: str | None = None,
    password: str | None = None,
) -> Security:
    """Return the security whose certificates and key are in files.

    Raises:
        ValueError: they do not go together
        OSError: a file cannot be read
    """
    ca_pem, certificate_pem, key_pem = (None if path is None else path.read_bytes() for path in (ca, certificate, key))
    return Security(ca_pem, certificate_pem, key_pem, user, password)
