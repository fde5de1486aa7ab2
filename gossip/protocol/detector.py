"""Does a member still answer?

One member is probed an interval: a ping; if no ack comes in time, others are asked to ping it as well; if none comes by
the end of the interval, it is suspected. A suspect that does not refute in time is dead. A *hint* (its stream ended
without a leave) starts the same probe at once, directly and through others, with a short end, and leaves a suspect
little time. It never kills by itself: any ack cancels it. Whose death is *proved* is no concern of this file.

Some are far: of whom even the soonest of the last answers took long, a probe, a hint and a suspicion wait for two round
trips and more. So an answer counts however late it comes: as a round trip, and as a sign of life, like whatever else a
suspect says. Where nothing is known of one who is far, it is suspected and refutes; it is not called dead for that.

A node judges itself first. If a tick comes late, everything that was due meanwhile is put off by as much: the acks may
be waiting unread. And it keeps a score of its own *health*: a witness that should have said something, if only that it
has no answer either, and did not, was not heard, and so was nobody else. The worse, the slower it probes and judges.

Invariants: no verdict is given by a node that was late itself; a suspicion that nobody confirms has six times as long
as one that two others do; who was heard since is not called dead before the least time of a suspicion is over again.

Source: SWIM (Das, Gupta, Motivala 2002); Lifeguard (Dadgar et al. 2017): local health, and suspicions that shorten.
Not here: what a verdict means for the table (`members`), and whom to choose (`members.next_probe`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import chain
from math import inf, log, log10
from typing import Final, NamedTuple

from gossip.protocol.settings import Settings

_WORST: Final = 7
"""The worst that one's own health can be: intervals and timeouts are eight times as long then."""
_STRETCH: Final = 6
"""How many times as long a suspicion runs that nobody confirms."""
_CONFIRMATIONS: Final = 2
"""How many others have to confirm one for the least time."""
_TRIPS: Final = 32
"""Round trips remembered of a member; the longest of so few stands for their 99th percentile."""
_TIMES: Final = 4
"""A ping may take so many times as long as the longest of them."""
_LATEST: Final = 4
"""Answers by which a member is known to be far: the soonest of so few, so that one who stood still once is not."""
_FAR: Final = 1.5
"""So many round trips of a far member a ping may take, however short the timeout is: they vary."""
_LEGS: Final = 2.5
"""So many more the answer of a witness has: there are four legs, and one without an answer waits for it before."""
_FARTHEST: Final = 4
"""Round trips of more intervals than this count for so many: nobody may put off being missed by answering late."""
_TURNS: Final = 2
"""So many of them a suspect has at least, to hear of it and to be heard; one of the two may be lost."""
_JUDGED: Final = 64
"""Probes remembered after their verdicts, for answers that come late: as many as begin at once, at most."""
_NACK: Final = 0.8
"""Part of the timeout after which a witness says that it has no answer, so that this comes before the asker judges."""
_STREAMED: Final = 3
"""Probes in a row that were answered only by stream until we say that datagrams do not get through."""


class Verdict(NamedTuple):
    """What a probe or a suspicion came to: `dead` or merely suspected, and why, as a sentence for people.

    `hinted` says that there was a hint besides: such a suspect has little time to refute.
    """

    instance: int
    dead: bool
    why: str
    hinted: bool = False


class Ask(NamedTuple):
    """Ping this instance under this number; and ask others to do so, if `others`. Each ping has a number of its own."""

    instance: int
    number: int
    others: bool


# Classes as they are, since all that import gossip pay for a dataclass: it takes twenty times as long to be made.


class _Probe:
    __slots__ = ("due", "hint", "nacks", "numbers", "sent", "started", "target", "widened", "witnesses")

    def __init__(self, target: int, started: float, due: float, hint: str, number: int) -> None:
        self.target = target
        self.started = self.sent = started
        """When the first ping went, and when the last."""
        self.due = due
        self.hint = hint
        """Why there is a probe out of turn; empty for one in turn."""
        self.numbers: tuple[int, ...] = (number,)
        """Of its pings: the second has its own, so that an ack tells which one it answers."""
        self.widened = bool(hint)
        """Whether others were asked already."""
        self.witnesses: tuple[int, ...] = ()
        """Who was asked."""
        self.nacks: set[int] = set()
        """Those of them who said that they have no answer."""


