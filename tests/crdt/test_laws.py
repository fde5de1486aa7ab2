"""Does everything that spreads obey the laws that make order, loss, repetition and route irrelevant?

One suite for all lattices of the room: stores written by each of the four types, by all of them together, contexts
and clocks. States are reached by operations through a lossy network (tests/crdt/world.py), never made up: a made-up
state may break laws that no reachable one can. Most of the work is done while a history is played, since the world
checks every replica against the model after every step.

Source: Shapiro et al. (2011) for the laws. Not here: single stories (test_stories), hostile bytes (test_codec).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import (
    FOREVER,
    Context,
    Inbox,
    Malformed,
    Stage,
    State,
    Store,
    decode_batch,
    decode_context,
    decode_element,
    decode_state,
    decode_value,
    encode_batch,
    encode_context,
    encode_element,
    encode_state,
    encode_value,
    state_parts,
)
from crdt.causality import fingerprint_of
from crdt.timestamp import LATEST, observe
from tests.crdt.world import IDS, KINDS, STEP, Replica, World, anonymous, lives, note_of, order, store_of

histories = st.binary(min_size=25 * STEP, max_size=50 * STEP)
sizes = st.integers(3, 5)


@dataclass(frozen=True)
class Lattice:
    name: str
    kinds: tuple[str, ...]
    reached: Callable[[World], list[Any]]
    join: Callable[..., Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    contains: Callable[[Any, Any], bool]


def states(world: World) -> list[State]:
    return [replica.store.state() for replica in world.replicas] + [state for state, _ in world.snapshots[:2]]


def joined_states(*parts: State) -> State:
    store = store_of(*parts)
    lasting = [live[1:3] for _, live in lives(store.state()) if live[4] == FOREVER]
    assert store.fingerprint == sum(fingerprint_of(*dot) for dot in lasting) % 2**64
    mortal = {key for key, live in lives(store.state()) if live[4] != FOREVER}
    assert {(*name, element) for name in store.mortal for element in store.mortal[name]} == mortal
    return store.state()


def joined_contexts(*parts: Context) -> Context:
    context = Context()
    for part in parts:
        context.join(part)
    return context


def joined_clocks(*parts: int) -> int:
    last = 0
    for part in parts:
        last = observe(last, part, now=0, max_skew=2**48)
    return last


STORES = [
    Lattice(
        "+".join(kinds),
        kinds,
        states,
        joined_states,
        encode_state,
        decode_state,
        lambda great, small: great.context.dominates(small.context),
    )
    for kinds in [*((kind,) for kind in KINDS), KINDS]
]
LATTICES = [
    *STORES,
    Lattice(
        "context",
        KINDS,
        lambda world: [Context(state.context) for state in states(world)],
        joined_contexts,
        encode_context,
        decode_context,
        lambda great, small: great.dominates(small),
    ),
    Lattice(
        "clock",
        KINDS,
        lambda world: [replica.last for replica in world.replicas],
        joined_clocks,
        lambda stamp: stamp.to_bytes(8, "big"),
        lambda data: int.from_bytes(data, "big"),
        lambda great, small: great >= small,
    ),
]

each_lattice = pytest.mark.parametrize("lattice", LATTICES, ids=lambda lattice: lattice.name)
each_store = pytest.mark.parametrize("lattice", STORES, ids=lambda lattice: lattice.name)
each_kind = pytest.mark.parametrize("kind", KINDS)


# -- merging: order, grouping and repetition do not matter -------------------------------------------------------------


@each_lattice
@given(histories, sizes)
def test_joining_is_commutative_associative_and_idempotent(lattice: Lattice, history: bytes, size: int) -> None:
    join, encode = lattice.join, lattice.encode
    reached = lattice.reached(World(lattice.kinds, size=size).play(history))[-3:]
    whole = encode(join(*reached))
    for several in permutations(reached):
        assert encode(join(*several)) == whole
    for a, b in product(reached, reached):
        assert join(a, b) == join(b, a)
        assert join(a, b, a) == join(a, b, b) == join(a, b)
        for c in reached:
            assert join(join(a, b), c) == join(a, join(b, c))
    for a in reached:
        assert join(a, a) == a


@each_lattice
@given(histories, sizes)
def test_joining_never_forgets_and_an_older_self_adds_nothing(lattice: Lattice, history: bytes, size: int) -> None:
    middle = len(history) // STEP // 2 * STEP
    world = World(lattice.kinds, size=size).play(history[:middle])
    before = lattice.reached(world)[:size]
    after = lattice.reached(world.play(history[middle:]))[:size]
    for old, new in zip(before, after, strict=True):
        assert lattice.contains(new, old)
        assert lattice.join(new, old) == lattice.join(old, new) == new
        for other in after:
            both = lattice.join(new, other)
            assert lattice.contains(both, new) and lattice.contains(both, other)


@each_lattice
@given(histories, sizes)
def test_what_is_decoded_is_what_was_encoded(lattice: Lattice, history: bytes, size: int) -> None:
    for reached in lattice.reached(World(lattice.kinds, size=size).play(history)):
        encoded = lattice.encode(reached)
        assert lattice.decode(encoded) == reached
        assert lattice.encode(lattice.decode(encoded)) == encoded


@each_store
@given(histories, sizes, st.integers(0, 2**32))
def test_batches_however_cut_repeated_and_ordered_make_the_full_state_byte_for_byte(
    lattice: Lattice, history: bytes, size: int, seed: int
) -> None:
    """No replica is asked for more than its own writes: the rest of the state comes out of these alone."""
    world, random = World(lattice.kinds, size=size).play(history), Random(seed)
    cuts = []
    for author, ends in list(world.model.ends.items()):
        for _ in range(2):  # two complete sets of cuts that overlap each other
            last = 0
            while last < max(ends, default=0):
                begin, last = last + 1, min(last + random.randint(1, 6), ends[-1])
                whole = max((end for end in ends if begin <= end < last), default=0)
                if last not in ends and whole:
                    last = whole  # an open batch holds a part of one transaction only
                cuts += [(author, begin, last)] * random.randint(1, 2)
    random.shuffle(cuts)
    store, inbox = Store(), Inbox(limit=1 << 20)
    for author, begin, last in cuts:
        encoded = encode_batch(world.model.batch(author, begin, last)._replace(note=note_of(author)))
        for ready, _ in inbox.add(decode_batch(encoded), encoded, store.context[author]):
            store.merge_batch(ready)
    assert inbox.waiting() == [] and inbox.size == 0
    whole_state = store_of(*(replica.store.state() for replica in world.replicas))
    assert encode_state(store.state()) == encode_state(whole_state.state())
    assert store.fingerprint == whole_state.fingerprint


@each_store
@given(histories, sizes, st.integers(1, 300))
def test_a_state_in_parts_is_the_state(lattice: Lattice, history: bytes, size: int, limit: int) -> None:
    for reached in lattice.reached(World(lattice.kinds, size=size).play(history)):
        stage = Stage()
        for part in state_parts(reached, limit):
            stage.add(part)
        assert stage.state() == reached
        assert stage.newest == max((live[0] for _, live in lives(reached)), default=0)


def test_merging_a_state_tells_exactly_what_it_changed() -> None:
    random = Random(4)
    for _ in range(30):
        world = World(size=4).play(random.randbytes(40 * STEP))
        for mine, theirs in permutations(world.replicas, 2):
            store = store_of(mine.store.state())
            before = store.state().objects
            told = {key: (old, new) for key, old, new in store.merge_state(theirs.store.state())}
            after = store.state().objects
            keys = {(*name, element) for objects in (before, after) for name in objects for element in objects[name]}
            looked = {key: [objects.get(key[:2], {}).get(key[2]) for objects in (before, after)] for key in keys}
            assert told == {key: (old, new) for key, (old, new) in looked.items() if old != new}


# -- the model -------------------------------------------------------------------------------------------------------


@each_store
@given(histories, sizes)
def test_once_all_agree_each_holds_what_the_model_says_and_nothing_deleted_came_back(
    lattice: Lattice, history: bytes, size: int
) -> None:
    world = World(lattice.kinds, size=size).play(history)
    world.agree()
    model, everything = world.model, world.model.reach(IDS[0])
    for replica in world.replicas:
        assert model.reach(replica.id) == everything
    assert model.closed(everything), "so each replica was compared with what the authors had seen, too"
    assert len({encode_state(replica.store.state()) for replica in world.replicas}) == 1
    assert len({replica.store.fingerprint for replica in world.replicas}) == 1
    live = model.live(everything)
    for delete in [write for write in model.writes.values() if write.value is None]:
        for write in live.get(delete.key, []):
            saw = write.dot[1] <= model.known[delete.dot].get(write.dot[0], 0)
            assert not saw, "what comes back after a delete is what its author did not know of"
    for replica in world.replicas:
        assert replica.store.named == set() and replica.inbox.waiting() == []


@each_store
@given(histories)
def test_other_replica_ids_make_the_same_history(lattice: Lattice, history: bytes) -> None:
    """Ids break ties of stamps and nothing else; in these worlds nobody ever has the same stamp as another."""
    ids = (5, 2**63, 1, 2**64 - 2, 77)
    here = World(lattice.kinds, size=4, ties=False).play(history)
    there = World(lattice.kinds, ids=ids, size=4, ties=False).play(history)
    for mine, theirs in zip(here.replicas, there.replicas, strict=True):
        assert anonymous(mine.store.state(), IDS) == anonymous(theirs.store.state(), ids)


# -- bytes that depend on nothing else --------------------------------------------------------------------------------

DIGEST = """
import hashlib, random
from crdt import encode_state
from tests.crdt.world import World
digest, source = hashlib.sha256(), random.Random(9)
for size in (3, 4, 5) * 3:
    for replica in World(size=size).play(source.randbytes(250)).replicas:
        digest.update(encode_state(replica.store.state()) + replica.store.fingerprint.to_bytes(8, "big"))
