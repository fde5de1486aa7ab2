"""What happens to the members of a cluster, and to this node, for a program that wants to know?

Events are told as they happen, to whoever listens at that time; what is so now, `node.members` and `node.status()` say.

Invariants: nothing waits for a listener; what he does not read in time is dropped, the oldest first, and counted.
Not here: what happened to data (`watch`), and when what happens (`protocol`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self

from gossip.protocol.members import Claim, Status
from gossip.roster import Member

if TYPE_CHECKING:
    from gossip.protocol.effects import MemberChanged

MOST: Final = 1024
"""Events that a listener may leave unread."""
_MOST_NAMED: Final = 8
"""Tags named in the evidence of an event,"""
_SHOWN: Final = 40
"""and characters of each: the member has all of them whole."""

EventKind = Literal[
    "joined", "ready", "changed", "suspected", "stalled", "refuted", "died", "left", "reborn", "skewed", "diverged",
    "repaired", "lagging", "caught_up", "storage_failed", "missed",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, as this node knows it.

    Of members: `joined`, `suspected`, `stalled` (it does not answer, and its process exists), `refuted` (it answers
    again), `died`, `left`; `changed` (it has other tags or addresses, this node too); `skewed` (its clock is too far
    ahead, and its writes wait), `lagging` (it takes less than is sent to it: what follows it will have to ask for) and
    `caught_up`. Of this node: `ready` (what the others share is here), `reborn` (it was called dead, and goes on as
    another instance), `storage_failed`, and `diverged` and `repaired`, which should never be. `missed` says how many
    events were not read in time.

    `member` is whom it is about, if he is known; `evidence` says why we think so, in a sentence.
    """

    kind: EventKind
    member: Member | None
    evidence: str
    at: datetime


class Events:
    """A stream of events: `async with node.events() as events: async for event in events: ...`.

    `enter` and `leave` tell the node that it listens, or no more; `lock` guards what both touch.
    """

    def __init__(
        self,
        enter: Callable[[Events], None],
        leave: Callable[[Events], None],
        lock: Callable[[], AbstractContextManager[object]],
    ) -> None:
        from gossip.bell import Bell  # here, since it needs asyncio: there is a node now, which has it anyway

        self._enter, self._leave, self._lock_of = enter, leave, lock
        self._lock: AbstractContextManager[object] = nullcontext()
        self._unread: deque[Event] = deque()
        self._missed = 0
        self._ended = False
        self._bell = Bell()

    async def __aenter__(self) -> Self:
        self._lock = self._lock_of()
        self._bell.begin()
        with self._lock:
            self._enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._leave(self)

    def __aiter__(self) -> Self:
        if not self._bell.begun:
            raise RuntimeError("events begin with their block: async with node.events() as events: ...")
        return self

    async def __anext__(self) -> Event:
        self.__aiter__()
        while True:
            with self._lock:  # events may come from any thread
                if self._missed:
                    missed, self._missed = self._missed, 0
                    return Event("missed", None, f"{missed} events were not read in time", datetime.now(UTC))
                if self._unread:
                    return self._unread.popleft()
                if self._ended:
                    raise StopAsyncIteration
                self._bell.quiet()
            await self._bell.wait()

    # -- told by the node, with its lock held ------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        if len(self._unread) >= MOST:
            self._unread.popleft()
            self._missed += 1
        self._unread.append(event)
        self._bell.ring()

    def _end(self) -> None:
        """There will be no more: what is unread can still be read."""
        self._ended = True
        self._bell.ring()


def told_of(changed: MemberChanged) -> list[tuple[EventKind, str]]:
    """What happened to a member, and why we think so: that others say so too nobody need know."""
    claim, before = changed.claim, changed.before
    told: list[tuple[EventKind, str]] = []
    if before is None and not claim.gone:  # and then perhaps suspected: so it may be when it is shown
        told.append(("joined", changed.why))
    if before is not None and before.addresses and not claim.gone and (what := _otherwise(before, claim)):
        told.append(("changed", f"{what}: {changed.why}"))
    kind = _kind_of(claim, before)
    return told if kind is None else [*told, (kind, changed.why)]


def _otherwise(before: Claim, claim: Claim) -> str:
    """What a member says of itself that it did not say before, for people."""
    had, has = dict(before.tags), dict(claim.tags)
    names = sorted(name for name in had.keys() | has.keys() if had.get(name) != has.get(name))
    other = [f"{name}={has[name]:.{_SHOWN}}" if name in has else f"no {name}" for name in names[:_MOST_NAMED]]
    other += ["..."] * (len(names) > _MOST_NAMED)
    if before.addresses != claim.addresses:
        other.append(f"at {' '.join(claim.addresses)}")
    return ", ".join(other)


def _kind_of(claim: Claim, before: Claim | None) -> EventKind | None:
    status = None if before is None else before.status
    match claim.status:
        case Status.ALIVE if status in (Status.SUSPECT, Status.STALLED):
            return "refuted"
        case Status.SUSPECT if status != Status.SUSPECT:
            return "suspected"
        case Status.STALLED if status != Status.STALLED:
            return "stalled"
        case Status.DEAD if before is not None and not before.gone:
            return "died"
        case Status.LEFT if before is not None and not before.gone:
            return "left"
    return None
