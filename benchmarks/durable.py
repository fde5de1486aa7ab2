"""What does it cost to keep everything on disk, beside a plain file that is appended to and synced?

One run measures all of them on one disk, in turn, round by round: a disk's speed changes from one second to the next, a
ratio taken within the same second less so. Single writes of 100 bytes, a batch each, as a loop appends them.

    python benchmarks/durable.py [--directory DIR] [--rounds 5] [--records 1000000] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import OURS, Result, alone
from crdt import Batch, Store, Write, encode_batch, encode_element
from gossip.storage import Durability, Storage

VALUE = b"\xc4\x64" + bytes(100)  # the encoding of 100 bytes
RATES = (20, 200, 2000)
MODES: tuple[Durability, ...] = ("interval", "full")
PLAIN = "a file, synced"


def batches(count: int, entries: int = 50_000) -> list[bytes]:
    """Batches of one write each, over so many keys."""
    made = []
    for number in range(1, count + 1):
        names = ((7, number - entries),) if number > entries else ()
        key = (1, "bench", encode_element(f"key-{number % entries}"))
        made.append(encode_batch(Batch(7, number, number, (Write((7, number), key, number << 16, VALUE, names),))))
    return made


class Plain:
    """A file that is appended to, and synced: all that waits at once, in a thread of its own."""

    def __init__(self, directory: Path, told: Callable[[int], None]) -> None:
        self._file = os.open(directory / "plain", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._told, self._waits = told, threading.Condition()
        self._queue: list[bytes] = []
        self._ticket, self._open = 0, True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def append(self, payload: bytes) -> int:
        with self._waits:
            self._queue.append(payload)
            self._ticket += 1
            self._waits.notify()
        return self._ticket

    def _run(self) -> None:
        while True:
            with self._waits:
                self._waits.wait_for(lambda: self._queue or not self._open)
                queue, self._queue, ticket = self._queue, [], self._ticket
            if not queue:
                return
            os.write(self._file, b"".join(queue))
            os.fdatasync(self._file)
            self._told(ticket)

    def close(self) -> None:
        with self._waits:
            self._open = False
            self._waits.notify()
        self._thread.join()
        os.close(self._file)


class Times:
    """When each ticket was appended, and when it was spoken of."""

    def __init__(self, count: int) -> None:
        self.appended = [0.0] * (count + 1)
        self.told = [0.0] * (count + 1)
        self._reached = 0
        self.all = threading.Event()

    def on(self, ticket: int) -> None:
        now = time.perf_counter()
        while self._reached < ticket:
            self._reached += 1
            self.told[self._reached] = now
        if ticket == len(self.told) - 1:
            self.all.set()

    def figures(self) -> dict[str, float]:
        waits = sorted((told - appended) * 1e3 for appended, told in zip(self.appended[1:], self.told[1:], strict=True))
        return {
            "median ms": statistics.median(waits),
            "99 % ms": waits[len(waits) * 99 // 100],
            "a second": len(waits) / (max(self.told) - self.appended[1]),
        }


def at_rate(append: Callable[[bytes], int], payloads: list[bytes], rate: float, times: list[Times]) -> None:
    """Appends so many a second; as fast as it goes if the rate is 0."""
    start = time.perf_counter()
    for number, payload in enumerate(payloads):
        if rate:
            while (left := start + number / rate - time.perf_counter()) > 0:
                time.sleep(left)
        for each in times:
            each.appended[number + 1] = time.perf_counter()
        append(payload)
    assert times[-1].all.wait(120)


def measure(base: Path, what: str, payloads: list[bytes], rate: float) -> dict[str, dict[str, float]]:
    """The figures of one of them at one rate, by what was waited for."""
    with tempfile.TemporaryDirectory(dir=base) as directory:
        if what == "plain":
            synced = Times(len(payloads))
            plain = Plain(Path(directory), synced.on)
            at_rate(plain.append, payloads, rate, [synced])
            plain.close()
            return {"plain synced": synced.figures()}
        mode: Durability = "full" if what == "full" else "interval"
        stored, synced = Times(len(payloads)), Times(len(payloads))
        storage = Storage(Path(directory), "bench", durability=mode, stored=stored.on, synced=synced.on)
        storage.open(Store())
        at_rate(lambda payload: storage.append_batches((payload,)), payloads, rate, [stored, synced])
        storage.close()
        figures = {f"{what} synced": synced.figures()}
        return {"interval stored": stored.figures(), **figures} if what == "interval" else figures


def load(base: Path, count: int, keys: int) -> dict[str, float]:
    """Seconds to read so many records, and how much of it the store's own work takes."""
    payloads = batches(count, keys)
    directory = Path(tempfile.mkdtemp(dir=base))
    storage = Storage(directory, "bench", queue_bytes=1 << 40)
    storage.open(Store())
    for payload in payloads:
        storage.append_batches((payload,))
    storage.close(600)
    size = sum(path.stat().st_size for path in directory.iterdir())
    again, store = Storage(directory, "bench"), Store()
    gc.collect()
    before = time.perf_counter()
    again.open(store)
    opened = time.perf_counter() - before
    paused = asyncio.run(compacting(again, store))
    again.close(600)
    third, store = Storage(directory, "bench"), Store()
    before = time.perf_counter()
    loaded = third.open(store)
    state = time.perf_counter() - before
    third.close(600)
    shutil.rmtree(directory)
    return {
        "records": count,
        "MB": size / 1e6,
        "open s": opened,
        "parts of the state": loaded.records,
        "open after compaction s": state,
        **paused,
    }


