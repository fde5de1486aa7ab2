"""Do two who open a stream come to a key of that stream alone, and does nothing but the next frame of it open?

Pure: no socket, no clock. What a stranger does with real streams stands in tests/contracts/test_sealed_streams.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from crdt import Malformed
from gossip.handshake import GREETING, Call, Opening, Sealing, answered
from gossip.identity import KeyPair
from gossip.keyring import Keyring, fingerprint
from gossip.seal import Seal

OLD, NEW = b"o" * 32, b"n" * 32
chance = random.Random(7)
ANN, BOB = KeyPair("shop", b"a" * 32), KeyPair("shop", b"b" * 32)
"""Who calls, and who listens."""


def seal(*keys: bytes, cluster: str = "shop") -> Seal:
    return Seal(Keyring(keys or (OLD,)), cluster, chance.randbytes(16))


def greet(here: Seal, there: Seal) -> tuple[Sealing, Opening]:
    """A stream of which the caller has not proved himself yet."""
    call = Call(here, chance.randbytes(32))
    answer, opening = answered(there, BOB, call.hello, chance.randbytes(32))
    return call.accept(answer), opening


def opened(here: Seal, there: Seal) -> tuple[Sealing, Opening]:
    sealing, opening = greet(here, there)
    opening.prove(sealing.proof(ANN))
    return sealing, opening


def test_packets_come_out_as_they_went_in_and_no_two_frames_are_alike() -> None:
    sealing, opening = opened(seal(), seal())
    frames = [sealing.seal(b"the same words") for _ in range(300)]
    assert len(set(frames)) == 300
    assert [opening.open(frame) for frame in frames] == [b"the same words"] * 300


@pytest.mark.parametrize(
    "change",
    [
        lambda frames: [frames[0], *frames],  # said twice
        lambda frames: frames[1:],  # left out
        lambda frames: [frames[1], frames[0]],  # moved
        lambda frames: [frames[0][:-1]],
        lambda frames: [frames[0] + b"x"],
        lambda frames: [b""],
    ],
)
def test_nothing_opens_but_the_next_frame(change: Callable[[list[bytes]], list[bytes]]) -> None:
    sealing, opening = opened(seal(), seal())
    with pytest.raises(Malformed):
        for frame in change([sealing.seal(b"1"), sealing.seal(b"2")]):
            opening.open(frame)


def test_nothing_opens_in_a_stream_that_was_said_in_another() -> None:
    here, there = seal(), seal()
    (one, _), (_, two) = opened(here, there), opened(here, there)
    with pytest.raises(Malformed):
        two.open(one.seal(b"said to somebody else, or the other way round"))


def test_a_recorded_hello_is_answered_by_no_more_than_it_said_and_leads_nowhere() -> None:
    here, there = seal(), seal()
    call = Call(here, chance.randbytes(32))
    answer, opening = answered(there, BOB, call.hello, chance.randbytes(32))
    sealing = call.accept(answer)
    recorded = [sealing.proof(ANN), sealing.seal(b"pay ann")]
    opening.prove(recorded[0])
    assert opening.open(recorded[1]) == b"pay ann"
    for listener in (there, seal()):  # at once or later, and after a restart: nothing is remembered and nothing needed
        answer, again = answered(listener, BOB, call.hello, chance.randbytes(32))
        assert len(answer) <= len(call.hello) == GREETING
        for frame in recorded:
            with pytest.raises(Malformed):
                again.prove(frame)
            with pytest.raises(Malformed):
                again.open(frame)
        assert not again.proved


def test_an_answer_is_good_for_its_own_hello_only() -> None:
    here, there = seal(), seal()
    one, two = Call(here, chance.randbytes(32)), Call(here, chance.randbytes(32))
    answer, _ = answered(there, BOB, one.hello, chance.randbytes(32))
    with pytest.raises(Malformed):
        two.accept(answer)
    with pytest.raises(Malformed):
        two.accept(one.hello)  # our own words, said back to us
    with pytest.raises(Malformed):
        two.accept(two.hello)


@pytest.mark.parametrize("stranger", [seal(NEW), seal(cluster="bank")])
def test_strangers_are_neither_answered_nor_believed(stranger: Seal) -> None:
    with pytest.raises(Malformed):
        greet(stranger, seal())
    call = Call(seal(), chance.randbytes(32))
    for answer in (stranger.seal(bytes(128), b"answer" + call.hello), b"", bytes(GREETING), call.hello[:-1]):
        with pytest.raises(Malformed):
            call.accept(answer)


def test_another_version_of_the_protocol_is_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossip.seal.VERSION", 99)
    later = seal()
    monkeypatch.undo()
    with pytest.raises(Malformed):
        greet(later, seal())


def test_a_bent_greeting_is_none_whatever_bit_it_is() -> None:
    here, there = seal(), seal()
    call = Call(here, chance.randbytes(32))
    for place in range(len(call.hello)):
        bent = bytearray(call.hello)
        bent[place] ^= 1 << chance.randrange(8)
        for hello in (bytes(bent), call.hello[:place], call.hello + bytes(place + 1)):
            with pytest.raises(Malformed):
                answered(there, BOB, hello, chance.randbytes(32))
    answer, _ = answered(there, BOB, call.hello, chance.randbytes(32))
    for place in range(len(answer)):
        bent = bytearray(answer)
        bent[place] ^= 1 << chance.randrange(8)
        with pytest.raises(Malformed):
            call.accept(bytes(bent))


def test_a_key_that_makes_every_exchange_alike_is_refused() -> None:
    """Somebody of the cluster offers zero for a public key: all who take it would come to the same secret."""
    there = seal()
    with pytest.raises(Malformed, match="exchange"):
        answered(there, BOB, seal().seal(bytes(128), b"hello"), chance.randbytes(32))


def test_who_has_the_keys_of_both_understands_each_other_whoever_is_further_in_a_rotation() -> None:
    rings = [(OLD,), (OLD, NEW), (NEW, OLD), (NEW,)]
    for here in rings:
        for there in rings:
            if here[0] in there:
                sealing, opening = opened(seal(*here), seal(*there))
                assert opening.open(sealing.seal(b"hello")) == b"hello"
                assert fingerprint(opening.key) == fingerprint(here[0])
            else:
                with pytest.raises(Malformed):
                    greet(seal(*here), seal(*there))


def test_a_proof_says_nothing() -> None:
    sealing, opening = greet(seal(), seal())
    with pytest.raises(Malformed):
        opening.prove(sealing.seal(b"a packet before the proof"))


def test_both_know_who_is_at_the_other_end() -> None:
    sealing, opening = greet(seal(), seal())
    assert sealing.peer == BOB.instance and opening.peer is None, "it is not known before the proof"
    opening.prove(sealing.proof(ANN))
    assert opening.peer == ANN.instance


def test_who_passes_on_what_two_say_to_each_other_is_taken_for_neither() -> None:
    """Eve has the key, and is on the way. What ann proves to her is good for no stream to bob, nor is what bob proves
    to her good for an answer to ann."""
    eve = KeyPair("shop", b"e" * 32)
    ann, bob, between = seal(), seal(), seal()
    call = Call(ann, chance.randbytes(32))
    to_bob = Call(between, chance.randbytes(32))
    from_bob, bobs = answered(bob, BOB, to_bob.hello, chance.randbytes(32))
    bobs_words, _ = between.open(from_bob, b"answer" + to_bob.hello)
    with pytest.raises(Malformed, match="proof"):
        call.accept(between.seal(bobs_words, b"answer" + call.hello))
    answer, anns = answered(between, eve, call.hello, chance.randbytes(32))
    proof = anns.open(call.accept(answer).proof(ANN))
    eves = to_bob.accept(from_bob)
    with pytest.raises(Malformed, match="proof"):
        bobs.prove(eves.seal(proof))
    # and her own name under what bob made for ann leads to a stream that bob has not got
    from_bob, bobs = answered(bob, BOB, call.hello, chance.randbytes(32))
    fresh = between.open(from_bob, b"answer" + call.hello)[0][:32]
    hers = fresh + eve.prove(b"gossamesh listener\0" + call.hello + fresh)
    sealing = call.accept(between.seal(hers, b"answer" + call.hello))
    assert sealing.peer == eve.instance
    with pytest.raises(Malformed):
        bobs.prove(sealing.proof(ANN))
