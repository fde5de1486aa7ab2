"""Is every greeting sealed as none was before it, and opened only by who has a key of the same cluster?

A nonce that repeats under a key gives both packets away, and the means to forge others, while all goes on to work:
only a look at the nonces can tell. Not here: strangers on a real network (tests/integration).
"""

from __future__ import annotations

import base64

import pytest

import gossip
from crdt import Malformed
from gossip.keyring import Keyring, fingerprint
from gossip.seal import OVERHEAD, Seal
from tests.waiting import until_here

KEY = bytes(range(32))
KIND = b"hello"
HEAD = 24
"""Bytes of salt and counter: under one key of a cluster no two packets may begin alike."""


def test_no_packet_is_sealed_under_a_nonce_that_was_used() -> None:
    ann, bob = Seal(Keyring([KEY]), "shop", salt=b"a" * 16), Seal(Keyring([KEY]), "shop", salt=b"b" * 16)
    sealed = [seal.seal(b"the same words", KIND) for _ in range(300) for seal in (ann, bob)]
    assert len({packet[:HEAD] for packet in sealed}) == len(sealed)
    assert len({packet[HEAD:] for packet in sealed}) == len(sealed), "the nonce of the head is the one in use"
    assert [ann.open(packet, KIND)[0] for packet in sealed] == [b"the same words"] * len(sealed)
    assert {len(packet) for packet in sealed} == {len(b"the same words") + OVERHEAD}


def test_each_node_seals_under_a_salt_of_its_own(cluster: str) -> None:
    """Two that were forked from one process, or started by one image, too: it is drawn at the start."""
    key = base64.b64encode(KEY).decode()
    with gossip.Node(cluster, key=key) as ann, gossip.Node(cluster, key=key) as bob:
        until_here(lambda: len(ann.members) == len(bob.members) == 2)
        seals = [node._runtime.transport.seal for node in (ann, bob) if node._runtime is not None]
        assert len({seal.seal(b"", KIND)[:16] for seal in seals if seal is not None}) == 2


def test_what_was_bent_cut_or_sealed_for_others_is_not_opened() -> None:
    ann, bob = Seal(Keyring([KEY]), "shop", salt=b"a" * 16), Seal(Keyring([KEY]), "shop", salt=b"b" * 16)
    sealed = ann.seal(b"hello", KIND)
    for place in range(len(sealed)):
        bent = bytearray(sealed)
        bent[place] ^= 1
        with pytest.raises(Malformed):
            bob.open(bytes(bent), KIND)
        with pytest.raises(Malformed):
            bob.open(sealed[:place], KIND)
    for other in (Seal(Keyring([KEY]), "bank", salt=b"b" * 16), Seal(Keyring([bytes(32)]), "shop", salt=b"b" * 16)):
        with pytest.raises(Malformed):
            other.open(sealed, KIND)
    with pytest.raises(Malformed):
        bob.open(sealed, b"answer")
    assert bob.open(sealed, KIND) == (b"hello", KEY)


def ring(*letters: str) -> Keyring:
    return Keyring([letter.encode() * 32 for letter in letters])


def name(letter: str) -> str:
    return fingerprint(letter.encode() * 32)


def test_at_every_step_of_a_rotation_each_opens_what_any_other_seals() -> None:
    """The rounds come to the nodes one by one, in any order within a round."""
    rings = [ring("o"), ring("o"), ring("o")]
    seals = [Seal(each, "shop", salt=bytes([number]) * 16) for number, each in enumerate(rings)]
    for change in (
        lambda each: each.add(b"n" * 32),
        lambda each: each.use(name("n")),
        lambda each: each.remove(name("o")),
    ):
        for each in rings:
            change(each)
            for seal in seals:
                sealed = seal.seal(b"hello", KIND)
                assert [other.open(sealed, KIND)[0] for other in seals] == [b"hello"] * 3
    assert [each.fingerprints for each in rings] == [[name("n")]] * 3
    with pytest.raises(Malformed):
        seals[0].open(Seal(ring("o"), "shop", salt=b"\0" * 16).seal(b"with the key that was removed", KIND), KIND)


def test_what_a_removed_key_had_opened_before_it_opens_no_more() -> None:
    """Ours: the cipher of a sender was remembered, and outlived its key."""
    old, keys = Seal(ring("o"), "shop", salt=b"a" * 16), ring("n", "o")
    bob = Seal(keys, "shop", salt=b"b" * 16)
    assert bob.open(old.seal(b"1", KIND), KIND)[0] == b"1"
    keys.remove(name("o"))
    with pytest.raises(Malformed):
        bob.open(old.seal(b"2", KIND), KIND)


def test_no_nonce_comes_again_when_a_sender_goes_back_to_a_key_that_it_had() -> None:
    keys = ring("o", "n")
    seal = Seal(keys, "shop", salt=b"a" * 16)
    sealed = [seal.seal(b"", KIND)]
    for letter in "nono":
        keys.use(name(letter))
        sealed.append(seal.seal(b"", KIND))
    assert len({packet[:HEAD] for packet in sealed}) == len(sealed)


def test_strangers_make_nobody_forgotten() -> None:
    ann, bob = Seal(ring("o"), "shop", salt=b"a" * 16), Seal(ring("o"), "shop", salt=b"b" * 16)
    bob.open(ann.seal(b"hello", KIND), KIND)
    for number in range(2_000):
        with pytest.raises(Malformed):
            bob.open(number.to_bytes(16, "big") + bytes(40), KIND)
    assert list(bob._known) == [b"a" * 16]


def test_a_ring_that_has_a_key_always_has_one_and_shows_none() -> None:
    keys = ring("o")
    with pytest.raises(ValueError, match=f"key {name('o')} seals"):
        keys.remove(name("o"))
    with pytest.raises(ValueError, match="add it first"):
        keys.use(name("n"))
    keys.remove(name("n"))
    for number in range(1, 8):
        keys.add(bytes([number]) * 32)
    keys.add(b"o" * 32)
    with pytest.raises(ValueError, match="8 keys already"):
        keys.add(b"n" * 32)
    assert keys.first == b"o" * 32 and len(keys.fingerprints) == 8
    with pytest.raises(ValueError, match="without a key"):
        ring().add(b"n" * 32)
    assert "ooo" not in repr(keys)
