"""Can the simulation fail? Each test plants a bug and demands that a handful of seeds finds it.

A world that finds nothing proves something only if it would have found these. Most are mistakes that real systems of
this kind were shipped with; some are ours, from before the simulation found them.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from crdt import Batch, Context, Inbox, PNCounter, Stage, State, Store
from crdt.codec import encode_value
from crdt.ranges import GROUPS, Comparison, _chosen
from crdt.tally import Tally
from gossip.protocol.codec import Codec
from gossip.protocol.confirm import Confirm
from gossip.protocol.detector import Detector
from gossip.protocol.effects import Changed, Harden, Send
from gossip.protocol.engine import Engine
from gossip.protocol.expiry import Expiry
from gossip.protocol.identity import PROOF
from gossip.protocol.members import Claim, Members, Status
from gossip.protocol.membership import Membership
from gossip.protocol.messages import Ack, Digest, Gossip, Synced
from gossip.protocol.recovery import Recovery
from gossip.protocol.repair import Repair
from gossip.protocol.replication import Replication
from tests.simulation.identities import Secret
from tests.simulation.options import only
from tests.simulation.run import run

SEEDS = 12

Plant = Callable[[pytest.MonkeyPatch], None]
PLANTED: list[tuple[Plant, tuple[str, ...]]] = []


def planted(*kinds: str) -> Callable[[Plant], Plant]:
    """A bug, and the faults that bring it out soon; none for whatever a seed draws."""

    def register(plant: Plant) -> Plant:
        PLANTED.append((plant, kinds))
        return plant

    return register


# -- data ------------------------------------------------------------------------------------------------------------


@planted()
def a_state_joins_its_context_before_it_is_applied(patch: pytest.MonkeyPatch) -> None:
    merge_state = Store.merge_state

    def wrong(self: Store, theirs: Any) -> Any:
        self.context.join(theirs.context)
        return merge_state(self, theirs)

    patch.setattr(Store, "merge_state", wrong)


@planted("loss", "tiny_log")
def a_state_is_committed_before_its_last_part(patch: pytest.MonkeyPatch) -> None:
    add = Stage.add

    def wrong(self: Stage, part: bytes) -> None:
        if len(self._objects) < 2:
            add(self, part)

    patch.setattr(Stage, "add", wrong)


@planted()
def a_state_brings_back_what_died_here(patch: pytest.MonkeyPatch) -> None:
    joined = Store._joined

    def wrong(self: Store, mine: Any, theirs: Any, state: Any) -> Any:
        return theirs if mine is None else joined(self, mine, theirs, state)

    patch.setattr(Store, "_joined", wrong)


@planted("loss", "tiny_log")
def what_a_state_does_not_tell_of_is_deleted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(State, "buries", lambda self, dot: self.context.covers(dot) or dot in self.named)
    patch.setattr("crdt.store._in_scope", lambda elements, scope: elements.items())


@planted("loss", "tiny_log")
def what_ends_by_itself_stays_in_the_sums(patch: pytest.MonkeyPatch) -> None:
    drop = Store.drop

    def wrong(self: Store, key: Any, now: int, gone: Any) -> Any:
        sums = list(self.sums)
        change = drop(self, key, now, gone)
        self._tally.counted()
        self._tally._sums = sums
        return change

    patch.setattr(Store, "drop", wrong)


@planted("loss", "tiny_log")
def the_first_group_that_differs_is_taken_for_all(patch: pytest.MonkeyPatch) -> None:
    groups = Comparison.groups

    def wrong(self: Comparison, theirs: bytes) -> bytes:
        groups(self, theirs)
        del self._groups[1:]
        return _chosen(self._groups, GROUPS)

    patch.setattr(Comparison, "groups", wrong)


@planted()
def what_was_named_early_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    apply = Store._apply

    def wrong(self: Store, *rest: Any) -> Any:
        change = apply(self, *rest)
        self.named.clear()
        return change

    patch.setattr(Store, "_apply", wrong)


@planted()
def a_write_names_only_what_is_shown(patch: pytest.MonkeyPatch) -> None:
    """The conflicts stay: the map's key can never be rid of them."""
    write = Store.write

    def wrong(self: Store, *rest: Any) -> Any:
        asked = write(self, *rest)
        return asked._replace(names=asked.names[:1])

    patch.setattr(Store, "write", wrong)


