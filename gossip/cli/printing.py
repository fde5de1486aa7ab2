"""How does an answer reach a person, or a program?

A person gets text: values plainly, tables where stdout is a terminal. A pipe gets the same fields parted by tabs, a
line an entry. With `--json` there is one JSON document, and errors are JSON too.

Invariant: what comes from the cluster is shown, never obeyed. Control characters and whatever else a terminal acts on
are escaped, for pipes as well (they often end at a terminal); so a field has no tab and no line feed in it.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

_ACTED_ON = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that are not shown but do something: control, direction, surrogates, line separators."""
_LONGEST_SHOWN = 400
"""Characters of a value on a terminal."""
_NAME = 24
"""Characters of a name that stay together in a table."""
_ERRNO = re.compile(r"\[Errno -?[0-9]+\] ")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Failure(Exception):
    """A command could not be done. `kind` names the reason for programs, `code` is the exit code."""

    def __init__(self, message: str, kind: str, code: int) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code


def missing(message: str) -> Failure:
    """What was asked for is not there."""
    return Failure(message, "missing", 1)


def no_node(message: str) -> Failure:
    """There is no node to speak to."""
    return Failure(message, "no node", 3)


def refused(message: str) -> Failure:
    """The node, or the system, refused."""
    return Failure(message, "refused", 4)


def printable(text: str) -> str:
    r"""The text with everything escaped that a terminal would act on instead of showing it.

    >>> printable("a\x1b[31mb\nc\u202ed")
    'a\\x1b[31mb\\nc\\u202ed'
    """
    if text.isprintable():
        return text
    return "".join(_escaped(each) if unicodedata.category(each) in _ACTED_ON else each for each in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return _SHORT.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shown(value: Any) -> str:
    r"""A value for people: text as it is, all else as JSON.

    >>> shown("hello"), shown({"a": [1, None]}), shown(True)
    ('hello', '{"a": [1, null]}', 'true')
    """
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def cut(text: str) -> str:
    """What a person can look at; on a terminal only, for a pipe gets all."""
    if len(text) <= _LONGEST_SHOWN or not sys.stdout.isatty():
        return text
    number = f"{len(text):,}".replace(",", " ")
    return f"{text[:_LONGEST_SHOWN]}… ({number} characters; --json or a pipe gives all)"


def document(value: Any) -> str:
    r"""A value as JSON in ASCII on one line, which any program can read.

    >>> print(document({"ä": float("nan"), "b": "\x7f"}))
    {"\u00e4": null, "b": "\u007f"}
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value))
    return text.replace("\x7f", "\\u007f")


def _finite(value: Any) -> Any:
    """JSON has no word for infinity and for what is no number; null is what JavaScript makes of them."""
    match value:
        case dict():
            return {key: _finite(part) for key, part in value.items()}
        case list():
            return [_finite(part) for part in value]
        case float() if not math.isfinite(value):
            return None
    return value


def say(text: str) -> None:
    """A line on stdout, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def forget_output() -> None:
    """What is still to be written has no reader any more; without this Python would try again at exit, and complain."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def say_error(message: str, kind: str, as_json: bool, hint: str = "") -> None:
    """An error on stderr. The numbers of the system's errors are left out: their texts stand beside them."""
    message = _ERRNO.sub("", message)
    try:
        if as_json:
            print(document({"error": message, "kind": kind}), file=sys.stderr)
        else:
            # The message may quote names from the cluster; the hint is our own and has lines.
            print(f"gossip: {printable(message)}{hint}", file=sys.stderr)
    except BrokenPipeError:
        pass  # nobody reads that either


def say_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows of fields: a table on a terminal, else parted by tabs and without a head."""
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(map(printable, row)) + "\n" for row in rows)
        sys.stdout.flush()
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    rows = list(rows)
    for number, column in enumerate(columns):
        # what is looked for first is not cut into pieces, unless it is very long
        least = min(max((len(row[number]) for row in rows), default=0), _NAME) if column == "name" else None
        no_wrap = column in ("status", "instance", "rtt", "for")
        table.add_column(column, overflow="fold", no_wrap=no_wrap, min_width=least)
    for row in rows:
        table.add_row(*(Text(cut(printable(field))) for field in row))  # a Text is not searched for markup
    Console(highlight=False, emoji=False).print(table)
