"""How does a key, or what is in a register, go away?"""

from __future__ import annotations

import click

from gossip.cli.asking import json_key, key_of, of_node
from gossip.cli.conversation import converse
from gossip.cli.printing import Failure, document, missing, say

_HOW = {
    "map": "name the key to delete",
    "set": "gossip remove {} ELEMENT",
    "counter": "it can not be deleted, only counted back with gossip incr",
    "register": "it is empty",
}


@click.command("delete")
@click.argument("name", metavar="OBJECT")
@click.argument("key", required=False)
@json_key
@of_node
def command(
    name: str, key: str | None, json_key: bool, cluster: str | None, node: str | None, as_json: bool
) -> None:  # fmt: skip
    """Delete a key of a map, or without a KEY what is in a register.

    Exit code 1 if it was not there.

    \b
    Example:
      gossip delete flags beta
      gossip delete motd
    """
    found = key_of(key, json_key)
    with converse(cluster, node) as conversation:
        try:
            conversation.ask("delete", object=name, key=found)
        except Failure as failure:
            if failure.kind != "missing" or key is not None:
                raise
            for type_ in conversation.types(name):
                raise missing(f"{name!r} is a {type_}: {_HOW[type_].format(name)}") from None
            raise
    if as_json:
        say(document({"object": name, "key": found}))
