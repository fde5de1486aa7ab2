"""A process that keeps a story on disk, and says aloud what its storage says: `stored 3`, `synced 3`, `failed ...`.

    python -m tests.storage.writer '{"directory": ..., "seed": 1, "count": 20, ...}'

It says it with one `write` a line, so that a trace has it in order with what was done to the disk.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from crdt import Store
from gossip import records, storage
from gossip.errors import StartError
from gossip.storage import Durability, Storage
from tests.storage.story import CLUSTER, append, apply, steps


@dataclass
class Options:
    directory: str
    seed: int = 1
    count: int = 20
    start: int = 0
    """How many steps are there already."""
    durability: Durability = "interval"
    pace: str = "synced"
    """Each step waits until the one before is `stored` or `synced`; `burst`: none does."""
    compact: list[int] = field(default_factory=list)
    """After which steps a state is handed over."""
    auto: bool = False
    """Whether one is handed over whenever it is due; then the end waits until all is synced."""
    queue_bytes: int = 64 << 20
    checkpoint: int = 4096
    """Pages that a WAL has before it is moved into the database."""
    small: bool = False
    """Whether a state is written in many small slices."""
    end: str = "close"
    """`close`; `exit` without a close; `hold` until it is killed."""
    close_timeout: float = 10.0
    file_limit: int = 0
    """Bytes that a file may have, by the kernel's leave."""


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


class Acknowledged:
    """The last tickets that the storage spoke of."""

    def __init__(self) -> None:
        self.stored = self.synced = 0
        self.failed = False
        self._news = threading.Condition()

    def on_stored(self, ticket: int) -> None:
        say(f"stored {ticket}")
        with self._news:
            self.stored = ticket
            self._news.notify()

    def on_synced(self, ticket: int) -> None:
        say(f"synced {ticket}")
        with self._news:
            self.synced = ticket
            self._news.notify()

    def on_failed(self, error: OSError) -> None:
        say(f"failed {error}")
        with self._news:
            self.failed = True
            self._news.notify()

    def wait(self, pace: str, ticket: int) -> None:
        if pace != "burst":
            with self._news:
                assert self._news.wait_for(lambda: self.failed or getattr(self, pace) >= ticket, 60)


def main(options: Options) -> int:
    storage._CHECKPOINT = options.checkpoint
    if options.file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.file_limit, options.file_limit))
    if options.small:
        records._SLICE, records._PART_BYTES, records._CLEARED = 1, 400, 512
    acknowledged = Acknowledged()
    store = Store()
    kept = Storage(
        Path(options.directory),
        CLUSTER,
        durability=options.durability,
        stored=acknowledged.on_stored,
        synced=acknowledged.on_synced,
        failed=acknowledged.on_failed,
        queue_bytes=options.queue_bytes,
    )
    try:
        loaded = kept.open(store)
    except StartError as error:
        say(f"refused {error}")
        return 3
    say(f"opened {loaded.steps} {loaded.records}")
    slowest, ticket = 0.0, 0
    for number, step in enumerate(steps(options.seed, options.count)[options.start :], options.start + 1):
        apply(store, step)
        before = time.perf_counter()
        ticket = append(kept, step)
        slowest = max(slowest, time.perf_counter() - before)
        if number in options.compact or (options.auto and kept.due):
            kept.compact(store.state(), 0)
        acknowledged.wait(options.pace, ticket)
    while options.auto and acknowledged.synced < ticket:
        if kept.due:
            kept.compact(store.state(), 0)
        time.sleep(0.001)  # waits: a look at what is due, as a loop has one at each turn
    say(f"slowest {slowest:.6f}")
    say(f"counters {json.dumps(kept.counters)}")
    if options.end == "hold":
        threading.Event().wait()
    if options.end == "close":
        before = time.perf_counter()
        done = kept.close(options.close_timeout)
        say(f"closed {done} {time.perf_counter() - before:.3f}")
        if not done:
            say(f"closed {kept.close(30)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Options(**json.loads(sys.argv[1]))))
