"""Who is in the cluster, and who was?"""

from __future__ import annotations

import sys
import time
from datetime import datetime
from shutil import get_terminal_size
from typing import Any

import click

from gossip.cli.asking import of_node, told_tags
from gossip.cli.conversation import converse
from gossip.cli.printing import document, missing, say, say_table

_COLUMNS = ("name", "status", "instance", "address", "rtt", "since", "tags", "evidence")
_NARROW = ("name", "status", "instance", "address", "rtt", "for", "tags", "evidence")
"""On a terminal, which has 80 columns or so."""
_WIDE = 120
"""Columns in which there is room for all."""


@click.command("members")
@click.option(
    "--where",
    metavar="KEY=VALUE",
    multiple=True,
    help="Only those with this tag. Repeatable: all keys must be there, and of one key any of its values will do.",
)
@of_node
def command(where: tuple[str, ...], cluster: str | None, node: str | None, as_json: bool) -> None:
    """Print the members as one node knows them: the living first, then the dead and the left.

    Columns: name, status (alive, suspect, stalled, dead, left), instance, address, last round trip, since when, tags,
    and the evidence for the status ("ann said so": `gossip why NAME --node ann` has hers). A terminal of less than 120
    columns has no instance, where the names do for that, and no address, where all are of this host. Exit code 1 if
    none has the tags that were asked for.

    \b
    Example:
      gossip members
      gossip members --where role=web --where role=api
      gossip members --json | jq -r '.[] | select(.status == "alive") | .name'
    """
    wanted = _wanted(where)
    with converse(cluster, node) as conversation:
        members = conversation.ask("members")
    members = [each for each in members if all(each["tags"].get(key) in values for key, values in wanted.items())]
    if not members:
        raise missing(f"no member has {' and '.join(where)}: `gossip members` shows all, with their tags")
    if as_json:
        say(document(members))
    elif sys.stdout.isatty():
        _say_narrow(members)
    else:
        say_table(_COLUMNS, map(_row, members))


def _say_narrow(members: list[dict[str, Any]]) -> None:
    """A table for people. In a narrow one, what tells nothing here makes room for what does."""
    columns = list(_NARROW)
    if get_terminal_size().columns < _WIDE:
        if all(_address(each).startswith("unix:") for each in members):
            columns.remove("address")
        if len({each["name"] for each in members}) == len(members):
            columns.remove("instance")
    rows = (dict(zip(_NARROW, _narrow_row(each), strict=True)) for each in members)
    say_table(columns, ([row[column] for column in columns] for row in rows))


def _wanted(where: tuple[str, ...]) -> dict[str, list[str]]:
    """Which values of which tags will do."""
    wanted: dict[str, list[str]] = {}
    for key, value in told_tags(where):
        wanted.setdefault(key, []).append(value)
    return wanted


def _row(member: dict[str, Any]) -> tuple[str, ...]:
    since = datetime.fromtimestamp(member["since"]).astimezone().isoformat(timespec="seconds")
    return _fields(member, _address(member), since)


def _narrow_row(member: dict[str, Any]) -> tuple[str, ...]:
    address = _address(member)
    return _fields(member, "unix" if address.startswith("unix:") else address, age(time.time() - member["since"]))


def _fields(member: dict[str, Any], address: str, since: str) -> tuple[str, ...]:
    rtt = "" if member["rtt"] is None else f"{member['rtt'] * 1000:.1f} ms"
    tags = ",".join(f"{key}={value}" for key, value in sorted(member["tags"].items()))
    return (member["name"], member["status"], member["instance"], address, rtt, since, tags, member["evidence"])


def _address(member: dict[str, Any]) -> str:
    """The one that others could use, which is that of the network if there is one."""
    return member["addresses"][-1] if member["addresses"] else ""


def age(seconds: float) -> str:
    """A time span for people.

    >>> age(0.4), age(75), age(7322), age(200_000)
    ('0s', '1m15s', '2h2m', '2d7h')
    """
    whole = max(int(seconds), 0)
    for unit, next_unit, size, part in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part}{next_unit}"
    return f"{whole}s"
