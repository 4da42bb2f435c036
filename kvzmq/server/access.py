"""Who may do what: the clients file, and whether a request is within a client's rights. Knows no socket.

    # name   public key (Z85, 40 characters)            rights        prefixes of keys; none: all keys
    bob      tSnqA]%TBtRrhX)q79MrkHEnV7psaBh*Cz+q/c5A   read          config/
    robot-7  ...                                        read,write    robots/7/ "shared notes/"
    alice    ...                                        read,write,admin

A line is a key; a comment is a line of its own that begins with `#`. A prefix with a space in it, or that begins
with `"` or `#`, is written as a JSON string. A name may have two lines, with two keys and the same rights: the old
key and the new one, while a key is changed. The file ends with a newline: without one it may be half written, and
half a prefix would be a larger right than the whole.

    read   may read rows
    write  may change them; the payload of a change may show whether a key was there
    admin  may ask about the server and its clients, and take backups

An operation that looks through the whole table, such as `query` and `size`, needs a client without prefixes.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from kvzmq import errors
from kvzmq.curve import is_key
from kvzmq.protocol.declaration import Operation, method_of

READ, WRITE, ADMIN = "read", "write", "admin"

RIGHTS = (READ, WRITE, ADMIN)
"""What a client may be given; what each allows is said above."""

FILE_BYTES_MAX = 1 << 20
"""The longest clients file."""

KEYS_MAX = 10_000
"""The most keys in it."""

KEYS_PER_NAME_MAX = 2
"""How many keys a client may have: the old and the new one, while they are changed."""

PREFIXES_MAX = 64
"""The most prefixes of a client."""

PREFIX_CHARS_MAX = 1024
"""The longest prefix."""

LOOK_S = 1.0
"""How often the file is looked at: a change is in force after so long, or at once with SIGHUP."""

_QUOTED_CHARS_MAX = 60
"""How much of a line or a key is quoted in a message."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"(?=\s|$)|[^\s"]\S*')

NAME_FORM = "up to 64 letters, digits and . _ @ -, beginning with a letter or a digit"
"""What a name is, in words."""

_log = logging.getLogger(__name__)


class BadClients(errors.KvzmqError):
    """The clients file cannot be used; the message says which line, and how to mend it."""


class Client(NamedTuple):
    """A client that is known.

    name      what it is called in logs and statistics
    rights    some of RIGHTS
    prefixes  of the keys that it may touch; none stands for all keys
    """

    name: str
    rights: frozenset[str]
    prefixes: tuple[str, ...]

    def excess(self, ops: Iterable[Operation]) -> str:
        """Say what of a request this client may not do, "" if it may do all of it."""
        for op in ops:
            for right in _rights_needed(op):
                if right not in self.rights:
                    return f"{self.name} may not {method_of(op)}: that needs the right {right}"
            if self.prefixes:
                excess = self._keys_beyond(op)
                if excess:
                    return excess
        return ""

    def _keys_beyond(self, op: Operation) -> str:
        for access in op.accesses():
            if access.prefix is not None and not access.prefix.startswith(self.prefixes):
                whose = f"keys that begin with {_quote(access.prefix)}" if access.prefix else "all keys"
                return f"{self.name} may not {method_of(op)}: that concerns {whose}, beyond {self._its_prefixes()}"
            for key in access.keys:
                if not key.startswith(self.prefixes):
                    return f"{self.name} may not {method_of(op)} {_quote(key)}: a key beyond {self._its_prefixes()}"
        return ""

    def _its_prefixes(self) -> str:
        shown = ", ".join(map(_quote, self.prefixes[:3]))
        return f"the prefixes {shown}{' ...' if len(self.prefixes) > 3 else ''}"


def is_name(text: str) -> bool:
    """Tell whether a text may be a client's name."""
    return _NAME.fullmatch(text) is not None


def _rights_needed(op: Operation) -> Iterator[str]:
    """Say which rights an operation needs; one that touches no key and changes nothing needs none."""
    if op.administers:
        yield ADMIN
    if op.writes:
        yield WRITE
    if any(not access.writes and (access.keys or access.prefix is not None) for access in op.accesses()):
        yield READ


def parse_clients(text: str) -> dict[str, Client]:
    """Return the clients of a clients file by their public key, Z85.

    Raises:
        BadClients: it is not of the file's form, or names nobody
    """
    if len(text.encode()) > FILE_BYTES_MAX:
        raise BadClients(f"is longer than {FILE_BYTES_MAX} bytes")
    if text and not text.endswith("\n"):
        raise BadClients("does not end with a newline: it is half written, or the last line needs one")
    clients: dict[str, Client] = {}
    lines_of_keys: dict[str, int] = {}
    lines_of_names: dict[str, list[tuple[int, Client]]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            key, client = _parse_line(line)
            if key in clients:
                raise BadClients(f"has the key of line {lines_of_keys[key]} again: a key is one client's")
            _check_name_again(client, lines_of_names.get(client.name, []))
            if len(clients) >= KEYS_MAX:
                raise BadClients(f"is one client too many: {KEYS_MAX} keys at most")
        except BadClients as error:
            raise BadClients(f"line {number} {error}") from None
        clients[key] = client
        lines_of_keys[key] = number
        lines_of_names.setdefault(client.name, []).append((number, client))
    if not clients:
        raise BadClients("names no client: add a line NAME KEY RIGHTS, as `kvzmq keygen NAME` prints it")
    return clients


def _check_name_again(client: Client, before: list[tuple[int, Client]]) -> None:
    """Refuse a line if those before it with the same name forbid it."""
    if len(before) >= KEYS_PER_NAME_MAX:
        numbers = " and ".join(str(number) for number, _ in before)
        raise BadClients(
            f"is a third key of {client.name}, after lines {numbers}: remove the oldest, or choose a new name"
        )
    for number, other in before:
        if other != client:
            raise BadClients(f"gives {client.name} other rights than line {number}: both of its keys have the same")


def _parse_line(line: str) -> tuple[str, Client]:
    words = line.split(None, 3)
    if len(words) < 3:
        raise BadClients(f"is {_quote(line)}: a line is NAME KEY RIGHTS and perhaps prefixes")
    name, key, rights_word = words[:3]
    if not is_name(name):
        raise BadClients(f"has the name {_quote(name)}: a name is {NAME_FORM}")
    if not is_key(key):
        raise BadClients(f"has the key {_quote(key)}: a key is 40 characters of Z85, the `public-key` of {name}.key")
    rights = rights_word.split(",")
    for right in rights:
        if right not in RIGHTS:
            raise BadClients(f"has the right {_quote(right)}: rights are read, write, admin, with commas and no spaces")
    prefixes = _parse_prefixes(words[3]) if len(words) == 4 else ()
    return key, Client(name, frozenset(rights), prefixes)


def _parse_prefixes(text: str) -> tuple[str, ...]:
    prefixes: list[str] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        word = _WORD.match(text, at)
        if word is None:
            raise BadClients(f"has a prefix that does not end: {_quote(text[at:])}; one in quotes is a JSON string")
        prefixes.append(_parse_prefix(word[0]))
        at = word.end()
    if len(prefixes) > PREFIXES_MAX:
        raise BadClients(f"has {len(prefixes)} prefixes: {PREFIXES_MAX} at most")
    return tuple(prefixes)


def _parse_prefix(word: str) -> str:
    prefix = word
    if word.startswith("#"):
        raise BadClients(
            f'has the prefix {_quote(word)}: a comment takes its own line; a prefix like this is written "#..."'
        )
    if word.startswith('"'):
        try:
            prefix = str(json.loads(word))
            prefix.encode()
        except ValueError:
            raise BadClients(f"has the prefix {_quote(word)}, which is no JSON string") from None
    if not prefix:
        raise BadClients("has an empty prefix: leave prefixes away for all keys")
    if len(prefix) > PREFIX_CHARS_MAX:
        raise BadClients(f"has a prefix of more than {PREFIX_CHARS_MAX} characters")
    return prefix


def _quote(text: str) -> str:
    return repr(text if len(text) <= _QUOTED_CHARS_MAX else text[: _QUOTED_CHARS_MAX - 3] + "...")


class Access:
    """What the clients file says now: read when made, and again when it changes.

    A file that cannot be used leaves what was in force before as it was, and is complained of once.

    Args:
        path: the clients file

    Raises:
        BadClients: the file cannot be used
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reloads = 0
        """How often the file was read again and taken over."""
        self.changed: frozenset[str] = frozenset()
        """The keys that had other rights before the file was read the last time."""
        self.trouble: str | None = None
        """Why the file as it is now is not in force, or None."""
        self._seen: tuple[int, ...] | None = None
        self._by_key = self._read()

    def client_of(self, key: str) -> Client | None:
        """Return whose public key (Z85) it is, or None if nobody's now."""
        return self._by_key.get(key)

    def knows(self, key: str) -> bool:
        """Tell whether a public key (Z85) is a client's now."""
        return key in self._by_key

    def name_of(self, key: str) -> str:
        """Return the name of a key's holder, for people."""
        client = self._by_key.get(key)
        return "unknown" if client is None else client.name

    def refuse(self, key: str, ops: Iterable[Operation]) -> str:
        """Say why the holder of a key may not have a request executed, "" if it may."""
        client = self._by_key.get(key)
        if client is None:
            return "the key of this connection is not, or no longer, in the server's clients file"
        return client.excess(ops)

    def describe(self) -> dict[str, int | str | None]:
        """Return what `stats` says of the file."""
        return {
            "client_keys": len(self._by_key),
            "clients_file_reloads": self.reloads,
            "clients_file_trouble": self.trouble,
        }

    # ---- the file

    def has_changed(self) -> bool:
        """Say whether the file is another one than was read the last time, by its size, its times and its inode."""
        return self._signature() != self._seen

    def reload(self) -> bool:
        """Read the file again; True if it is in force, False if it cannot be used and what was before is."""
        try:
            found = self._read()
        except BadClients as error:
            self.changed = frozenset()
            if str(error) != self.trouble:
                _log.error("%s; the rights that were in force before stay", error)
            self.trouble = str(error)
            return False
        before, self._by_key = self._by_key, found
        self.changed = frozenset(key for key, client in before.items() if found.get(key) != client)
        self.trouble = None
        self.reloads += 1
        gone = len(before.keys() - found.keys())
        _log.info("%s read again: %d keys of clients, %d revoked", self.path, len(found), gone)
        return True

    def _signature(self) -> tuple[int, ...] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def _read(self) -> dict[str, Client]:
        self._seen = self._signature()  # before reading: what changes meanwhile is read at the next look
        try:
            with open(self.path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(FILE_BYTES_MAX + 1)
            if stat.S_ISREG(mode) and mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise BadClients(f"may be written by others: chmod go-w {self.path}")
            return parse_clients(data.decode())
        except OSError as error:
            raise BadClients(f"the clients file {self.path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise BadClients(f"the clients file {self.path} is not UTF-8") from None
        except BadClients as error:
            raise BadClients(f"the clients file {self.path} {error}") from None
