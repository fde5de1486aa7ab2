"""What grows with what: how do costs follow the entries, the nodes that ever wrote, and the differences of two stores?

Each table varies one of them and leaves the others alone, so a column that stays as it is says as much as one that
grows. Pure values, in one process: what sockets and loops add, `propagate.py` and `repair.py` tell.

    python benchmarks/growth.py --entries 1000000
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator

from crdt import Context, LWWMap, Stage, Store, encode_context, state_parts
from crdt.ranges import Comparison, Telling
from gossip.token import make

LIMIT = 1 << 18


def resident() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) * 1024


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


def against_entries(most: int) -> None:
    print(
        f"{'entries':>10} {'bytes each':>11} {'get us':>8} {'set us':>8} {'digest us':>10} {'copy ms':>9} {'gc ms':>9}"
    )
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

        figures = (
            microseconds(lambda view=view, last=last: view.get(last)),  # type: ignore[misc]
            microseconds(put),
            microseconds(store.context_fingerprint),
            microseconds(store.state) / 1e3,
            microseconds(gc.collect) / 1e3,
        )
        shown = f"{each:11.0f}" if entries >= 10_000 else f"{'':>11}"
        get, set_, digest, copy, collect = figures
        print(f"{entries:10,} {shown} {get:8.2f} {set_:8.2f} {digest:10.2f} {copy:9.2f} {collect:9.2f}")


def against_replicas(most: int) -> None:
    print(f"\n{'ever wrote':>10} {'context bytes':>14} {'token':>6} {'cursor':>8} {'digest us':>10} {'set us':>8}")
    for replicas in powers(10, most):
        store = filled(replicas, replicas)
        view, stamp = LWWMap(store, "m"), replicas
        context = Context(store.context)

        def put(view: LWWMap = view, store: Store = store) -> None:
            nonlocal stamp
            stamp += 1
            store.merge(view.set("k0", "x", replica=1, stamp=stamp))
            store.context_fingerprint()

        print(
            f"{replicas:10,} {len(encode_context(context)):14,} {len(make('shop', Context({1 << 63: 100}))):6} "
            f"{len(make('shop', context, at=1)):8,} {microseconds(store.context_fingerprint):10.2f} "
            f"{microseconds(put):8.2f}"
        )


def against_differences(entries: int) -> None:
    ahead, behind = filled(entries), filled(entries)
    whole = sum(map(len, state_parts(ahead.state(), LIMIT)))
    print(f"\n{'differ':>10} {'bytes':>12} {'of all':>8} {'ms':>9}       of {entries:,} entries, {whole:,} bytes")
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
        print(f"{differ:10,} {size:12,} {size / whole:8.2%} {took * 1e3:9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000, help="at most so many (default 100 000)")
    parser.add_argument("--replicas", type=int, default=10_000, help="at most so many nodes that ever wrote")
    options = parser.parse_args()
    against_entries(options.entries)
    against_replicas(options.replicas)
    against_differences(options.entries)


if __name__ == "__main__":
    main()
