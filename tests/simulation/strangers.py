"""Who else is on this network?

Nodes of another cluster: real ones, which know our addresses from some list, or were given one that was ours. They dial
us and take each other for members; nothing of theirs may ever count here, and nothing of ours there.

Invariant: the two clusters never mix. Ours is looked at wherever a member changes (`world`), theirs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from crdt import Store
from gossip.protocol.effects import Dial, Effect, Send
from gossip.protocol.engine import Engine
from gossip.protocol.members import Claim
from gossip.protocol.messages import Message
from gossip.protocol.settings import Settings
from tests.simulation.model import demand

if TYPE_CHECKING:
    from tests.simulation.world import World

CLUSTER = "another"
LOOK = 5.0
"""Seconds after which it looks for others at more addresses."""


class Stranger:
    """A node of another cluster. It takes its packets as ours do, and nothing ever ails it."""

    def __init__(self, world: World, address: str, rng: Random) -> None:
        self.world = world
        self.address = address
        me = Claim(rng.getrandbits(64) | 1, "stranger", (address,), int(world.now * 1000))
        self.engine = Engine(CLUSTER, me, Settings(), Random(f"stranger {me.instance}"), Store())
        self._rng = rng
        self._due = float("inf")
        world.note(None, f"a stranger at {address}")
        world.later(0.0, self._look, "stranger")

    def hear(self, payload: bytes) -> None:
        """A packet came, whoever it was meant for."""
        self._perform(self.engine.receive(payload, self.world.now, self._wall))
        names = {claim.name for claim in self.engine.members.table.values()}
        demand(names == {"stranger"}, "another cluster has one of ours for a member", self.address, names)
        demand(not self.engine.replication.store.context, "another cluster has what we wrote", self.address)

    @property
    def _wall(self) -> int:
        return int(self.world.now * 1000)

    def _look(self) -> None:
        known = [*dict.fromkeys([*self.world.where.values(), *self.world.strangers])]
        some = [address for address in self._rng.sample(known, min(3, len(known))) if address != self.address]
        self._perform(self.engine.join(some, self.world.now))
        self.world.later(LOOK, self._look, "fault")

    def _tick(self) -> None:
        if self._due <= self.world.now:
            self._due = float("inf")
            self._perform(self.engine.tick(self.world.now, self._wall))

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(to, message):
                    for instance in to:
                        if instance in self.engine.members.table:  # who asked may be known to nobody
                            self._send(self.engine.members.table[instance].addresses[0], message)
                case Dial(address, message):
                    self._send(address, message)
        if self.engine.deadline < self._due:
            self._due = max(self.engine.deadline, self.world.now)
            self.world.at(self._due, self._tick, "stranger")

    def _send(self, address: str, message: Message) -> None:
        payload = self.engine.codec.encode(self.engine.me.instance, message)
        self.world.network.send(self.world.now, self.address, address, payload, stream=True)
