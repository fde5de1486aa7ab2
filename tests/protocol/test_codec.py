"""Do bytes ever become anything but a well-formed message, and a malformed one anything but a counter?"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from random import Random
from time import perf_counter
from typing import get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import (
    Batch,
    Context,
    LWWMap,
    Malformed,
    Store,
    Write,
    decode_state,
    encode_batch,
    encode_context,
    encode_state,
    encode_value,
    state_parts,
)
from gossip.protocol.codec import MAX_CLAIMS, MAX_MESSAGE, VERSION, Codec
from gossip.protocol.effects import Dial, Effect, Send
from gossip.protocol.engine import Engine
from gossip.protocol.identity import PROOF
from gossip.protocol.members import Claim, Status
from gossip.protocol.messages import (
    Ack,
    Busy,
    Digest,
    Gossip,
    Join,
    Message,
    Nack,
    Ping,
    PingReq,
    Pull,
    Push,
    StateNext,
    StatePart,
    Sums,
    Sync,
    Synced,
    Welcome,
)
from gossip.protocol.relay import Part
from gossip.protocol.settings import Settings
from tests.protocol.wire import EPOCH

SHOP = Codec("shop")
HEADER = SHOP.encode(1, PingReq(1, 1))[:11]
ME = Claim(1, "ann", ("unix:/ann",), EPOCH, (("role", "web"),))
PEER = Claim(2, "bob", ("unix:/bob", "10.0.0.2:7946"), EPOCH, (), 3, Status.SUSPECT, proof=b"p" * PROOF)


def raw(*fields: object) -> bytes:
    """A packet of this cluster with any content."""
    content: bytes = msgpack.packb(fields)
    return HEADER + content


# -- what is well-formed -------------------------------------------------------------------------------------------

number = st.integers(0, 2**64 - 1)
instance = st.integers(1, 2**64 - 1)
label = st.text(min_size=1, max_size=20).filter(str.isprintable)
text = st.text(max_size=20).filter(str.isprintable)
claim = st.builds(
    Claim,
    instance,
    label,
    st.lists(label, max_size=8).map(tuple),
    number,
    st.lists(st.tuples(label, text), max_size=4).map(tuple),
    number,
    st.sampled_from(Status),
    st.just(()),
    st.just(b"") | st.binary(min_size=PROOF, max_size=PROOF),
)
claims = st.lists(claim, max_size=4).map(tuple)
digest = st.builds(Digest, number, st.none() | number, st.booleans(), number)
part = st.none() | st.builds(Part, number, number)
some_bytes = st.binary(max_size=40)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Join, claims, digest),
    st.builds(Welcome, claims, digest),
    st.builds(Ping, number, digest, claims, number),
    st.builds(Ack, number, digest, claims, number, number),
    st.builds(PingReq, number, instance),
    st.builds(Gossip, claims),
    st.builds(Push, st.lists(some_bytes, max_size=4).map(tuple), number, number, st.booleans(), part),
    st.builds(Pull, number, some_bytes, st.booleans()),
    st.builds(StatePart, number, number, st.booleans(), some_bytes, number),
    st.builds(StateNext, number, number, some_bytes),
    st.builds(Sums, number, number, some_bytes, number, st.booleans()),
    st.builds(Sync, number, some_bytes, st.booleans()),
    st.builds(Synced, number, st.booleans()),
    st.builds(Busy, number),
)


@given(instance, messages)
def test_what_is_sent_is_what_arrives(sender: int, message: Message) -> None:
    decoded = SHOP.decode(SHOP.encode(sender, message))
    assert decoded == (sender, message)
    assert type(decoded[1]) is type(message)


@given(instance, messages)
def test_a_message_has_one_encoding(sender: int, message: Message) -> None:
    payload = SHOP.encode(sender, message)
    assert SHOP.encode(*SHOP.decode(payload)) == payload


def an_engine() -> Engine:
    """One that knows a peer, has data of its own and of others, and waits for a state."""
    store = Store()
    for key, value in (("a", 1), ("b", [1, 2])):
        store.merge(LWWMap(store, "m").set(key, value, replica=7, stamp=1))
    engine = Engine("shop", ME, Settings(), Random(1), store)
    engine.receive(SHOP.encode(2, Ping(1, Digest(0, 0, ready=False), (PEER,))), 0.0, EPOCH)
    engine.repair.ask(2, now=0.0)
    return engine


def examples() -> list[Message]:
    write = Write((2, 3), (1, "m", b"\xa1a"), 1 << 16, encode_value("new"), ((7, 1), (9, 4)), 70)
    counted = Write((2, 4), (3, "hits", (2).to_bytes(8, "big")), 5, encode_value((2, 0)), ())
    batch = encode_batch(Batch(2, 1, 4, (write, counted)))
    first, *_ = parts = list(state_parts(an_engine().replication.store.state()))
    two = (PEER._replace(status=Status.ALIVE), Claim(9, "cat", ("unix:/cat",), 5, (("a", "b"),)))
    return [
        Join(two, Digest(1, 2, ready=True)),
        Welcome((*two, ME), Digest(1, 2, ready=True)),
        Ping(7, Digest(2**64 - 1, None, ready=False), two, 3),
        Ack(1, Digest(1, 2, ready=True), two, 1_700_000_000_000, 3),
        Nack(1),
        PingReq(7, 2),
        Gossip((ME._replace(status=Status.SUSPECT), PEER)),
        Push((batch, encode_batch(Batch(5, 1, 1, (), True))), 7, 2, True),
        Pull(1, encode_context(Context({7: 1, 2: 1}))),
        StatePart(1, 0, False, first, 0),
        StatePart(1, 0, len(parts) == 1, first, 0),
        StateNext(1, 1),
        Busy(),
        Sync(4, encode_context(Context({7: 1, 2: 1})), True),
        Synced(4, True),
        Sums(1, 0, bytes(range(8)) * 128, EPOCH),
    ]


NAMED = [pytest.param(example, id=f"{place}-{type(example).__name__}") for place, example in enumerate(examples())]


# -- what is not ---------------------------------------------------------------------------------------------------


def feed(payload: bytes) -> tuple[Engine, list[Effect]]:
    """Gives a packet to an engine; whatever it is, what comes out is legal."""
    engine = an_engine()
    before = encode_state(engine.replication.store.state())
    effects = engine.receive(payload, 0.5, EPOCH)
    after = engine.replication.store.state()
    for effect in effects:
        if isinstance(effect, Send | Dial):
            assert SHOP.decode(SHOP.encode(engine.me.instance, effect.message))[1] == effect.message
    assert not engine.me.gone
    if engine.counters["malformed"]:
        assert (effects, encode_state(after)) == ([], before)
    elif encode_state(after) != before:
        assert encode_state(decode_state(encode_state(after))) == encode_state(after)
        assert after.context.dominates({7: 2})
    engine.tick(engine.deadline, EPOCH)
    return engine, effects


def decodes(payload: bytes) -> bool:
    try:
        sender, message = SHOP.decode(payload)
    except Malformed:
        return False
    assert 0 < sender < 2**64
    assert SHOP.decode(SHOP.encode(sender, message)) == (sender, message)
    return True


def test_there_is_an_example_of_each_kind_of_message() -> None:
    assert {type(example) for example in examples()} == set(get_args(Message))


@pytest.mark.parametrize("example", NAMED)
def test_every_example_is_taken(example: Message) -> None:
    engine, _ = feed(SHOP.encode(2, example))
    assert engine.counters["malformed"] == engine.counters["unasked"] == 0


@pytest.mark.parametrize("example", NAMED)
def test_every_truncation_is_malformed_and_changes_nothing(example: Message) -> None:
    """S1."""
    payload = SHOP.encode(2, example)
    for length in range(len(payload)):
        engine, effects = feed(payload[:length])
        assert engine.counters["malformed"] == 1
        assert effects == []


@pytest.mark.parametrize("example", NAMED)
def test_every_flipped_bit_gives_a_message_or_nothing(example: Message) -> None:
    """S1. Without a key nobody can tell a flipped value from one that was meant; it must be a legal one."""
    payload = bytearray(SHOP.encode(2, example))
    for place in range(8 * len(payload)):
        payload[place // 8] ^= 1 << place % 8
        taken = decodes(bytes(payload))
        engine, _ = feed(bytes(payload))
        assert taken or engine.counters["malformed"] + engine.counters["unknown"] == 1
        if place < 88:
            assert not taken, "not of this protocol, version or cluster"
        payload[place // 8] ^= 1 << place % 8


def test_what_a_later_version_adds_is_passed_over_and_nobody_is_judged_by_it() -> None:
    """Workers are updated one after the other: the old ones closed the streams of the new ones at each such message."""
    assert SHOP.decode(raw(4, 2, 1, 9, "a field of a later version")) == (2, PingReq(1, 9))
    engine, effects = feed(raw(99, 2, "a kind of a later version"))
    assert effects == [] and engine.counters["unknown"] == 1 and not engine.counters["malformed"]


@pytest.mark.parametrize(
    "fields", [(False, 0, False, None), (0, False, False, None), (0, 0, 0, None), (0, 0, False, 0)]
)
def test_the_usual_push_has_its_fields_of_their_types_too(fields: tuple[object, ...]) -> None:
    """It is known by what is in them, and to Python False is 0."""
    assert decodes(raw(6, 2, [b"batch"], 0, 0, False, None)) and not decodes(raw(6, 2, [b"batch"], *fields))


@pytest.mark.parametrize("example", NAMED)
def test_a_byte_too_many_is_malformed(example: Message) -> None:
    assert not decodes(SHOP.encode(2, example) + b"\x00")


@given(st.binary(max_size=200))
def test_noise_behind_a_good_header_is_malformed_or_a_message(noise: bytes) -> None:
    feed(HEADER + noise)


@given(st.recursive(number | st.none() | st.binary(max_size=9) | text | st.booleans(), st.lists, max_leaves=12))
def test_any_msgpack_behind_a_good_header_is_malformed_or_a_message(content: object) -> None:
    for kind in range(len(get_args(Message))):
        feed(raw(kind, 2, *(content if isinstance(content, list) else [content])))


def test_datagrams_from_anywhere_are_counted_and_forgotten() -> None:
    other_version = bytearray(SHOP.encode(2, PingReq(1, 2)))
    other_version[2] = VERSION + 1
    noise = Random(1).randbytes(65_507)
    for payload in (
        b"",
        b"g",
        b"gm",
        noise,
        HEADER + noise[11:],
        bytes(other_version),
        Codec("bank").encode(2, PingReq(1, 2)),
        bytes(65_507),
    ):
        engine, effects = feed(payload)
        assert (effects, engine.counters["malformed"]) == ([], 1)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "not a packet of this protocol"),
        (b"gm\x01" + HEADER[3:], f"a packet of version 1, this is {VERSION}"),
        (Codec("bank").encode(2, PingReq(1, 2)), "a packet of another cluster"),
        (HEADER + bytes(MAX_MESSAGE), "too long"),
        (raw(99, 2), "a later version"),
        (raw(4, 0, 1, 2), "has a sender"),
        (raw(4, 2, 1), "all its fields"),
    ],
)
def test_it_says_which_rule_was_broken(payload: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        SHOP.decode(payload)


def bombs() -> Iterator[bytes]:
    """S2."""
    yield bytes.fromhex("ddffffffff")
    yield bytes.fromhex("dfffffffff")
    yield bytes.fromhex("c6ffffffff")
    yield bytes.fromhex("dbffffffff")
    yield bytes.fromhex("c9ffffffff01")
    yield b"\x91" * 100_000
    yield b"\x81\x01" * 1_000
    yield bytes.fromhex("c70a01ffff")  # an extension that is cut off
    yield bytes.fromhex("d6ff00000000")  # a timestamp
    yield bytes.fromhex("a2c328")  # no UTF-8
    yield bytes.fromhex("c1")  # never used
    yield bytes.fromhex("93") + bytes.fromhex("ddffffff00") * 3
    yield bytes.fromhex("9206") + bytes.fromhex("dc0400") + bytes.fromhex("c640000000")  # 1 KiB that says 1 GiB


@pytest.mark.parametrize("bomb", list(bombs()), ids=lambda bomb: f"{bomb[:6].hex()}-{len(bomb)}")
def test_a_bomb_takes_neither_memory_nor_time(bomb: bytes) -> None:
    wrapped = [
        HEADER + bomb,
        HEADER + b"\x94\x06\x02" + bomb,
        SHOP.encode(2, Push((bomb,))),
        SHOP.encode(2, Pull(1, bomb)),
        SHOP.encode(2, StatePart(1, 0, True, bomb, 0)),
    ]
    feed(wrapped[0])  # the first time imports and caches
    for payload in wrapped:
        start = perf_counter()
        tracemalloc.start()
        engine, effects = feed(payload)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (effects, engine.counters["malformed"]) == ([], 1)
        assert peak < 500_000 + 100 * len(bomb), "an engine alone takes half of that"
        assert perf_counter() - start < 5.0


def test_the_largest_message_of_the_smallest_things_stays_a_small_multiple() -> None:
    payload = HEADER + b"\x93\x06\x02\xdd" + (MAX_MESSAGE - 32).to_bytes(4, "big") + b"\xc0" * (MAX_MESSAGE - 32)
    tracemalloc.start()
    assert not decodes(payload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * MAX_MESSAGE


def flat(**changed: object) -> list[object]:
    """A claim as it stands on the wire, with some fields wrong."""
    fields = {
        "instance": 9,
        "name": "cat",
        "addresses": ["unix:/cat"],
        "started": 1,
        "tags": [],
        "incarnation": 0,
        "status": 0,
        "by": [],
        "proof": b"",
    }
    return list({**fields, **changed}.values())


@pytest.mark.parametrize("name", ["../../x", "<script>", "%s", "{0.__class__}", "x" * 128, "名前", "a b"])
def test_a_strange_name_is_a_name(name: str) -> None:
    """S3: it is text for people, and nobody puts it into a path, a page or a format."""
    payload = raw(5, 2, [flat(name=name)])
    (said,) = SHOP.decode(payload)[1].claims  # type: ignore[union-attr]
    assert said.name == name


@pytest.mark.parametrize(
    "name",
    ["", "x" * 256, "x" * (10 << 20), "two\nlines", "tab\t", "\x1b[31mred", "\u202egnp.exe", "\x00", "\u2028", 7],
)
def test_a_name_that_could_fool_a_reader_is_refused(name: object) -> None:
    assert not decodes(raw(5, 2, [flat(name=name)]))


@pytest.mark.parametrize(
    "changed",
    [
        {"instance": 0},
        {"instance": -1},
        {"instance": "9"},
        {"instance": True},
        {"addresses": ["x"] * 9},
        {"addresses": [""]},
        {"addresses": ["x" * 301]},
        {"addresses": ["two\nlines"]},
        {"addresses": "unix:/cat"},
        {"started": -1},
        {"started": 1.5},
        {"tags": [["a", "b"]] * 65},
        {"tags": [["a"]]},
        {"tags": [["a", 1]]},
        {"tags": [["a", "x" * 4096]]},
        {"tags": [["", "x"]]},
        {"tags": [["a", "\x1b[31mred"]]},
        {"tags": [["two\nlines", "b"]]},
        {"incarnation": -1},
        {"incarnation": None},
        {"status": 5},
        {"by": [1, 2, 3, 4]},
        {"by": [2, 1]},
        {"by": [1, 1]},
        {"by": [0]},
        {"by": ["x"]},
        {"by": None},
        {"proof": b"x" * (PROOF - 1)},
        {"proof": b"x" * (PROOF + 1)},
        {"proof": "x" * PROOF},
        {"proof": None},
        {"status": True},
        {"status": -1},
    ],
    ids=str,
)
def test_a_claim_with_a_field_out_of_bounds_is_refused(changed: dict[str, object]) -> None:
    assert decodes(raw(5, 2, [flat()]))
    assert not decodes(raw(5, 2, [flat(**changed)]))


def test_claims_come_in_a_bounded_number() -> None:
    assert decodes(raw(5, 2, [flat()] * MAX_CLAIMS))
    assert not decodes(raw(5, 2, [flat()] * (MAX_CLAIMS + 1)))


def test_a_number_beyond_64_bits_is_no_number() -> None:
    assert decodes(raw(9, 2, 2**64 - 1, 0, b""))
    assert not decodes(raw(9, 2, -1, 0, b""))
    assert not decodes(raw(9, 2, 1.0, 0, b""))
    assert not decodes(raw(9, 2, None, 0, b""))
    assert not decodes(raw(9, 2, True, 0, b""))


def test_a_context_of_a_million_replicas_is_refused_quickly() -> None:
    """S3. It does not even fit into a message; one that just fits is refused for the number of its replicas."""
    million = b"\xdd" + (2_000_000).to_bytes(4, "big") + (b"\xcf" + bytes(7) + b"\x01\x01") * 1_000_000
    largest = encode_context(Context(dict.fromkeys(range(1, 200000), 1)))
    assert len(million) > MAX_MESSAGE > len(largest)
    for context in (million, largest):
        payload = SHOP.encode(2, Pull(1, context))
        start = perf_counter()
        engine, effects = feed(payload)
        assert perf_counter() - start < 2.0
        assert (effects, engine.counters["malformed"]) == ([], 1)


def test_a_sequence_of_63_bits_is_held_back_and_claims_nothing() -> None:
    last = encode_batch(Batch(5, 2**63 - 1, 2**63 - 1, ()))
    engine, _ = feed(SHOP.encode(2, Push((last,))))
    assert 5 not in engine.replication.store.context
    beyond = encode_batch(Batch(5, 2**63, 2**63, ()))
    engine, _ = feed(SHOP.encode(2, Push((beyond,))))
    assert engine.counters["malformed"] == 1


def test_one_bad_batch_makes_the_whole_message_malformed() -> None:
    """Decoded before anything is changed by any of them."""
    good = encode_batch(Batch(5, 1, 1, ()))
    engine, _ = feed(SHOP.encode(2, Push((good, b"\xc1"))))
    assert engine.counters["malformed"] == 1
    assert 5 not in engine.replication.store.context


@pytest.mark.parametrize("descending", [False, True])
def test_a_thousand_and_more_concurrent_writes_of_one_key_are_a_long_chain_and_no_crash(descending: bool) -> None:
    """Nobody honest leaves his own earlier write unnamed; a program that recurses over conflicts dies of it."""
    count = 1_100
    writes = tuple(
        Write((5, place), (1, "m", b"\xa1k"), count - place if descending else place, b"\x01", ())
        for place in range(1, count + 1)
    )
    engine, _ = feed(SHOP.encode(2, Push((encode_batch(Batch(5, 1, count, writes)),))))
    assert len(LWWMap(engine.replication.store, "m").conflicts("k")) == count - 1
