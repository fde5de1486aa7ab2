"""Whatever the bytes, does a decoder give something well-formed or `Malformed`, and nothing else?

What peers send may be damaged, forged, or made to hurt: small input that unpacks to much, lengths that lie, nesting
without end. What a program hands over may be anything Python has: it is refused at the call, with a message that helps.
Not here: messages, seals and versions (the protocol's codec), laws of what was decoded (test_laws).
"""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crdt import (
    WITH_AUTHOR,
    Batch,
    Context,
    LWWMap,
    Malformed,
    Note,
    PNCounter,
    Stage,
    Store,
    Write,
    decode_batch,
    decode_context,
    decode_element,
    decode_state,
    decode_value,
    encode_batch,
    encode_context,
    encode_element,
    encode_state,
    encode_value,
    state_parts,
)
from crdt.codec import MAX_ELEMENT, MAX_NAME, MAX_RANGE, MAX_REPLICAS, MAX_VALUE, _write, is_plain, unpack
from crdt.timestamp import LATEST
from tests.crdt.world import STEP, World, lives, store_of


def decode_part(data: bytes) -> Stage:
    stage = Stage()
    stage.add(data)
    return stage


def decode_second_part(data: bytes) -> Stage:
    stage = Stage()
    stage.add(msgpack.packb((encode_context(Context({7: 9, 8: 9})), (), 1)))
    stage.add(data)
    return stage


DECODERS: list[Callable[[bytes], Any]] = [
    decode_batch,
    decode_state,
    decode_context,
    decode_element,
    decode_value,
    decode_part,
    decode_second_part,
    unpack,
]
STRICT = [decoder for decoder in DECODERS if decoder is not decode_value]  # a value may hold maps

each_decoder = pytest.mark.parametrize("decode", DECODERS, ids=lambda decode: decode.__name__)
each_strict_decoder = pytest.mark.parametrize("decode", STRICT, ids=lambda decode: decode.__name__)

BATCH = Batch(
    7,
    5,
    9,
    (
        Write((7, 5), (1, "flags", b"\xa4beta"), 70_000, b"\xc3", ((8, 300), (9, 2**63 - 1))),
        Write((7, 6), (2, "online", b"\x07"), 70_001, None, ((7, 5),)),
        Write((7, 7), (3, "hits", (7).to_bytes(8, "big")), 70_002, encode_value((3, 2**64 - 1)), ()),
        Write((7, 9), (4, "motd", b""), LATEST, b"\xa5hello", (), WITH_AUTHOR),
    ),
    True,
)


def crowded_store() -> Store:
    return store_of(*(replica.store.state() for replica in World().play(Random(5).randbytes(60 * STEP)).replicas[:2]))


# -- damage ----------------------------------------------------------------------------------------------------------


def damaged(data: bytes) -> Iterator[bytes]:
    """Every truncation, every single bit flipped, and something behind the end."""
    yield from (data[:size] for size in range(len(data)))
    for place in range(len(data)):
        for bit in range(8):
            yield data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
    yield data + b"\x00"
    yield data + data


def test_a_damaged_batch_is_refused_or_is_another_whole_batch() -> None:
    survivors = 0
    for data in damaged(encode_batch(BATCH)):
        try:
            batch = decode_batch(data)
        except Malformed:
            continue
        survivors += 1
        # Nothing was dropped or read as something else: only integers may have had a longer form than they need.
        assert encode_batch(batch) == msgpack.packb(msgpack.unpackb(data))
        assert decode_batch(encode_batch(batch)) == batch
        assert 1 <= batch.first <= batch.last and batch.last - batch.first < MAX_RANGE
        store = Store()
        store.context[batch.replica] = batch.first - 1
        store.merge_batch(batch)
        assert store.context[batch.replica] == batch.last
    assert survivors > 100, "a bit of a value or a stamp makes another value or stamp"


def test_a_damaged_state_is_refused_or_is_another_whole_state() -> None:
    encoded = encode_state(crowded_store().state())
    assert len(encoded) > 300
    survivors = 0
    for data in damaged(encoded):
        try:
            state = decode_state(data)
        except Malformed:
            continue
        survivors += 1
        assert decode_state(encode_state(state)) == state
        store = store_of(state)
        assert store.state() == state
        assert all(state.context.covers((replica, sequence)) for _, (_, replica, sequence, *_) in lives(state))
        assert not any(map(state.context.covers, state.named)) and all(state.objects.values())
    assert survivors > 100


