"""A command's options from a file: TOML whose keys are the options' long names, without the dashes.

    data = "/var/lib/kvzmq"
    bind = ["tcp://127.0.0.1:5570", "ipc:///run/kvzmq/socket"]
    must-exist = true

What is said twice counts as the command line says it, else the environment, else the file, else the default. All
of it is derived from the command's options: an option added to a `ConfigurableCommand` is a key of the file.

Secrets are kept in files of their own, and options name these files, so nothing here is a secret: `--print-config`
shows names of files, never what they hold. No file that an option names is opened here.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Union

import click
from click.core import ParameterSource

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG_BYTES_MAX = 1 << 20
"""The longest file of options."""

_FILE = "kvzmq.cli.config.file"
_PRINTS = "kvzmq.cli.config.prints"
_ARGUMENTS = "kvzmq.cli.config.arguments"
_TYPED = "kvzmq.cli.config.typed"
"""Where the context keeps the file's path, whether to print, the command line, and its words by option."""

_TEXTS = (click.types.StringParamType, click.Path, click.Choice, click.File)
"""Types of options whose value is a string in a file; others may be written as a number, too: 1000 or "64M"."""

Raw = Union[str, bool, Sequence[str]]
"""The value of an option as a file says it, before the option's type has read it."""


class BadConfig(ValueError):
    """A file of options is wrong: the message says which file, which key, and what would be right."""


