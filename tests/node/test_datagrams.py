"""Does a datagram open once, for the other end of its stream, and never after?"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import Malformed
from gossip.datagrams import POSTAGE, Posting, Receipt, Repeated
from gossip.handshake import Call, answered
from gossip.identity import KeyPair
from gossip.keyring import Keyring
from gossip.seal import Seal

SECRET = bytes(range(32))


def test_each_opens_once_in_whatever_order_they_come() -> None:
    posting, receipt = Posting(SECRET), Receipt(SECRET)
    datagrams = [posting.seal(b"%d" % number) for number in range(1000)]
    assert {len(datagram) for datagram in datagrams[:10]} == {1 + POSTAGE}
    random.Random(7).shuffle(datagrams)
    assert sorted(int(receipt.open(datagram)) for datagram in datagrams) == list(range(1000))
    for datagram in datagrams:
        with pytest.raises(Repeated):
            receipt.open(datagram)


@given(st.lists(st.integers(0, 3000), max_size=60))
def test_nothing_opens_twice_and_nothing_recent_is_refused(order: list[int]) -> None:
    """Against a model that remembers all: only what lies beyond the window may be refused without having come."""
    receipt, came, newest = Receipt(SECRET), set(), 0
    for number in order:
        number += 1
        try:
            receipt.open(DATAGRAMS[number])
        except Repeated:
            assert number in came or number <= newest - 1024
        else:
            assert number not in came
            came.add(number)
            newest = max(newest, number)


_posting = Posting(SECRET)
DATAGRAMS = [b"", *(_posting.seal(b"") for _ in range(3001))]


def test_the_window_has_an_edge() -> None:
    for back, opens in ((1023, True), (1024, False)):
        receipt = Receipt(SECRET)
        receipt.open(DATAGRAMS[2000])
        if opens:
            receipt.open(DATAGRAMS[2000 - back])
        with pytest.raises(Repeated):
            receipt.open(DATAGRAMS[2000 - back])


def test_what_does_not_open_moves_no_window() -> None:
    """Whoever sends a great number without the secret would have all that is true refused as too old."""
    receipt, posting = Receipt(SECRET), Posting(SECRET)
    datagram = posting.seal(b"1")
    forged = datagram[:8] + (2**63).to_bytes(8, "big") + datagram[16:]
    for bad in (forged, b"", datagram[:8], datagram[:20], datagram[:-1], datagram + b"x", bytes(40)):
        with pytest.raises(Malformed) as refused:
            receipt.open(bad)
        assert refused.type is Malformed
    for place in range(len(datagram)):
        bent = bytearray(datagram)
        bent[place] ^= 1
        with pytest.raises(Malformed):
            receipt.open(bytes(bent))
    assert receipt.open(datagram) == b"1"


def test_streams_have_secrets_of_their_own_and_frames_are_no_datagrams() -> None:
    ring = Keyring([SECRET])
    call, there = Call(Seal(ring, "shop", b"a" * 16), b"c" * 32), Seal(ring, "shop", b"b" * 16)
    bob = KeyPair("shop", b"b" * 32)
    answer, opening = answered(there, bob, call.hello, b"d" * 32)
    sealing = call.accept(answer)
    _, another = answered(there, bob, call.hello, b"e" * 32)
    datagram = sealing.posting.seal(b"ping")
    assert datagram[:8] == opening.receipt.name != another.receipt.name
    for wrong in (another.receipt.open, opening.open):
        with pytest.raises(Malformed):
            wrong(datagram)
    with pytest.raises(Malformed):
        opening.receipt.open(datagram[:16] + sealing.seal(b"ping"))
    assert opening.receipt.open(datagram) == b"ping"
