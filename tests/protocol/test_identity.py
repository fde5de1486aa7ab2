"""Can somebody who has the cluster's key speak in the name of another member?

Eve has the key and an identity of her own. What she says of others is forged in every way there is: nothing of it may
change a table, and what is true in the same message still counts. Real signatures, on the fake wire.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

import gossip.identity
from crdt import Store
from gossip.identity import KeyPair
from gossip.protocol.codec import MAX_CLAIMS
from gossip.protocol.effects import Reborn, Send
from gossip.protocol.engine import Engine
from gossip.protocol.members import Claim, Status, nobody
from gossip.protocol.messages import Ack, Digest, Gossip, Join, Message, Nack, Ping, Push, Welcome
from gossip.protocol.settings import Settings
from tests.protocol.wire import EPOCH, Node, Wire, address, agree

EVE = KeyPair("shop", b"e" * 32)
NEWS = EVE.sign(Claim(EVE.instance, "eve", (address("eve"),), EPOCH))
"""What is true in each message of hers: that she is there."""
DIGEST = Digest(1, 1, ready=False)


def says(node: Node, *claims: Claim) -> Counter[str]:
    """Eve tells a node this, in her own name; what it counted for that."""
    before = Counter(node.engine.counters)
    payload = node.engine.codec.encode(EVE.instance, Gossip((*claims, NEWS)))
    node.wire.perform(node, node.hear(payload, EVE.instance))
    node.wire.deliver()
    return Counter(node.engine.counters) - before


def stolen(claim: Claim) -> Claim:
    """A claim of somebody else with a proof by eve's own key."""
    return EVE.sign(claim)


