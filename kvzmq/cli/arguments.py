"""The types of the commands' arguments: values, keys, durations, endpoints, sizes; and how their text is parsed."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from kvzmq.cli.param_type import ParamType
from kvzmq.cli.words import Word
from kvzmq.client.core.urls import PORT_MAX
from kvzmq.protocol.limits import TTL_S_MAX

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from kvzmq.store.etcd.url import EtcdUrl

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([smhd]?)")

_UNITS_BYTES = {"": None, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"(\d+)\s*([kmg]?)(?:i?b)?")

_ALMOST_JSON = re.compile(
    r"""\s*(?: [{\["]                                                # an object, an array, a string
        | [-+]?(?: \d+\.?\d* | \.\d+ )(?: e[-+]?\d+ )?\s*$           # a number in another spelling: 01, .5, +1
        | (?: true | false | null )\s*$                              # True, NULL
        | (?-i: [-+]? (?: NaN | Infinity ) )\s*$ )""",
    re.VERBOSE | re.IGNORECASE,
)
"""Text that is refused as a plain string, unless --string is given: it is probably mistyped JSON.

Dates, addresses and the like begin with digits and are plain strings: 2026-01-31, 10.0.0.1, 5m.
"""

_SHOWN_CHARS = 60


def duration_s(text: str) -> float | None:
    """Return how many seconds a text such as `90`, `10s`, `5m`, `2h` or `7d` stands for, or None if for none."""
    match = _DURATION.fullmatch(text.strip().lower())
    return None if match is None else float(match[1]) * _UNITS_S[match[2]]


class _Duration(ParamType[float]):
    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(value) if isinstance(value, (int, float)) else duration_s(str(value))
        if seconds is None or seconds <= 0:
            self.fail(f"{value!r} is not a time above 0: 10s, 5m, 2h, 7d, or seconds", param, ctx)
        if seconds > TTL_S_MAX:
            self.fail(
                f"{value!r} is too long: the longest time is {TTL_S_MAX / 86_400:.0f}d; without one it is for good",
                param,
                ctx,
            )
        return seconds


DURATION = _Duration()
"""A time to live, seconds."""

ttl_option = click.option("--ttl", "ttl_s", type=DURATION, metavar="TIME",
                          help="Remove the key after this time: 10s, 5m, 2h, 7d, or seconds.")  # fmt: skip


class _Value(ParamType[str]):
    """An argument for `read_value`: click's own string type would lose the `raw` text of a Word."""

    name = "value"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value


VALUE = _Value()
"""A value, as `read_value` takes it."""

string_option = click.option(
    "-s", "--string", "as_string", is_flag=True, help="Take the value as a string even if it looks like JSON."
)


class _Key(ParamType[str]):
    """A key; shells complete it with the keys of the server."""

    name = "key"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from kvzmq.cli.completing import keys

        return keys(ctx, incomplete)


KEY = _Key()
"""A key, or a prefix of keys."""


class Endpoint(ParamType[str]):
    """Where a server listens: tcp://HOST:PORT or ipc://PATH, in ZeroMQ's spelling; * is every address or any port."""

    name = "URL"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        scheme, _, rest = value.partition("://")
        if scheme == "tcp":
            host, _, port = rest.rpartition(":")
            if port != "*":
                self._check_port(port, value, param, ctx)
            if host:
                return value
        elif scheme == "ipc" and rest:
            return value
        elif scheme == "inproc":
            self.fail(f"{value!r}: inproc:// is for sockets of one process, nobody could connect", param, ctx)
        self.fail(f"{value!r} is not an endpoint: use tcp://HOST:PORT or ipc:///PATH", param, ctx)

    def _check_port(self, port: str, value: str, param: click.Parameter | None, ctx: click.Context | None) -> None:
        # libzmq would use port 4464 for 70000 without an error.
        if not (port.isascii() and port.isdecimal()):
            self.fail(f"{value!r} has no port: use tcp://HOST:PORT; port 0 takes a free one", param, ctx)
        if int(port) > PORT_MAX:
            self.fail(f"{value!r}: there is no port {port}, the highest is {PORT_MAX}", param, ctx)


class Address(ParamType[tuple[str, int]]):
    """HOST:PORT; where to listen, port 0 takes a free one.

    Args:
        host_default: the host of a PORT alone; None to refuse that
    """

    name = "HOST:PORT"

    def __init__(self, host_default: str | None = "127.0.0.1") -> None:
        self._host_default = host_default

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        before, _, port = str(value).rpartition(":")
        host = before.strip("[]") or self._host_default
        if not (host and port.isascii() and port.isdecimal()):
            self.fail(f"{value!r} is not HOST:PORT, such as 127.0.0.1:5571", param, ctx)
        if int(port) > PORT_MAX:
            self.fail(f"{value!r}: there is no port {port}, the highest is {PORT_MAX}; give HOST:PORT", param, ctx)
        return host, int(port)


class CompactAfter(ParamType[tuple[str, int]]):
    """A number of records, or a size such as 64M."""

    name = "N|SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        match = _SIZE.fullmatch(str(value).strip().lower())
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is neither a number of records (1000) nor a size (64M)", param, ctx)
        unit = _UNITS_BYTES[match[2]]
        return ("records", int(match[1])) if unit is None else ("bytes", int(match[1]) * unit)


class Size(ParamType[int]):
    """A number of bytes within bounds, such as 65536, 64K or 1M."""

    name = "SIZE"

    def __init__(self, bytes_min: int, bytes_max: int) -> None:
        self._bytes_min = bytes_min
        self._bytes_max = bytes_max

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip().lower())
        size = int(match[1]) * (_UNITS_BYTES[match[2]] or 1) if match is not None else 0
        if not self._bytes_min <= size <= self._bytes_max:
            self.fail(
                f"{value!r} is not a size from {self._bytes_min} to {self._bytes_max} bytes, such as 1M", param, ctx
            )
        return size


def is_stdin(text: str) -> bool:
    """Say whether an argument stands for standard input; not in `kvzmq shell`, which reads its commands there."""
    return text == "-" and not isinstance(text, Word)


def read_value(text: str, as_string: bool = False) -> Any:
    """Return the value an argument stands for: JSON, or else the string itself; `-` reads standard input.

    A line break at the end of standard input is not part of a plain string, as in the shell's $(...).

    Raises:
        click.UsageError: it is JSON that is not a valid value, or looks like JSON and is not
    """
    import msgspec

    if is_stdin(text):
        data = sys.stdin.buffer.read()
        try:
            text = data.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise click.UsageError("standard input is not UTF-8 text; --bytes takes it as it is") from None
    if as_string:
        return str(text)
    written = text.raw if isinstance(text, Word) else text
    try:
        return msgspec.json.decode(written)
    except msgspec.ValidationError as error:
        raise click.UsageError(f"{_short(text)}: {error}") from None
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        if _ALMOST_JSON.match(written):
            why = "it ends too early" if "truncated" in str(error) else str(error)
            raise click.UsageError(
                f"{_short(written)} looks like JSON and is not: {why}. Correct it, or add --string to keep it as it is."
            ) from None
        return str(text)
    except RecursionError:
        raise click.UsageError("the value is nested too deeply") from None


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


class TableInEtcd(ParamType["EtcdUrl"]):
    """etcd://HOST:PORT,HOST:PORT/NAME."""

    name = "URL"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> EtcdUrl:
        from kvzmq.store.etcd.url import EtcdUrl, parse_url

        if isinstance(value, EtcdUrl):
            return value
        try:
            return parse_url(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
