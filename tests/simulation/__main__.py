"""How does one run many seeds, or look at one?

python -m tests.simulation --seeds 0:2000       all of them, on all cores
python -m tests.simulation --seeds 17 --trace   one of them, event by event
python -m tests.simulation --seeds 0:10 --hours 1   ten clusters of ten, one node of each gray, for an hour each
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from time import monotonic
from typing import TypeVar

from tests.simulation.hours import NODES, Hours, live
from tests.simulation.options import KINDS, draw
from tests.simulation.run import Report, run

R = TypeVar("R", Report, Hours)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Simulated clusters, by seed.")
    parser.add_argument("--seeds", default="0:100", help="a seed, or first:last+1 (default 0:100)")
    parser.add_argument("--nodes", type=int, default=0, help="nodes at the start, in place of what the seed draws")
    parser.add_argument("--seconds", type=float, default=0.0, help="virtual seconds with faults, likewise")
    parser.add_argument("--hours", type=float, default=0.0, help="instead: so long with one gray node, for each seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--trace", action="store_true", help="print every event")
    parser.add_argument("--hash", action="store_true", help="print the hash of all events of each seed")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the tenth failure")
    options = parser.parse_args()
    first, _, last = options.seeds.partition(":")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    if options.hours:
        trace = print if options.trace else None
        alive = partial(live, hours=options.hours, nodes=options.nodes or NODES)
        if len(seeds) == 1 or options.trace or options.jobs == 1:
            return _tell_hours([alive(seed, trace=trace) for seed in seeds])
        return _tell_hours([*_on_all_cores(alive, seeds, options.jobs)])
    one = partial(run, nodes=options.nodes, seconds=options.seconds)
    began = monotonic()
    if len(seeds) == 1:
        print(f"seed {seeds[0]}: {draw(seeds[0], options.nodes, options.seconds)}")
        reports: Iterable[Report] = [one(seeds[0], trace=print if options.trace else None)]
    elif options.trace or options.jobs == 1:
        reports = (one(seed, trace=print if options.trace else None) for seed in seeds)
    else:
        reports = _on_all_cores(one, seeds, options.jobs)
    done: list[Report] = []
    failures = 0
    for report in reports:
        done.append(report)
        if options.hash:
            print(f"{report.seed} {report.digest}")
        if report.failure:
            failures += 1
            _progress("")
            print(report.failure, flush=True)
            if failures == 10 and not options.keep_going:
                break
        elif len(done) % 10 == 0:
            _progress(f"{len(done)} of {len(seeds)} seeds, {failures} failed, {monotonic() - began:.0f} s")
    _progress("")
    _tell(done, failures, monotonic() - began)
    return 1 if failures else 0


def _on_all_cores(one: partial[R], seeds: range, jobs: int) -> Iterator[R]:
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(one, seeds, chunksize=4 if len(seeds) > 10 * jobs else 1)


def _progress(text: str) -> None:
    """One line that changes on a terminal; a line now and then in a log."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text.partition(" ")[0].endswith("00"):
        print(text, file=sys.stderr, flush=True)


def _tell(reports: list[Report], failures: int, took: float) -> None:
    total, seeds, times = Counter[str](), Counter[str](), Counter[str]()
    for report in reports:
        total.update(report.counts)
        times.update(report.happened)
        seeds.update(kind for kind, count in report.happened.items() if count)
    healing = sorted(report.healing for report in reports)
    hours = sum(report.seconds for report in reports) / 3600
    print(f"{len(reports)} seeds, {failures} failed, {sum(report.events for report in reports)} events, ", end="")
    print(f"{hours:.1f} virtual hours in {took:.0f} s")
    print(f"{total['nodes']} nodes, {total['writes']} writes, {total['deliveries']} deliveries, ", end="")
    print(f"{total['states']} states and {total['differences']} differences transferred, ", end="")
    print(f"{total['relayed']} pushes handed on; ", end="")
    print(f"healed within {healing[len(healing) // 2]:.1f} s (median), ", end="")
    print(f"{healing[-1]:.1f} s (worst, seed {max(reports, key=lambda report: report.healing).seed})")
    for kind in [*KINDS, *sorted(times.keys() - set(KINDS))]:
        share = 100 * seeds[kind] / len(reports)
        print(f"  {kind:14} in {share:5.1f} % of the seeds, {times[kind]:8} times")


def _tell_hours(reports: list[Hours]) -> int:
    for report in reports:
        if report.failure:
            print(report.failure)
    hours = sum(report.hours for report in reports)
    print(f"{len(reports)} clusters for {hours:g} h together, one node of each gray, whose loop stood still ", end="")
    print(f"{sum(report.blocked for report in reports)} times and which was called dead ", end="")
    print(f"{sum(report.buried for report in reports)} times")
    failed = sum(bool(report.failure) for report in reports)
    print(f"healthy members: suspected {sum(report.suspected for report in reports)} times, ", end="")
    print(f"a broken promise in {failed} clusters; ", end="")
    print(f"a crash was known to all within {max(report.noticed for report in reports):.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
