"""How does an element leave a set?"""

from __future__ import annotations

import click

from gossip.cli.asking import TakesNumbers, as_text, of_node, of_type, value_of
from gossip.cli.conversation import converse
from gossip.cli.printing import document, say


@click.command("remove", cls=TakesNumbers)
@click.argument("name", metavar="OBJECT")
@click.argument("element")
@as_text
@of_type
@of_node
def command(
    name: str, element: str, as_text: bool, type_: str | None, cluster: str | None, node: str | None, as_json: bool
) -> None:
    """Remove an element from a set. Exit code 1 if it was not there.

    ELEMENT is taken as JSON if it is JSON, else as text: 7 is the number, and with --text the text.

    \b
    Example:
      gossip remove online ann
      gossip remove seats 7
      gossip remove codes --text 7
    """
    value = value_of(element, as_text)
    with converse(cluster, node) as conversation:
        conversation.ask("remove", object=name, element=value, type=type_)
    if as_json:
        say(document({"object": name, "element": value}))
