"""Is a program that uses the kernel against its rules told so, before anything is lost in silence?

Not here: values and keys that can not be (test_values), bytes that nobody should have sent (test_codec).
"""

from __future__ import annotations

from typing import Any

import pytest

from crdt import LWWMap, Store

ANN = 7


def test_two_asks_before_a_merge_are_told_when_the_second_is_merged() -> None:
    """Both got the same number, and the second was taken for the first come again: lost without a word."""
    store = Store()
    flags = LWWMap(store, "flags")
    first, second = flags.set("beta", True, ANN, stamp=1), flags.set("beta", False, ANN, stamp=2)
    assert store.merge(first) is not None
    with pytest.raises(ValueError, match="merge each write before you ask for the next"):
        store.merge(second)
    assert store.merge(first) is None and flags.get("beta") is True


def test_of_another_key_the_second_of_two_asks_is_taken_for_a_repetition() -> None:
    """What is dead leaves nothing by which it could be told apart, so README says what to do."""
    store = Store()
    flags = LWWMap(store, "flags")
    first, second = flags.set("beta", True, ANN, stamp=1), flags.set("sale", True, ANN, stamp=2)
    assert store.merge(first) is not None
    assert store.merge(second) is None and "sale" not in flags


@pytest.mark.parametrize("stamp", [-1, 2**64, 1.5, True, "now"])
def test_a_stamp_that_is_no_number_of_64_bits_is_refused_at_the_call(stamp: Any) -> None:
    """The store took it, and made a state of it that it could not read again."""
    with pytest.raises((TypeError, ValueError), match=r"^stamp .* is a number from 0 to 2\*\*64 - 1"):
        LWWMap(Store(), "m").set("k", 1, ANN, stamp)


@pytest.mark.parametrize("replica", [0, -1, 2**64, "me", 1.0])
def test_a_replica_that_is_no_number_of_64_bits_is_refused_at_the_call(replica: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^replica .* is a number from 1 to 2\*\*64 - 1"):
        LWWMap(Store(), "m").set("k", 1, replica, stamp=1)