def test_a_damaged_context_is_refused_or_is_another_context() -> None:
    for data in damaged(encode_context(Context({3: 1, 7: 2**63 - 1, 2**64 - 1: 300}))):
        try:
            context = decode_context(data)
        except Malformed:
            continue
        assert decode_context(encode_context(context)) == context
        assert len(encode_context(context)) <= len(data)
        assert all(0 < replica < 2**64 and 0 < sequence < 2**63 for replica, sequence in context.items())


@pytest.mark.parametrize("decode", [decode_element, decode_value], ids=lambda decode: decode.__name__)
def test_damaged_elements_and_values_are_refused_or_are_others(decode: Callable[[bytes], Any]) -> None:
    original: object = ("cart", 7, 1.5, None, True, b"raw", 2**40, ("é",))
    for data in damaged(encode_element(original)):
        try:
            decode(data)
        except Malformed:
            continue


# -- anything at all -------------------------------------------------------------------------------------------------

scraps = st.sampled_from(
    [bytes([byte]) for byte in (0x80, 0x90, 0xA0, *range(0xC0, 0xE0), 0xFF)]
    + [b"\xff" * 4, b"\x00" * 4, b"\xa1m", b"\xc4\x01k", encode_context(Context({7: 1}))]
)
junk = st.binary(max_size=60) | st.lists(scraps | st.binary(max_size=3), max_size=30).map(b"".join)
trees = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 9), st.sampled_from([2**63, 2**64 - 1, -(2**63)]), st.floats())
    | st.sampled_from(["", "m", "x" * 256, b"", b"k", b"k" * 513, encode_context(Context({7: 1}))]),
    lambda parts: st.lists(parts, max_size=8) | st.dictionaries(st.integers(0, 3), parts, max_size=2),
    max_leaves=25,
)


@each_decoder
@given(junk)
@example(b"")
@example(b"\xc1")
def test_junk_is_decoded_or_refused_and_nothing_else(decode: Callable[[bytes], Any], data: bytes) -> None:
    try:
        decode(data)
    except Malformed:
        pass


@each_decoder
@given(trees)
def test_whole_msgpack_of_the_wrong_shape_is_refused_and_nothing_else(
    decode: Callable[[bytes], Any], tree: object
) -> None:
    """Random bytes hardly ever get past the unpacking; these do."""
    try:
        decode(msgpack.packb(tree))
    except Malformed:
        pass


@given(st.data())
def test_one_wrong_field_in_a_good_record_is_refused_or_kept(data: st.DataObject) -> None:
    """Every field of a batch in turn is replaced by something else; what is accepted comes out as it went in."""
    flat = msgpack.unpackb(encode_batch(BATCH))
    records = [flat, *flat[4], *(write[6] for write in flat[4])]
    record = data.draw(st.sampled_from([record for record in records if record]))
    record[data.draw(st.integers(0, len(record) - 1))] = data.draw(trees)
    encoded = msgpack.packb(flat)
    try:
        batch = decode_batch(encoded)
    except Malformed:
        return
    assert encode_batch(batch) == encoded


# -- bytes made to hurt ----------------------------------------------------------------------------------------------

HURTFUL = {
    "array of 4 billion": bytes.fromhex("ddffffffff"),
    "map of 4 billion": bytes.fromhex("dfffffffff"),
    "bytes of 4 billion": bytes.fromhex("c6ffffffff"),
    "text of 4 billion": bytes.fromhex("dbffffffff"),
    "extension of 4 billion": bytes.fromhex("c9ffffffff01"),
    "nested without end": b"\x91" * 100_000,
    "maps nested without end": b"\x81\x01" * 100_000,
    "nested, with an end": b"\x91" * 100_000 + b"\xc0",
    "truncated extension": bytes.fromhex("d801"),
    "extension": bytes.fromhex("d40100"),
    "extension of no bytes": bytes.fromhex("c70005"),
    "timestamp": bytes.fromhex("d6ff00000000"),
    "timestamp of no bytes": bytes.fromhex("c700ff"),
    "timestamp inside": bytes.fromhex("91d7ff0000000000000000"),
    "bad UTF-8": b"\xa2\xff\xfe",
    "lone surrogate": b"\xa3\xed\xa0\x80",
    "trailing byte": b"\xc0\xc0",
    "nothing": b"",
    "a byte that is never used": b"\xc1",
    "list as a key": bytes.fromhex("819001"),
}


