"""What does the store cost, beside a bare dict?

One run measures both, in turn, round by round, and prints ratios with their spread: the speed of a machine changes from
one second to the next, a ratio taken within the same second hardly does.

    python benchmarks/store.py [--entries 200000] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

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


_MEMORY = """
import sys
from crdt import Store, Write, encode_element

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) * 1024

kind, entries = sys.argv[1], int(sys.argv[2])
before = resident()
if kind == "dict":
    held = {encode_element(f"key-{i}"): bytes(bytearray(102)) for i in range(entries)}
else:
    held = Store()
    for i in range(entries):
        key = (1, "bench", encode_element(f"key-{i}"))
        held.merge(Write((7, i + 1), key, (i + 1) << 16, bytes(bytearray(102)), ()))
print((resident() - before) / entries)
"""


def bytes_an_entry(kind: str, entries: int) -> float:
    """Resident memory an entry of 102 bytes of value takes, in a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-c", _MEMORY, kind, str(entries)], capture_output=True, text=True, check=True
    )
    return float(answer.stdout)


def main() -> None:
    """Measures, and prints a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    one_round(options.entries // 10)  # warms up
    rounds = [one_round(options.entries) for _ in range(options.rounds)]
    reference = {"get bytes": "dict get", "get value": "dict get"}
    rows = []
    for name in rounds[0]:
        beside = reference.get(name, "dict put")
        ratios = sorted(each[name] / each[beside] for each in rounds)
        rows.append((name, statistics.median(each[name] for each in rounds), beside, ratios))
    memory = {kind: bytes_an_entry(kind, options.entries) for kind in ("dict", "store")}
    if options.json:
        print(json.dumps({"python": platform.python_version(), "rounds": rounds, "bytes_an_entry": memory}))
        return
    print(
        f"Python {platform.python_version()}, {options.entries} entries of 100 bytes, {options.rounds} rounds, median"
    )
    print(f"{'':24}{'us':>9}   ratio to a bare dict (min .. max)")
    for name, median, beside, ratios in rows:
        if name.endswith("ms"):
            print(f"{name:24}{median:9.1f}")
        else:
            ratio = statistics.median(ratios)
            print(f"{name:24}{median:9.2f}   {ratio:6.1f} x {beside} ({ratios[0]:.1f} .. {ratios[-1]:.1f})")
    ratio = memory["store"] / memory["dict"]
    print(f"{'bytes an entry':24}{memory['store']:9.0f}   {ratio:6.2f} x dict of bytes ({memory['dict']:.0f})")
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")


if __name__ == "__main__":
    main()
