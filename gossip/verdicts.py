"""What was found of each member, and why, in the order in which this node found it?

Invariants: why somebody is gone is not overwritten by an echo of that; of a member at most `MOST` verdicts are kept,
the last, and none of members that are forgotten.
Not here: what follows from a verdict (the protocol), and telling of it as it happens (`events`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Final, NamedTuple

from gossip.roster import address_of

if TYPE_CHECKING:
    from gossip.protocol.effects import MemberChanged

MOST: Final = 16
"""Verdicts kept of a member."""


class Verdict(NamedTuple):
    """What was found of a member: its `status`, at which wall-clock second, why, and who says so by now (names)."""

    at: float
    status: str
    evidence: str
    by: tuple[str, ...] = ()


class Verdicts:
    """The verdicts on all members that one node knows."""

    def __init__(self, name_of: Callable[[int], str]) -> None:
        self._name_of = name_of
        self._of: dict[int, deque[Verdict]] = {}

    def add(self, changed: MemberChanged, now: float) -> None:
        """Something was found of a member."""
        claim, before = changed.claim, changed.before
        if before is not None and before.gone:
            return
        known = self._of.setdefault(claim.instance, deque(maxlen=MOST))
        by = tuple(map(self._name_of, claim.by))
        if before is not None and before.addresses != claim.addresses and not claim.gone:
            now_at, was_at = (address_of(each) or "no address" for each in (claim, before))
            moved = f"it is at {now_at} now, and was at {was_at}: {changed.why}"
            known.append(Verdict(now, claim.status.name.lower(), moved, by))
        elif known and before is not None and before.status == claim.status:
            known[-1] = known[-1]._replace(by=by)  # others say so too, or its tags have changed
        else:
            known.append(Verdict(now, claim.status.name.lower(), changed.why, by))

    def begin(self, instance: int, now: float) -> None:
        """This node itself begins."""
        self._of[instance] = deque([Verdict(now, "alive", "this node itself")], MOST)

    def forget(self, but: Container[int]) -> None:
        """Keeps what is known of these only."""
        self._of = {instance: known for instance, known in self._of.items() if instance in but}

    def clear(self) -> None:
        """Forgets all."""
        self._of.clear()

    def __len__(self) -> int:
        return len(self._of)

    def of(self, instance: int) -> tuple[Verdict, ...]:
        """Those on a member, the oldest first."""
        return tuple(self._of.get(instance, ()))
