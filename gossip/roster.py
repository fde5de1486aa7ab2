"""Who is there, for a program to look at?

A read-only view of the engine's table. Invariant: it shows what the engine knows at the moment of the call, and what
was got from it never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gossip.errors import NotRunning
from gossip.protocol.members import Claim

StatusName = Literal["alive", "suspect", "stalled", "dead", "left"]
_LIVING = ("alive", "suspect", "stalled")


@dataclass(frozen=True, slots=True)
class Member:
    """A node, as this node knows it.

    `instance` is one start of it (64 bits), and `id` the same as the command line prints it. `address` is for people:
    that on the network, or for a node without one its unix socket. `since` is the wall-clock second in which it took
    its status, as seen here, `evidence` why, as a sentence, and `rtt` the last round trip in seconds, if there was one.
    """

    name: str
    instance: int
    address: str
    status: StatusName
    since: float
    evidence: str
    tags: Mapping[str, str] = field(default_factory=dict)
    rtt: float | None = None

    @property
    def id(self) -> str:
        """The instance in 16 hex digits."""
        return f"{self.instance:016x}"


def member_of(claim: Claim, since: float, evidence: str, rtt: float | None) -> Member:
    """A claim as a member."""
    status: tuple[StatusName, ...] = ("alive", "suspect", "stalled", "dead", "left")
    return Member(
        claim.name,
        claim.instance,
        address_of(claim),
        status[claim.status],
        since,
        evidence,
        dict(claim.tags),
        rtt,
    )


def address_of(claim: Claim) -> str:
    """That on the network, if it has one: a socket has a path that means nothing on other hosts. Empty if it says none,
    as anybody may."""
    return claim.addresses[-1] if claim.addresses else ""


def _fits(value: str | None, wanted: str | Collection[str] | None) -> bool:
    return value == wanted if wanted is None or isinstance(wanted, str) else value in wanted


class Roster:
    """The members of the cluster, this node included: living ones first, then by name.

    `len`, iteration and `in` count the living; `roster["name"]` finds a living member by its name, or raises
    `KeyError`; `roster.all` has the dead and the left as well.
    """

    def __init__(self, look: Callable[[], list[Member]]) -> None:
        self._look = look

    @property
    def all(self) -> list[Member]:
        """Everybody still remembered, the dead and the left included."""
        return sorted(
            self._look(), key=lambda member: (member.status in ("dead", "left"), member.name, member.instance)
        )

    @property
    def alive(self) -> list[Member]:
        """Those that nobody suspects."""
        return [member for member in self.all if member.status == "alive"]

    def where(self, /, **tags: str | Collection[str] | None) -> list[Member]:
        """The living that have all these tags. Of several values any will do, and None stands for no such tag at all:
        `where(role={"web", "api"}, draining=None)`. Raises `TypeError` for what no tag can be."""
        for key, wanted in tags.items():
            if wanted is not None and not isinstance(wanted, str | Collection):
                raise TypeError(f"{key}={wanted!r:.80} is no value of a tag: give a text, several in a set, or None")
        return [member for member in self if all(_fits(member.tags.get(key), wanted) for key, wanted in tags.items())]

    def __iter__(self) -> Iterator[Member]:
        return iter([member for member in self.all if member.status in _LIVING])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return any(name in (member.name, member) for member in self)

    def __getitem__(self, name: str | int) -> Member:
        """The living member of this name, or that of this instance (or `id`), gone or not: the author of an entry."""
        for member in self.all:
            if name in (member.instance, member.id) or (name == member.name and member.status in _LIVING):
                return member
        raise KeyError(f"no member is called {name!r}, and none has that instance")

    def __repr__(self) -> str:
        try:
            return f"<members: {', '.join(member.name for member in self)}>"
        except NotRunning:
            return "<members: the node is not running>"
