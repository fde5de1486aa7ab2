"""Does what a node keeps stay small while workers come and go?

One context entry for each that ever wrote stays, for now: retiring them is to come, and `replicas` in a status counts
them. All else has to go with them.
"""

from __future__ import annotations

import os

from gossip.protocol.messages import Ack, Gossip, Ping
from tests.protocol.wire import Wire, agree

ROUNDS, WORKERS = 10, 200 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 20


def test_hundreds_of_workers_come_and_go_and_leave_a_place_in_the_context_at_most() -> None:
    """Each writes and deletes; every other one leaves, the rest crash; and some never write."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    wrote = 0
    for turn in range(ROUNDS):
        for number in range(WORKERS):
            worker = wire.start(f"w{number}")
            worker.join("ann")
            if number % 4:
                wrote += 1
                worker.write(**{f"k{number}": turn})
                worker.delete(f"k{number}")
                worker.flush()
                wire.deliver()
            if number % 2:
                worker.leave()
            else:
                wire.crash(worker)
                for node in (ann, bob):
                    wire.perform(node, node.engine.exited(worker.instance, wire.now))
                wire.deliver()
        wire.advance(20.0)
    assert ann.living == bob.living == {"ann", "bob"} and agree(ann, bob)
    for _ in range(100):
        wire.sent.clear()
        wire.advance(5.0)
        told = wire.packets(Gossip) or [
            each for each in wire.packets(Ping) + wire.packets(Ack) if len(each.payload) > 200
        ]
        if not told:
            break
    assert not told, "what became of them is no news any more"
    for node in (ann, bob):
        engine, store = node.engine, node.store
        assert len(store.context) == wrote, "one place for each that ever wrote"
        assert not (store.objects or store.named or store.notes or store.mortal) and not any(store.sums)
        assert not engine.replication.inbox.waiting() and engine.transfers.receiving is None
        repair, membership = engine.repair, engine.membership
        gone = {instance for instance, claim in engine.members.table.items() if claim.gone}
        for kept in (repair._digests, repair._differs, repair._asked, repair._refused, engine.recovery._diverged):
            assert not gone & set(kept)
        assert not engine.confirm.waiting and not gone & set(membership.detector.rtt) and not engine._slow
