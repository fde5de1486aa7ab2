"""How does a shell count?"""

from __future__ import annotations

import click

from gossip.cli.asking import TakesNumbers, of_node, of_type
from gossip.cli.conversation import converse, telling_if_made
from gossip.cli.printing import document, say


@click.command("incr", cls=TakesNumbers)
@click.argument("name", metavar="OBJECT")
@click.argument("amount", metavar="[AMOUNT]", type=int, default=1)
@of_type
@of_node
def command(name: str, amount: int, type_: str | None, cluster: str | None, node: str | None, as_json: bool) -> None:
    """Add AMOUNT to a counter (1 if not given), and print what it shows then.

    \b
    Example:
      gossip incr hits
      gossip incr hits 10
      gossip incr hits -3
    """
    if amount == 0:
        raise click.UsageError("AMOUNT is 0: `gossip get` shows a counter")
    with converse(cluster, node) as conversation, telling_if_made(conversation, name, "counter", as_json):
        value = conversation.ask("incr", object=name, amount=amount, type=type_)
    say(document(value) if as_json else str(value))
