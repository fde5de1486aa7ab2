"""Is what a watch tells just what a reader sees?

A key is written by many who did not see each other, also by such whose writes had ended before they came; what has
ended is tidied up, and the node itself writes and deletes. After each step, or after several, the reader looks, and
what he was told must be what he sees, and no more than that.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

import gossip
from crdt import FOREVER, WITH_AUTHOR, Batch, Key, Write, chain, decode_value, dot_of, encode_element, encode_value
from crdt.codec import MAP
from crdt.timestamp import at
from gossip.protocol.engine import _changed

KEY: Key = (MAP, "m", encode_element("k"))
OTHERS = (3, 5, 9, 2**64 - 1)
HOUR = 3_600_000


class Story:
    """One node, one key, and all that may happen to it, from one seed."""

    def __init__(self, node: gossip.Node, seed: int) -> None:
        self.node, self.rng, self.number = node, random.Random(seed), 0
        self.now = time.time_ns() // 1_000_000

    def seen(self) -> tuple[tuple[int, int], Any] | None:
        """Which write a reader sees, and its value."""
        shown = next(self.node._visible(self.node._store.shown(KEY)), None)
        return None if shown is None else (dot_of(shown), decode_value(shown[3]))

    def step(self) -> str:
        self.number += 1
        act = self.rng.choice((self.comes, self.comes, self.comes, self.is_tidied, self.is_written))
        with self.node._running().lock:
            act()
        return act.__name__

    def comes(self) -> None:
        """A write or a deletion of another replica, which saw some of what is here."""
        runtime, store = self.node._running(), self.node._store
        runtime.writing.settle()
        replica = self.rng.choice(OTHERS)
        dot = (replica, store.context[replica] + 1)
        names = tuple((link[1], link[2]) for link in chain(store.shown(KEY)) if self.rng.random() < 0.5)
        value = None if self.rng.random() < 0.2 else encode_value(self.number)
        ends = (FOREVER, FOREVER, WITH_AUTHOR, at(self.now - HOUR), at(self.now + HOUR))
        expires = FOREVER if value is None else self.rng.choice(ends)
        write = Write(dot, KEY, at(self.now) - self.rng.randrange(5), value, names, expires)
        changes = store.merge_batch(Batch(replica, dot[1], dot[1], (write,)))
        runtime.perform(runtime.engine._show([tuple(changes)], runtime.now()))

    def is_tidied(self) -> None:
        """What has ended is dropped."""
        runtime = self.node._running()
        runtime.perform(_changed(runtime.engine.expiry.tick(runtime.now(), at(self.now))))

    def is_written(self) -> None:
        """The program writes, or deletes what it sees."""
        if self.rng.random() < 0.5 or self.seen() is None:
            self.node.map("m")["k"] = self.number
        else:
            del self.node.map("m")["k"]
        self.node._settled()


@pytest.mark.parametrize("seed", range(40))
def test_what_is_told_is_what_is_seen(cluster: str, seed: int) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node, node.map("m").watch(snapshot=False) as changes:
            story, before, done = Story(node, seed), None, []
            for _ in range(40):
                done.append(story.step())
                if story.rng.random() < 0.4:
                    continue  # and is read with the next
                after = story.seen()
                with changes._lock:
                    told = [changes._change(each) for each in changes._pop_all()]
                what = [(each.kind, each.value, each.previous) for each in told if each is not None]
                value, previous = after and after[1], before and before[1]
                due = [] if before == after else [("deleted" if after is None else "set", value, previous)]
                assert what == due, done
                before = after

    asyncio.run(story())