class _Relay:
    """A ping on behalf of somebody else."""

    __slots__ = ("asker", "due", "nack_due", "number", "target")

    def __init__(self, asker: int, number: int, target: int, nack_due: float, due: float) -> None:
        self.asker = asker
        self.number = number
        self.target = target
        self.nack_due = nack_due
        """When to say that there is no answer; infinite once that is said."""
        self.due = due


class _Suspicion:
    __slots__ = ("due", "least", "not_before", "since")

    def __init__(self, since: float, due: float, least: float) -> None:
        self.since = since
        self.due = due
        self.least = least
        """Seconds that it has from when it was heard last."""
        self.not_before = -inf
        """When these are over: however many say so, it was heard since."""


class Detector:
    """The probes and suspicions of one node."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._probes: dict[int, _Probe] = {}
        self._relays: dict[int, _Relay] = {}
        self._suspects: dict[int, _Suspicion] = {}
        self._number = 0
        self.health = 0
        """How far this node mistrusts itself: 0 (well) to 7."""
        self._trips: dict[int, deque[float]] = {}
        """Of datagrams that were answered in time."""
        self._latest: dict[int, deque[float]] = {}
        """Of whatever was answered last, however late."""
        self._way: dict[int, float] = {}
        """The shortest of them."""
        self._judged: deque[_Probe] = deque(maxlen=_JUDGED)
        """Probes that are over, and may be answered yet."""
        self._streamed: dict[int, int] = {}
        """Of how many probes in a row only those by stream were answered."""
        self.heard: dict[int, float] = {}
        """When each member answered last."""
        self.next_round = inf
        """When the next member is to be probed."""
        self.rtt: dict[int, float] = {}
        """The last direct round trip to each member, in seconds."""

    @property
    def deadline(self) -> float:
        """When `tick` is to be called next."""
        if not (self._probes or self._suspects or self._relays):
            return self.next_round
        due = [probe.due for probe in self._probes.values()]
        due += [suspicion.due for suspicion in self._suspects.values()]
        due += [relay.nack_due for relay in self._relays.values()]
        return min(self.next_round, *due)

    @property
    def waits(self) -> bool:
        """Whether an ack is waited for."""
        return bool(self._probes)

    def wake(self, now: float) -> None:
        """There is somebody to probe: start the rounds, unless they run."""
        if self.next_round == inf:
            self.next_round = now + self.interval

    @property
    def interval(self) -> float:
        """Between two probes, as this node is."""
        return self._settings.probe_interval * (self.health + 1)

    def timeout(self, target: int) -> float:
        """How long this member may take to answer before others are asked."""
        most = self._settings.probe_timeout
        if trips := self._trips.get(target):
            most = max(min(_TIMES * max(trips), most), min(self._settings.least_probe_timeout, most))
        return max(most * (self.health + 1), _FAR * self._trip(target))

    def _trip(self, target: int) -> float:
        """A round trip to this member, for whom is far; to one who never answered, that to the farthest who did."""
        trip = self._way.get(target)
        if trip is None:
            trip = max(self._way.values(), default=0.0)
        return min(trip, _FARTHEST * self._settings.probe_interval)

    def ail(self, by: int) -> None:
        """This node was not heard, or is not as well as it thought; a negative number is of better news."""
        self.health = max(0, min(_WORST, self.health + by))

    def late(self, by: float, now: float) -> None:
        """Puts everything off: this node itself was late, so silence says nothing about the others.

        A probe that began since is left alone: what came in before the tick may have started it.
        """
        slept_at, by = now - by, by + self._settings.probe_timeout  # with time to read on: the first was due just then
        for probe in self._probes.values():
            if probe.started <= slept_at:
                probe.due += by
        for suspicion in self._suspects.values():
            suspicion.since += by
            suspicion.due += by

    def probe(self, target: int, now: float, hint: str = "") -> Ask | None:
        """Starts a probe; None if one of this member is running that is as urgent."""
        for probe in self._probes.values():
            if probe.target == target and (probe.hint or not hint):
                return None
        hinted = max(self._settings.hint_timeout, _LEGS * self._trip(target))
        number, timeout = self._next_number(), hinted if hint else self.timeout(target)
        self._probes[number] = _Probe(target, now, now + timeout, hint, number)
        return Ask(target, number, others=bool(hint))

    def relay(self, asker: int, number: int, target: int, now: float) -> int | None:
        """The number of a ping to `target` on behalf of `asker`, whose own number for it is `number`; None if that is
        under way: he asks by two ways."""
        for expired in [mine for mine, relay in self._relays.items() if relay.due < now]:
            del self._relays[expired]
        if any((relay.asker, relay.number) == (asker, number) for relay in self._relays.values()):
            return None
        mine, timeout = self._next_number(), self.timeout(target)
        due = now + 2 * max(self._settings.probe_interval, timeout)
        self._relays[mine] = _Relay(asker, number, target, now + _NACK * timeout, due)
        return mine

    def nacks(self, now: float) -> list[tuple[int, int]]:
        """Whom to tell that there is no answer yet: `(asker, number)`."""
        due = [relay for relay in self._relays.values() if relay.nack_due <= now]
        for relay in due:
            relay.nack_due = inf
        return [(relay.asker, relay.number) for relay in due]

    def nacked(self, number: int, sender: int) -> None:
        """A witness has no answer either: it hears us, so it is not we who are cut off."""
        probe = self._asked(number)
        if probe is not None and sender in probe.witnesses:
            probe.nacks.add(sender)

    def widened(self, number: int, witnesses: Sequence[int]) -> None:
        """These were asked to ping the target as well; their ack counts as its own."""
        probe = self._asked(number)
        if probe is not None:
            probe.witnesses = tuple(witnesses)

    def _asked(self, number: int) -> _Probe | None:
        """The probe of which a ping, or what witnesses were asked, has this number, if it is not long over."""
        probes = chain(self._probes.values(), self._judged)
        return next((probe for probe in probes if number in probe.numbers), None)

    def probed(self, number: int, sender: int) -> int | None:
        """Whom this ack tells of: whoever was probed, if it or a witness says so; None if nobody was."""
        probe = self._asked(number)
        return probe.target if probe is not None and sender in (probe.target, *probe.witnesses) else None

    def acked(self, number: int, sender: int, now: float, ago: float | None = 0.0) -> tuple[int, int] | None:
        """An ack came, so many seconds ago, if that is known: the probe is over. Gives `(asker, number)` if the ping
        was on behalf of somebody else.

        It tells of its sender only, or of the target if a witness was asked: at a restarted member's address somebody
        else answers.
        """
        relay = self._relays.get(number)
        if relay is not None:
            if relay.target != sender:
                return None
            del self._relays[number]
            return relay.asker, relay.number
        probe = self._asked(number)
        if probe is not None and (probe.target == sender or sender in probe.witnesses):
            if probe not in self._judged:  # who is slow itself reads all answers late, and should mistrust itself
                self.ail(-1)
            if probe.target == sender:
                self._answered(probe, number, now, ago)
            self._drop(probe.target)
        return None

    def _answered(self, probe: _Probe, number: int, now: float, ago: float | None) -> None:
        target, second = probe.target, number != probe.numbers[0]
        self.heard[target] = now
        if second or probe.hint:
            self._streamed[target] = self._streamed.get(target, 0) + (not probe.hint)
        else:
            self._streamed.pop(target, None)
        if ago is None:
            return  # it took no longer than that, and how much of it was our own loop nobody knows
        sent = probe.sent if second else probe.started
        trip = max(now - ago - sent, 0.0)
        self._latest.setdefault(target, deque(maxlen=_LATEST)).append(trip)
        self._way[target] = min(self._latest[target])
        if not probe.widened:
            self._trips.setdefault(target, deque(maxlen=_TRIPS)).append(trip)
        if not probe.widened or target not in self._trips:  # of one who stood still it was longer than the way is
            self.rtt[target] = trip

    def alive(self, instance: int, now: float) -> None:
        """This member was heard: whoever is suspected has the least time from here on, for what refutes is slower."""
        suspicion = self._suspects.get(instance)
        if suspicion is not None:
            suspicion.not_before = now + max(suspicion.least, _TURNS * self._trip(instance))
            suspicion.due = max(suspicion.due, suspicion.not_before)

    def takes_datagrams(self, instance: int) -> bool | None:
        """Whether this member answers datagrams, as far as is known."""
        if self._streamed.get(instance, 0) >= _STREAMED:
            return False
        return True if instance in self._trips else None

    def reborn(self) -> None:
        """We are somebody else now: what was asked in the name of the dead is not answered."""
        self._probes.clear()
        self._judged.clear()
        self._suspects.clear()

    def suspect(self, instance: int, members: int, accusers: int, now: float, hinted: bool = False) -> None:
        """Starts the time in which a suspect may refute, or shortens it: so many suspect it by now.

        With a hint besides it is one interval: enough for a living one whose stream was reset, and for its answer.
        Who is confirmed when the shorter time is over already has a moment all the same: it may hear of it only now.
        """
        interval, there_and_back = self._settings.probe_interval, _TURNS * self._trip(instance)
        least = max(self._settings.suspicion_factor * max(1.0, log10(members)) * interval, there_and_back)
        running = self._suspects.setdefault(instance, _Suspicion(now, inf, least))
        due = running.since + _patience(least, members, accusers)
        moment = max(interval if hinted else self._settings.probe_timeout, there_and_back)
        running.due = min(running.due, now + moment if hinted else max(due, now + moment, running.not_before))
        running.least = moment if hinted else running.least

    def clear(self, instance: int) -> None:
        """The suspicion is over: refuted, or the member is gone."""
        self._suspects.pop(instance, None)

    def gone(self, instance: int) -> None:
        """Forgets all about a member."""
        self.clear(instance)
        for known in (self.rtt, self._trips, self._latest, self._way, self._streamed, self.heard):
            known.pop(instance, None)
        self._drop(instance)

    def _drop(self, target: int) -> None:
        """No answer of this member is waited for."""
        for number in [number for number, probe in self._probes.items() if probe.target == target]:
            del self._probes[number]
        if any(probe.target == target for probe in self._judged):
            self._judged = deque((probe for probe in self._judged if probe.target != target), _JUDGED)

    def tick(self, now: float) -> tuple[list[Verdict], list[Ask]]:
        """What is due: verdicts, and members to be probed again with the help of others."""
        verdicts: list[Verdict] = []
        asks: list[Ask] = []
        for number, probe in list(self._probes.items()):
            if probe.due > now:
                continue
            if probe.widened:
                del self._probes[number]
                self._judged.append(probe)
                verdicts.append(self._verdict(probe, now))
                if not probe.hint:
                    self.ail(len(probe.witnesses) - len(probe.nacks) if probe.witnesses else 1)
            else:
                probe.widened, probe.sent = True, now
                probe.numbers = (number, self._next_number())
                rest = max(self.timeout(probe.target), _LEGS * self._trip(probe.target))
                probe.due = max(probe.started + self.interval, now + rest)
                asks.append(Ask(probe.target, probe.numbers[1], others=True))
        for instance, suspicion in list(self._suspects.items()):
            if suspicion.due <= now:
                del self._suspects[instance]
                why = f"it was suspected and did not refute within {now - suspicion.since:.2f} s"
                verdicts.append(Verdict(instance, True, why))
        return verdicts, asks

    def _verdict(self, probe: _Probe, now: float) -> Verdict:
        took = now - probe.started
        if probe.hint:
            return Verdict(probe.target, False, f"{probe.hint}, and nobody reached it within {took:.2f} s", hinted=True)
        asked = f", {len(probe.witnesses)} were asked and {len(probe.nacks)} had no answer" if probe.witnesses else ""
        heard = self.heard.get(probe.target)
        last = "it never answered before" if heard is None else f"it answered last {now - heard:.1f} s ago"
        return Verdict(probe.target, False, f"no ack within {took:.2f} s, directly or through others{asked}; {last}")

    def _next_number(self) -> int:
        self._number += 1
        return self._number


def _patience(least: float, members: int, accusers: int) -> float:
    """How long a suspect has, of whom so many say so: from six times the least, down to it (Lifeguard, section IV-B).

    Where fewer others are left than would have to confirm it, as many as there are do.

    >>> [round(_patience(4.0, members=10, accusers=accusers), 1) for accusers in (1, 2, 3)]
    [24.0, 11.4, 4.0]
    >>> _patience(4.0, members=2, accusers=1)
    4.0
    """
    wanted = min(_CONFIRMATIONS, members - 2)
    confirmed = min(max(accusers - 1, 0), wanted)
    if wanted <= 0:
        return least
    most = _STRETCH * least
    return most - (most - least) * log(confirmed + 1) / log(wanted + 1)
