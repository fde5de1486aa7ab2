"""How is something measured here, and what is kept of it?

A question puts figures into a `Result`, one a round for each system. What is compared is compared within a round: the
speed of a machine changes from one second to the next, a ratio of two figures taken beside each other hardly does. So
systems take turns, round by round, and a ratio is given with its spread over the rounds.

Invariant: nothing is dropped. Every round is in the result; who is not installed, or failed, is in it by name.
Not here: how it is shown (`render`), who is measured (`ours`, `peers`).
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OURS = "gossamesh"
NOT_QUICK = "it takes more than a quick look to meet"
"""Why those that gossip, and are built by `make bench-peers`, are left out of one."""
SCHEMA = 1


@dataclass(frozen=True)
class Spread:
    """The middle of some figures, and how far they lie apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        every = list(figures)
        return cls(statistics.median(every), min(every), max(every))


@dataclass
class Series:
    """One figure of one system, a round after the other."""

    what: str
    system: str
    unit: str
    more: bool = False  # is more better? Of times and bytes less is
    rounds: list[float] = field(default_factory=list)

    @property
    def spread(self) -> Spread:
        return Spread.of(self.rounds)


@dataclass
class Result:
    """What a question found out."""

    question: str
    title: str
    series: list[Series] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # who could not be measured here, and why
    failed: dict[str, str] = field(default_factory=dict)  # who was measured until this happened
    floors: list[str] = field(default_factory=list)  # who stands there to show how little is possible
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, what: str, system: str, figure: float, unit: str = "µs", more: bool = False) -> None:
        """The figure of one more round."""
        found = self.find(what, system)
        if found is None:
            found = Series(what, system, unit, more)
            self.series.append(found)
        found.rounds.append(figure)

    def find(self, what: str, system: str) -> Series | None:
        return next((each for each in self.series if (each.what, each.system) == (what, system)), None)

    def ratio(self, what: str, system: str, beside: str) -> Spread | None:
        """How many times as much the one takes (or does) as the other, both in the same round."""
        one, other = self.find(what, system), self.find(what, beside)
        if one is None or other is None:
            return None
        # one that failed has fewer rounds: those that both have are compared
        pairs = [(ours, theirs) for ours, theirs in zip(one.rounds, other.rounds, strict=False) if theirs]
        return Spread.of(ours / theirs for ours, theirs in pairs) if pairs else None

    def advantage(self, what: str, beside: str) -> Spread | None:
        """How many times better we are than the other: below 1 it is better than we are."""
        series = self.find(what, OURS)
        if series is None:
            return None
        return self.ratio(what, OURS, beside) if series.more else self.ratio(what, beside, OURS)

    def disadvantage(self, what: str, beside: str) -> Spread | None:
        """How many times better the other is than we are. Of an even number of rounds the median of ratios is not that
        of their inverses turned round: whichever is shown is made of what is shown."""
        series = self.find(what, OURS)
        if series is None:
            return None
        return self.ratio(what, beside, OURS) if series.more else self.ratio(what, OURS, beside)

    def whats(self) -> list[str]:
        return list(dict.fromkeys(each.what for each in self.series))

    def of(self, what: str) -> list[Series]:
        return [each for each in self.series if each.what == what]

    def others(self, what: str) -> list[Series]:
        """Those of other systems; a floor is none."""
        return [each for each in self.of(what) if not each.system.startswith(OURS) and each.system not in self.floors]

    def fastest(self, what: str, beside: str) -> str | None:
        """Of the ways to use a peer the one that did best: `redis` stands for all that begin so."""
        ways = [each for each in self.of(what) if each.system.startswith(beside)]
        if not ways:
            return None
        return min(ways, key=lambda each: -each.spread.median if each.more else each.spread.median).system

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Result:
        return cls(**{**told, "series": [Series(**each) for each in told["series"]]})


def percentile(figures: Iterable[float], share: float) -> float:
    """The figure that this share of all does not exceed."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def in_turn(names: Iterable[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Everybody once a round; each round another begins, so that nobody always has the place behind the same one."""
    every = list(names)
    for number in range(rounds):
        start = number % len(every) if every else 0
        yield from ((number, name) for name in every[start:] + every[:start])