FORGED: dict[str, Callable[[Claim], Claim]] = {
    "it has left": lambda claim: claim.ended(Status.LEFT),
    "a refutation": lambda claim: claim._replace(incarnation=claim.incarnation + 1),
    "a refutation with her own proof": lambda claim: stolen(claim._replace(incarnation=claim.incarnation + 1)),
    "a suspicion that it can not refute": lambda claim: claim._replace(status=Status.SUSPECT, incarnation=1 << 63),
    "it is dead, with another name": lambda claim: claim._replace(name="zoe", status=Status.DEAD),
    "another name": lambda claim: claim._replace(name="zoe"),
    "her address": lambda claim: claim._replace(addresses=("unix:/eve",)),
    "no address": lambda claim: claim._replace(addresses=()),
    "a later start": lambda claim: claim._replace(started=claim.started + 1),
    "other tags": lambda claim: claim._replace(tags=(("role", "admin"),)),
    "no proof": lambda claim: claim._replace(name="zoe", proof=b""),
    "half of two proofs": lambda claim: claim._replace(incarnation=1, proof=claim.proof[:32] + NEWS.proof[32:]),
    "nobody, and it has left": lambda claim: nobody(claim.instance)._replace(status=Status.LEFT),
    "nobody, and it is suspect": lambda claim: nobody(claim.instance)._replace(status=Status.SUSPECT, incarnation=9),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_is_forged_of_a_member_is_believed_by_nobody(what: str) -> None:
    wire = Wire(proved=True)
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    forged = FORGED[what](bob.engine.me)
    before = dict(ann.engine.members.table), bob.engine.me
    assert says(ann, forged)["forged"] == 1
    says(bob, forged)  # he is told as well: he answers nothing, and does not take himself for dead
    for hearer in (ann, bob):
        assert hearer.living == {"ann", "bob", "cat", "eve"}, "what is true in the same message holds"
    del ann.engine.members.table[EVE.instance]
    assert (ann.engine.members.table, bob.engine.me) == before
    assert not bob.saw(Reborn) and cat.status_of(bob.instance) == Status.ALIVE


def test_somebody_who_is_not_known_yet_is_not_believed_without_a_proof_either() -> None:
    wire = Wire(proved=True)
    (ann,) = wire.cluster("ann")
    for claim in (NEWS._replace(instance=7), NEWS._replace(proof=b""), Claim(7, "zoe", ("unix:/zoe",), 1)):
        payload = ann.engine.codec.encode(EVE.instance, Gossip((claim,)))
        assert ann.hear(payload, EVE.instance) == []
    assert ann.engine.counters["forged"] == 3 and ann.living == {"ann"}


def test_of_another_cluster_with_the_same_key_no_claim_is_believed() -> None:
    wire = Wire(proved=True)
    (ann,) = wire.cluster("ann")
    claim = NEWS._replace(name="zoe")
    elsewhere = KeyPair("bank", b"e" * 32).sign(claim)
    assert says(ann, elsewhere)["forged"] == 1 and ann.living == {"ann", "eve"}


def test_what_others_may_say_of_a_member_holds_and_the_member_answers_with_a_proof() -> None:
    wire = Wire(proved=True)
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    assert says(ann, bob.engine.me.by_whom(Status.SUSPECT, EVE.instance)) == Counter()
    assert bob.engine.me.incarnation == 1, "it heard of it, and refuted"
    assert ann.status_of(bob.instance) == cat.status_of(bob.instance) == Status.ALIVE
    assert sum(node.engine.counters["forged"] for node in (ann, bob, cat)) == 0


def test_old_claims_that_were_true_come_again_and_change_nothing() -> None:
    wire = Wire(proved=True)
    ann, bob, _ = wire.cluster("ann", "bob", "cat")
    old = bob.engine.me
    says(ann, old.by_whom(Status.SUSPECT, EVE.instance))
    before = dict(ann.engine.members.table)
    assert old.incarnation < ann.engine.members.table[bob.instance].incarnation
    assert says(ann, old) == says(ann, old.by_whom(Status.SUSPECT, EVE.instance)) == Counter()
    assert ann.engine.members.table == before


def test_a_proof_that_is_known_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(proved=True)
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    looked: list[Claim] = []
    verify = KeyPair.verify

    def counted(self: KeyPair, claim: Claim) -> bool:
        looked.append(claim)
        return verify(self, claim)

    monkeypatch.setattr(KeyPair, "verify", counted)
    wire.advance(10.0)
    assert not looked, "pings and acks bear what was heard before"
    suspect = bob.engine.me.by_whom(Status.SUSPECT, EVE.instance)
    says(ann, suspect)
    assert set(looked) == {NEWS, bob.engine.me}, "she is new, and so is his refutation"
    assert len(looked) <= 2 * 3, "once at each of the others"
    assert cat.status_of(bob.instance) == Status.ALIVE


# -- in another's name --------------------------------------------------------------------------------------------


def test_thousands_of_old_claims_of_the_forgotten_dead_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are true, and news to whoever has forgotten them: the table remembers 1 024, and each came anew."""
    looked = []
    real = gossip.identity.proved
    monkeypatch.setattr(gossip.identity, "proved", lambda *what: looked.append(what) or real(*what))
    ann = KeyPair("shop", b"a" * 32)
    dead = []
    for number in range(1_500):
        one = KeyPair("shop", number.to_bytes(32, "big"))
        dead.append(one.sign(Claim(one.instance, "one", (), 0)).ended())
    for _ in range(3):
        assert all(map(ann.verify, dead))
    assert len(looked) == len(dead)
    forged = dead[0]._replace(incarnation=7)
    assert not ann.verify(forged) and not ann.verify(forged), "what is not good is not remembered"
    eve = dead[0]._replace(proof=EVE.prove(gossip.identity.statement("shop", dead[0])))
    assert not ann.verify(eve) and not ann.verify(eve), "nor what another one says of it in good form"
    broken = dead[0]._replace(proof=bytes(len(dead[0].proof)))
    assert ann.verify(dead[0]) and not ann.verify(broken), "a proof is a part of what is remembered"
    for number in range(gossip.identity._VERIFIED + 10):
        assert ann.verify(ann.sign(Claim(ann.instance, "ann", (), number)))
    assert len(ann._verified) == gossip.identity._VERIFIED


@pytest.mark.parametrize("kind", ["Join", "Ping", "Ack", "Gossip", "Push", "Nack", "Welcome"])
def test_a_packet_in_the_name_of_another_than_its_sender_is_dropped(kind: str) -> None:
    wire = Wire(proved=True)
    ann, bob = wire.cluster("ann", "bob")
    bob.set("k", "from bob, but ann must not have it from eve")
    batch = bob.engine.replication.flush()[0]
    claims = (bob.engine.me, NEWS)
    messages: dict[str, Message] = {
        "Join": Join(claims, DIGEST),
        "Ping": Ping(1, DIGEST, claims),
        "Ack": Ack(1, DIGEST, claims, EPOCH),
        "Gossip": Gossip(claims),
        "Push": Push((batch,)),
        "Nack": Nack(1),
        "Welcome": Welcome(claims, DIGEST),
    }
    payload = ann.engine.codec.encode(bob.instance, messages[kind])
    before = dict(ann.engine.members.table), dict(ann.store.context), ann.engine.deadline
    assert ann.hear(payload, EVE.instance) == []
    assert ann.engine.counters["impersonated"] == 1
    assert (dict(ann.engine.members.table), dict(ann.store.context), ann.engine.deadline) == before
    assert isinstance(ann.hear(payload, bob.instance), list) and ann.engine.counters["impersonated"] == 1


# -- lives with proofs --------------------------------------------------------------------------------------------


def test_a_goodbye_is_believed_because_it_is_proved() -> None:
    wire = Wire(proved=True)
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    bob.leave()
    assert ann.status_of(bob.instance) == cat.status_of(bob.instance) == Status.LEFT
    assert says(cat, NEWS.ended(Status.LEFT))["forged"] == 1, "and eve has not said so"
    assert says(cat, EVE.sign(NEWS.ended(Status.LEFT)))["forged"] == 0 and cat.status_of(EVE.instance) == Status.LEFT


def test_who_was_called_dead_goes_on_with_another_key_and_its_last_writes_arrive() -> None:
    wire = Wire(proved=True)
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    before = bob.engine.membership.identity
    wire.pause(bob)
    wire.until(lambda: bob.instance not in ann.engine.members and bob.instance not in cat.engine.members, within=90.0)
    bob.set("k", "written while it was dead")
    wire.resume(bob)
    wire.until(lambda: len(bob.saw(Reborn)) == 1, within=5.0)
    wire.until(lambda: agree(ann, bob, cat) and ann.living == bob.living == cat.living, within=5.0)
    assert ann.data == {"k": "written while it was dead"}
    assert bob.engine.membership.identity.instance == bob.instance != before.instance
    assert bob.engine.me.proof[:32] != before.prove(b"")[:32]
    assert (
        sum(node.engine.counters["forged"] + node.engine.counters["impersonated"] for node in wire.nodes.values()) == 0
    )


@pytest.mark.parametrize("last", [NEWS, EVE.sign(NEWS.ended(Status.LEFT))], ids=["alive", "left"])
def test_one_called_dead_by_who_knew_nothing_of_it_can_still_say_who_it_is(last: Claim) -> None:
    wire = Wire(proved=True)
    ann, _ = wire.cluster("ann", "bob")
    says(ann, nobody(EVE.instance))
    assert ann.status_of(EVE.instance) == Status.DEAD and not ann.engine.members.table[EVE.instance].addresses
    ping = Ping(1, DIGEST, (last,))
    ann.hear(ann.engine.codec.encode(EVE.instance, ping), EVE.instance)
    assert ann.engine.members.table[EVE.instance].name == "eve"
    assert ann.engine.counters["forged"] == 0


def test_each_rebirth_has_a_key_that_the_chance_of_the_engine_does_not_tell() -> None:
    """What a protocol draws at random can be seen by everybody, and what follows be told from that."""
    seed = Random(1).randbytes(32)
    one, other = (KeyPair("shop", secret).another(seed) for secret in (b"a" * 32, b"b" * 32))
    assert len({one.instance, other.instance, one.another(seed).instance, KeyPair("shop", seed).instance}) == 4
    assert KeyPair("shop", b"a" * 32).another(seed).instance == one.instance


# -- what fits ----------------------------------------------------------------------------------------------------


def test_a_probe_with_proofs_still_bears_the_news_of_several() -> None:
    wire = Wire(proved=True)
    ann, bob = wire.cluster("ann", "bob")
    pairs = [KeyPair("shop", number.to_bytes(32, "big")) for number in range(1_000, 1_020)]
    says(
        ann,
        *(pair.sign(Claim(pair.instance, f"worker-{pair.instance % 99}", (address("x"),), EPOCH)) for pair in pairs),
    )
    ping = Ping(1, bob.engine.digest, (bob.engine.me,))
    effects = ann.hear(ann.engine.codec.encode(bob.instance, ping), bob.instance)
    (ack,) = [each.message for each in effects if isinstance(each, Send) and isinstance(each.message, Ack)]
    assert len(ann.engine.codec.encode(ann.instance, ack)) <= Settings().datagram - 32
    assert len(ack.claims) >= 5, "its own, and four more"


def test_the_table_of_the_largest_cluster_goes_in_lists_that_fit_a_message_each() -> None:
    """Each claim with a proof; not all with the longest of everything, which no real one has."""
    engine = Engine("shop", NEWS, Settings(max_members=MAX_CLAIMS), Random(1), Store(), identity=EVE)
    for number in range(1, MAX_CLAIMS):
        addresses = ("unix:/run/user/1000/gossamesh/shop-1234567/0123456789abcdef.sock", f"10.0.0.1:{number}")
        claim = Claim(number, "worker-1234.example", addresses, EPOCH, (("role", "web"),), proof=bytes(96))
        engine.members.hear(claim, 0.0)
    lists = engine.membership.lists(0.0)
    assert sum(map(len, lists)) == MAX_CLAIMS
    for claims in lists:
        assert engine.codec.decode(engine.codec.encode(EVE.instance, Welcome(claims, DIGEST)))[0] == EVE.instance