class ConfigurableCommand(click.Command):
    """A command that takes its options from a file as well, and shows where each value comes from.

    Args:
        headings: the long names of options, without dashes, by the heading they have in the help
    """

    def __init__(self, *args: Any, headings: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headings = headings or {}
        self.params += [
            click.Option(
                ["--config"],
                type=click.Path(path_type=Path),
                envvar="KVZMQ_CONFIG",
                metavar="FILE",
                is_eager=True,  # before the options whose defaults it sets
                expose_value=False,
                callback=_load,
                help="Take options from here: TOML, keys named as the options. Command line and environment win.",
            ),
            click.Option(
                ["--print-config"],
                is_flag=True,
                expose_value=False,
                callback=_note_prints,
                help="Print what would be used, as such a file, and where each value comes from; then exit.",
            ),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the command line, which is shown and read again, and parse it."""
        ctx.meta[_ARGUMENTS] = list(args)
        ctx.meta[_TYPED] = self.make_parser(ctx).parse_args(args=list(args))[0]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Print the settings if that was asked for, else do what the command does."""
        if ctx.meta.get(_PRINTS):
            click.echo(printed(ctx), nl=False)
            return None
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings, those without one at the end."""
        left = {_key(param): param for param in self.get_params(ctx) if isinstance(param, click.Option)}
        for heading, keys in self._headings.items():
            _write_options(ctx, formatter, heading, [left.pop(key) for key in keys])
        _write_options(ctx, formatter, "Options", list(left.values()))


def _write_options(
    ctx: click.Context, formatter: click.HelpFormatter, heading: str, options: Sequence[click.Option]
) -> None:
    records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
    if records:
        with formatter.section(heading):
            formatter.write_dl(records)


def _load(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    ctx.meta[_FILE] = path
    try:
        ctx.default_map = _read(ctx, path)
    except BadConfig as error:
        raise click.UsageError(str(error), ctx) from error


def _note_prints(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    ctx.meta[_PRINTS] = wanted


# ---- reading


def _key(option: click.Parameter) -> str:
    return max(option.opts, key=len).lstrip("-")


def _options(ctx: click.Context) -> dict[str, click.Option]:
    """Return the options that a file can set, by key."""
    return {
        _key(param): param
        for param in ctx.command.params
        if isinstance(param, click.Option) and param.expose_value and not param.is_eager
    }


def _read(ctx: click.Context, path: Path) -> dict[str, Raw]:
    """Return what a file says, by parameter.

    Raises:
        BadConfig: it cannot be read, is not TOML, has a key that is no option, or a value that the option does not take
    """
    options = _options(ctx)
    found: dict[str, Raw] = {}
    for key, value in _parse(path).items():
        if key not in options:
            raise BadConfig(f"{path}: {_unknown(ctx, key, value)}")
        option = options[key]
        raw = _raw(path, key, option, value)
        try:
            option.type_cast_value(ctx, raw)
        except click.BadParameter as error:
            raise BadConfig(f"{path}: {key}: {error.message}") from error
        assert option.name is not None
        found[option.name] = raw
    return found


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}") from error
    if len(data) > CONFIG_BYTES_MAX:
        raise BadConfig(f"{path}: longer than {CONFIG_BYTES_MAX} bytes: this is no file of options")
    try:
        found: dict[str, Any] = tomllib.loads(data.decode())
        return found
    except UnicodeDecodeError as error:
        raise BadConfig(f"{path}: not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f"{path}: not TOML: {error}") from error
    except RecursionError as error:
        raise BadConfig(f"{path}: not TOML: too deep") from error


def _unknown(ctx: click.Context, key: str, value: object) -> str:
    if any(f"--{key}" in param.opts for param in ctx.command.params):
        return f"{key} cannot be set in a file"
    if isinstance(value, dict):
        return f"[{key}] is a table; options stand at the top, without one"
    plain = key.lstrip("-").replace("_", "-").lower().removeprefix("no-")
    near = get_close_matches(plain, _options(ctx), n=1)
    return f"no option is called {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _raw(path: Path, key: str, option: click.Option, value: object) -> Raw:
    """Return a value of TOML as the option's type reads it; numbers as text, since types read texts alone."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise BadConfig(f"{path}: {key}: {_shown(value)} where true or false is wanted")
        return value
    values = value if isinstance(value, list) and option.multiple else [value]
    texts = [_text(path, key, option, value) for value in values]
    return texts if option.multiple else texts[0]


def _text(path: Path, key: str, option: click.Option, value: object) -> str:
    if isinstance(value, str):
        return value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or isinstance(option.type, _TEXTS):
        wanted = "a string" if isinstance(option.type, _TEXTS) else "a string or a number"
        more = ", or an array of them," if option.multiple else ""
        raise BadConfig(f"{path}: {key}: {_shown(value)} where {wanted}{more} is wanted")
    return str(value)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    kinds = {dict: "a table", list: "an array", bool: str(value).lower()}
    return kinds.get(type(value), str(value))


# ---- printing


def printed(ctx: click.Context) -> str:
    """Return the settings of a command as TOML that `--config` takes, with a comment where each comes from."""
    return "".join(_line(ctx, key, option) for key, option in _options(ctx).items())


def _line(ctx: click.Context, key: str, option: click.Option) -> str:
    assert option.name is not None
    if ctx.params.get(option.name) in (None, ()):
        return f"# {key} =  # not set\n"
    source = ctx.get_parameter_source(option.name)
    return f"{key} = {_toml(_raw_of(ctx, option, source))}  # {_from(ctx, option, source)}\n"


def _raw_of(ctx: click.Context, option: click.Option, source: ParameterSource | None) -> Any:
    """Return the words from which a value was made: what the option's type has made of them has no way back."""
    assert option.name is not None
    if option.is_flag:
        return ctx.params[option.name]
    if source is ParameterSource.COMMANDLINE:
        return ctx.meta[_TYPED][option.name]
    if source is ParameterSource.ENVIRONMENT:
        return option.value_from_envvar(ctx)
    if source is ParameterSource.DEFAULT_MAP:
        return (ctx.default_map or {})[option.name]
    return option.get_default(ctx)


def _from(ctx: click.Context, option: click.Option, source: ParameterSource | None) -> str:
    if source is ParameterSource.COMMANDLINE:
        return f"option --{_key(option)}"
    if source is ParameterSource.ENVIRONMENT:
        names = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
        return f"environment {next((name for name in names if os.environ.get(name)), '')}"
    if source is ParameterSource.DEFAULT_MAP:
        return f"file {ctx.meta[_FILE]}"
    return "default"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    # A JSON string is one of TOML, which wants DEL escaped, and takes no surrogates for characters beyond 16 bits.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


# ---- reading again


def read_again(ctx: click.Context) -> dict[str, Any]:
    """Return the settings by parameter that are not what `ctx` says, if the command began now, with the file of now.

    Raises:
        BadConfig: as at the start, and nothing is to be changed
    """
    if _FILE not in ctx.meta:
        return {}
    try:
        now = ctx.command.make_context(ctx.info_name, list(ctx.meta[_ARGUMENTS]), parent=ctx.parent)
    except click.UsageError as error:
        raise BadConfig(error.format_message()) from error
    return {name: value for name, value in now.params.items() if value != ctx.params[name]}


def option_of(ctx: click.Context, name: str) -> str:
    """Return the key, as a file has it, of a parameter."""
    return next(key for key, option in _options(ctx).items() if option.name == name)
