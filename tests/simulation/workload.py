"""What do the programs of this world write?

Few keys, so that writes meet; every type, elements that are equal in Python and different here, bursts on one key,
values of 100 KiB, transactions that stay open while packets come in, and turns that end a moment late.

Invariant: each write is told to the model with what the program meant by it, before the engine has it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from crdt import (
    FOREVER,
    WITH_AUTHOR,
    Key,
    LWWMap,
    LWWRegister,
    Note,
    ORSet,
    PNCounter,
    Store,
    Write,
    encode_element,
    encode_value,
)
from crdt.codec import MAP
from crdt.timestamp import at
from gossip.protocol.effects import Effect
from tests.simulation.checks import COUNTERS, MAPS, REGISTERS, SETS
from tests.simulation.model import Local, Meaning, demand

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

KEYS: tuple[Any, ...] = ("a", "b", 1, True, 1.0, ("t", 2), b"x", None)
MEMBERS: tuple[Any, ...] = ("ann", "bob", 7, "dan")
_LARGE = 100 << 10

_NOTES = {0: Note("somebody", None), 3: Note(None, "for the test")}
"""What some of the writes are noted with, by their stamps; so it changes in the middle of transactions, too."""


class Workload:
    """All programs."""

    def __init__(self, world: World, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self.number = 0
        """Every value is another one."""

    def start(self) -> None:
        """From now on somebody writes now and then."""
        self.world.later(self.rng.expovariate(self.world.options.turns), self._turn, "turn")

    def _turn(self) -> None:
        self.start()
        running = [process for process in self.world.processes if process.free(self.world.now)]
        if running:
            self.turn(self.rng.choice(running))

    def turn(self, process: Process, ends: bool = True) -> None:
        """One turn of a program's loop: writes, then the flush, which may come a moment late."""
        choice = self.rng.random()
        if choice < 0.08:
            self._transaction(process)
        elif choice < 0.16:
            self.write(process, [self._burst(process)] * self.rng.randint(2, 25))
        elif choice < 0.24 and process.watch.depth == 0:
            keys = self.rng.sample(KEYS, self.rng.randint(1, 5))
            self.world.event(process, "put", partial(self._put, process, [self._draft(key) for key in keys]))
        elif choice < 0.25:
            self.write(process, [self._set(process, "x" * self.rng.randint(1, _LARGE))])
        else:
            self.write(process, [self._one(process) for _ in range(self.rng.choice((1, 1, 1, 2, 5)))])
        if self.rng.random() < 0.1:
            self.world.event(process, "sync", partial(self._sync, process))
        if ends and self.rng.random() < 0.95:
            self.world.flush(process)
        elif ends:
            self.world.later(self.rng.random() * 0.01, lambda: self.world.flush(process), "flush")

    def _sync(self, process: Process, now: float, wall: int) -> list[Effect]:
        """A program asks who holds what it wrote; what is still open in a transaction is a part of that."""
        wanted = process.engine.replication.written
        durable = self.rng.random() < 0.5
        number, effects = process.engine.sync(process.engine.members.peers(), wanted, durable)
        process.watch.questions[number] = dict(wanted)
        return effects

    def _transaction(self, process: Process) -> None:
        """Several writes that become visible at once; now and then it stays open for a while, or has one inside."""
        world = self.world
        wide, crowded = self.rng.random() < 0.3, self.rng.random() < 0.3
        writes = [self._one(process, 3_000 if wide else 0) for _ in range(self.rng.randint(1, 12))]
        if crowded:  # the same keys before, in and after it: each may take the place of its like only
            self.write(process, writes)
        world.begin(process)
        self.write(process, writes)
        if self.rng.random() < 0.2:
            world.begin(process)
            self.write(process, [self._burst(process)] * 3)
            world.end(process)
        if self.rng.random() < 0.3:
            world.later(self.rng.random() * self.rng.choice((0.02, 1.0, 4.0)), lambda: world.end(process), "end")
        else:
            world.end(process, flush=not crowded)
            if crowded:
                self.write(process, writes)

    def write(self, process: Process, asks: list[Callable[[Store, int, int], tuple[Write | None, Meaning]]]) -> None:
        """Writes of one turn."""
        for ask in asks:
            self.world.event(process, "update", partial(self._update, process, ask))

    def _update(
        self, process: Process, ask: Callable[[Store, int, int], tuple[Write | None, Meaning]], now: float, wall: int
    ) -> list[Effect]:
        engine, watch = process.engine, process.watch
        replication = engine.replication
        stamp = engine.stamp(wall)
        demand(stamp > process.stamp, "a stamp is not later than the last", stamp, process.stamp)
        process.stamp = stamp
        write, meaning = ask(replication.store, replication.replica, stamp)
        if write is None:
            return []
        before = replication.store.context[replication.replica]
        watch.program = True
        try:
            effects = engine.update(write, now, _NOTES.get(stamp % 6))
        except ValueError:
            demand(process.watch.depth > 0, "a write was refused outside of a transaction", write)
            demand(replication.store.context[replication.replica] == before, "a refused write left a trace", write)
            self.world.happened["refused"] += 1
            return []
        finally:
            watch.program = False
        watch.shadow.local(write, meaning)
        watch.tail.append(Local(write, process.watch.segment))
        self.world.writes += 1
        self.world.hashed(write.key[2] + (write.value or b""))
        return effects

    def _put(self, process: Process, asks: list[tuple[Key, Any, Meaning, int]], now: float, wall: int) -> list[Effect]:
        """What a program wrote in one turn, each to another key, without asking what is there."""
        engine, watch = process.engine, process.watch
        drafts, meanings = [], []
        for key, value, meaning, seconds in asks:
            stamp = process.stamp = engine.stamp(wall)
            expires = FOREVER if not seconds else stamp + at(1000 * seconds)
            drafts.append((key, (stamp, engine.replication.replica, 0, encode_value(value), expires, None)))
            meanings.append(meaning)
        store, replica = engine.replication.store, engine.replication.replica
        first = store.context[replica] + 1
        asked = [store.write(key, live[3], replica, live[0], live[4]) for key, live in drafts]
        writes = [write._replace(dot=(replica, sequence)) for sequence, write in enumerate(asked, first)]
        effects = engine.put(drafts, now)
        for write, meaning in zip(writes, meanings, strict=True):
            watch.shadow.local(write, meaning)
            watch.tail.append(Local(write, process.watch.segment))
            self.world.writes += 1
            self.world.hashed(write.key[2] + (write.value or b""))
        return effects

    def _draft(self, key: Any) -> tuple[Key, Any, Meaning, int]:
        self.number += 1
        value = {"n": self.number, "text": "draft"}
        full = (MAP, self.rng.choice(MAPS), encode_element(key))
        return full, value, Meaning(key, value, 0), self.rng.choice((0, 0, 0, 20))

    # -- kinds of writes -------------------------------------------------------------------------------------------

    def _one(self, process: Process, size: int = 0) -> Callable[[Store, int, int], tuple[Write | None, Meaning]]:
        choice = self.rng.random()
        if choice < 0.4:
            return self._set(process, "y" * size)
        if choice < 0.55:
            name, key = self.rng.choice(MAPS), self.rng.choice(KEYS)
            return lambda store, replica, stamp: (
                LWWMap(store, name).delete(key, replica, stamp),
                Meaning(key, None, 0),
            )
        if choice < 0.7:
            name, member, end = self.rng.choice(SETS), self.rng.choice(MEMBERS), self._end()
            return lambda store, replica, stamp: (
                ORSet(store, name).add(member, replica, stamp)._replace(expires=end(stamp)),
                Meaning(member, None, 0),
            )
        if choice < 0.8:
            name, member = self.rng.choice(SETS), self.rng.choice(MEMBERS)
            return lambda store, replica, stamp: (
                ORSet(store, name).remove(member, replica, stamp),
                Meaning(member, None, 0),
            )
        if choice < 0.93:
            return self._add()
        return self._register()

    def _set(self, process: Process, text: str) -> Callable[[Store, int, int], tuple[Write | None, Meaning]]:
        self.number += 1
        name, key, value = self.rng.choice(MAPS), self.rng.choice(KEYS), {"n": self.number, "text": text}
        end = self._end()
        return lambda store, replica, stamp: (
            LWWMap(store, name).set(key, value, replica, stamp)._replace(expires=end(stamp)),
            Meaning(key, value, 0),
        )

    def _end(self) -> Callable[[int], int]:
        """When a write ends, given its stamp: most never do."""
        choice, seconds = self.rng.random(), self.rng.choice((0.01, 1.0, 20.0, 60.0))
        if choice < 0.06:
            return lambda stamp: stamp + at(int(1000 * seconds))
        return lambda stamp: WITH_AUTHOR if choice < 0.12 else FOREVER

    def _add(self) -> Callable[[Store, int, int], tuple[Write | None, Meaning]]:
        name, amount = self.rng.choice(COUNTERS), self.rng.choice((1, 1, 5, -3))
        return lambda store, replica, stamp: (
            PNCounter(store, name).add(amount, replica, stamp),
            Meaning(name, None, amount),
        )

    def _register(self) -> Callable[[Store, int, int], tuple[Write | None, Meaning]]:
        self.number += 1
        name, value = REGISTERS[0], None if self.rng.random() < 0.2 else self.number
        return lambda store, replica, stamp: (
            LWWRegister(store, name).delete(replica, stamp)
            if value is None
            else LWWRegister(store, name).set(value, replica, stamp),
            Meaning("", value, 0),
        )

    def _burst(self, process: Process) -> Callable[[Store, int, int], tuple[Write | None, Meaning]]:
        """The same key again and again."""
        return self._add() if self.rng.random() < 0.3 else self._set(process, "")
