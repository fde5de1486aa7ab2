"""What does each node hold, by its own word?

Every node has a control socket beside its own (it is what the command line speaks to). Here each is asked for all that
it holds, so that nothing is compared by way of the state whose agreement is in question.

Invariant: a node that does not answer gives no view, and is missed by the verdict.
Not here: what the views should be (`verdict`).
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gossip

_PATIENCE = 10.0
_LONGEST_LINE = 1 << 28


@dataclass(frozen=True, slots=True)
class View:
    """All that one node holds. `sessions` is `{id: name}`, `context` a fingerprint of which writes it delivered."""

    name: str
    hits: int
    sessions: dict[str, str]
    online: frozenset[str]
    context: str
    members: int
    diverged: int
    """How often it saw equal writes give unequal states; should be 0 for ever."""
    deaths: dict[str, tuple[float, str]]
    """Of the members it knows to be dead, by name: since when (seconds since 1970) and why."""


def control_path(member: gossip.Member) -> Path:
    """The control socket of a node on this host: beside its own."""
    return Path(member.address.removeprefix("unix:")).with_suffix(".ctl")


async def view_of(member: gossip.Member) -> View:
    """Asks one node. Raises OSError or TimeoutError if it does not answer."""
    async with asyncio.timeout(_PATIENCE):
        reader, writer = await asyncio.open_unix_connection(str(control_path(member)), limit=_LONGEST_LINE)
        try:
            held = [await _ask(reader, writer, request) for request in _REQUESTS]
        finally:
            writer.close()
    (hits,), sessions, online, (status,), (members,) = held
    return View(
        member.name,
        hits,
        {session: value["name"] for session, value in sessions},
        frozenset(online),
        status["digest"]["context"],
        sum(each["status"] == "alive" for each in members),
        status["counters"].get("diverged", 0),
        {each["name"]: (each["since"], each["evidence"]) for each in members if each["status"] == "dead"},
    )


_REQUESTS: tuple[dict[str, str], ...] = (
    {"do": "get", "object": "hits", "type": "counter"},
    {"do": "get", "object": "sessions", "type": "map"},
    {"do": "get", "object": "online", "type": "set"},
    {"do": "status"},
    {"do": "members"},
)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: dict[str, str]) -> list[Any]:
    """The entries of what is got, which come in parts; of other answers the one there is."""
    writer.write(json.dumps(request).encode() + b"\n")
    await writer.drain()
    entries: list[Any] = []
    while line := await reader.readline():
        answer = json.loads(line)
        if "part" in answer:
            entries += answer["part"]
        elif "ok" in answer:
            return entries if request["do"] == "get" else [answer["ok"]]
        else:
            raise ConnectionError(f"a node did not answer {request}: {answer}")
    raise ConnectionError(f"a node closed the connection instead of answering {request}")


async def views_of(node: gossip.Node) -> list[View]:
    """The views of all living nodes; whoever does not answer, having just left perhaps, is left out."""
    answers = await asyncio.gather(*(view_of(member) for member in node.members.alive), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, OSError | TimeoutError):
            raise answer
    return [answer for answer in answers if isinstance(answer, View)]


def hits_by_worker(node: gossip.Node) -> dict[str, int]:
    """How many hits of each worker, by pid, have arrived at this node. The dead are remembered, so they count."""
    pids = {member.instance: member.tags.get("pid", "") for member in node.members.all}
    parts: dict[str, int] = {}
    for instance, hits in node.counter("hits").parts().items():
        pid = pids.get(instance, "")
        parts[pid] = parts.get(pid, 0) + hits
    return parts


def alike(views: list[View]) -> bool:
    """Whether all show the same hits, sessions and people online; what else is shared may still be changing."""
    return len({(view.hits, frozenset(view.sessions.items()), view.online) for view in views}) == 1


def agree(views: list[View]) -> bool:
    """Whether all show the same and have delivered the same writes. Holds only when nobody writes any more."""
    return alike(views) and len({view.context for view in views}) == 1
