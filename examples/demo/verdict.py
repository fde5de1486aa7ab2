"""Did it hold?

From what the visitors were told, what every node says it holds, and what happened to the worker that was killed, to a
list of findings. Each is a claim, whether it held, and the numbers it was judged by. Pure: no clock, no process.

What may be lost: nothing that was answered. A worker numbers its hits, its writes arrive in their order, and each
node knows how many of each worker have arrived: so an answered hit is lost exactly if its number is greater than that.
What may be more: a request whose connection broke before its answer came (it was in flight at the kill) may have been
done or not, so the counter lies between answered and answered + broken.

Not here: gathering all this (`evidence`, `load`, `story`), and showing it (`screen`).
"""

from __future__ import annotations

from dataclasses import dataclass

from examples.demo.evidence import View, agree
from examples.demo.load import VISITOR, Outcome


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim, and whether it held."""

    held: bool
    claim: str
    numbers: str


@dataclass(frozen=True, slots=True)
class Kill:
    """The worker that was killed. `at` is seconds since 1970, `at_ns` CLOCK_MONOTONIC."""

    name: str
    at: float
    at_ns: int


@dataclass(frozen=True, slots=True)
class Replacement:
    """The worker that came instead, and what its node held before it served.

    `answered_*` is what the visitors had been told before its node began to start: it must hold at least that.
    """

    name: str
    ready_ns: int
    joined_ms: float
    hits: int
    sessions: int
    answered_hits: int
    answered_sessions: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is judged. `lags` are (median, 99th percentile, greatest) of each worker in milliseconds."""

    workers: int
    views: list[View]
    parts: dict[str, int]
    """How many hits of each worker, by pid, have arrived; at any node, since all agree."""
    outcome: Outcome
    agreed_ms: float
    """From the last answer to the moment at which all held the same."""
    kill: Kill | None
    replacement: Replacement | None
    kill_wanted: bool


def judge(evidence: Evidence) -> list[Finding]:
    """The findings, the most important first."""
    findings = [
        _agreement(evidence),
        _hits(evidence),
        _sessions(evidence),
        _online(evidence),
        _errors(evidence),
    ]
    if evidence.kill_wanted:
        findings += [_death(evidence), _replaced(evidence)]
    return findings


def _agreement(evidence: Evidence) -> Finding:
    views, wanted = evidence.views, evidence.workers + 1
    diverged = sum(view.diverged for view in views)
    members = {view.members for view in views}
    held = len(views) == wanted and members == {wanted} and agree(views) and not diverged
    if held:
        return Finding(
            True, "all agree", f"{wanted} nodes hold the same writes, {evidence.agreed_ms:.0f} ms after the last answer"
        )
    parts = [f"{len(views)} of {wanted} nodes answered", f"members seen: {sorted(members)}"]
    parts += [
        f"{view.name}: {view.hits} hits, {len(view.sessions)} sessions, {len(view.online)} online, {view.context}"
        for view in views
    ]
    return Finding(False, "all agree", "; ".join([*parts, f"{diverged} times diverged"]))


def _hits(evidence: Evidence) -> Finding:
    """Each answered hit by its number; and the sum at the node that has the least, and the most."""
    outcome, parts = evidence.outcome, evidence.parts
    answered = outcome.tally.hits
    counted = [view.hits for view in evidence.views] or [0]
    beyond = sum(number > parts.get(pid, 0) for pid, numbers in outcome.numbers.items() for number in numbers)
    lost = max(beyond, answered - min(counted))
    extra = max(counted) - (answered - lost)
    held = answered > 0 and not lost and 0 <= extra <= outcome.tally.hits_unanswered
    numbers = f"{answered} hits answered, {min(counted)} counted, {lost} lost, {outcome.tally.hits_unanswered} broken"
    return Finding(held, "no answered hit is lost", numbers if held else f"{numbers}, {extra} counted too many")


def _sessions(evidence: Evidence) -> Finding:
    outcome = evidence.outcome
    missing, risen, strange = set(), set(), set()
    for view in evidence.views:
        missing |= outcome.kept.keys() - view.sessions.keys()
        risen |= outcome.ended.keys() & view.sessions.keys()
        known = outcome.kept.keys() | outcome.ended.keys() | outcome.unsure.keys()
        names = {session: view.sessions[session] for session in view.sessions.keys() - known}
        strange |= {session for session, name in names.items() if _is_strange(name, outcome)}
    return Finding(
        bool(outcome.kept) and not missing and not risen and not strange,
        "every session is everywhere",
        f"{len(outcome.kept)} open: {len(missing)} missing; {len(outcome.ended)} ended: {len(risen)} still there"
        f"{_origin(strange)}",
    )


def _online(evidence: Evidence) -> Finding:
    outcome = evidence.outcome
    here, gone = set(outcome.kept.values()), set(outcome.ended.values())
    known = here | gone | set(outcome.unsure.values())
    missing = set().union(*(here - view.online for view in evidence.views))
    risen = set().union(*(gone & view.online for view in evidence.views))
    shown = set().union(*(view.online for view in evidence.views))
    strange = {name for name in shown - known if _is_strange(name, outcome)}
    return Finding(
        bool(here) and not missing and not risen and not strange,
        "who is online is known everywhere",
        f"{len(here)} online: {len(missing)} missing; {len(gone)} gone: {len(risen)} shown{_origin(strange)}",
    )


def _origin(strange: set[str]) -> str:
    return f"; {len(strange)} of unknown origin" if strange else ""


def _is_strange(name: str, outcome: Outcome) -> bool:
    """Whether it is one of the visitors, and none whose login was broken."""
    return name.startswith(VISITOR) and name not in outcome.names_unsure


def _errors(evidence: Evidence) -> Finding:
    """A request may break at the kill, and only there; no other may fail."""
    tally = evidence.outcome.tally
    held = not tally.refused and (evidence.kill_wanted or not tally.unanswered)
    return Finding(
        held,
        "serving went on",
        f"{tally.answered} requests answered by {len(tally.workers)} workers, "
        f"{tally.unanswered} broken, {tally.refused} refused",
    )


def _death(evidence: Evidence) -> Finding:
    claim = "the kill was noticed by all"
    kill = evidence.kill
    if kill is None:
        return Finding(False, claim, "no worker was killed")
    # Those that were there: the replacement was told of the death, and has nothing to notice.
    newcomer = evidence.replacement.name if evidence.replacement else ""
    witnesses = [view for view in evidence.views if view.name != newcomer]
    seen = sorted(view.deaths[kill.name] for view in witnesses if kill.name in view.deaths)
    if not seen or len(seen) < len(witnesses):
        return Finding(False, claim, f"{kill.name} is known to be dead to {len(seen)} of {len(witnesses)} nodes")
    (first, why), (last, _) = seen[0], seen[-1]
    took = f"{(first - kill.at) * 1000:.0f} to {(last - kill.at) * 1000:.0f} ms"
    return Finding(True, claim, f"{len(seen)} nodes, after {took}: {why}")


def _replaced(evidence: Evidence) -> Finding:
    claim = "the new worker knew all"
    kill, new = evidence.kill, evidence.replacement
    if kill is None or new is None:
        return Finding(False, claim, "no worker came instead")
    held = new.hits >= new.answered_hits and new.sessions >= new.answered_sessions
    numbers = f"{new.hits} hits and {new.sessions} sessions, {new.joined_ms:.0f} ms after it began"
    owed = f"; {new.answered_hits} and {new.answered_sessions} had been answered before"
    return Finding(held, claim, numbers if held else numbers + owed)
