"""Is every packet sealed as none was before it, and opened only by who has the key of the same cluster?

A nonce that repeats under a key gives both packets away, and the means to forge others, while all goes on to work:
only a look at the nonces can tell. Not here: strangers on a real network (tests/integration).
"""

from __future__ import annotations

import base64

import pytest

import gossip
from crdt import Malformed
from gossip.seal import OVERHEAD, Seal
from tests.waiting import until_here

KEY = bytes(range(32))
HEAD = 24
"""Bytes of salt and counter: under one key of a cluster no two packets may begin alike."""


def test_no_packet_is_sealed_under_a_nonce_that_was_used() -> None:
    ann, bob = Seal(KEY, "shop", salt=b"a" * 16), Seal(KEY, "shop", salt=b"b" * 16)
    sealed = [seal.seal(b"the same words") for _ in range(300) for seal in (ann, bob)]
    assert len({packet[:HEAD] for packet in sealed}) == len(sealed)
    assert len({packet[HEAD:] for packet in sealed}) == len(sealed), "the nonce of the head is the one in use"
    assert [ann.open(packet) for packet in sealed] == [b"the same words"] * len(sealed)
    assert {len(packet) for packet in sealed} == {len(b"the same words") + OVERHEAD}


def test_each_node_seals_under_a_salt_of_its_own(cluster: str) -> None:
    """Two that were forked from one process, or started by one image, too: it is drawn at the start."""
    key = base64.b64encode(KEY).decode()
    with gossip.Node(cluster, key=key) as ann, gossip.Node(cluster, key=key) as bob:
        until_here(lambda: len(ann.members) == len(bob.members) == 2)
        seals = [node._runtime._seal for node in (ann, bob) if node._runtime is not None]
        assert len({seal.seal(b"")[:16] for seal in seals if seal is not None}) == 2


def test_what_was_bent_cut_or_sealed_for_others_is_not_opened() -> None:
    ann, bob = Seal(KEY, "shop", salt=b"a" * 16), Seal(KEY, "shop", salt=b"b" * 16)
    sealed = ann.seal(b"hello")
    for place in range(len(sealed)):
        bent = bytearray(sealed)
        bent[place] ^= 1
        with pytest.raises(Malformed):
            bob.open(bytes(bent))
        with pytest.raises(Malformed):
            bob.open(sealed[:place])
    for other in (Seal(KEY, "bank", salt=b"b" * 16), Seal(bytes(32), "shop", salt=b"b" * 16)):
        with pytest.raises(Malformed):
            other.open(sealed)
    assert bob.open(sealed) == b"hello"