@dataclass(frozen=True)
class Cost:
    """Microseconds a call takes: by itself, and with its part of the turns of the loop."""

    call: float
    whole: float


async def each_call(calls: Callable[[range], Any], seconds: float, most: int = 100) -> Cost:
    """What a call costs, over so many seconds of calls, with a turn of the loop after each hundred.

    `calls` makes those of these numbers, or is a coroutine function that does: the loop is in it, so that none has a
    call of the benchmark's besides. In the turn a write of ours leaves; of calls that are awaited each has its own. A
    call that is slow is not made a hundred times before the clock is looked at. The first calls only find that out, and
    warm up; one that needs all the seconds by itself is made no second time.
    """
    awaited = inspect.iscoroutinefunction(calls)

    async def some(first: int, count: int) -> tuple[float, float]:
        begun = time.perf_counter()
        if awaited:
            await calls(range(first, first + count))
        else:
            calls(range(first, first + count))
        called = time.perf_counter()
        await asyncio.sleep(0)
        return called - begun, time.perf_counter() - begun

    once, whole = await some(0, 1)
    if once > seconds:
        return Cost(once * 1e6, whole * 1e6)
    chunk = max(1, min(most, int(seconds / 4 / once)))
    if chunk > 1:
        await some(1, chunk)
    done, within, spent = 0, 0.0, 0.0
    while spent < seconds:
        called, took = await some(done, chunk)
        within, spent, done = within + called, spent + took, done + chunk
    return Cost(within / done * 1e6, spent / done * 1e6)


def commit() -> str:
    """Of what this was measured: a commit, with a `+` if files differ from it."""
    try:
        told = subprocess.run(
            ("git", "describe", "--always", "--abbrev=7", "--dirty=+"),
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
    return told.stdout.strip()


def machine() -> dict[str, Any]:
    """Where this was measured. No name of it: figures are of a kind of machine, not of one."""
    return {
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)),
        "python": platform.python_version(),
        "load before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def resident(pid: int | str = "self") -> int:
    """Bytes of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) * 1024


_ONCE = "import gossip, sys\nwith gossip.Node('bench', runtime_dir=sys.argv[1]): pass"


@contextmanager
def bytecode() -> Iterator[None]:
    """Sees to it that processes find modules compiled, as a program does that is installed.

    Where Python is told to keep no bytecode, every process would compile what it imports, and a start would be twice as
    long as anybody's.
    """
    if "PYTHONDONTWRITEBYTECODE" not in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="gm-") as directory:
        kept = os.environ.pop("PYTHONDONTWRITEBYTECODE")
        os.environ["PYTHONPYCACHEPREFIX"] = directory
        try:
            subprocess.run([sys.executable, "-c", _ONCE, directory], check=True, timeout=60)  # what a start imports
            yield
        finally:
            os.environ["PYTHONDONTWRITEBYTECODE"] = kept
            del os.environ["PYTHONPYCACHEPREFIX"]


Ask = Callable[[argparse.Namespace, Result], Awaitable[None] | None]


def alone(
    file: str, doc: str, ask: Ask, options: Callable[[argparse.ArgumentParser], object] = lambda parser: None
) -> None:
    """The command line of a question: `--quick` for a look, `--json` for the runner, and what it has of its own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: to see that it works")
    parser.add_argument("--json", action="store_true", help="every round, as the runner keeps it")
    options(parser)
    told = parser.parse_args()
    result = Result(Path(file).stem, doc.partition("\n")[0])
    begun = time.perf_counter()
    with bytecode():
        answer = ask(told, result)
        if answer is not None:
            asyncio.run(_finished(answer))
    result.seconds = round(time.perf_counter() - begun, 1)
    if told.json:
        json.dump(result.as_dict(), sys.stdout)
        return
    from benchmarks.render import text  # it knows results, so it can not be known here before them

    print(text(result))


async def _finished(answer: Awaitable[None]) -> None:
    await answer