@each_decoder
@pytest.mark.parametrize("data", HURTFUL.values(), ids=HURTFUL.keys())
def test_bytes_made_to_hurt_are_refused(decode: Callable[[bytes], Any], data: bytes) -> None:
    with pytest.raises(Malformed):
        decode(data)


NOT_FOR_RECORDS = {
    "empty map": b"\x80",
    "nan as a key": b"\x81\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\x00",
    "2**63 as a key": b"\x81\xcf\x80\x00\x00\x00\x00\x00\x00\x00\x00",
    "map inside": b"\x91\x80",
}


@pytest.mark.parametrize("data", NOT_FOR_RECORDS.values(), ids=NOT_FOR_RECORDS.keys())
def test_maps_are_for_values_and_not_for_records(data: bytes) -> None:
    for decode in STRICT:
        with pytest.raises(Malformed):
            decode(data)
    decode_value(data)


def peak_of(decode: Callable[[bytes], Any], data: bytes) -> int:
    tracemalloc.start()
    try:
        decode(data)
    except Malformed:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


@each_decoder
@pytest.mark.parametrize("size", [1_024, 1_200, 1_201, 8_192, 1 << 20])
def test_arrays_that_promise_much_and_hold_nothing_take_no_memory(decode: Callable[[bytes], Any], size: int) -> None:
    """Room is made when a length is read: 8 KiB of nested arrays, each "as long as the message", took 64 MB."""
    for head in (b"\xdd" + struct.pack(">I", size - 1), b"\xdc" + struct.pack(">H", min(size - 1, 65_535))):
        nested = head * min(size // len(head), 1_000)
        data = nested + b"\xc0" * (size - len(nested))
        assert peak_of(decode, data) < 4_000_000 + 2 * size


@each_strict_decoder
def test_what_is_small_stays_small(decode: Callable[[bytes], Any]) -> None:
    for unit in (b"\xc0", b"\x90", b"\xa0", b"\xc4\x00", b"\x91\x90", b"\xcb\x00\x00\x00\x00\x00\x00\x00\x00"):
        count = 100_000 // len(unit)
        data = b"\xdd" + struct.pack(">I", count) + unit * count
        assert peak_of(decode, data) < 60 * len(data)


def test_a_hundred_thousand_keys_that_collide_do_not_take_an_afternoon() -> None:
    """Integers hash to themselves modulo 2**61 - 1: the lowest bits, or all of them, can be chosen by a peer."""
    low_bits = {number << 44: 0 for number in range(100_000)}
    everything = {number + turn * (2**61 - 1): 0 for number in range(12_500) for turn in range(8)}
    for keys in (low_bits, everything):
        assert len(keys) == len(decode_value(msgpack.packb(keys))) == 100_000
    store = Store()
    elements = [encode_element(key) for key in low_bits][:MAX_RANGE]
    flats = tuple(Write((7, n + 1), (1, "m", element), n, b"\xc0", ()) for n, element in enumerate(elements))
    store.merge_batch(decode_batch(encode_batch(Batch(7, 1, len(flats), flats))))
    assert len(LWWMap(store, "m")) == len(flats)


def test_a_chain_of_conflicts_made_to_hurt_is_taken_in_one_go() -> None:
    """One key with 8 000 concurrent writes took 8 s: each was appended by copying all those above it."""
    replicas = range(1, 8_001)
    stage = Stage()
    stage.add(msgpack.packb((encode_context(Context(dict.fromkeys(replicas, 1))), (), 8_000)))
    stage.add(msgpack.packb((1, "m", [(b"\xa1k", replica, replica, 1, b"\xc0", 0) for replica in replicas])))
    assert len(LWWMap(store_of(stage.state()), "m").conflicts("k")) == 7_999


# -- bounds of records -----------------------------------------------------------------------------------------------


def batch_of(**changes: Any) -> bytes:
    """A batch of one write, with fields replaced, as a forger would pack it."""
    fields: dict[str, Any] = {"replica": 7, "first": 1, "last": 1, "more": False}
    write: dict[str, Any] = {"offset": 0, "kind": 1, "name": "m", "element": b"\xa1k"}
    write |= {"stamp": 5, "value": b"\x01", "names": []}
    for key, value in changes.items():
        (write if key in write or key == "expires" else fields)[key] = value
    return bytes(msgpack.packb([*fields.values(), [list(write.values())]]))


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"replica": 2**64 - 1},
    {"first": 2**63 - 1, "last": 2**63 - 1},
    {"last": MAX_RANGE},
    {"last": MAX_RANGE, "offset": MAX_RANGE - 1},
    {"kind": 255},
    {"name": "x" * MAX_NAME},
    {"element": b"\xda\x01\xfd" + b"x" * (MAX_ELEMENT - 3)},
    {"value": None},
    {"value": encode_value(b"x" * (MAX_VALUE - 5))},
    {"stamp": 2**64 - 1},
    {"names": [8, 2**63 - 1]},
    {"names": [9, 1] * 4_096},
    {"expires": WITH_AUTHOR},
    {"expires": 2**64 - 1},
]
TOO_LONG = b"\xc6\x00\x10\x00\x00" + b"x" * MAX_VALUE  # a value all right, of five bytes more than are allowed
REFUSED: list[dict[str, Any]] = [
    *({"replica": wrong} for wrong in (0, -1, True, 1.0, "7", None)),
    *({"first": wrong} for wrong in (0, -1, 2, True, 1.0)),
    *({"last": wrong} for wrong in (0, MAX_RANGE + 1, 2**63, True)),
    {"first": 2**63, "last": 2**63},
    *({"more": wrong} for wrong in (0, 1, None)),
    *({"offset": wrong} for wrong in (-1, 1, True, 0.0)),
    *({"kind": wrong} for wrong in (-1, 256, True, "1", 1.0)),
    *({"name": wrong} for wrong in ("x" * (MAX_NAME + 1), b"m", None)),
    *({"element": wrong} for wrong in (b"x" * (MAX_ELEMENT + 1), "k", None)),
    *({"stamp": wrong} for wrong in (-1, True, 5.0, None)),
    *(
        {"value": wrong}
        for wrong in (b"\xc6\x00\x10\x00\x00" + b"x" * MAX_VALUE, "v", 1, [], b"", b"\xc1", b"\x01\x01", b"\xa1")
    ),
    *({"names": wrong} for wrong in ([8], [8, 0], [0, 1], [8, 2**63], [8, -1], [True, 1], [8, 1.0], None, b"")),
    {"names": [9, 1] * 4_097},
    *({"expires": wrong} for wrong in (0, -2, True, 1.0, None)),
]