@planted()
def a_blank_takes_its_names_with_it(patch: pytest.MonkeyPatch) -> None:
    gather: Any = Replication._gather

    def wrong(self: Replication, write: Any) -> None:
        gather(self, write)
        last = self._gathered[-1]
        assert last is not None
        self._gathered[-1] = last._replace(names=write.names)

    patch.setattr(Replication, "_gather", wrong)


@planted()
def coalescing_crosses_the_border_of_a_transaction(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replication, "begin", lambda self: setattr(self, "_transaction", self._transaction + 1))


@planted()
def the_fingerprint_counts_the_dead(patch: pytest.MonkeyPatch) -> None:
    counted = Tally.counted

    def wrong(self: Tally) -> Any:
        self.died.clear()
        return counted(self)

    patch.setattr(Tally, "counted", wrong)


@planted()
def a_counter_forgets_what_it_had(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: PNCounter, amount: int, replica: int, stamp: int) -> Any:
        key = (*self.name, replica.to_bytes(8, "big"))
        return self.store.write(key, encode_value((max(amount, 0), max(-amount, 0))), replica, stamp)

    patch.setattr(PNCounter, "add", wrong)


# -- order and completeness ------------------------------------------------------------------------------------------


@planted("loss")
def a_pull_is_answered_with_a_batch_too_few(patch: pytest.MonkeyPatch) -> None:
    missing = Replication.missing

    def wrong(self: Replication, theirs: Context) -> Any:
        batches = missing(self, theirs)
        return batches[1:] if batches and len(batches) > 1 else batches

    patch.setattr(Replication, "missing", wrong)


@planted()
def the_inbox_gives_out_half_a_transaction(patch: pytest.MonkeyPatch) -> None:
    add = Inbox.add
    patch.setattr(Inbox, "add", lambda self, batch, *rest: add(self, batch._replace(open=False), *rest))


@planted()
def a_transaction_comes_in_two_steps(patch: pytest.MonkeyPatch) -> None:
    deliver = Replication._deliver
    receive = Replication.receive

    def one_by_one(self: Replication, payloads: Any, wall: int) -> Any:
        split: list[Any] = []

        def each(self: Replication, batches: list[tuple[Batch, bytes]]) -> Any:
            split.extend(deliver(self, [batch]) for batch in batches)
            return split.pop()

        patch.setattr(Replication, "_deliver", each)
        delivered = receive(self, payloads, wall)
        return delivered._replace(steps=[*split, *delivered.steps])

    patch.setattr(Replication, "receive", one_by_one)


@planted()
def the_inbox_ignores_gaps(patch: pytest.MonkeyPatch) -> None:
    """What every system does that keeps a maximum a replica and no order: the gap is claimed and never filled."""

    def wrong(self: Store, batch: Batch) -> Any:
        self.context[batch.replica] = max(batch.first - 1, self.context[batch.replica])
        return merge_batch(self, batch)

    merge_batch = Store.merge_batch
    patch.setattr(Store, "merge_batch", wrong)
    patch.setattr(
        Inbox,
        "add",
        lambda self, batch, payload, delivered: [(batch, payload)] if batch.last > delivered else [],
    )


@planted()
def a_context_tells_of_an_open_transaction(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replication, "context", lambda self: Context(self.store.context))


@planted()
def a_state_with_an_open_transaction_is_sent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replication, "exposable", True)


@planted("loss")
def nobody_pulls(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recovery, "pull", lambda self, *rest: [])


@planted("future", "loss")
def writes_from_the_future_are_let_in(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replication, "_observe", lambda self, batch, wall: None)


