"""Can any order of rules, chosen to break it, bring a world out of step with the model?

The same world as in test_laws, but one rule a step, so that a failure shrinks to a readable list of what happened.
The world checks whom it touched; here everybody is checked after every rule, and at the end all are brought to agree.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from crdt import encode_state
from tests.crdt.world import KINDS, Replica, World

small = st.integers(0, 4)
places = st.integers(0, 255)


class Gossip(RuleBasedStateMachine):
    world: World

    @initialize(size=st.integers(3, 5), kinds=st.sampled_from([*((kind,) for kind in KINDS), KINDS, KINDS]))
    def begin(self, size: int, kinds: tuple[str, ...]) -> None:
        self.world = World(kinds, size=size)

    @rule(who=small, a=places, b=places, c=places)
    def somebody_writes(self, who: int, a: int, b: int, c: int) -> None:
        self.world.write(self._replica(who), [(a, b, c)])

    @rule(who=small, orders=st.lists(st.tuples(places, places, places), min_size=2, max_size=4))
    def somebody_makes_a_transaction(self, who: int, orders: list[tuple[int, int, int]]) -> None:
        self.world.write(self._replica(who), orders)

    @rule(who=small, a=places, b=places, c=places)
    def somebody_writes_twice_before_it_leaves(self, who: int, a: int, b: int, c: int) -> None:
        self.world.write_twice(self._replica(who), a, b, c)

    @rule(who=small, by=st.sampled_from([-3_600_000, -1, 1, 50, 3_600_000]))
    def a_clock_is_set(self, who: int, by: int) -> None:
        self._replica(who).clock = max(0, self._replica(who).clock + by)

    @precondition(lambda self: any(self.world.model.ends.values()))
    @rule(to=small, author=small, first=places, length=small, early=st.booleans())
    def a_batch_arrives(self, to: int, author: int, first: int, length: int, early: bool) -> None:
        self.world.send(self._replica(to), self._replica(author).id, first if early else 64 + first % 192, length)

    @rule(to=small, author=small)
    def all_that_is_missing_arrives_last_to_first(self, to: int, author: int) -> None:
        ends = self.world.model.ends.get(self._replica(author).id, [])
        for sequence in reversed(range(1, max(ends, default=0) + 1)):
            self.world.deliver(self._replica(to), self._replica(author).id, sequence, sequence)

    @rule(to=small, source=small, parts=st.booleans())
    def a_state_is_merged(self, to: int, source: int, parts: bool) -> None:
        given = frozenset(self.world.model.given[self._replica(source).id])
        self.world.merge(self._replica(to), self._replica(source).store.state(), given, parts)

    @rule(who=small)
    def a_state_is_kept_for_later(self, who: int) -> None:
        replica = self._replica(who)
        self.world.snapshots.append((replica.store.state(), frozenset(self.world.model.given[replica.id])))

    @precondition(lambda self: self.world.snapshots)
    @rule(to=small, which=places, parts=st.booleans())
    def an_old_state_is_merged(self, to: int, which: int, parts: bool) -> None:
        state, given = self.world.snapshots[which % len(self.world.snapshots)]
        self.world.merge(self._replica(to), state, given, parts)

    @rule(who=small, other=small)
    def two_compare_their_ranges(self, who: int, other: int) -> None:
        self.world.compare(self._replica(who), self._replica(other))

    @precondition(lambda self: self.world.compared)
    @rule(which=places)
    def what_differed_arrives(self, which: int) -> None:
        self.world.finish(which % len(self.world.compared))

    @rule(who=small)
    def somebody_restarts_with_what_it_has(self, who: int) -> None:
        self.world.restart(who % len(self.world.replicas))

    @invariant()
    def everybody_holds_what_the_model_says(self) -> None:
        for replica in self.world.replicas if hasattr(self, "world") else ():
            self.world.check(replica)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.agree()
            assert len({encode_state(replica.store.state()) for replica in self.world.replicas}) == 1

    def _replica(self, who: int) -> Replica:
        return self.world.replicas[who % len(self.world.replicas)]


TestGossip = Gossip.TestCase
