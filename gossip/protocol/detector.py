"""Does a member still answer?

One member is probed an interval: a ping; if no ack comes in time, others are asked to ping it as well; if none comes by
the end of the interval, it is suspected. A suspect that does not refute in time is dead. A *hint* (its stream ended
without a leave) starts the same probe at once, directly and through others, with a short end, and leaves a suspect
little time. It never kills by itself: any ack cancels it. Whose death is *proved* is no concern of this file.

Invariant: no verdict is given by a node that was late itself. If a tick comes late, everything that was due meanwhile
is put off by as much: the acks may be waiting unread.

Source: SWIM (Das, Gupta, Motivala 2002), Lifeguard (Dadgar et al. 2017) for judging oneself first.
Not here: what a verdict means for the table (`members`), and whom to choose (`members.next_probe`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log10
from typing import NamedTuple

from gossip.protocol.settings import Settings


class Verdict(NamedTuple):
    """What a probe or a suspicion came to: `dead` or merely suspected, and why, as a sentence for people.

    `hinted` says that there was a hint besides: such a suspect has little time to refute.
    """

    instance: int
    dead: bool
    why: str
    hinted: bool = False


class Ask(NamedTuple):
    """Ping this instance under this number; and ask others to do so, if `others`."""

    instance: int
    number: int
    others: bool


@dataclass(slots=True)
class _Probe:
    target: int
    started: float
    due: float
    hint: str
    """Why there is a probe out of turn; empty for one in turn."""
    widened: bool = False
    """Whether others were asked already."""
    witnesses: tuple[int, ...] = ()
    """Who was asked."""


@dataclass(slots=True)
class _Relay:
    """A ping on behalf of somebody else."""

    asker: int
    number: int
    target: int
    due: float


class Detector:
    """The probes and suspicions of one node."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._probes: dict[int, _Probe] = {}
        self._relays: dict[int, _Relay] = {}
        self._suspects: dict[int, float] = {}
        self._number = 0
        self.next_round = inf
        """When the next member is to be probed."""
        self.rtt: dict[int, float] = {}
        """The last direct round trip to each member, in seconds."""

    @property
    def deadline(self) -> float:
        """When `tick` is to be called next."""
        due = [probe.due for probe in self._probes.values()]
        return min(self.next_round, *self._suspects.values(), *due, inf)

    def wake(self, now: float) -> None:
        """There is somebody to probe: start the rounds, unless they run."""
        if self.next_round == inf:
            self.next_round = now + self._settings.probe_interval

    def late(self, by: float, now: float) -> None:
        """Puts everything off: this node itself was late, so silence says nothing about the others.

        A probe that began since is left alone: what came in before the tick may have started it.
        """
        slept_at, by = now - by, by + self._settings.probe_timeout  # with time to read on: the first was due just then
        for probe in self._probes.values():
            if probe.started <= slept_at:
                probe.due += by
        for instance in self._suspects:
            self._suspects[instance] += by

    def probe(self, target: int, now: float, hint: str = "") -> Ask | None:
        """Starts a probe; None if one of this member is running that is as urgent."""
        for probe in self._probes.values():
            if probe.target == target and (probe.hint or not hint):
                return None
        timeout = self._settings.hint_timeout if hint else self._settings.probe_timeout
        number = self._next_number()
        self._probes[number] = _Probe(target, now, now + timeout, hint, widened=bool(hint))
        return Ask(target, number, others=bool(hint))

    def relay(self, asker: int, number: int, target: int, now: float) -> int:
        """The number of a ping to `target` on behalf of `asker`, whose own number for it is `number`."""
        for expired in [mine for mine, relay in self._relays.items() if relay.due < now]:
            del self._relays[expired]
        mine = self._next_number()
        self._relays[mine] = _Relay(asker, number, target, now + 2 * self._settings.probe_interval)
        return mine

    def widened(self, number: int, witnesses: Sequence[int]) -> None:
        """These were asked to ping the target as well; their ack counts as its own."""
        probe = self._probes.get(number)
        if probe is not None:
            probe.witnesses = tuple(witnesses)

    def acked(self, number: int, sender: int, now: float) -> tuple[int, int] | None:
        """An ack came: the probe is over. Gives `(asker, number)` if the ping was on behalf of somebody else.

        It tells of its sender only, or of the target if a witness was asked: at a restarted member's address somebody
        else answers.
        """
        relay = self._relays.get(number)
        if relay is not None:
            if relay.target != sender:
                return None
            del self._relays[number]
            return relay.asker, relay.number
        probe = self._probes.get(number)
        if probe is not None and (probe.target == sender or sender in probe.witnesses):
            del self._probes[number]
            if probe.target == sender:
                self.rtt[sender] = now - probe.started
            for other in [mine for mine, running in self._probes.items() if running.target == probe.target]:
                del self._probes[other]
        return None

    def reborn(self) -> None:
        """We are somebody else now: what was asked in the name of the dead is not answered."""
        self._probes.clear()

    def suspect(self, instance: int, members: int, now: float, hinted: bool = False) -> None:
        """Starts the time in which a suspect may refute; a shorter one that runs already is kept.

        With a hint besides it is one interval: enough for a living one whose stream was reset, and for its answer.
        """
        patience = self._settings.suspicion_factor * max(1.0, log10(members)) * self._settings.probe_interval
        due = now + (self._settings.probe_interval if hinted else patience)
        self._suspects[instance] = min(due, self._suspects.get(instance, inf))

    def clear(self, instance: int) -> None:
        """The suspicion is over: refuted, or the member is gone."""
        self._suspects.pop(instance, None)

    def gone(self, instance: int) -> None:
        """Forgets all about a member."""
        self.clear(instance)
        self.rtt.pop(instance, None)
        for number in [number for number, probe in self._probes.items() if probe.target == instance]:
            del self._probes[number]

    def tick(self, now: float) -> tuple[list[Verdict], list[Ask]]:
        """What is due: verdicts, and members to be probed again with the help of others."""
        verdicts: list[Verdict] = []
        asks: list[Ask] = []
        for number, probe in list(self._probes.items()):
            if probe.due > now:
                continue
            if probe.widened:
                del self._probes[number]
                verdicts.append(self._verdict(probe, now))
            else:
                probe.widened = True
                probe.due = max(probe.started + self._settings.probe_interval, now + self._settings.probe_timeout)
                asks.append(Ask(probe.target, number, others=True))
        for instance, due in list(self._suspects.items()):
            if due <= now:
                del self._suspects[instance]
                verdicts.append(Verdict(instance, True, "it was suspected and did not refute in time"))
        return verdicts, asks

    def _verdict(self, probe: _Probe, now: float) -> Verdict:
        took = now - probe.started
        if probe.hint:
            return Verdict(probe.target, False, f"{probe.hint}, and nobody reached it within {took:.2f} s", hinted=True)
        return Verdict(probe.target, False, f"no ack within {took:.2f} s, directly or through others")

    def _next_number(self) -> int:
        self._number += 1
        return self._number
