"""What does an engine look like from outside? Values in, values out, one deadline, and nothing of its own."""

from __future__ import annotations

from math import inf
from random import Random

from crdt import Change, Context, LWWMap, Store, decode_batch, dot_of, encode_context
from gossip.protocol.effects import Changed, Dial, Effect, MemberChanged, Persist, Ready, Reborn, Send
from gossip.protocol.engine import Engine
from gossip.protocol.members import Claim, Status
from gossip.protocol.messages import Ack, Digest, Gossip, Join, Ping, PingReq, Pull, Push, Welcome
from gossip.protocol.settings import Settings
from tests.protocol.wire import EPOCH, hushed

ANN = Claim(1, "ann", ("unix:/ann",), started=10)
BOB = Claim(2, "bob", ("unix:/bob",), started=20)
CAT = Claim(3, "cat", ("unix:/cat",), started=30)
EMPTY = Digest(0, 0, ready=False)


def an_engine(me: Claim = ANN, *known: Claim) -> Engine:
    """An engine that has heard of these, and has told all about it."""
    engine = Engine("shop", me, Settings(), Random(1), Store())
    for claim in known:
        engine.receive(engine.codec.encode(claim.instance, Ping(9, EMPTY, (claim,))), 0.0, EPOCH)
    hushed(engine)
    return engine


def receive(engine: Engine, sender: Claim, message: object, now: float = 0.0) -> list[Effect]:
    return engine.receive(engine.codec.encode(sender.instance, message), now, EPOCH)  # type: ignore[arg-type]


def write(engine: Engine, key: str, value: object) -> Change:
    asked = LWWMap(engine.replication.store, "m").set(key, value, engine.me.instance, engine.stamp(EPOCH))
    (changed,) = engine.update(asked, now=0.0)
    assert isinstance(changed, Changed)
    return changed.changes[0]


def test_an_interval_after_it_met_somebody_it_pings() -> None:
    engine = an_engine(ANN, BOB)
    assert engine.deadline == 1.0
    assert engine.tick(now=0.9, wall=EPOCH) == []
    assert engine.tick(now=1.0, wall=EPOCH) == [Send((2,), Ping(1, EMPTY, (ANN,)))]
    assert engine.deadline == 1.5


def test_without_an_ack_it_asks_others_then_suspects_and_tells_everybody() -> None:
    engine = an_engine(ANN, BOB, CAT)
    (first,) = engine.tick(now=1.0, wall=EPOCH)
    assert isinstance(first, Send)
    target, other = (BOB, CAT) if first.to == (2,) else (CAT, BOB)
    assert engine.tick(now=1.5, wall=EPOCH) == [
        Send((target.instance,), Ping(2, EMPTY, (ANN,)), stream=True),  # where datagrams are filtered, streams may pass
        Send((other.instance,), PingReq(2, target.instance), both=True),
    ]
    suspect = target.by_whom(Status.SUSPECT, ANN.instance)
    judged, told, ping, *_ = engine.tick(now=2.0, wall=EPOCH)
    why = "no ack within 1.00 s, directly or through others, 1 were asked and 0 had no answer; it never answered before"
    assert judged == MemberChanged(suspect, target, why)
    assert isinstance(ping, Send)
    assert suspect in ping.message.claims  # type: ignore[union-attr]
    assert told == Send((target.instance,), Ping(0, EMPTY, (ANN, suspect))), "and itself, to refute it at once"


def test_a_tick_that_comes_late_accuses_nobody() -> None:
    """M7, M12: the ack may lie unread, or was sent while we slept."""
    engine = an_engine(ANN, BOB)
    engine.tick(now=1.0, wall=EPOCH)
    engine.tick(now=1.5, wall=EPOCH)
    assert engine.deadline == 2.0
    assert not [effect for effect in engine.tick(now=30.0, wall=EPOCH) if isinstance(effect, MemberChanged)]
    receive(engine, BOB, Ack(1, EMPTY, (BOB,), 0), now=30.1)
    assert not [effect for effect in engine.tick(now=30.6, wall=EPOCH) if isinstance(effect, MemberChanged)]


def test_a_ping_is_answered_under_its_number() -> None:
    assert receive(an_engine(ANN, BOB), BOB, Ping(77, EMPTY, (BOB,))) == [Send((2,), Ack(77, EMPTY, (ANN,), EPOCH))]


def test_a_ping_request_is_a_ping_and_its_ack_goes_back() -> None:
    engine = an_engine(ANN, BOB, CAT)
    assert receive(engine, BOB, PingReq(77, target=3)) == [Send((3,), Ping(1, EMPTY, (ANN,)))]
    assert receive(engine, CAT, Ack(1, EMPTY, (CAT,), 0)) == [Send((2,), Ack(77, EMPTY, (ANN,), EPOCH))]
    assert receive(engine, CAT, Ack(1, EMPTY, (CAT,), 0)) == []