print(hash("x"), digest.hexdigest())
"""


def test_bytes_and_fingerprints_are_the_same_in_every_process() -> None:
    root = Path(__file__).resolve().parents[2]
    said = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        said.append(subprocess.check_output([sys.executable, "-c", DIGEST], env=environment, cwd=root).split())
    assert said[0][0] != said[1][0], "the two processes do hash differently"
    assert said[0][1] == said[1][1]


def test_bytes_do_not_depend_on_the_order_in_which_things_came() -> None:
    dots = [(replica, sequence) for replica in (3, 9, 2**63) for sequence in range(5, 105)]
    one, two = State(Context(), frozenset(dots), {}), State(Context(), frozenset(reversed(dots)), {})
    assert list(one.named) != list(two.named), "else this shows nothing"
    assert encode_state(one) == encode_state(two)
    assert encode_context(Context({1: 1, 2: 2})) == encode_context(Context({2: 2, 1: 1}))


def test_a_fingerprint_is_pinned_since_other_versions_compare_theirs_with_it() -> None:
    store = Store()
    store.merge(store.write((1, "m", b"k"), b"v", replica=2**64 - 1, stamp=1))
    assert store.fingerprint == fingerprint_of(2**64 - 1, 1) == Context({2**64 - 1: 1}).fingerprint()
    assert Context({1: 1, 2: 2**63 - 1}).fingerprint() == Context({2: 2**63 - 1, 1: 1}).fingerprint()
    assert Context({1: 2, 2: 1}).fingerprint() != Context({1: 1, 2: 2}).fingerprint()
    assert Context().fingerprint() == Store().fingerprint == 0
    assert hex(fingerprint_of(1, 1)) == "0xad70fc67c511bb8e"


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=20),
)
elements = st.recursive(scalars, lambda parts: st.lists(parts, max_size=4).map(tuple), max_leaves=6)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
keys = st.one_of(words, st.integers(0, 2**64 - 1), st.binary(max_size=4))
values = st.recursive(
    scalars, lambda parts: st.lists(parts, max_size=4) | st.dictionaries(keys, parts, max_size=4), max_leaves=12
)


@given(elements, elements)
def test_elements_are_equal_exactly_if_their_bytes_are(one: object, two: object) -> None:
    a, b = encode_element(one), encode_element(two)
    assert decode_element(a) == one and encode_element(decode_element(a)) == a
    assert (a == b) == (_typed(one) == _typed(two))


def _typed(element: object) -> object:
    return tuple(map(_typed, element)) if isinstance(element, tuple) else (type(element), element)


@given(values)
def test_values_come_out_as_they_went_in(value: object) -> None:
    assert repr(decode_value(encode_value(value))) == repr(value)  # by repr, since 1 == True == 1.0


def test_unknown_fields_are_refused_and_never_dropped_in_silence() -> None:
    write = [0, 1, "m", b"k", 5, b"v", []]
    batch, live = [7, 1, 1, False, [write]], [b"k", 5, 7, 1, b"v", 0]
    head, part = [encode_context(Context({7: 1})), [], 1], [1, "m", [live]]
    assert decode_batch(msgpack.packb(batch)).writes[0].value == b"v"
    assert decode_state(msgpack.packb([msgpack.packb(head), msgpack.packb(part)])).context == {7: 1}
    for more in (None, 0, 1, b"", [], {}):
        for odd in ([*batch, more], [7, 1, 1, False, [[*write, 9, more]]], {"batch": batch}):
            with pytest.raises(Malformed):
                decode_batch(msgpack.packb(odd))
        longer = [1, "m", [[*live, more]]]
        for parts in ([[*head, more], part], [head, [*part, more]], [head, longer], [head, part, more]):
            with pytest.raises(Malformed):
                decode_state(msgpack.packb([msgpack.packb(odd) for odd in parts]))
        with pytest.raises(Malformed):
            decode_context(msgpack.packb([7, 1, more]))


# -- what remains ----------------------------------------------------------------------------------------------------


def cycle(stores: list[Replica], kind: str, turn: int) -> None:
    """One replica writes, another one deletes, and all hear of both."""
    for author, b, c in ((turn, 0, 1), (turn + 1, 0, 0)):
        me = stores[author % len(stores)]
        made = order(kind, me, "x", b, c)
        if made is not None:
            for replica in stores:
                replica.store.merge(made[0])


@each_kind
def test_a_thousand_deletes_leave_nothing_behind(kind: str) -> None:
    replicas = [Replica(id, clock=1_000) for id in IDS[:3]]
    sizes = []
    for turn in range(1_000):
        cycle(replicas, kind, turn)
        if turn in (99, 999):
            sizes.append(len(encode_state(replicas[0].store.state())))
    live_counters = 3 if kind == "counter" else 0
    for replica in replicas:
        state = replica.store.state()
        assert state.named == frozenset() and len(state.context) == 3
        assert len(state.objects) == min(live_counters, 1) and len(lives(state)) == live_counters
        assert live_counters or (replica.store.fingerprint == 0 and state.objects == {})
    growth = sizes[1] - sizes[0]  # of numbers: a sequence takes 2 bytes more, so does what is counted
    assert growth <= 3 * 4 * (1 + live_counters)


def test_the_greatest_stamp_can_be_observed_where_clocks_may_differ_so_much() -> None:
    assert joined_clocks(3, LATEST, 5) == LATEST
