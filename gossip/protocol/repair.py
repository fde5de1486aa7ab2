"""Whom do we ask for what we miss, and when have we got what the others share?

Every digest that a peer sends is compared with ours. What differs for a moment is on its way already; what differs
longer is pulled, without waiting for that peer's next digest: in a large cluster it comes after minutes. A newcomer
does not wait at all: it asks one peer at a time, and the next when that one is busy or silent, so that many who start
together do not have everybody send everything to everyone.

A newcomer is *ready* when it agrees with somebody who is, or has been given all that such a one has. Where nobody is
ready (a whole cluster starts), when all whom it knows of have answered and agree, or `join_timeout` is over. Whoever is
ready by mere time, while somebody it dialled was silent, tells nobody so for a while: that one may have everything.

Invariants: an unready peer's agreement proves nothing, for two newcomers with nothing agree at once; a peer is
asked once in `pull_timeout`. Not here: what is sent (`replication`, `transfer`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import inf

from gossip.protocol.messages import Digest, Push
from gossip.protocol.settings import Settings

_PATIENCE = 5
"""Probe intervals after which somebody is asked whose context differs all the time, though it has not more than we."""
_MOST_LOOKS = 64
"""Peers whose digests are looked at again: if many are ahead of us, one of them is enough."""
_TRIES = 8
"""How often somebody is asked for what lies before something held back: it may have died with its author."""


class _Asked:
    """A pull that was sent: its number, until when nobody asks again, and how many parts of its answer have come."""

    __slots__ = ("number", "parts", "until")

    def __init__(self, number: int, until: float) -> None:
        self.number = number
        self.until = until
        self.parts = 0


class Repair:
    """What one node knows of how far its peers are.

    Its pulls are numbered from `start`, which is drawn by chance: what answers those of somebody who listened at our
    address before is none of ours.
    """

    def __init__(self, settings: Settings, start: int) -> None:
        self._settings = settings
        self._digests: dict[int, Digest] = {}
        self._differs: dict[int, float] = {}
        """Since when a peer's context was seen to differ."""
        self._behind_since = inf
        """Since when everybody who said how many writes he has, has more than we."""
        self._precaution_at = -inf
        self._looks: dict[int, float] = {}
        """When its last digest is looked at again."""
        self._asked: dict[int, _Asked] = {}
        self._number = start
        self._refused: dict[int, float] = {}
        """Until when a peer that was busy is left in peace."""
        self._dialled: set[str] = set()
        """Addresses at which nobody has answered yet; kept while we are not ready."""
        self._ready_due = inf
        self._sure_at = inf
        self._gap_due = inf
        self._tries = 0
        self._delivered_at = -inf
        self.ready = False
        self.gave_up = False
        """Whether what lies before something held back was asked for in vain, and not since."""
        self.sure = False
        """Whether others may take our readiness for theirs."""

    @property
    def deadline(self) -> float:
        """When something is due: giving up on being given everything, or asking about a gap again."""
        return min(self._gap_due, self._ready_due, self._sure_at, *self._looks.values())

    # -- joining ------------------------------------------------------------------------------------------------------

    def dialled(self, addresses: Collection[str], now: float) -> None:
        """Somebody may be at these addresses. Begins the wait for readiness, the first time."""
        if not self.sure:
            self._dialled.update(addresses)
        if not self.ready:
            self._ready_due = min(self._ready_due, now + self._settings.join_timeout)

    def reached(self, addresses: Iterable[str]) -> None:
        """The member that listens here has answered."""
        self._dialled.difference_update(addresses)

    @property
    def unanswered(self) -> Collection[str]:
        """The addresses at which nobody has answered so far."""
        return self._dialled

    def heard(self, peer: int, digest: Digest) -> None:
        """A peer told how far it is."""
        self._digests[peer] = digest

    def wonders(self, peer: int) -> bool:
        """Whether a newcomer should ask this peer how far it is: one of whom it was only told may have everything."""
        return not self.ready and peer not in self._digests

    def is_ready(self, mine: Digest, living: Collection[int], now: float) -> bool:
        """Whether readiness has come just now."""
        if self.ready:
            self._look_again(mine, living, now)
            return False
        agree = [peer for peer in living if peer in self._digests and self._digests[peer].context == mine.context]
        all_agree = self._ready_due < inf and not self._dialled and len(agree) == len(living)
        self.ready = self.sure = all_agree or any(self._digests[peer].ready for peer in agree)
        if now >= self._ready_due:
            somebody = any(peer in self._digests and self._digests[peer].ready for peer in living)
            if not self.ready and not somebody:  # while one is known who has everything, it is waited for
                self.ready, self.sure = True, not self._dialled
                self._sure_at = now + self._settings.transfer_timeout if self._dialled else inf
            self._ready_due = now + self._settings.join_timeout
        if self.ready:
            self._ready_due = inf
        return self.ready

    def _look_again(self, mine: Digest, living: Collection[int], now: float) -> None:
        """Ready by mere time: whether that has turned out to be right."""
        elders = [self._digests[peer] for peer in living if peer in self._digests and self._digests[peer].ready]
        agree = [elder.context == mine.context for elder in elders]
        self.sure = now >= self._sure_at or any(agree) or (not agree and not self._dialled)
        if self.sure:
            self._sure_at = inf

    # -- comparing ----------------------------------------------------------------------------------------------------

    def delivered(self, now: float) -> None:
        """Something was delivered here: what differs now may be on its way to the others."""
        self._delivered_at = now

    def differs(self, peer: int, theirs: Digest, mine: Digest, now: float) -> bool:
        """Whether it is time to pull from a peer that has just told this."""
        self._behind_since = min(self._behind_since, now) if theirs.writes > mine.writes else inf
        if theirs.context == mine.context:
            self._differs.pop(peer, None)
            self._looks.pop(peer, None)
            return False
        since = self._differs.setdefault(peer, now)
        if not self.ready:
            return True
        settled = now - max(since, self._delivered_at) >= self._settings.settle
        # under a constant load they always differ, with what is on its way: but not everybody has more all the time
        behind = now - self._behind_since >= self._settings.probe_interval
        overdue = now - max(since, self._precaution_at) >= _PATIENCE * self._settings.probe_interval
        if settled or behind or overdue:
            self._looks.pop(peer, None)
            self._precaution_at, self._behind_since = now, inf
            return True
        if len(self._looks) < _MOST_LOOKS:
            self._looks.setdefault(peer, now + self._settings.settle)
        return False

    def looks_due(self, mine: Digest, now: float) -> list[int]:
        """The peers whose last digests, looked at again, still tell of something that has not come."""
        due = [peer for peer, at in self._looks.items() if at <= now]
        lacking = []
        for peer in due:
            del self._looks[peer]
            theirs = self._digests.get(peer)
            if theirs is None or theirs.context == mine.context:
                continue
            quiet = now - max(self._differs.get(peer, now), self._delivered_at) >= self._settings.settle
            if theirs.writes > mine.writes or quiet:
                lacking.append(peer)
        return lacking

    # -- asking -------------------------------------------------------------------------------------------------------

    def ask(self, peer: int, now: float) -> int | None:
        """The number of a pull from this peer, which counts as asked now; None if it is not to be asked yet."""
        waiting = not self.ready and any(asked.until > now for asked in self._asked.values())
        if waiting or self._refused.get(peer, -inf) > now or (peer in self._asked and self._asked[peer].until > now):
            return None
        late = now - self._settings.transfer_timeout  # until then an answer that took its time is still one
        self._asked = {other: asked for other, asked in self._asked.items() if asked.until > late}
        self._number += 1
        self._asked[peer] = _Asked(self._number, now + self._settings.pull_timeout)
        self._differs.pop(peer, None)
        return self._number

    def asked(self, peer: int) -> bool:
        """Whether this peer was asked and has not answered in full."""
        return peer in self._asked

    def answered(self, peer: int, push: Push) -> bool:
        """A push came: whether with it all parts of the answer to what this peer was asked are here."""
        asked = self._asked.get(peer)
        if asked is None or not push.parts or push.pull != asked.number:
            return False
        asked.parts += 1
        return asked.parts == push.parts

    def more(self, peer: int) -> None:
        """The peer has answered in part: it may be asked on at once."""
        self._asked.pop(peer, None)

    def refused(self, peer: int, until: float) -> None:
        """What the peer has can not be taken in before this time: it is not asked for it again and again."""
        self._asked.pop(peer, None)
        self._refused[peer] = until

    def served(self, peer: int, mine: Digest) -> None:
        """The peer has given all that it had. Our digest is now as good as its own was."""
        self._asked.pop(peer, None)
        known = self._digests.get(peer)
        if known is not None and known.ready:
            self._digests[peer] = mine._replace(ready=True)

    def busy(self, peer: int, living: Collection[int], mine: Digest, now: float) -> int | None:
        """The peer can not serve us now: whom to ask instead; None if nobody else is known to have more.

        All may be busy: each is asked once in `pull_timeout`, or they would be asked in turn without an end.
        """
        if self._asked.pop(peer, None) is None:
            return None
        self._refused[peer] = now + self._settings.pull_timeout
        others = [
            other for other in living
            if other != peer and other in self._digests and self._digests[other].context != mine.context
        ]  # fmt: skip
        others.sort(key=lambda other: not self._digests[other].ready)
        return next((other for other in others if self._refused.get(other, -inf) <= now), None)

    def gone(self, peer: int) -> None:
        """Forgets all about a peer."""
        self._digests.pop(peer, None)
        self._differs.pop(peer, None)
        self._looks.pop(peer, None)
        self._asked.pop(peer, None)
        self._refused.pop(peer, None)

    # -- gaps ---------------------------------------------------------------------------------------------------------

    def gap(self, now: float) -> None:
        """Something is held back, and what lies before it was asked for."""
        self._gap_due = min(self._gap_due, now + self._settings.pull_timeout)
        self._tries = 0
        self.gave_up = False

    def gap_is_due(self, now: float, held: bool) -> bool:
        """Whether somebody is to be asked for it again. Not for ever: whoever turns up with it, pings will tell."""
        if self._gap_due > now:
            return False
        self._tries += 1
        again = held and self._tries <= _TRIES
        self.gave_up = held and not again
        self._gap_due = now + self._settings.pull_timeout if again else inf
        return again