def short(changes: dict[str, Any]) -> str:
    return ", ".join(f"{key}={str(value)[:12]}" for key, value in changes.items())


@pytest.mark.parametrize("changes", ACCEPTED, ids=short)
def test_a_batch_at_its_bounds_is_accepted(changes: dict[str, Any]) -> None:
    data = batch_of(**changes)
    assert encode_batch(decode_batch(data)) == data


@pytest.mark.parametrize("changes", REFUSED, ids=short)
def test_a_batch_beyond_its_bounds_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        decode_batch(batch_of(**changes))


def test_the_writes_of_a_batch_are_in_sequence() -> None:
    write = [1, 1, "m", b"\xa1k", 5, b"\x01", []]
    for writes in ([write, write], [write, [0, *write[1:]]], [[2, *write[1:]]]):
        with pytest.raises(Malformed):
            decode_batch(msgpack.packb([7, 1, 2, False, writes]))


ODD: dict[str, list[Any]] = {
    "offset": [1, 2, 0, 3, -1, True, 1.0, MAX_RANGE],
    "kind": [1, 2, 3, 4, 5, 0, -1, 255, 256, True, "1"],
    "name": ["m", "", "n" * MAX_NAME, "ö" * 200, b"m", None],
    "element": [
        b"\xa1k",
        b"\xbf" + b"k" * 31,
        b"\xd9\x20" + b"k" * 32,
        b"\xa2k",
        b"\xa1\xff",
        b"\xa2\xc3\xb6",
        b"\x01",
        b"",
        "k",
    ],
    "stamp": [5, 0, 2**64 - 1, -1, True, 5.0],
    "value": [
        None,
        b"",
        b"\x01",
        b"\xc4\x01x",
        b"\xc4\x02x",
        b"\xa1v",
        b"\xa1\xff",
        b"\x91\x01",
        b"\xc1",
        b"\x01\x01",
        "v",
    ],
    "names": [[], [8, 1], [7, 1], [7, 2], [8, 1, 9, 1], [8], [8, 0], [0, 1], [8, 2**63], [True, 1], None],
}


