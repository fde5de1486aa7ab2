"""As what does a turn leave that writes much?"""

from __future__ import annotations

from contextlib import suppress

import pytest

from crdt import Context, Store, decode_batch, encode_element, encode_value
from crdt.codec import MAP
from gossip.protocol.log import Entry
from gossip.protocol.replication import Replication
from gossip.protocol.settings import Settings

LARGE = [((MAP, "m", encode_element(f"k{n}")), (n, 7, 0, encode_value("x" * 50), 0, None)) for n in range(1, 41)]


@pytest.mark.parametrize("in_a_transaction", [False, True])
@pytest.mark.parametrize("cut_short", [0, 2])
def test_a_turn_that_is_larger_than_a_batch_leaves_in_several_that_complete_each_other(
    in_a_transaction: bool, cut_short: int
) -> None:
    """And a transaction is shown in one step all the same; so are the blanks at its end, of what was cut short."""
    ann, bob = Replication(Store(), Settings(batch_bytes=200), 7), Replication(Store(), Settings(), 8)
    if in_a_transaction:
        ann.begin()
    ann.put(LARGE)
    for number in range(cut_short):  # merged, and a signal handler raised before they were gathered
        ann.store.merge(ann.store.write((MAP, "m", b"\x01"), b"\x01", 7, 100 + number))
    if in_a_transaction:
        ann.end()
    payloads = ann.flush()
    batches = [decode_batch(payload) for payload in payloads]
    assert len(batches) > 10 and max(map(len, payloads)) < 400
    assert [batch.first for batch in batches] == [1, *(batch.last + 1 for batch in batches[:-1])]
    assert batches[-1].last == ann.published == 40 + cut_short
    assert [batch.open for batch in batches] == [in_a_transaction] * (len(batches) - 1) + [False]
    assert [entry.payload for entry in ann.missing(Context({7: 0, 9: 1})) or ()] == payloads
    shown = bob.receive(list(zip(batches, payloads, strict=True)), wall=1_000).steps
    assert len(shown) == (1 if in_a_transaction else len(batches))
    assert bob.store.context == ann.store.context and len(bob.store.objects[MAP, "m"]) == 40


def test_what_is_written_after_a_turn_of_many_takes_the_place_of_one_of_them() -> None:
    """Where each of a turn stands is looked for only now."""
    ann, bob = Replication(Store(), Settings(), 7), Store()
    ann.put(LARGE)
    ann.update(ann.store.write(LARGE[3][0], b"\x05", 7, 50))
    ann.put([(LARGE[3][0], (51, 7, 0, b"\x06", 0, None)), (LARGE[4][0], (52, 7, 0, b"\x07", 0, None))])
    (payload,) = ann.flush()
    assert ann.coalesced == 3 and len(decode_batch(payload).writes) == 40
    bob.merge_batch(decode_batch(payload))
    assert bob.state() == ann.store.state() and bob.fingerprint == ann.store.fingerprint


def test_a_second_full_settling_of_a_turn_is_a_batch_of_its_own() -> None:
    ann, bob = Replication(Store(), Settings(), 7), Store()
    ann.begin()
    for start in (0, 1024):
        ann.put([((MAP, "m", encode_element(n)), (n + 1, 7, 0, b"\x01", 0, None)) for n in range(start, start + 1024)])
    ann.end()
    batches = [decode_batch(payload) for payload in ann.flush()]
    assert [(batch.first, batch.last, batch.open) for batch in batches] == [(1, 1024, True), (1025, 2048, False)]
    for batch in batches:
        bob.merge_batch(batch)
    assert bob.state() == ann.store.state()


def test_writes_one_by_one_fill_their_batches() -> None:
    """Planted: once a batch was full, each write after it was a batch of its own."""
    ann = Replication(Store(), Settings(batch_bytes=2_000), 7)
    for number in range(200):
        ann.update(ann.store.write((MAP, "m", encode_element(number)), encode_value("x" * 50), 7, number + 1))
    assert 10 < len(ann.flush()) < 20


def test_who_is_cut_short_when_a_batch_is_kept_has_its_writes_in_no_second_one() -> None:
    """The next batch had writes from before its beginning, and nobody took it, nor anything after it."""

    class Interrupted(list[Entry]):
        def append(self, entry: Entry) -> None:
            super().append(entry)
            raise KeyboardInterrupt  # as a signal handler does, after any call

    ann, bob = Replication(Store(), Settings(), 7), Store()
    ann._closed = Interrupted()
    ann.put(LARGE)
    payloads = []
    with suppress(KeyboardInterrupt):
        payloads += ann.flush()
    ann.put([((MAP, "m", encode_element("new")), (50, 7, 0, b"\x01", 0, None))])
    for payload in payloads + ann.flush():
        bob.merge_batch(decode_batch(payload))
    assert bob.state() == ann.store.state()