@planted("leave", "newcomer")
def a_leaver_keeps_its_last_writes(patch: pytest.MonkeyPatch) -> None:
    flush = Engine.flush
    leave = Engine.leave

    def wrong(self: Engine, now: float) -> Any:
        patch.setattr(Engine, "flush", lambda self: [])
        try:
            return leave(self, now)
        finally:
            patch.setattr(Engine, "flush", flush)

    patch.setattr(Engine, "leave", wrong)


@planted()
def changes_by_a_full_state_are_not_told(patch: pytest.MonkeyPatch) -> None:
    commit = Engine._commit
    patch.setattr(
        Engine, "_commit", lambda self, *rest: [each for each in commit(self, *rest) if not isinstance(each, Changed)]
    )


# -- members ---------------------------------------------------------------------------------------------------------


@planted()
def the_dead_return(patch: pytest.MonkeyPatch) -> None:
    hear = Members.hear

    def wrong(self: Members, claim: Any, now: float) -> Any:
        before = self.table.get(claim.instance)
        if before is None or not before.gone or claim.gone:
            return hear(self, claim, now)
        self.table[claim.instance] = claim
        return before

    patch.setattr(Members, "hear", wrong)


@planted("suspect")
def nobody_refutes(patch: pytest.MonkeyPatch) -> None:
    refute = Membership._refute
    patch.setattr(Membership, "_refute", lambda self, claim: refute(self, claim) if claim.gone else [])


@planted("move")
def the_silent_are_never_called_dead(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Detector, "suspect", lambda self, *told, **hinted: None)


@planted("hint")
def a_false_hint_kills(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Engine, instance: int, now: float) -> Any:
        claim = self.members.table.get(instance)
        dead = [] if claim is None else [claim._replace(status=Status.DEAD)]
        return [*self.membership.hear(dead, now, "its stream ended"), *self.membership.news()]

    patch.setattr(Engine, "lost", wrong)


@planted("suspect")
def a_suspicion_is_never_cleared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Detector, "clear", lambda self, instance: None)


@planted("suspect")
def a_refutation_does_not_raise_the_incarnation(patch: pytest.MonkeyPatch) -> None:
    refutation = Members.refutation

    def wrong(self: Members, claim: Claim) -> Claim | None:
        raised = refutation(self, claim)
        return raised and raised._replace(incarnation=min(claim.incarnation, raised.incarnation))

    patch.setattr(Members, "refutation", wrong)


@planted("crash")
def a_witness_vouches_for_whom_it_has_not_reached(patch: pytest.MonkeyPatch) -> None:
    """The ack that it passes on is credited to the member that it was asked about, whoever answered."""

    def wrong(self: Membership, asker: int, number: int, target: int, now: float, digest: Digest) -> Any:
        return [Send((asker,), Ack(number, digest, (), 0))]

    patch.setattr(Membership, "relay", wrong)


@planted("newcomer")
def a_member_is_skipped_in_each_round(patch: pytest.MonkeyPatch) -> None:
    next_probe = Members.next_probe

    def wrong(self: Members, rng: Random) -> int | None:
        target = next_probe(self, rng)
        return next_probe(self, rng) if target == max(self.peers(), default=None) else target

    patch.setattr(Members, "next_probe", wrong)


@planted("wrong_cluster")
def packets_of_another_cluster_are_taken(patch: pytest.MonkeyPatch) -> None:
    init = Codec.__init__
    patch.setattr(Codec, "__init__", lambda self, cluster: init(self, "any"))


@planted("split")
def two_that_buried_each_other_tell_it_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Ours, found by seed 0."""
    patch.setattr(Membership, "from_the_dead", lambda self, known, *_: [Send((known.instance,), Gossip((known,)))])


@planted("loss")
def a_pull_is_answered_with_a_part_of_a_transaction(patch: pytest.MonkeyPatch) -> None:
    """Ours, found by seed 6: what is held back is not in a context, so the same part was sent again and again."""
    patch.setattr(Replication, "first_run", lambda self, batches: batches[:1])


@planted("loss", "move")
def what_died_with_its_author_is_asked_for_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Ours, found by seed 12."""
    due = Repair.gap_is_due

    def wrong(self: Repair, now: float, held: bool) -> bool:
        self._tries = 0
        return due(self, now, held)

    patch.setattr(Repair, "gap_is_due", wrong)


