"""Why does this key show what it shows?"""

from __future__ import annotations

from typing import Any

import click

from gossip.cli.asking import as_text, json_key, of_node, of_type, value_of
from gossip.cli.conversation import converse
from gossip.cli.printing import document, printable, say, shown


@click.command("explain")
@click.argument("name", metavar="OBJECT")
@click.argument("key", required=False)
@json_key
@as_text
@of_type
@of_node
def command(
    name: str, key: str | None, json_key: bool, as_text: bool, type_: str | None, cluster: str | None,
    node: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Tell who wrote a key of a map, an element of a set or a register, when, why, what it replaced, and who has it.

    Of the values that were written at the same time without seeing each other, the last is shown; the others are its
    conflicts until somebody writes again. What it replaced is told as long as the node's log has it. Members that do
    not answer within half a second are told as silent. Exit code 1 if it is not there.

    \b
    Example:
      gossip explain flags beta
      gossip explain online ann
      gossip explain motd
    """
    asked: dict[str, Any] = {"object": name, "type": type_}
    if key is not None:
        asked |= {"key": key, "element": value_of(key, as_text)} | ({"key": value_of(key, False)} if json_key else {})
    with converse(cluster, node) as conversation:
        told = conversation.ask("explain", **asked)
    if as_json:
        say(document(told))
        return
    for line in _lines(told):
        say(line)


def _lines(told: dict[str, Any]) -> list[str]:
    lines = [f"{printable(told['what'])}: {shown(told['value'])}"] if "value" in told else [printable(told["what"])]
    who = f"{printable(told['author'])} ({told['instance']})"
    if told["author"] == told["instance"]:
        who = f"{told['instance']}, whom nobody remembers here,"
    lines.append(f"  written by {who} at {told['at']}")
    lines += _noted(told)
    if told["expires"]:
        lines.append(f"  expires at {told['expires']}")
    if told["owned"]:
        lines.append("  owned: it goes when that member dies or leaves")
    for each in told["conflicts"]:
        by = f"by {printable(each['author'])} at {each['at']}"
        lines.append(f"  conflict, not shown: {shown(each['value'])}, {by}")
    lines += _replaced(told["replaced"])
    lines.append(f"  held by {', '.join(map(printable, told['holders']))}")
    if told["silent"]:
        lines.append(f"  silent: {', '.join(map(printable, told['silent']))}")
    return lines


def _noted(told: dict[str, Any]) -> list[str]:
    by, note = told["by"], told["note"]
    if by is None and note is None:
        return []
    return [f"  {'on behalf of ' + printable(by) if by else 'noted'}{': ' + printable(note) if note else ''}"]


def _replaced(replaced: list[dict[str, Any]] | None) -> list[str]:
    if replaced is None:
        return ["  what it replaced is no longer in the log of this node"]
    lines = []
    for each in replaced:
        author = printable(each["author"])
        if not each["logged"]:
            lines.append(f"  replaced what {author} wrote, which is no longer in the log")
            continue
        lines.append(f"  replaced {shown(each['value'])}, by {author} at {each['at']}")
        lines += ["  " + line for line in _noted(each)]
    return lines
