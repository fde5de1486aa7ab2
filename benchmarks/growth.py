"""What grows with what: how do costs follow the entries, the nodes that ever wrote, and the differences of two stores?

Each table varies one of them and leaves the others alone, so a column that stays as it is says as much as one that
grows. Pure values, in one process: what sockets and loops add, `visible.py` and `repair.py` tell.

    python benchmarks/growth.py [--entries 1000000] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator

from benchmarks.measure import OURS, Result, alone, resident
from crdt import Context, LWWMap, Stage, Store, encode_context, state_parts
from crdt.ranges import Comparison, Telling
from gossip.token import make

LIMIT = 1 << 18


def microseconds(work: Callable[[], object], seconds: float = 0.2) -> float:
    """The best of several rounds: the machine has other things to do."""
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
    return best * 1e6


def filled(entries: int, replicas: int = 1) -> Store:
    store = Store()
    view = LWWMap(store, "m")
    for number in range(entries):
        store.merge(view.set(f"k{number}", "x" * 20, replica=1 + number % replicas, stamp=number))
    return store


def powers(first: int, last: int) -> Iterator[int]:
    while first <= last:
        yield first
        first *= 10


def against_entries(most: int, result: Result) -> None:
    for entries in powers(1_000, most):
        gc.collect()
        before = resident()
        store = filled(entries)
        each = (resident() - before) / entries
        view, last = LWWMap(store, "m"), f"k{entries - 1}"
        stamp = entries

        def put(view: LWWMap = view, store: Store = store, last: str = last) -> None:
            nonlocal stamp
            stamp += 1
            store.merge(view.set(last, "x" * 20, replica=1, stamp=stamp))

        label = f"{entries:,} entries".replace(",", " ")
        if entries >= 10_000:  # below, pages weigh more than entries
            result.add(f"{label}, memory", OURS, each, "bytes an entry")
        result.add(f"{label}, get", OURS, microseconds(lambda view=view, last=last: view.get(last)))  # type: ignore[misc]
        result.add(f"{label}, set", OURS, microseconds(put))
        result.add(f"{label}, digest", OURS, microseconds(store.context_fingerprint))
        result.add(f"{label}, copy", OURS, microseconds(store.state) / 1e3, "ms")
        result.add(f"{label}, full collection", OURS, microseconds(gc.collect) / 1e3, "ms")


def against_replicas(most: int, result: Result) -> None:
    for replicas in powers(10, most):
        store = filled(replicas, replicas)
        view, stamp = LWWMap(store, "m"), replicas
        context = Context(store.context)

        def put(view: LWWMap = view, store: Store = store) -> None:
            nonlocal stamp
            stamp += 1
            store.merge(view.set("k0", "x", replica=1, stamp=stamp))
            store.context_fingerprint()

        label = f"{replicas:,} ever wrote".replace(",", " ")
        result.add(f"{label}, context", OURS, len(encode_context(context)), "bytes")
        result.add(f"{label}, token", OURS, len(make("shop", Context({1 << 63: 100}))), "bytes")
        result.add(f"{label}, cursor", OURS, len(make("shop", context, at=1)), "bytes")
        result.add(f"{label}, set and digest", OURS, microseconds(put))


def against_differences(entries: int, result: Result) -> None:
    ahead, behind = filled(entries), filled(entries)
    whole = sum(map(len, state_parts(ahead.state(), LIMIT)))
    result.notes.append(f"differences are of {entries} entries, {whole} bytes as a whole")
    missed, stamp = 0, entries
    for differ in (0, *powers(1, entries // 10)):
        view = LWWMap(ahead, "m")
        for _ in range(differ - missed):
            stamp += 1
            ahead.merge(view.set(f"k{(stamp * 7_919) % entries}", "y" * 20, replica=2, stamp=stamp))
        missed = differ
        begun = time.perf_counter()
        telling, comparison = Telling(ahead.state(), ahead.sums), Comparison(behind)
        sums = telling.groups()
        groups = comparison.groups(sums)
        ranges = telling.ranges(groups)
        wanted = comparison.ranges(ranges)
        stage, size = Stage(), len(sums) + len(groups) + len(ranges) + len(wanted)
        for part in telling.parts(wanted, LIMIT):
            size += len(part)
            stage.add(part)
        theirs = stage.state(comparison.scope)
        told = time.perf_counter() - begun
        copy = Store()
        copy.merge_state(behind.state())
        begun = time.perf_counter()
        copy.merge_state(theirs)
        took = told + time.perf_counter() - begun
        assert copy.fingerprint == ahead.fingerprint
        label = f"{differ:,} differ".replace(",", " ")
        result.add(f"{label}, told", OURS, size, "bytes")
        result.add(f"{label}, time", OURS, took * 1e3, "ms")


def ask(options: argparse.Namespace, result: Result) -> None:
    against_entries(options.entries or (10_000 if options.quick else 1_000_000), result)
    against_replicas(options.replicas or (1_000 if options.quick else 10_000), result)
    against_differences(options.entries or (10_000 if options.quick else 100_000), result)


def own_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--entries", type=int, help="at most so many")
    parser.add_argument("--replicas", type=int, help="at most so many nodes that ever wrote")


if __name__ == "__main__":
    alone(__file__, __doc__ or "", ask, own_options)