def test_the_usual_write_is_judged_by_the_rules_of_all_others() -> None:
    """It is checked in line, since it is nearly all there is: nothing may come in by that, or be taken for another."""
    chance = Random(3)
    usual = {name: choices[0] for name, choices in ODD.items()}
    before = [0, *[*usual.values()][1:]]
    taken = refused = 0
    for _ in range(6_000):
        odd = {name: chance.choice(ODD[name]) for name in chance.sample(list(ODD), chance.choice((1, 1, 2, 2, 3)))}
        flat = msgpack.unpackb(msgpack.packb([*(usual | odd).values()]), use_list=False)
        data = msgpack.packb([7, 1, 3, False, [before, flat]])
        try:
            write = _write(flat, 7, 1)
        except Malformed:
            write = None
        if write is None or not 1 < write.dot[1] <= 3:
            with pytest.raises(Malformed):
                decode_batch(data)
            refused += 1
        else:
            _, came = decode_batch(data).writes
            assert came == write and type(came) is type(write) and repr(came) == repr(write)
            taken += 1
    assert min(taken, refused) > 1_000


@pytest.mark.parametrize("letter", ["k", "\u00fc", "\u4e2d", "\U0001f600"])
def test_a_text_is_an_element_up_to_512_bytes_whatever_its_characters(letter: str) -> None:
    """Which are counted only where there may be too many."""
    longest = (MAX_ELEMENT - 3) // len(letter.encode())
    for length in (0, 1, 31, 32, 126, longest - 1, longest):
        encoded = encode_element(letter * length)
        assert encoded == msgpack.packb(letter * length) and decode_element(encoded) == letter * length
    with pytest.raises(ValueError, match="too long"):
        encode_element(letter * (longest + 1))


def test_what_is_plain_can_be_read() -> None:
    for value in (
        None,
        True,
        False,
        0,
        127,
        128,
        -1,
        -32,
        -33,
        2**16,
        2**32,
        2**64 - 1,
        -(2**63),
        2.5,
        b"",
        b"x" * 255,
        "",
        "text",
    ):
        assert is_plain(encode_value(value))
    for first in range(256):
        for size in (*range(1, 12), 31, 32, 33, 34):
            for filling in (0, size - 2, 0xFF):
                encoded = bytes([first, *[filling % 256] * (size - 1)])
                if is_plain(encoded):
                    decode_value(encoded)
    assert not is_plain(b"")


def test_a_counter_can_not_be_spoiled_for_everybody() -> None:
    """Its value is summed over all authors at every read, so one bad part would be an error for each reader."""
    part, own = encode_value((1, 2)), (7).to_bytes(8, "big")
    good = batch_of(kind=3, element=own, value=part)
    store = Store()
    store.merge_batch(decode_batch(good))
    assert PNCounter(store, "m").value == -1
    values = [None, b"", b"\x01", b"\x91\x01", b"\x93\x01\x01\x01", b"\x92\xff\x01", b"\x92\xc3\x01", b"\x92\x01\xa1x"]
    for value in [*values, b"\x92\x01\xcb" + bytes(8), part + b"\x00"]:
        with pytest.raises(Malformed):
            decode_batch(batch_of(kind=3, element=own, value=value))
        if value is not None:
            stage = decode_part(msgpack.packb((encode_context(Context({7: 1})), (), 1)))
            with pytest.raises(Malformed):
                stage.add(msgpack.packb((3, "m", [(own, 5, 7, 1, value, 0)])))
    for element in (b"", b"\xa1k", (8).to_bytes(8, "big"), own + b"\x00"):
        with pytest.raises(Malformed):
            decode_batch(batch_of(kind=3, element=element, value=part))


