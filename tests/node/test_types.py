"""Which values may be shared, what comes back, and who is told when one may not?

What does not fit is refused at the call, by the worker whose fault it is, and nothing has changed then. What another
worker wrote under another type is refused at the read, with the key and the author.
"""

from __future__ import annotations

import asyncio
import enum
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import pydantic
import pytest

import gossip
from tests.waiting import nodes, until

DEEP: Any = []
for _ in range(40):
    DEEP = [DEEP]
ENDLESS: Any = {}
ENDLESS["self"] = [ENDLESS]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Item:
    name: str
    price: Decimal = Decimal("0.10")
    colours: list[Colour] = field(default_factory=list)
    raw: bytes = b""


class Cart(TypedDict):
    owner: UUID
    items: list[Item]


class Point(NamedTuple):
    x: int
    y: int


class User(pydantic.BaseModel):
    name: str
    born: date
    colour: Colour = Colour.RED


@pytest.fixture
def node(cluster: str) -> Iterator[gossip.Node]:
    with gossip.Node(cluster) as node:
        yield node


UUIDS = UUID(int=7)
FITTING = [
    (bool, True), (int, -(2**63)), (int, 2**64 - 1), (float, 0.1), (str, "žluť 🐎"), (str, ""), (bytes, b"\x00\xff"),
    (list, [1, [2.5, None], {"a": b"x"}]), (dict, {"a": {"b": [True]}}), (object, {"any": [1, "thing", None]}),
    (date, date(2026, 11, 21)), (datetime, datetime(2026, 11, 21, 1, 2, 3, 456789, UTC)),
    (datetime, datetime(2026, 11, 21, 1, 2, 3)), (timedelta, timedelta(days=1, microseconds=1)),
    (UUID, UUIDS), (Decimal, Decimal("1.10")), (Colour, Colour.BLUE), (Level, Level.HIGH),
    (Item, Item("pen", Decimal("9.99"), [Colour.RED], b"\xff")), (Cart, {"owner": UUIDS, "items": [Item("pen")]}),
    (Point, Point(1, 2)), (list[int], [1, 2]), (dict[str, list[float]], {"a": [0.5]}), (dict[int, str], {1: "one"}),
    (dict[UUID, int], {UUIDS: 1}), (tuple[int, str], (1, "a")), (set[int], {1, 2}), (frozenset[int], frozenset((1, 2))),
    (int | None, None), (int | None, 3), (Literal["on", "off"], "off"), (Item | None, Item("pen")),
    (User, User(name="ann", born=date(2000, 1, 1), colour=Colour.BLUE)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), FITTING, ids=lambda each: getattr(each, "__name__", str(each))[:20])
def test_a_value_comes_back_as_it_was(node: gossip.Node, kind: Any, value: Any) -> None:
    values, single = node.map("values", kind), node.register("single", kind)
    values["k"] = value
    single.set(value)
    assert values["k"] == value == single.value
    assert type(values["k"]) is type(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (bool, 1), (bool, "yes"), (bool, None), (int, True), (int, 1.0), (int, "1"), (float, True), (float, "0.1"),
        (str, b"x"), (str, 1), (str, Level.LOW), (bytes, "x"), (bytes, bytearray(b"x")), (list, {1: 2}), (dict, [1]),
        (dict, OrderedDict(a=1)), (list[int], ["1"]), (list[int], [True]), (dict[str, int], {"a": "b"}),
        (dict[str, int], {1: 1}), (date, "yesterday"), (date, 7), (datetime, date(2026, 1, 1)), (UUID, "no"),
        (Colour, "green"), (Item, {"nam": "pen"}), (Item, Item(7)), (Item, object()), (Cart, {"owner": UUIDS}),  # type: ignore[arg-type]
        (Literal["on", "off"], "maybe"), (int | None, "x"), (User, {"name": "ann"}), (User, 7),
    ],
    ids=lambda each: getattr(each, "__name__", str(each))[:20],
)  # fmt: skip
def test_what_is_of_another_type_is_refused_at_the_call(node: gossip.Node, kind: Any, value: Any) -> None:
    values, single = node.map("values", kind), node.register("single", kind)
    before = node.status()["writes_delivered"]
    for write in (
        lambda: values.__setitem__("k", value),
        lambda: single.set(value),
        lambda: values.setdefault("k", value),
    ):
        with pytest.raises(gossip.WrongType) as refused:
            write()
        assert isinstance(refused.value, TypeError)
    assert "k" not in values and single.value is None and node.status()["writes_delivered"] == before