def test_joining_is_a_dial_and_a_welcome() -> None:
    ann, bob = an_engine(ANN), an_engine(BOB)
    assert bob.join(["unix:/ann"], now=0.0) == [Dial("unix:/ann", Join((BOB,), EMPTY))]
    assert receive(ann, BOB, Join((BOB,), EMPTY)) == [
        MemberChanged(BOB, None, "it said so itself"),
        Send((2,), Welcome((ANN, BOB), EMPTY)),
        Send((2,), Gossip((BOB,))),
    ]
    assert receive(bob, ANN, Welcome((ANN, BOB), EMPTY)) == [
        MemberChanged(ANN, None, "it said so itself"),
        Ready(),
        Send((1,), Gossip((ANN,))),
    ]


def test_a_write_changes_at_once_and_leaves_with_the_flush() -> None:
    engine = an_engine(ANN, BOB, CAT)
    key, before, after = write(engine, "k", 1)
    assert (key[:2], before) == ((1, "m"), None)
    assert after is not None
    assert dot_of(after) == (1, 1)
    persist, send = engine.flush()
    assert isinstance(send, Send) and isinstance(persist, Persist)
    assert send.to == (2, 3)
    assert isinstance(send.message, Push)
    (payload,) = send.message.batches
    assert decode_batch(payload).writes[0].key == key
    assert engine.flush() == []


def test_a_pull_is_answered_from_the_log_and_one_that_misses_nothing_is_told_so() -> None:
    engine = an_engine(ANN, BOB)
    for number in range(2):
        write(engine, "k", number)
        engine.flush()
    _, second = engine.replication.log.since(1, 0, 2) or []
    assert receive(engine, BOB, Pull(1, encode_context(Context({1: 1})))) == [
        Send((2,), Push((second.payload,), pull=1, parts=1))
    ]
    assert receive(engine, BOB, Pull(1, encode_context(Context({1: 2})))) == [Send((2,), Push((), pull=1, parts=1))]


def test_a_suspicion_of_itself_is_refuted_at_once_to_everybody() -> None:
    engine = an_engine(ANN, BOB, CAT)
    suspected = ANN._replace(status=Status.SUSPECT)
    assert receive(engine, BOB, Gossip((suspected,))) == [Send((2, 3), Gossip((ANN._replace(incarnation=1),)))]


def test_its_own_death_is_an_effect_and_a_new_claim() -> None:
    engine = an_engine(ANN, BOB)
    changed, reborn, news = receive(engine, BOB, Gossip((ANN._replace(status=Status.DEAD),)))
    assert isinstance(changed, MemberChanged)
    assert (changed.claim, changed.before) == (ANN._replace(status=Status.DEAD), ANN)
    assert reborn == Reborn(engine.me)
    assert engine.me == ANN._replace(instance=engine.me.instance, started=11)
    assert news == Send((2,), Gossip((engine.me,)))


def test_leaving_sends_what_was_written_and_then_goodbye() -> None:
    engine = an_engine(ANN, BOB)
    write(engine, "k", 1)
    _, pushed, goodbye = engine.leave(now=0.0)
    assert isinstance(pushed, Send)
    assert isinstance(pushed.message, Push)
    assert goodbye == Send((2,), Gossip((ANN._replace(status=Status.LEFT),)))


def test_its_own_packets_come_back_to_nobody() -> None:
    engine = an_engine(ANN, BOB)
    assert receive(engine, ANN, Ping(1, EMPTY, (ANN,))) == []


def test_a_tick_before_its_time_and_a_second_one_do_nothing() -> None:
    engine = an_engine(ANN, BOB)
    engine.tick(now=1.0, wall=EPOCH)
    assert engine.tick(now=1.0, wall=EPOCH) == []
    assert engine.tick(now=1.4, wall=EPOCH) == []


def test_there_is_one_deadline_and_it_is_in_the_future_after_a_tick() -> None:
    engine = an_engine(ANN, BOB, CAT)
    now = 0.0
    for _ in range(50):
        if engine.deadline == inf:
            break
        assert engine.deadline > now
        now = engine.deadline
        engine.tick(now, EPOCH)
    assert engine.members.peers() == []


def story(seed: int) -> list[Effect]:
    """Enough chance to differ: whom to probe, whom to ask, what to be born as."""
    engine = Engine("shop", ANN, Settings(), Random(seed), Store())
    effects: list[Effect] = []
    for number in range(2, 12):
        claim = BOB._replace(instance=number, name=f"n{number}", addresses=(f"unix:/{number}",))
        effects += receive(engine, claim, Join((claim,), EMPTY))
    now = 0.0
    for step in range(40):
        now = max(now, engine.deadline)
        effects += engine.tick(now, EPOCH + step)
        write(engine, f"k{step % 3}", step)
    return effects + receive(engine, BOB, Gossip((ANN._replace(status=Status.DEAD),)), now)


def test_the_same_seed_and_the_same_inputs_give_the_same_effects() -> None:
    assert story(5) == story(5)
    assert story(5) != story(6)
