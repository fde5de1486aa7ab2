"""Who is in the cluster, and who was?"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from gossip.cli.asking import of_node
from gossip.cli.conversation import converse
from gossip.cli.printing import document, say, say_table

_COLUMNS = ("name", "status", "instance", "address", "rtt", "since", "tags", "evidence")


@click.command("members")
@of_node
def command(cluster: str | None, node: str | None, as_json: bool) -> None:
    """Print the members as one node knows them: the living first, then the dead and the left.

    Columns: name, status (alive, suspect, dead, left), instance, address, last round trip, since when, tags, and the
    evidence for the status.

    \b
    Example:
      gossip members
      gossip members --json | jq -r '.[] | select(.status == "alive") | .name'
    """
    with converse(cluster, node) as conversation:
        members = conversation.ask("members")
    if as_json:
        say(document(members))
    else:
        say_table(_COLUMNS, map(_row, members))


def _row(member: dict[str, Any]) -> tuple[str, ...]:
    rtt = member["rtt"]
    return (
        member["name"],
        member["status"],
        member["instance"],
        member["address"],
        "" if rtt is None else f"{rtt * 1000:.1f} ms",
        datetime.fromtimestamp(member["since"]).astimezone().isoformat(timespec="seconds"),
        ",".join(f"{key}={value}" for key, value in sorted(member["tags"].items())),
        member["evidence"],
    )
