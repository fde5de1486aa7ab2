"""How does a value get into a map or a register?"""

from __future__ import annotations

import click

from gossip.cli.asking import TakesNumbers, as_text, json_key, key_of, of_node, of_type, value_of
from gossip.cli.conversation import converse
from gossip.cli.printing import document, say


@click.command("set", cls=TakesNumbers)
@click.argument("name", metavar="OBJECT")
@click.argument("first", metavar="[KEY]", required=False)
@click.argument("second", metavar="VALUE", required=False)
@as_text
@json_key
@of_type
@of_node
def command(
    name: str, first: str | None, second: str | None, as_text: bool, json_key: bool, type_: str | None,
    cluster: str | None, node: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Set a key of a map, or without a KEY a register.

    VALUE is taken as JSON if it is JSON, else as text.

    \b
    Example:
      gossip set flags beta true                 the boolean
      gossip set cart ann '{"items": [7, 9]}'    an object
      gossip set motd "hello, all"               a register, text
      gossip set phones ann --text 0123          text, whatever it looks like
    """
    key, text = (None, first) if second is None else (first, second)
    if text is None:
        raise click.UsageError("VALUE is missing: gossip set OBJECT [KEY] VALUE")
    value, key = value_of(text, as_text), key_of(key, json_key)
    with converse(cluster, node) as conversation:
        conversation.ask("set", object=name, key=key, value=value, type=type_)
    if as_json:
        say(document({"object": name, "key": key, "value": value}))