@pytest.mark.parametrize(
    "value",
    [
        object(), {1, 2}, len, 1j, Decimal(1), Item("pen"), [object()], {"a": {"b": object()}}, {(1, 2): 3},
        ENDLESS, DEEP, "x" * ((1 << 20) + 1), ["x" * 1000] * 1100, "\udc80", ["\ud800"],
        {"\udfff": 1}, 2**64, -(2**63) - 1,
    ],
    ids=lambda each: type(each).__name__,
)  # fmt: skip
def test_what_nobody_could_read_is_refused_at_the_call(node: gossip.Node, value: Any) -> None:
    values, single, elements = node.map("values"), node.register("single"), node.set("elements")
    values["k"] = "before"
    before = node.status()["writes_delivered"]
    for write in (lambda: values.__setitem__("k", value), lambda: single.set(value), lambda: values.update(j=value)):
        with pytest.raises((TypeError, ValueError)):
            write()
    if not (isinstance(value, list) and value and value[0] is DEEP):
        with pytest.raises((TypeError, ValueError)):
            elements.add(value)
    assert values == {"k": "before"} and single.value is None and not elements
    assert node.status()["writes_delivered"] == before
    values["k"] = "after"
    assert values["k"] == "after", "and the node lives"


@pytest.mark.parametrize(
    "key", [float("nan"), "\udc80", "x" * 600, b"x" * 600, [1], {}, object(), (1, [2]), 2**64, ("deep", ("er", {1}))],
    ids=lambda each: type(each).__name__,
)  # fmt: skip
def test_what_can_be_no_key_is_refused_at_the_call(node: gossip.Node, key: Any) -> None:
    things, elements = node.map("things", key=object), node.set("elements")
    for write in (lambda: things.__setitem__(key, 1), lambda: elements.add(key)):
        with pytest.raises((TypeError, ValueError)):
            write()
    assert not things and not elements and node.status()["writes_delivered"] == 0


@pytest.mark.parametrize(
    "key", [float("nan"), "\udc80", "x" * 600, b"x" * 600, 2**64], ids=lambda key: type(key).__name__
)
def test_what_can_be_no_key_is_nowhere_for_a_reader(node: gossip.Node, key: Any) -> None:
    things, elements = node.map("things", key=object), node.set("elements")
    assert key not in things and things.get(key, 7) == 7 and key not in elements
    elements.discard(key)
    with pytest.raises(KeyError):
        things[key]
    with pytest.raises(KeyError):
        elements.remove(key)


def test_a_typed_key_or_element_is_refused_at_the_call(node: gossip.Node) -> None:
    flags, online, numbers = node.map("flags", bool), node.set("online", str), node.map("numbers", key=int)
    for write in (lambda: flags.__setitem__(1, True), lambda: online.add(1), lambda: numbers.__setitem__(True, 1)):
        with pytest.raises(gossip.WrongType):
            write()


