"""What is there, under this name?"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from gossip.cli.asking import json_key, key_of, of_node, of_type
from gossip.cli.conversation import converse
from gossip.cli.printing import cut, document, refused, say, say_table, shown


@click.command("get")
@click.argument("name", metavar="OBJECT")
@click.argument("key", required=False)
@click.option("--raw", is_flag=True, help="Write a text byte by byte, without a line feed; to a pipe or a file only.")
@json_key
@of_type
@of_node
def command(
    name: str, key: str | None, raw: bool, json_key: bool, type_: str | None, cluster: str | None, node: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Print a key of a map, or all of an object.

    Text is printed without quotes, with control characters escaped; all else as JSON. Exit code 1 if it is not there.

    \b
    Example:
      gossip get flags beta         one key
      gossip get flags              the whole map: key, tab, value
      gossip get online             a set: an element a line
      gossip get hits               a counter
      gossip get cart ann --json    for programs
      gossip get site conf --raw > site.conf
    """
    with converse(cluster, node) as conversation:
        parts, ok = conversation.ask_all("get", object=name, key=key_of(key, json_key), type=type_)
    kind = "value" if key is not None else ok
    found = _sorted(kind, parts) if kind in ("map", "set") else ok if kind == "value" else parts[0]
    if raw:
        _write_raw(found)
    elif as_json:
        say(document({_text(key): value for key, value in found} if kind == "map" else found))
    elif kind == "map":
        say_table(("key", "value"), [(shown(key), shown(value)) for key, value in found])
    elif kind == "set":
        say_table(("element",), [(shown(element),) for element in found])
    else:
        say(cut(shown(found)))


def _sorted(kind: str, entries: list[Any]) -> list[Any]:
    return sorted(entries, key=lambda entry: shown(entry[0] if kind == "map" else entry))


def _text(key: Any) -> str:
    """A key as a JSON object can have it: others than text become their JSON."""
    return key if isinstance(key, str) else json.dumps(key)


def _write_raw(found: Any) -> None:
    if not isinstance(found, str):
        raise refused("--raw is for text, and this is none: try --json")
    if sys.stdout.isatty():
        raise refused("--raw does not write to a terminal, which would do what the text tells it: use a pipe or a file")
    sys.stdout.buffer.write(found.encode())
