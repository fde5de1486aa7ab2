"""How is a node, in figures?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from gossip.cli.asking import of_node
from gossip.cli.conversation import converse
from gossip.cli.printing import document, say, say_table, shown


@click.command("status")
@of_node
def command(cluster: str | None, node: str | None, as_json: bool) -> None:
    """Print what a node knows of itself and of the cluster, for debugging.

    Two nodes with the same digest hold the same state.

    \b
    Example:
      gossip status
      gossip status --node worker-2 --json
    """
    with converse(cluster, node) as conversation:
        status = conversation.ask("status")
    if as_json:
        say(document(status))
    else:
        say_table(("what", "value"), list(_rows(status)))


def _rows(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for what, value in status.items():
        match what:
            case "members":
                counted = Counter(member["status"] for member in value)
                yield what, ", ".join(f"{number} {name}" for name, number in counted.items())
            case "objects":
                yield what, str(len(value))
            case "addresses":
                yield what, " ".join(value)
            case _ if isinstance(value, dict):
                yield from ((f"{what}.{part}", shown(figure)) for part, figure in sorted(value.items()))
            case _:
                yield what, shown(value)
