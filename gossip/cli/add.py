"""How does an element get into a set?"""

from __future__ import annotations

import click

from gossip.cli.asking import TakesNumbers, as_text, lasting, noted, of_node, of_type, value_of
from gossip.cli.conversation import converse, telling_if_made
from gossip.cli.printing import document, say


@click.command("add", cls=TakesNumbers)
@click.argument("name", metavar="OBJECT")
@click.argument("element")
@as_text
@lasting
@noted
@of_type
@of_node
def command(
    name: str,
    element: str,
    as_text: bool,
    ttl: float | None,
    by: str | None,
    note: str | None,
    type_: str | None,
    cluster: str | None,
    node: str | None,
    as_json: bool,
) -> None:
    """Add an element to a set. Exit code 0 also if it was there.

    ELEMENT is taken as JSON if it is JSON, else as text: 7 is the number, and with --text the text.

    \b
    Example:
      gossip add online ann
      gossip add seats 7
      gossip add codes --text 7
    """
    value = value_of(element, as_text)
    with converse(cluster, node) as conversation, telling_if_made(conversation, name, "set", as_json):
        conversation.ask("add", object=name, element=value, type=type_, ttl=ttl, by=by, note=note)
    if as_json:
        say(document({"object": name, "element": value}))
