"""What does a write cost in a large cluster: messages, bytes, hops, and time until everybody has it?

Real engines and real bytes on a virtual clock, each link taking a millisecond. The members know each other from the
start, and nobody else writes. Three columns of time: nothing is lost; one push of a hundred is; and the member with
the largest part to hand on dies before it does. What is lost is found by pings, one a second.

    python benchmarks/relay.py [--members 16 100 1000] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import heapq
from random import Random
from statistics import mean

from benchmarks.measure import OURS, Result, alone
from crdt import LWWMap, Store
from gossip.protocol.effects import Effect, Send
from gossip.protocol.engine import Engine
from gossip.protocol.members import Claim
from gossip.protocol.messages import Push
from gossip.protocol.settings import Settings

EPOCH = 1_700_000_000_000
LINK = 0.001


class World:
    """Members, and what is on its way between them."""

    def __init__(self, members: int, seed: int, loss: float = 0.0) -> None:
        self.rng = Random(seed)
        self.loss = loss
        self.now = 0.0
        self.messages = self.bytes = 0
        self.hops: dict[int, int] = {}
        self.dead: set[int] = set()
        self._queue: list[tuple[float, int, int, bytes, int]] = []
        self._order = 0
        claims = [
            Claim(self.rng.getrandbits(64) | 1, f"n{number}", (f"unix:/{number}",), EPOCH) for number in range(members)
        ]
        self.engines = {claim.instance: self._engine(claim, claims) for claim in claims}

    def _engine(self, me: Claim, claims: list[Claim]) -> Engine:
        engine = Engine("bench", me, Settings(join_timeout=0.0), Random(me.instance), Store())
        engine.join([], 0.0)
        engine.membership.hear((claim for claim in claims if claim is not me), 0.0, "it was there")
        for claim in claims:
            engine.membership.spoke(claim.instance, "it spoke")  # who was only told of is not trusted to hand on
            engine.membership.broadcast.drop(claim.instance)  # all know it already
        engine.membership.detector.next_round = self.rng.random()
        return engine

    def perform(self, instance: int, effects: list[Effect], hop: int) -> None:
        engine = self.engines[instance]
        for effect in effects:
            if not isinstance(effect, Send):
                continue
            payload = engine.codec.encode(instance, effect.message)
            pushed = isinstance(effect.message, Push) and effect.message.pull == 0
            for peer in effect.to:
                if pushed:
                    self.messages += 1
                    self.bytes += len(payload)
                    if self.rng.random() < self.loss:
                        continue
                self._order += 1
                heapq.heappush(self._queue, (self.now + LINK, self._order, peer, payload, hop + 1 if pushed else 0))

    def run(self, seconds: float, everybody: int) -> float:
        """Until everybody has it; gives how long that took."""
        begun, have = self.now, 1
        deadlines = [(engine.deadline, instance) for instance, engine in self.engines.items()]
        heapq.heapify(deadlines)
        while have < everybody and self.now < begun + seconds:
            if self._queue and self._queue[0][0] <= deadlines[0][0]:
                self.now, _, peer, payload, hop = heapq.heappop(self._queue)
                if peer in self.dead:
                    continue
                engine = self.engines[peer]
                before = engine.replication.store.delivered()
                effects = engine.receive(payload, self.now, EPOCH)
                if engine.replication.store.delivered() > before:
                    have += 1
                    self.hops[peer] = hop
                self.perform(peer, effects, hop)
            else:
                due, peer = heapq.heappop(deadlines)
                self.now = max(self.now, due)
                if peer in self.dead:
                    continue
                self.perform(peer, self.engines[peer].tick(self.now, EPOCH), 0)
            heapq.heappush(deadlines, (max(self.engines[peer].deadline, self.now + 1e-6), peer))
        return self.now - begun

    def write(self) -> tuple[int, list[Effect]]:
        """The first member writes; what it sends has not left yet."""
        instance, engine = next(iter(self.engines.items()))
        store = engine.replication.store
        engine.update(LWWMap(store, "m").set("k", "x" * 100, instance, engine.stamp(EPOCH)), self.now)
        return instance, engine.flush()


def measure(members: int, runs: int, result: Result) -> None:
    label = f"{members} members"
    titles = {"sound": "all have it", "lossy": "all have it, 1 % lost", "crash": "all have it, a hop dies"}
    for seed in range(runs):
        for kind, title in titles.items():
            world = World(members, seed, 0.01 if kind == "lossy" else 0.0)
            author, effects = world.write()
            if kind == "crash":
                sent = [effect for effect in effects if isinstance(effect, Send) and effect.message.part]  # type: ignore[union-attr]
                world.dead.update(effect.to[0] for effect in sent[:1])
            world.perform(author, effects, 0)
            result.add(f"{label}, {title}", OURS, world.run(60.0, members - len(world.dead)) * 1e3, "virtual ms")
            if kind == "sound":
                result.add(f"{label}, messages", OURS, world.messages, "messages")
                result.add(f"{label}, sent", OURS, world.bytes, "bytes")
                result.add(f"{label}, hops to the last", OURS, max(world.hops.values()), "hops")
                result.add(f"{label}, hops", OURS, mean(world.hops.values()), "hops")


def ask(options: argparse.Namespace, result: Result) -> None:
    members = options.members or ([8, 32, 100] if options.quick else [8, 16, 32, 100, 300])
    for each in members:
        measure(each, options.runs or (1 if options.quick else 3), result)
    result.notes.append("a write of 100 bytes by one member; times are virtual, so no machine is in them")


def own_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--members", type=int, nargs="+")
    parser.add_argument("--runs", type=int)


if __name__ == "__main__":
    alone(__file__, __doc__ or "", ask, own_options)
