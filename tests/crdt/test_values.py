"""Which Python values can be keys and which can be values? The rest is refused at the call, with a message that helps.

A key has one encoding, since it is found by its bytes. A value may be anything like JSON; it comes out as it went in,
tuples as lists. Not here: what a peer may send in their place (test_codec).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from math import inf, isnan
from typing import Any

import pytest

from crdt import (
    LWWMap,
    LWWRegister,
    ORSet,
    Store,
    decode_element,
    decode_value,
    encode_element,
    encode_value,
)
from crdt.codec import MAX_DEPTH, MAX_ELEMENT, MAX_VALUE

# -- keys and set members ----------------------------------------------------------------------------------------------


def test_elements_that_python_calls_equal_are_different_keys() -> None:
    different: list[object] = [1, True, 1.0, "1", b"1", (1,), ("1",), ((1,),), None, (), "", b"", 0, False, 0.0]
    encoded = [encode_element(element) for element in different]
    assert len(set(encoded)) == len(different)
    for element, data in zip(different, encoded, strict=True):
        assert decode_element(data) == element and type(decode_element(data)) is type(element)
    assert encode_element(-0.0) == encode_element(0.0) and encode_element((-0.0,)) == encode_element((0.0,))
    store = Store()
    members = ORSet(store, "s")
    for n, element in enumerate(different):
        store.merge(members.add(element, 7, stamp=n))
    assert len(members) == len(different)


def test_an_element_may_fill_64_bits_and_512_bytes() -> None:
    for element in (2**64 - 1, -(2**63), "x" * 509, b"x" * 509, ("x" * 254, "y" * 252)):
        encoded = encode_element(element)
        assert decode_element(encoded) == element and len(encoded) <= MAX_ELEMENT


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("element", "error", "says"),
    [
        (float("nan"), ValueError, "nan can not be a key"),
        (("a", (float("nan"),)), ValueError, "nan can not be a key"),
        ("\ud800", ValueError, "lone surrogate"),
        (("a", "\udfff"), ValueError, "lone surrogate"),
        (2**64, ValueError, "must fit 64 bits"),
        (-(2**63) - 1, ValueError, "must fit 64 bits"),
        ("x" * 510, ValueError, "a key of 513 bytes is too long: at most 512"),
        (("x" * 500, "y" * 500), ValueError, "too long"),
        ([1], TypeError, "not list: convert it"),
        ({"a": 1}, TypeError, "not dict: convert it"),
        (("a", ["b"]), TypeError, "not list: convert it"),
        (Decimal(1), TypeError, "not Decimal: convert it"),
        (Colour.RED, TypeError, "not Colour: convert it"),
        (object(), TypeError, "not object: convert it"),
        (bytearray(b"x"), TypeError, "not bytearray: convert it"),
    ],
    ids=lambda case: "an object" if type(case) is object else repr(case)[:30],
)
def test_what_can_not_be_a_key_is_refused_at_the_call(element: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        encode_element(element)
    store = Store()
    with pytest.raises(error, match=says):
        LWWMap(store, "m").set(element, 1, 7, stamp=1)
    with pytest.raises(error, match=says):
        ORSet(store, "s").add(element, 7, stamp=1)


def test_a_tuple_without_end_is_no_key() -> None:
    element: tuple[object, ...] = ()
    for _ in range(100_000):
        element = (element,)
    with pytest.raises(TypeError):
        encode_element(element)


# -- values ------------------------------------------------------------------------------------------------------------


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", [lambda part: [part], lambda part: {"k": part}, lambda part: [0, part, "x"]])
def test_a_value_may_be_nested_32_deep_and_no_deeper(wrap: Callable[[Any], Any]) -> None:
    deepest = nested(MAX_DEPTH, wrap)
    assert decode_value(encode_value(deepest)) == deepest
    for depth in (MAX_DEPTH + 1, 50_000):
        with pytest.raises(ValueError, match="nested deeper than 32, or contains itself"):
            encode_value(nested(depth, wrap))


def test_a_value_that_contains_itself_is_refused() -> None:
    endless: list[object] = [1]
    endless.append(endless)
    around: dict[str, object] = {}
    around["again"] = [around, around]
    for value in (endless, around, {"inside": endless}):
        with pytest.raises(ValueError, match="contains itself"):
            encode_value(value)


def test_a_value_may_fill_a_mebibyte_and_no_byte_more() -> None:
    for full in ("x" * (MAX_VALUE - 5), b"x" * (MAX_VALUE - 5), [True] * (MAX_VALUE - 5)):
        encoded = encode_value(full)
        assert len(encoded) == MAX_VALUE and decode_value(encoded) == full
        with pytest.raises(ValueError, match=r"a value of 1048577 bytes is too large: at most 1048576 .*files"):
            encode_value(full + full[:1])


class Level(IntEnum):
    LOW = 1


def test_values_come_back_as_json_would_have_them_and_a_little_better() -> None:
    value = {"a": [1, 2.5, None, True, "é", b"raw"], 7: {b"k": {}}, None: [], 1.5: -(2**63), True: 2**64 - 1}
    assert repr(decode_value(encode_value(value))) == repr(value)
    assert decode_value(encode_value((1, (2, 3)))) == [1, [2, 3]]
    assert decode_value(encode_value(OrderedDict(a=1))) == {"a": 1}
    assert decode_value(encode_value([Level.LOW, Colour.RED])) == [1, "red"]
    assert isnan(decode_value(encode_value(float("nan")))) and decode_value(encode_value([-inf])) == [-inf]


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        ({1, 2}, TypeError, "a value can be .*, not set$"),
        (object(), TypeError, "a value can be .*, not object$"),
        ([datetime(2024, 1, 1)], TypeError, "a value can be .*, not datetime$"),
        ({"k": Decimal("1.5")}, TypeError, "a value can be .*, not Decimal$"),
        (bytearray(b"x"), TypeError, "a value can be .*, not bytearray$"),
        (len, TypeError, "a value can be .*, not builtin_function_or_method$"),
        ({(1, 2): 3}, TypeError, "has a key of type tuple: use str"),
        ([{"a": {frozenset(): 1}}], TypeError, "has a key of type frozenset: use str"),
        (2**64, ValueError, "must fit 64 bits"),
        ([-(2**63) - 1], ValueError, "must fit 64 bits"),
        ({2**64: 1}, ValueError, "must fit 64 bits"),
        ("\ud800", ValueError, "lone surrogate"),
        ({"\udfff": 1}, ValueError, "lone surrogate"),
    ],
)
def test_what_can_not_be_a_value_is_refused_at_the_call(value: object, error: type[Exception], says: str) -> None:
    store = Store()
    for ask in (
        lambda: encode_value(value),
        lambda: LWWMap(store, "m").set("k", value, 7, stamp=1),
        lambda: LWWRegister(store, "r").set(value, 7, stamp=1),
    ):
        with pytest.raises(error, match=says):
            ask()
    assert store.context == {} and store.objects == {}


def test_what_was_refused_leaves_nothing_in_the_next_bytes() -> None:
    """Small scalars share one packer."""
    for wrong in (2**64, "\ud800", "a" * 30 + "\ud800", {1}):
        with pytest.raises((ValueError, TypeError)):
            encode_value(wrong)
        with pytest.raises((ValueError, TypeError)):
            encode_element(wrong)
        assert encode_value("beta") == encode_element("beta") == b"\xa4beta"


def test_threads_that_encode_at_once_get_each_their_own_bytes() -> None:
    def encoded(seed: int) -> bool:
        return all(decode_value(encode_value(f"{seed} {n}")) == f"{seed} {n}" for n in range(2_000))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(encoded, range(4)))


def test_a_short_value_that_can_be_changed_is_a_fresh_one_at_every_read() -> None:
    """What is remembered is given to all."""
    for value in ([], {}, [1], {"a": [1]}):
        encoded = encode_value(value)
        for _ in range(2):
            read = decode_value(encoded)
            assert read == value and decode_value(encoded) is not read
            read.clear()