async def compacting(storage: Storage, store: Store) -> dict[str, float]:
    """How late a loop is while a state is written beside it."""
    before = time.perf_counter()
    state = store.state()
    taken = time.perf_counter() - before
    storage.compact(state, 0)
    late = []
    while storage.compactions == 0:
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append((time.perf_counter() - before - 0.001) * 1e3)
    late.sort()
    return {
        "state taken ms": taken * 1e3,
        "loop late 99 % ms": late[len(late) * 99 // 100],
        "loop late most ms": late[-1],
    }


def ask(options: argparse.Namespace, result: Result) -> None:
    rounds = options.rounds or (1 if options.quick else 5)
    records = (0 if options.quick else 200_000) if options.records is None else options.records
    payloads = batches(10_000 if options.quick else 100_000)
    with tempfile.TemporaryDirectory(dir=options.directory) as base:
        for number in range(rounds):
            for rate in (RATES[-1:] if options.quick else RATES) + (0,):
                some = payloads[: rate // (4 if options.quick else 1) or len(payloads)]
                whose = ("plain", *MODES)
                for what in whose[number % len(whose) :] + whose[: number % len(whose)]:
                    for name, figures in measure(Path(base), what, some, rate).items():
                        keep(result, f"{rate} a second" if rate else "all at once", name, figures)
        loaded = load(Path(base), records, options.keys) if records else {}
    for what, figure in loaded.items():
        result.add(f"loading: {what}", OURS, figure, "")
    result.floors.append(PLAIN)
    result.notes.append(f"batches of {len(payloads[0])} bytes")


def keep(result: Result, label: str, name: str, figures: dict[str, float]) -> None:
    """`full` is what is durable when it is acknowledged: the one that stands beside a file that is synced."""
    system = {"plain synced": PLAIN, "full synced": OURS}.get(name, f"{OURS}, {name}")
    result.add(f"{label}, median", system, figures["median ms"], "ms")
    result.add(f"{label}, p99", system, figures["99 % ms"], "ms")
    result.add(f"{label}, done", system, figures["a second"], "writes/s", more=True)


def own_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="on the disk that is meant")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--records", type=int, help="for the time that loading takes; 0 for none")
    parser.add_argument("--keys", type=int, default=50_000, help="that these records are about")


if __name__ == "__main__":
    alone(__file__, __doc__ or "", ask, own_options)
