"""How does a value get into a map or a register?"""

from __future__ import annotations

import sys

import click

from gossip.cli.asking import TakesNumbers, as_text, json_key, key_of, lasting, noted, of_node, of_type, value_of
from gossip.cli.conversation import Conversation, converse
from gossip.cli.printing import Failure, document, printable, refused, say


@click.command("set", cls=TakesNumbers)
@click.argument("name", metavar="OBJECT")
@click.argument("first", metavar="[KEY]", required=False)
@click.argument("second", metavar="VALUE", required=False)
@as_text
@lasting
@noted
@json_key
@of_type
@of_node
def command(
    name: str, first: str | None, second: str | None, as_text: bool, ttl: float | None, json_key: bool,
    by: str | None, note: str | None, type_: str | None, cluster: str | None, node: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Set a key of a map, or without a KEY a register.

    Two words set a register (gossip set motd hello), three a key of a map (gossip set flags beta true): text with
    spaces stands in quotes. What does not exist yet is made. VALUE is taken as JSON if it is JSON, else as text.

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
        is_new = not as_json and sys.stderr.isatty() and not conversation.types(name)
        try:
            conversation.ask("set", object=name, key=key, value=value, type=type_, ttl=ttl, by=by, note=note)
        except Failure as failure:
            if failure.kind == "refused" and type_ is None:
                _explain(conversation, failure, name, None if second is not None else text)
            raise
    if is_new:
        made = f"made the register {name!r}" if key is None else f"made the map {name!r}, with the key {key!r}"
        print(f"gossip: {printable(made)}", file=sys.stderr)
    if as_json:
        say(document({"object": name, "key": key, "value": value}))


def _explain(conversation: Conversation, failure: Failure, name: str, only: str | None) -> None:
    """Raises what helps more than the refusal, where something of another type has this name."""
    types = conversation.types(name)
    if types == ["map"] and only is not None:
        raise click.UsageError(f"{name!r} is a map, so VALUE is missing: gossip set {name} {only} VALUE") from None
    how = {"counter": f"gossip incr {name} counts", "set": f"gossip add {name} ELEMENT adds to it"}
    if len(types) == 1 and types[0] in how:
        raise refused(f"{failure} ({how[types[0]]})") from None
