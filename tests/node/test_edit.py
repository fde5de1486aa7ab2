"""May a value be changed in place, and do many counters make one object?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import gossip
from tests.waiting import nodes, until, until_here


@dataclass
class Cart:
    items: list[int]


@pytest.fixture
def node(cluster: str) -> Iterator[gossip.Node]:
    with gossip.Node(cluster) as node:
        yield node


def test_what_is_edited_is_assigned_back(node: gossip.Node) -> None:
    carts, plain = node.map("carts", Cart), node.map("plain", list[int])
    carts["ann"] = Cart([1])
    with carts.edit("ann") as cart:
        cart.items.append(2)
        assert carts["ann"] == Cart([1]), "not before the end"
    assert carts["ann"] == Cart([1, 2])
    with plain.edit("new", default=[]) as items:
        items.append(7)
    assert plain["new"] == [7]
    with pytest.raises(KeyError, match="gone"), plain.edit("gone"):
        raise AssertionError("there is nothing to edit")


def test_an_edit_that_changes_nothing_writes_nothing_and_one_that_fails_neither(node: gossip.Node) -> None:
    things = node.map("m", dict)
    things["k"] = {"a": 1}
    before = node.status()["writes_delivered"]
    with things.edit("k"):
        pass
    with pytest.raises(ZeroDivisionError), things.edit("k") as value:
        value["a"] = 1 / 0
    with pytest.raises(RuntimeError), things.edit("k") as value:
        value["a"] = 2
        raise RuntimeError
    with pytest.raises(gossip.WrongType, match=r"m\['k'\]"), things.edit("k") as value:
        value["a"] = object()
    assert things["k"] == {"a": 1} and node.status()["writes_delivered"] == before


def test_an_edit_keeps_the_end_of_what_it_edits(node: gossip.Node) -> None:
    things = node.map("m", list)
    things.set("soon", [], ttl=0.3)
    things.set("mine", [], owned=True)
    for key in ("soon", "mine"):
        with things.edit(key) as value:
            value.append(1)
        assert things[key] == [1]
    assert things.entry("mine").owned and things.entry("soon").expires is not None
    until_here(lambda: "soon" not in things)
    with pytest.raises(KeyError):
        del things["soon"]


def test_counters_by_name(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            views = ann.counters("views")
            views["/home"].increment()
            views["/home"].increment(2)
            views["/about"].increment()
            bob.counters("views")["/home"].increment(10)
            ann.counters("views of others")["/home"].increment()
            ann.counter("views").increment(99)
            for node in (ann, bob):
                await until(lambda node=node: node.counters("views").totals() == {"/home": 13, "/about": 1})
                seen = node.counters("views")
                assert set(seen) == {"/home", "/about"} and len(seen) == 2
                assert "/home" in seen and "/gone" not in seen and 7 not in seen and seen["/gone"].value == 0
                assert repr(seen).endswith(": 2 counters>")

    asyncio.run(story())