def test_the_largest_value_is_shared(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            value = "x" * ((1 << 20) - 5)
            ann.map("m", str)["k"] = value
            await until(lambda: bob.map("m", str).get("k") == value)

    asyncio.run(story())


def test_a_float_given_as_an_integer_comes_back_as_a_float(node: gossip.Node) -> None:
    prices = node.map("prices", float)
    prices["a"] = 1
    assert type(prices["a"]) is float


def test_who_wrote_another_type_is_named_at_the_read(cluster: str) -> None:
    """Two releases of a program disagree about a type. The reader must be told where, and by whom."""

    async def story() -> None:
        async with nodes(cluster) as (old, new):
            author = f"{old.me.instance:016x}"
            old.map("flags", str)["beta"] = "yes"
            old.set("online", int).add(7)
            old.map("by id", key=int)[8] = 1
            old.register("motd", int).set(9)
            await until(lambda: new.register("motd").value)
            flags, online, motd = new.map("flags", bool), new.set("online", str), new.register("motd", str)
            by_id = new.map("by id", key=str)
            for read, what in (
                (lambda: flags["beta"], "flags['beta']"),
                (lambda: dict(flags), "flags['beta']"),
                (lambda: flags.entry("beta"), "flags['beta']"),
                (lambda: list(flags.values()), "flags['beta']"),
                (lambda: list(online), "online has 7"),
                (lambda: list(by_id), "by id has 8"),
                (lambda: list(by_id.items()), "by id has 8"),
                (lambda: motd.value, "motd"),
            ):
                with pytest.raises(gossip.WrongType) as refused:
                    read()
                assert what in str(refused.value) and author in str(refused.value), refused.value
            assert "beta" in flags and list(flags) == ["beta"] and len(online) == 1
            flags["beta"] = True
            assert flags["beta"] is True, "whoever writes it anew mends it"

    asyncio.run(story())


def test_a_watch_over_another_type_says_so_and_goes_on(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (old, new):
            flags = new.map("flags", bool)
            async with flags.watch(snapshot=False) as changes:
                old.map("flags", str)["beta"] = "yes"
                with pytest.raises(gossip.WrongType, match=r"flags\['beta'\]"):
                    await anext(changes)
                flags["sale"] = True
                change = await anext(changes)
                assert (change.key, change.value) == ("sale", True)

    asyncio.run(story())


def test_what_is_refused_is_told_with_its_place(node: gossip.Node) -> None:
    flags, online, motd, anything = (
        node.map("flags", bool),
        node.set("online", str),
        node.register("m", int),
        node.map("x"),
    )
    for write, place in (
        (lambda: flags.__setitem__("beta", "yes"), r"^flags\['beta'\]: expected bool, got str$"),
        (lambda: flags.__setitem__(7, True), r"^a key of 'flags': expected str, got int$"),
        (lambda: online.add(7), r"^an element of 'online': expected str, got int$"),
        (lambda: motd.set("x"), r"^m: expected int, got str$"),
        (lambda: anything.__setitem__("k", {1}), r"^x\['k'\]: .*not set; give the type: node\.map\('x', set\)$"),
        (lambda: anything.__setitem__("k", [Item("pen")]), r"^x\['k'\]: .*not Item$"),
    ):
        with pytest.raises(gossip.WrongType, match=place):
            write()
    with pytest.raises(ValueError, match=r"^x\['k'\]: .* too large"):
        anything["k"] = bytes(2 << 20)


def test_a_value_that_needs_its_type_says_how_to_give_it(node: gossip.Node) -> None:
    with pytest.raises(gossip.WrongType, match=r"node\.map\('carts', Item\)"):
        node.map("carts")["ann"] = Item("pen")
    node.map("carts", Item)["ann"] = Item("pen")
    assert node.map("carts", Item)["ann"] == Item("pen")


@pytest.mark.parametrize("kind", [True, 5, "int", [int], len, complex, threading.Thread], ids=str)
def test_what_is_no_type_is_refused_where_the_object_is_got(kind: Any) -> None:
    node = gossip.Node("shop")
    for get in (lambda: node.map("m", kind), lambda: node.map("m", key=kind), lambda: node.set("s", kind),
                lambda: node.register("r", kind)):  # fmt: skip
        with pytest.raises(gossip.WrongType, match="no type of which values can be shared"):
            get()
