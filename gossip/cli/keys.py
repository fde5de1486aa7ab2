"""Which objects are there, and which keys does a map have?"""

from __future__ import annotations

import click

from gossip.cli.asking import of_node, of_type
from gossip.cli.conversation import converse
from gossip.cli.printing import document, say, say_table, shown


@click.command("keys")
@click.argument("name", metavar="[OBJECT]", required=False)
@of_type
@of_node
def command(name: str | None, type_: str | None, cluster: str | None, node: str | None, as_json: bool) -> None:
    """Print the keys of a map, or without an OBJECT all objects: type, name, number of entries.

    Of a counter that is how many workers have counted, and not what they counted: `gossip get` gives that.

    \b
    Example:
      gossip keys
      gossip keys flags
    """
    with converse(cluster, node) as conversation:
        found, _ = conversation.ask_all("keys", object=name, type=type_)
    if name is None:
        found = [each for each in found if type_ in (None, each["type"])]
    else:
        found.sort(key=shown)
    if as_json:
        say(document(found))
    elif name is None:
        say_table(("type", "name", "entries"), [(each["type"], each["name"], str(each["entries"])) for each in found])
    else:
        say_table(("key",), [(shown(key),) for key in found])
