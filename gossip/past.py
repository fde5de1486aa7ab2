"""What did this node hold at a moment that is past, as far as its durable log tells?

The writes up to a stamp are a consistent cut: whatever an author had seen when he wrote has a lesser stamp, so nothing
in the cut needs what is not in it. The log is played back so far, step by step, into a store of its own.

Invariants: a transaction is in it whole or not at all; of each replica it is a beginning; a moment that the log does
not reach back to is refused, and not answered with what was left of it later.

Not here: reading the log (`storage`, in its thread), and what is shown of the store (`snapshot`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from crdt import Batch, Store, Timestamp, decode_batch
from crdt.timestamp import milliseconds
from gossip.errors import SnapshotError
from gossip.records import BATCH, MORE, Chain, Kept, merged_state, stage_of, uncollected


def store_as_of(kept: Kept, moment: Timestamp) -> Store:
    """A store with what had been written up to a stamp. Raises `SnapshotError` if the log does not reach back to it."""
    store, base = Store(), kept.base
    _check_reach(base.stamp, moment)
    later: set[int] = set()
    """Replicas of which something was left out: of what they wrote after it nothing is taken."""
    with uncollected():
        if kept.parts:
            store.merge_state(stage_of(base, kept.parts).state())
        for kind, run in _steps(kept):
            if kind == BATCH:
                for transaction in _transactions(run):
                    _merge(store, transaction, moment, later)
            else:
                stage, stamp = merged_state(kind, run)
                _check_reach(stamp, moment)
                store.merge_state(stage.state())
    return store


def _check_reach(stamp: Timestamp, moment: Timestamp) -> None:
    """What was taken over as a state, not write by write, must be older: of how it came about nothing is known."""
    if stamp > moment:
        since = datetime.fromtimestamp(milliseconds(stamp) / 1000, UTC)
        raise SnapshotError(
            f"the log of this node reaches back to {since.isoformat(timespec='seconds')} only: it was compacted then, "
            "or the node was given everything by a peer. Ask another node, or take a snapshot that was saved"
        )


def _steps(kept: Kept) -> Iterator[tuple[int, Sequence[bytes]]]:
    """What was delivered at once: its kind, and its payloads."""
    chain = Chain(kept.base.number, kept.base.link)
    run: list[bytes] = []
    for row in kept.records:
        chain.follow(*row)
        _, kind, payload, _ = row
        run.append(payload)
        if not kind & MORE:
            yield kind, run
            run = []


def _transactions(run: Sequence[bytes]) -> Iterator[list[Batch]]:
    transaction: list[Batch] = []
    for payload in run:
        transaction.append(decode_batch(payload))
        if not transaction[-1].open:
            yield transaction
            transaction = []


def _merge(store: Store, transaction: list[Batch], moment: Timestamp, later: set[int]) -> None:
    newest = max((write.stamp for batch in transaction for write in batch.writes), default=0)
    if newest > moment:
        later.add(transaction[0].replica)
    if transaction[0].replica not in later:
        for batch in transaction:
            store.merge_batch(batch)