def test_a_context_of_a_million_replicas_is_refused() -> None:
    full = [number for replica in range(1, MAX_REPLICAS + 1) for number in (replica, 1)]
    assert len(decode_context(msgpack.packb(full))) == MAX_REPLICAS
    for pairs in ([*full, 2**64 - 1, 1], [1, 1] * 1_000_000, [7, 1, 7, 2], [7], [7, 0], [7, 2**63], [0, 1]):
        with pytest.raises(Malformed):
            decode_context(msgpack.packb(pairs))


def test_a_state_says_only_what_it_delivered() -> None:
    """Each of these would, once merged, hide a write for ever or claim what nobody has."""
    context = encode_context(Context({7: 5}))
    good = (b"\xa1k", 5, 7, 5, b"\x01", 0)
    lower = (b"\xa1k", 4, 7, 4, b"\x01", 0)
    decode_state(msgpack.packb([msgpack.packb((context, (8, 1), 2)), msgpack.packb((1, "m", (lower, good)))]))
    heads = [
        (context, (7, 5), 1),  # named early, yet delivered
        (context, (8, 0), 1),
        (context, (8, 1), -1),
        (context, (8, 1), True),
        (context, (8, 1), 2),  # more live writes than come
        (context, (8, 1), 0),
        ("text", (), 1),
    ]
    for head in heads:
        with pytest.raises(Malformed):
            decode_state(msgpack.packb([msgpack.packb(head), msgpack.packb((1, "m", (good,)))]))
    wrong = [(0, "k"), (1, -1), (2, 0), (2, 8), (3, 0), (3, 6), (4, None), (5, -2)]  # which field, and what is in it
    parts = [
        (1, "m", (good, lower)),  # not the least first
        (1, "m", (good, good)),
        (1, "m", ()),  # an object without elements
        *((1, "m", ((*good[:place], value, *good[place + 1 :]),)) for place, value in wrong),
    ]
    for part in parts:
        with pytest.raises(Malformed):
            decode_state(msgpack.packb([msgpack.packb((context, (), len(part[2]))), msgpack.packb(part)]))
    for pieces in ([], ["text"], [b""], [1]):
        with pytest.raises(Malformed):
            decode_state(msgpack.packb(pieces))


def test_a_large_state_comes_in_parts_of_about_the_size_asked_for() -> None:
    store = Store()
    for n in range(300):
        store.merge(LWWMap(store, f"object {n % 3}").set(n, "x" * 100, 7, stamp=n))
    parts = list(state_parts(store.state(), limit=2_000))
    assert len(parts) > 15 and max(map(len, parts)) < 2_200


def test_notes_count_in_the_size_of_a_part_and_each_is_told_once_in_it() -> None:
    """Ours: they did not count, so a state with long notes had parts that no frame could hold, and no newcomer got
    anything of it."""
    store = Store()
    for n in range(300):
        own = Note("ann", f"{n % 100:0>1000}")
        store.merge(LWWMap(store, "m").set(n, "x", 7, stamp=n), own if n < 100 else Note(None, "the same for all" * 60))
    parts = list(state_parts(store.state(), limit=4_000))
    assert max(map(len, parts)) < 6_000 and sum(map(len, parts)) < 100 * 1_100 + 200 * 60 + 4_000
    stage = Stage()
    for part in parts:
        stage.add(part)
    assert stage.state() == store.state() and len(stage.state().notes) == 300


@pytest.mark.parametrize("notes", [(), ((("ann", None),), 0), ((("ann", None),), ("bob", None)), ([7],), ((7,),)])
def test_a_live_write_has_a_note_of_its_part(notes: tuple[object, ...]) -> None:
    head = msgpack.packb((encode_context(Context({7: 5})), (), 1))
    live = (b"\xa1k", 5, 7, 5, b"\x01", 0)
    decode_state(msgpack.packb([head, msgpack.packb((1, "m", [(*live, 0)], [("ann", None)]))]))
    with pytest.raises(Malformed):
        decode_state(msgpack.packb([head, msgpack.packb((1, "m", [(*live, 0)], *notes))]))
    for place in (1, -1, True, None, "0"):
        with pytest.raises(Malformed):
            decode_state(msgpack.packb([head, msgpack.packb((1, "m", [(*live, place)], [("ann", None)]))]))
