"""What happens in the cluster, as it happens?

Ends as `gossip watch` does.
"""

from __future__ import annotations

from typing import Any

import click

from gossip.cli.asking import of_node
from gossip.cli.conversation import converse
from gossip.cli.printing import document, no_node, printable, say
from gossip.cli.watch import Ended, end_by_signal, until_readable


@click.command("events")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@of_node
def command(count: int | None, cluster: str | None, node: str | None, as_json: bool) -> int:
    """Print what happens to members, as this node sees it: time, what, member, why.

    Members joined, changed (their tags or addresses), are suspected or stalled, refuted that, died, left; are skewed (a
    clock is wrong), lagging (they take less than is sent to them), or caught_up. Of this node: ready, changed, reborn,
    storage_failed, and diverged and repaired, which should never be. A node that leaves ends it with exit code 3.

    \b
    Example:
      gossip events
      gossip events --json | while read -r event; do ...; done
    """
    end_by_signal()
    try:
        with converse(cluster, node) as conversation:
            told = conversation.follow("events", None, until_readable(conversation))
            next(told, None)  # it listens
            for number, answer in enumerate(told, 1):
                say(document(answer["ok"]) if as_json else _line(answer["ok"]))
                if number == count:
                    return 0
            raise no_node(f"the node {conversation.name!r} is gone, without having left")
    except Ended as ended:
        return ended.code


def _line(event: dict[str, Any]) -> str:
    who = f"{event['member']} ({event['instance']})" if event["member"] else "-"
    return "\t".join(map(printable, (event["at"], event["kind"], who, event["evidence"])))