# -- disks and confirmations -------------------------------------------------------------------------------------------


@planted()
def own_writes_leave_before_the_disk_has_them(patch: pytest.MonkeyPatch) -> None:
    flush = Engine.flush

    def wrong(self: Engine) -> Any:
        effects = flush(self)
        return effects + (self.stored(self.replication.handed) if effects else [])

    patch.setattr(Engine, "flush", wrong)


@planted()
def a_disk_is_vouched_for_before_it_has_it(patch: pytest.MonkeyPatch) -> None:
    answers = Confirm.answers

    def wrong(self: Confirm, context: Context) -> Any:
        return [
            Send((effect.peer,), Synced(effect.number, True)) if isinstance(effect, Harden) else effect
            for effect in answers(self, context)
        ]

    patch.setattr(Confirm, "answers", wrong)


@planted("loss")
def a_peer_confirms_what_it_has_not_got_yet(patch: pytest.MonkeyPatch) -> None:
    answers = Confirm.answers

    def wrong(self: Confirm, context: Context) -> Any:
        for question in self.waiting.values():
            context = Context({**context, **question.context})
        return answers(self, context)

    patch.setattr(Confirm, "answers", wrong)


@planted()
def what_the_dead_owned_is_still_shown(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Members, "__contains__", lambda self, instance: instance in self.table)
    patch.setattr(Expiry, "gone", lambda self, author, now: [])


# -- who says it ------------------------------------------------------------------------------------------------------


@planted("impostor")
def a_proof_of_anybody_will_do(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Secret, "verify", lambda self, claim: len(claim.proof) == PROOF)


@planted("impostor")
def of_a_known_member_everything_is_believed(patch: pytest.MonkeyPatch) -> None:
    proved = Membership._is_proved
    known = lambda self, claim: claim.instance in self.members.table  # noqa: E731
    patch.setattr(Membership, "_is_proved", lambda self, claim: known(self, claim) or proved(self, claim))


@planted("impostor")
def a_goodbye_needs_no_proof(patch: pytest.MonkeyPatch) -> None:
    own = Claim.own.fget  # type: ignore[attr-defined]
    patch.setattr(Claim, "own", property(lambda self: own(self)[:-1]))


@planted("impostor")
def a_packet_may_come_in_any_name(patch: pytest.MonkeyPatch) -> None:
    receive = Engine.receive
    patch.setattr(Engine, "receive", lambda self, payload, now, wall, peer=None: receive(self, payload, now, wall))


@planted("impostor", "pause", "split")
def who_is_reborn_says_so_without_a_proof(patch: pytest.MonkeyPatch) -> None:
    reborn = Membership.reborn

    def wrong(self: Membership, now: float) -> tuple[Claim, list[Any]]:
        born, vouched = reborn(self, now)
        born = born._replace(proof=b"")
        self.members.become(born)
        self.broadcast.add(born)
        return born, vouched

    patch.setattr(Membership, "reborn", wrong)


# -- tags -------------------------------------------------------------------------------------------------------------


@planted("retag", "stream_loss")
def of_large_tags_that_got_lost_nobody_hears_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Membership, "_behind", lambda self, peer, known, now: [])


# -- the tests --------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("plant", "kinds"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_bug_is_found(plant: Plant, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    failures = (run(seed, options=only(seed, *kinds) if kinds else None).failure for seed in range(SEEDS))
    found = next(filter(None, failures), "")
    assert found, f"{SEEDS} seeds let this pass: {plant.__name__}"
    broken = (" raised TypeError", " raised AttributeError")
    assert not any(mistake in found for mistake in broken), f"the plant itself is broken: {found}"
    print(found)


@pytest.mark.parametrize("kinds", sorted({kinds for _, kinds in PLANTED if kinds}), ids="+".join)
def test_without_a_bug_nothing_is_found(kinds: tuple[str, ...]) -> None:
    assert [run(seed, options=only(seed, *kinds)).failure for seed in range(2)] == ["", ""]
