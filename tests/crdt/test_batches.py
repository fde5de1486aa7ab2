"""Does a batch do what its writes do, one by one? And do all that a program writes in a turn?

Most writes of a batch are merged in line, in a shorter way than a write that comes alone, and most of a turn are made
in line as well: the two must never differ.
"""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from crdt import FOREVER, WITH_AUTHOR, Batch, Dot, Key, Note, Store, Write, dot_of
from crdt.codec import MAP, SET

KEYS: list[Key] = [(kind, name, element) for kind in (MAP, SET) for name in "mn" for element in (b"\x01", b"\x02")]
ONE, OTHER, *_ = KEYS
ANN, BOB = 7, 9
NOTE = Note("ann", "why")
Told = tuple[Key, bytes | None, int, tuple[Dot, ...]]
"""What is written: key, value, end, and the dots that it names; without any it names what is live, as most do."""

told = st.tuples(
    st.sampled_from(KEYS),
    st.sampled_from([b"\x01", b"\x02", None]),
    st.sampled_from([FOREVER, FOREVER, FOREVER, WITH_AUTHOR, 70]),
    st.lists(st.tuples(st.sampled_from([ANN, BOB]), st.integers(1, 12)), max_size=2, unique=True).map(tuple),
)
batches = st.tuples(st.sampled_from([ANN, BOB]), st.lists(told, min_size=1, max_size=5), st.sampled_from([None, NOTE]))
SET_ONE, END_ONE, SET_OTHER = (ONE, b"\x01", FOREVER, ()), (ONE, None, FOREVER, ()), (OTHER, b"\x02", FOREVER, ())
ENDED_IN_BETWEEN = [(ANN, [SET_ONE], None), (ANN, [SET_ONE, END_ONE, SET_OTHER], None)]
NAMED_EARLY = [(ANN, [SET_ONE, (OTHER, b"\x02", FOREVER, ((BOB, 1),))], None), (BOB, [SET_OTHER], None)]


def made_of(store: Store, replica: int, stamp: int, told: Told) -> Write:
    key, value, expires, names = told
    dot, live = (replica, store.context[replica] + 1), store.shown(key)
    if not names and live is not None:
        names = (dot_of(live),)
    before = tuple(each for each in names if each[0] != replica or each[1] < dot[1])
    return Write(dot, key, stamp, value, before, FOREVER if value is None else expires)


@given(st.lists(batches, min_size=1, max_size=5))
@example(ENDED_IN_BETWEEN)
@example(NAMED_EARLY)
@example([(ANN, [(ONE, b"\x01", WITH_AUTHOR, ()), SET_ONE], None)])
@example([(ANN, [SET_ONE], NOTE), (BOB, [SET_ONE], None)])
def test_a_batch_is_its_writes_one_by_one(history: list[tuple[int, list[Told], Note | None]]) -> None:
    at_once, one_by_one, stamp = Store(), Store(), 0
    for replica, run, note in history:
        writes, changes, first = [], [], one_by_one.context[replica] + 1
        for each in run:
            stamp += 1
            writes.append(made_of(one_by_one, replica, stamp, each))
            changes.append(one_by_one.merge(writes[-1], note))
        beginning = Batch(replica, first, first, tuple(writes[:1]), note=note)
        batch = Batch(replica, first, first + len(run) - 1, tuple(writes), note=note)
        assert at_once.merge_batch(beginning) + at_once.merge_batch(batch) == changes, "what is new of it"
        assert at_once.state() == one_by_one.state() and at_once.mortal == one_by_one.mortal
        assert (at_once.fingerprint, at_once.sums) == (one_by_one.fingerprint, one_by_one.sums)


drafted = st.dictionaries(
    st.sampled_from(KEYS),
    st.tuples(st.sampled_from([b"\x01", b"\x02"]), st.sampled_from([FOREVER, FOREVER, WITH_AUTHOR, 70])),
    min_size=1,
)


@given(st.lists(st.tuples(batches, drafted, st.sampled_from([None, NOTE])), min_size=1, max_size=4))
@example([((ANN, [SET_ONE], None), {ONE: (b"\x02", FOREVER)}, None)])
@example([((ANN, [SET_ONE], NOTE), {ONE: (b"\x02", FOREVER)}, None)])
@example([((ANN, [(ONE, b"\x01", 70, ())], None), {ONE: (b"\x02", FOREVER), OTHER: (b"\x02", 70)}, None)])
@example([((BOB, [(OTHER, b"\x02", FOREVER, ((ANN, 1),))], None), {ONE: (b"\x01", FOREVER)}, None)])
def test_what_is_put_at_once_is_its_writes_one_by_one(
    history: list[tuple[tuple[int, list[Told], Note | None], dict[Key, tuple[bytes, int]], Note | None]],
) -> None:
    at_once, one_by_one, stamp = Store(), Store(), 0
    for (replica, run, run_note), turn, note in history:
        for each in run:
            stamp += 1
            write = made_of(one_by_one, replica, stamp, each)
            assert at_once.merge(write, run_note) == one_by_one.merge(write, run_note)
        drafts = [(key, (stamp + 1 + n, ANN, 0, *told, None)) for n, (key, told) in enumerate(turn.items())]
        stamp += len(drafts)
        writes, changes = [], []
        for key, (its, _, _, value, expires, _) in drafts:
            writes.append(one_by_one.write(key, value, ANN, its, expires))
            changes.append(one_by_one.merge(writes[-1], note))
        assert at_once.put_all(drafts, ANN, note) == (tuple(writes), changes)
        assert at_once.state() == one_by_one.state() and at_once.mortal == one_by_one.mortal
        assert (at_once.fingerprint, at_once.sums) == (one_by_one.fingerprint, one_by_one.sums)
        assert at_once.context_fingerprint() == one_by_one.context_fingerprint()
