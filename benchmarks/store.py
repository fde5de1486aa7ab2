"""What does the store cost, beside a bare dict?

One run measures both, in turn, round by round, and prints ratios with their spread: the speed of a machine changes from
one second to the next, a ratio taken within the same second hardly does.

    python benchmarks/store.py [--entries 100000] [--rounds 10] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable

from benchmarks.measure import OURS, Result, alone
from crdt import (
    Batch,
    LWWMap,
    Store,
    Write,
    chain,
    decode_batch,
    decode_state,
    encode_batch,
    encode_element,
    encode_state,
)

VALUE = b"\xc4\x64" + bytes(100)  # the encoding of 100 bytes
BATCH = 200
DICT = "dict"


def writes(entries: int, start: int, named: int | None) -> list[Write]:
    """One write an entry, by replica 7, from sequence `start`; each names that of sequence `named` + its place."""
    made = []
    for place in range(entries):
        names = () if named is None else ((7, named + place),)
        key = (1, "bench", encode_element(f"key-{place}"))
        made.append(Write((7, start + place), key, (start + place) << 16, VALUE, names))
    return made


def timed(call: Callable[[], object], operations: int) -> float:
    """Microseconds an operation."""
    gc.collect()
    before = time.perf_counter()
    call()
    return (time.perf_counter() - before) / operations * 1e6


def fill(table: dict[str, bytes], keys: list[str], values: list[bytes]) -> None:
    """Puts one by one, as the store is made to."""
    for key, value in zip(keys, values, strict=True):
        table[key] = value


def one_round(entries: int) -> dict[str, float]:
    """Microseconds of everything, ours and a dict's."""
    new, over = writes(entries, 1, None), writes(entries, entries + 1, 1)
    keys = [f"key-{place}" for place in range(entries)]
    values = [bytes(100) for _ in range(entries)]
    bare: dict[str, bytes] = {}
    figures = {
        "dict put": timed(lambda: fill(bare, keys, values), entries),
        "dict get": timed(lambda: [bare[key] for key in keys], entries),
    }
    store = Store()
    figures["apply new"] = timed(lambda: [store.merge(write) for write in new], entries)
    figures["apply overwrite"] = timed(lambda: [store.merge(write) for write in over], entries)
    elements = store.elements((1, "bench"))
    encoded = [write.key[2] for write in new]
    figures["get bytes"] = timed(lambda: [elements[element][3] for element in encoded], entries)
    view = LWWMap(store, "bench")
    figures["get value"] = timed(lambda: [view.get(key) for key in keys], entries)
    figures["put value"] = timed(lambda: [store.merge(view.set(key, 7, 7, 1)) for key in keys], entries)
    batches = [Batch(7, i + 1, i + BATCH, tuple(new[i : i + BATCH])) for i in range(0, entries - BATCH + 1, BATCH)]
    packed = [encode_batch(batch) for batch in batches]
    count = len(batches) * BATCH
    figures["encode"] = timed(lambda: [encode_batch(batch) for batch in batches], count)
    fresh = Store()
    figures["decode + apply"] = timed(lambda: [fresh.merge_batch(decode_batch(each)) for each in packed], count)
    whole = encode_state(fresh.state())
    figures["load full state"] = timed(lambda: Store().merge_state(decode_state(whole)), count)
    for spent in (new, over, batches):
        spent.clear()
    gc.collect()
    before = time.perf_counter()
    gc.collect()
    figures["full collection, ms"] = (time.perf_counter() - before) * 1e3
    assert sum(1 for live in elements.values() for _ in chain(live)) == entries
    return figures


def ask(options: argparse.Namespace, result: Result) -> None:
    entries = options.entries or (10_000 if options.quick else 100_000)
    one_round(entries // 10)  # warms up
    for _ in range(options.rounds or (3 if options.quick else 10)):
        figures = one_round(entries)
        collection = figures.pop("full collection, ms")
        get, put = figures.pop("dict get"), figures.pop("dict put")
        for name, figure in figures.items():
            result.add(name, DICT, get if name.startswith("get") else put)
            result.add(name, OURS, figure)
        result.add("full collection", OURS, collection, "ms")
    result.floors.append(DICT)
    result.notes.append(f"{entries} entries of 100 bytes; beside each stands the put or the get of a bare dict")


def own_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--entries", type=int)
    parser.add_argument("--rounds", type=int)


if __name__ == "__main__":
    alone(__file__, __doc__ or "", ask, own_options)
