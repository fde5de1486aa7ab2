"""What do all commands have in common that ask a node for something?

The options that say which node, and how a value is written on a command line: as JSON if it is JSON, else as text.

Not here: the conversation itself, and how answers are shown.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_LONGEST_FILE = 1 << 16
"""Bytes of a file of keys that are looked at: whatever else was named, it is not taken into memory."""
_OPTION_LIKE = re.compile(r"-(?!\.?[0-9]).")

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs; errors too.")
as_text = click.option("--text", "as_text", is_flag=True, help="Take the value as text, even if it is JSON.")
json_key = click.option("--json-key", is_flag=True, help='Take KEY as JSON: 7 is the number, ["a", 7] a tuple.')
of_type = click.option(
    "--type",
    "type_",
    type=click.Choice(["map", "set", "counter", "register"]),
    help="Which object, if several of different types bear this name.",
)


def of_cluster(command: F) -> F:
    """Adds the option that names a cluster."""
    return click.option(
        "--cluster", "-c", metavar="NAME", envvar="GOSSAMESH_CLUSTER", show_envvar=True, help="The cluster's name."
    )(command)


def of_node(command: F) -> F:
    """Adds the options that say which node to ask: its cluster, and which of that."""
    named = click.option("--node", metavar="NAME", help="A certain node, by name or instance. Default: the oldest.")
    return of_cluster(named(as_json(command)))


_PYTHON = {"True": "true", "False": "false", "None": "null"}
"""Text that a worker would read as true, whatever was meant."""


class TakesNumbers(click.Command):
    """A command whose arguments may be negative numbers, which look like options: `gossip incr hits -3`."""

    ignore_unknown_options = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leaves numbers alone, and still refuses options that do not exist."""
        anything_goes = "--" in args
        rest = super().parse_args(ctx, args)
        arguments = [ctx.params.get(each.name or "") for each in self.params if isinstance(each, click.Argument)]
        for text in arguments:
            if isinstance(text, str) and _OPTION_LIKE.match(text) and not anything_goes:
                raise click.NoSuchOption(text, ctx=ctx)
        return rest


def lasting(command: Callable[..., None]) -> Callable[..., None]:
    """The option for what ends by itself."""
    return click.option("--ttl", type=float, metavar="SECONDS", help="It is gone everywhere after so many seconds.")(
        command
    )


def noted(command: F) -> F:
    """The options that say on whose behalf something is written, and why."""
    by = click.option("--by", metavar="NAME", help="On whose behalf: shown by `gossip explain`, and in `entry`.")
    return by(click.option("--note", metavar="TEXT", help="Why: shown there too, for as long as it is there.")(command))


def value_of(text: str, is_text: bool) -> Any:
    """The value that was written on the command line.

    >>> value_of("true", False), value_of("true", True), value_of("hello", False), value_of("NaN", False)
    (True, 'true', 'hello', 'NaN')
    """
    if is_text:
        return text
    if text in _PYTHON:
        raise click.UsageError(f"{text} is Python, and would be stored as text: say {_PYTHON[text]}, or add --text")
    try:
        return json.loads(text, parse_constant=_no_json, parse_float=_finite)
    except _TooLarge as error:
        raise click.UsageError(f"{error}; with --text it is taken as text") from None
    except ValueError:
        return text
    except RecursionError:
        raise click.UsageError("the value is nested too deep; with --text it is taken as text") from None


def key_of(text: str | None, is_json: bool) -> Any:
    """A key of a map. It is text unless that was said otherwise, since most maps have text for keys."""
    if text is None or not is_json:
        return text
    try:
        return json.loads(text, parse_constant=_no_json, parse_float=_finite)
    except _TooLarge as error:
        raise click.UsageError(f"{error}; without --json-key it is taken as text") from None
    except (ValueError, RecursionError):
        raise click.UsageError(f"KEY is not JSON: {text!r}") from None


def told_tags(told: tuple[str, ...]) -> list[tuple[str, str]]:
    """Tags as they are told, KEY=VALUE each. Raises `UsageError`.

    >>> told_tags(("role=web", "note=a=b", "empty="))
    [('role', 'web'), ('note', 'a=b'), ('empty', '')]
    """
    pairs = [pair.partition("=") for pair in told]
    if any(not key or not sign for key, sign, _ in pairs):
        raise click.UsageError("a tag is KEY=VALUE: role=web")
    return [(key, value) for key, _, value in pairs]


def key_of_file(file: str) -> str:
    """What a file of keys has in it, one a line; `-` is stdin. Warns if others can read it. Raises `UsageError`."""
    try:
        with open(0 if file == "-" else file, encoding="ascii", closefd=file != "-") as source:
            key = source.read(_LONGEST_FILE).strip()
            mode = os.fstat(source.fileno()).st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"the key file can not be read: {error}") from None
    if not key:
        raise click.UsageError(f"the key file {file} is empty: make one with `gossip keygen {file}`")
    if stat.S_ISREG(mode) and mode & 0o077:
        print(f"gossip: others can read the key file {file}: chmod 600 {file}", file=sys.stderr)
    return key


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


class _TooLarge(ValueError):
    pass


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _TooLarge(f"{text:.40} is too large for a number")
    return number
