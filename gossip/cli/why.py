"""Why is a member taken for what it is?"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from gossip.cli.asking import of_node
from gossip.cli.conversation import converse
from gossip.cli.printing import document, printable, say

_SAID = {
    "alive": "was found alive",
    "suspect": "was suspected",
    "stalled": "was found stalled",
    "dead": "was found dead",
    "left": "left",
}


@click.command("why")
@click.argument("name", metavar="NAME")
@of_node
def command(name: str, cluster: str | None, node: str | None, as_json: bool) -> None:
    """Tell what one node found of a member (by name or instance), when, and on what evidence: its last 16 verdicts.

    Other nodes may have found other things, and found them at other times: ask them with --node. Where it says
    "worker-3 said so", worker-3 has the evidence: `gossip why NAME --node worker-3`. A name that was used several times
    tells of each, the living one first. Exit code 1 if nobody is called so.

    \b
    Example:
      gossip why worker-3
    """
    with converse(cluster, node) as conversation:
        members = conversation.ask("why", name=name)
    if as_json:
        say(document(members))
        return
    for member in members:
        for line in _story(member):
            say(line)


def _story(member: dict[str, Any]) -> list[str]:
    rtt = "" if member["rtt"] is None else f", round trip {member['rtt'] * 1000:.1f} ms"
    lines = [f"{printable(member['name'])} ({member['instance']}) is {member['status']}{rtt}"]
    for verdict in member["verdicts"]:
        at = datetime.fromtimestamp(verdict["at"]).astimezone().isoformat(sep=" ", timespec="milliseconds")
        told = [f"{each} said so" for each in verdict["by"]] == [verdict["evidence"]]  # it is named there already
        by = f" by {', '.join(map(printable, verdict['by']))}" if verdict["by"] and not told else ""
        lines.append(f"  {at}  it {_SAID[verdict['status']]}{by}: {printable(verdict['evidence'])}")
    return lines
