"""What was delivered at a node, step by step, and what must be there after each step?

From a seed: single writes and runs of batches, transactions among them, of three replicas; deletes; values of a few
bytes and of several pages; now and then the full state of a peer that knew only a part. No two prefixes have the same
state, so a state tells how many steps made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from crdt import (
    Batch,
    Stage,
    Store,
    Write,
    decode_batch,
    encode_batch,
    encode_element,
    encode_state,
    state_parts,
)
from gossip.storage import Storage

CLUSTER = "shop"
HERE, THERE, AWAY = 7, 9, 11


class Step(NamedTuple):
    whole: bool
    """Whether this is a state in its parts, and not a run of batches."""
    payloads: tuple[bytes, ...]


class _Author:
    """A replica that writes, and knows what it was told."""

    def __init__(self, replica: int, store: Store, chance: Random) -> None:
        self.replica, self.store, self._chance = replica, store, chance
        self._stamp = 1

    def write(self) -> Write:
        self._stamp += 1
        key = (1, "flags", encode_element(f"key-{self._chance.randrange(20)}"))
        size = self._chance.choice((1, 8, 60, 60, 300, 9_000))
        value = (
            None if self._chance.random() < 0.2 else b"\xc5" + size.to_bytes(2, "big") + self._chance.randbytes(size)
        )
        write = self.store.write(key, value, self.replica, self._stamp << 8 | self.replica)
        self.store.merge(write)
        return write

    def batch(self, writes: int, more: bool = False) -> bytes:
        made = [self.write() for _ in range(writes)]
        return encode_batch(Batch(self.replica, made[0].dot[1], made[-1].dot[1], tuple(made), more))


def apply(store: Store, step: Step) -> None:
    if step.whole:
        stage = Stage()
        for part in step.payloads:
            stage.add(part)
        store.merge_state(stage.state())
    else:
        for payload in step.payloads:
            store.merge_batch(decode_batch(payload))


def append(storage: Storage, step: Step) -> int:
    return storage.append_state(step.payloads, 0) if step.whole else storage.append_batches(step.payloads)


@cache
def steps(seed: int, count: int) -> tuple[Step, ...]:
    """So many steps. Those of a smaller count are the first of those of a larger one."""
    chance = Random(seed)
    here, there, away = Store(), Store(), Store()
    authors = [_Author(replica, store, chance) for replica, store in ((HERE, here), (THERE, there), (AWAY, away))]
    story = []
    for _ in range(count):
        match chance.randrange(10):
            case 0:
                authors[2].batch(chance.randrange(1, 4))
                step = Step(True, tuple(state_parts(away.state(), limit=chance.choice((200, 1 << 18)))))
            case 1 | 2 | 3:
                if chance.random() < 0.3:
                    there.merge_state(here.state())
                length = chance.randrange(1, 4)
                run = [authors[1].batch(chance.randrange(1, 4), more=place < length - 1) for place in range(length)]
                step = Step(False, tuple(run))
            case _:
                step = Step(False, (authors[0].batch(1),))
        apply(here, step)
        if chance.random() < 0.1:
            away.merge_state(here.state())
        story.append(step)
    return tuple(story)


def after(story: Sequence[Step]) -> Store:
    """The store that these steps lead to."""
    store = Store()
    for step in story:
        apply(store, step)
    return store


@cache
def prefixes(seed: int, count: int) -> dict[bytes, int]:
    """The state after each number of steps, as bytes, and that number."""
    store = Store()
    found = {encode_state(store.state()): 0}
    for number, step in enumerate(steps(seed, count), 1):
        apply(store, step)
        found[encode_state(store.state())] = number
    assert len(found) == count + 1, "two prefixes are alike"
    return found


def found_in(directory: Path, seed: int, count: int) -> int:
    """Opens a directory, and says how many steps are in it. Raises `StartError`; fails if it is no prefix."""
    store = Store()
    storage = Storage(directory, CLUSTER)
    storage.open(store)
    try:
        state = encode_state(store.state())
        assert state in prefixes(seed, count), "what was read is no prefix"
    finally:
        assert storage.close(30)
    return prefixes(seed, count)[state]
