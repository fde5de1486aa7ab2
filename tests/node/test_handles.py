"""Do the handles behave as users of dict, set and int expect?

One node is enough for most of it: what is written is read back through the same rules that others' writes go through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import gossip
from tests.waiting import nodes, until


@pytest.fixture
def node(cluster: str) -> Iterator[gossip.Node]:
    with gossip.Node(cluster) as node:
        yield node


# --- maps -------------------------------------------------------------------------------------------------------


def test_a_map_is_a_mutable_mapping(node: gossip.Node) -> None:
    flags = node.map("flags", int)
    flags["a"] = 1
    flags.update({"b": 2}, c=3)
    flags.update([("d", 4)])
    assert flags == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert flags == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert flags != {"a": 1}
    assert len(flags) == 4 and bool(flags)
    assert sorted(flags) == ["a", "b", "c", "d"] == sorted(flags.keys())
    assert sorted(flags.values()) == [1, 2, 3, 4]
    assert sorted(flags.items()) == [("a", 1), ("b", 2), ("c", 3), ("d", 4)]
    assert "a" in flags and "z" not in flags
    assert ("a", 1) in flags.items() and ("a", 2) not in flags.items()
    assert 4 in flags.values() and 5 not in flags.values()
    assert flags.keys() & {"a", "z"} == {"a"}
    assert flags.get("a") == 1 and flags.get("z") is None and flags.get("z", 9) == 9


def test_a_map_loses_keys_as_a_dict_does(node: gossip.Node) -> None:
    flags = node.map("flags", int)
    flags.update(a=1, b=2, c=3)
    assert flags.setdefault("a", 9) == 1 and flags.setdefault("d", 9) == 9 and flags["d"] == 9
    assert flags.pop("d") == 9 and flags.pop("d", None) is None
    with pytest.raises(KeyError):
        flags.pop("d")
    with pytest.raises(KeyError, match="gone"):
        flags["gone"]
    with pytest.raises(KeyError, match="gone"):
        del flags["gone"]
    with pytest.raises(KeyError, match="gone"):
        flags.entry("gone")
    rest = dict(flags)
    key, value = flags.popitem()
    assert rest.pop(key) == value and flags == rest
    flags.clear()
    assert flags == {} and not flags
    with pytest.raises(KeyError):
        flags.popitem()
    flags.clear()
    flags["a"] = 7  # at once usable again
    assert dict(flags) == {"a": 7}


def test_a_map_can_be_written_while_it_is_iterated(node: gossip.Node) -> None:
    flags = node.map("flags", int)
    flags.update({str(number): number for number in range(20)})
    for key in flags:
        del flags[key]
        flags[key + "!"] = 1
    assert len(flags) == 20 and all(key.endswith("!") for key in flags)
    for view in (flags.items, flags.values):
        seen = 0
        for _ in view():
            flags.clear()
            flags[str(seen)] = seen
            seen += 1
        assert seen == (20 if view == flags.items else 1)


def test_handles_are_unhashable_as_dicts_and_sets_are_and_equal_by_content(node: gossip.Node) -> None:
    for handle in (node.map("x"), node.set("x")):
        with pytest.raises(TypeError):
            hash(handle)
    assert node.map("x") == node.map("y") == {}
    assert node.set("x") == node.set("y") == set()


def test_keys_of_other_types(node: gossip.Node) -> None:
    pairs = node.map("pairs", str, key=tuple)
    numbers = node.map("numbers", str, key=int)
    pairs[("cart", 7)] = "x"
    numbers[7] = "seven"
    assert dict(pairs) == {("cart", 7): "x"} and dict(numbers) == {7: "seven"}
    anything = node.map("anything", key=object)
    for key in (1, True, 1.0, "1", b"1", None, (1, "a")):
        anything[key] = repr(key)
    assert len(anything) == 7, "1, True and 1.0 are three keys, unlike in a dict"
    assert sorted(anything.values()) == sorted(map(repr, (1, True, 1.0, "1", b"1", None, (1, "a"))))


def test_an_entry_tells_its_story(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            ann.map("m", int)["k"] = 1
            there = bob.map("m", int)
            await until(lambda: "k" in there)
            entry = there.entry("k")
            assert (entry.value, entry.author, entry.conflicts) == (1, ann.me.instance, ())
            assert entry.stamp == ann.map("m", int).entry("k").stamp > 1 << 56
            assert bob.members["node-0"].instance == entry.author

    asyncio.run(story())


# --- sets -------------------------------------------------------------------------------------------------------


def test_a_set_is_a_mutable_set(node: gossip.Node) -> None:
    online = node.set("online", str)
    online.add("ann")
    online.add("ann")
    online |= {"bob", "eve"}
    assert isinstance(online, gossip.Set) and online == {"ann", "bob", "eve"} and len(online) == 3
    assert online & {"ann", "zoe"} == {"ann"}
    assert online | {"zoe"} == {"ann", "bob", "eve", "zoe"} == {"zoe"} | online
    assert online - {"ann"} == {"bob", "eve"} and {"ann", "zoe"} - online == {"zoe"}
    assert online ^ {"ann", "zoe"} == {"bob", "eve", "zoe"}
    assert type(online & {"ann"}) is set, "what an operator gives is a plain set, and nobody else's"
    assert online >= {"ann"} and {"ann"} <= online and not online < {"ann"}
    assert online.isdisjoint({"zoe"}) and not online.isdisjoint({"ann"})
    online -= {"eve", "zoe"}
    assert online == {"ann", "bob"}
    online &= {"ann", "zoe"}
    assert online == {"ann"}
    online ^= {"ann", "dan"}
    assert set(online) == {"dan"}


def test_adding_what_is_there_is_a_write_that_survives_a_remove_made_elsewhere(cluster: str) -> None:
    """As when a session is renewed on one worker in the moment in which it times out on another."""

    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            here, there = ann.set("online", str), bob.set("online", str)
            here.add("eve")
            await until(lambda: "eve" in there)
            here.add("eve")
            there.remove("eve")  # nothing was awaited: neither has heard of the other
            there.add("both are here")
            here.add("and here")
            await until(lambda: len(here) == len(there) == 3)
            assert "eve" in here and "eve" in there

    asyncio.run(story())


def test_a_set_loses_elements_as_a_set_does(node: gossip.Node) -> None:
    online = node.set("online", str)
    online |= {"ann", "bob"}
    online.discard("zoe")
    with pytest.raises(KeyError):
        online.remove("zoe")
    online.remove("ann")
    assert online.pop() == "bob" and not online
    with pytest.raises(KeyError):
        online.pop()
    online |= {str(number) for number in range(10)}
    for element in online:
        online.discard(element)
        online.add(element + "!")
    assert len(online) == 10 and all(element.endswith("!") for element in online)
    online -= online
    assert online == set()
    online.clear()


def test_however_much_there_is_clear_leaves_nothing(node: gossip.Node) -> None:
    """Ten thousand go in a step; there is more than one."""
    online, flags = node.set("online", int), node.map("flags", int, key=int)
    for number in range(20_001):
        online.add(number)
        flags[number] = number
    online.clear()
    flags.clear()
    assert (len(online), len(flags)) == (0, 0)


def test_elements_that_equal_each_other_elsewhere_are_different_here(node: gossip.Node) -> None:
    things = node.set("things")
    for element in (1, True, 1.0, "1", b"1", None, (1, 2)):
        things.add(element)
    assert len(things) == 7
    things.discard(True)
    assert True not in things and 1 in things and 1.0 in things
    things.add(0.0)
    things.add(-0.0)
    assert len(things) == 7, "they are equal, and one"


# --- counters and registers -------------------------------------------------------------------------------------


def test_a_counter_counts(node: gossip.Node) -> None:
    hits = node.counter("hits")
    assert hits.value == 0
    hits.increment()
    hits.increment(10)
    hits.decrement(4)
    assert hits.value == 7 == node.counter("hits").value
    hits.decrement(10)
    assert hits.value == -3


def test_a_step_of_nothing_changes_nothing(node: gossip.Node) -> None:
    """`hits.increment(len(rows))` works for weeks, and must when there are none."""
    hits = node.counter("hits")
    hits.increment(0)
    hits.decrement(0)
    assert hits.value == 0 and node.status()["writes_delivered"] == 0


def test_a_counter_that_is_taken_for_a_number_says_what_to_say(node: gossip.Node) -> None:
    hits = node.counter("hits")
    hits.increment(3)
    assert int(hits) == 3 and hits == hits and hits != "3" and len({hits, node.counter("hits")}) == 2
    for mistake in (lambda: hits == 3, lambda: bool(hits), lambda: hits.__iadd__(1)):
        with pytest.raises(TypeError, match=r"hits\.(value|increment\(1\))"):
            mistake()


def test_a_set_takes_many_at_once(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            ann.set("s", int).update(range(100), [100])
            await until(lambda: set(bob.set("s", int)) == set(range(101)))

    asyncio.run(story())


def test_what_this_reader_can_not_read_can_be_cleared(node: gossip.Node) -> None:
    """It stopped every walk through the map, its clearing too."""
    node.map("m", key=object)[5] = "five"
    node.set("s").add(5)
    for typed in (node.map("m", str), node.set("s", str)):
        with pytest.raises(gossip.WrongType):
            list(typed)
        typed.clear()
        assert len(typed) == 0


@pytest.mark.parametrize("amount", [-1, 1.0, True, "1", None])
def test_a_counter_refuses_what_is_no_step(node: gossip.Node, amount: object) -> None:
    hits = node.counter("hits")
    hits.increment()
    for step in (hits.increment, hits.decrement):
        with pytest.raises((ValueError, TypeError)):
            step(amount)  # type: ignore[arg-type]
    assert hits.value == 1


def test_a_counter_refuses_what_no_longer_fits(node: gossip.Node) -> None:
    hits = node.counter("hits")
    hits.increment(2**64 - 1)
    with pytest.raises(OverflowError, match="64 bits"):
        hits.increment()
    assert hits.value == 2**64 - 1
    hits.decrement(2)
    assert hits.value == 2**64 - 3


def test_a_register_holds_one_value(node: gossip.Node) -> None:
    motd = node.register("motd", str)
    assert motd.value is None and motd.conflicts == ()
    motd.delete()
    motd.set("hello")
    assert motd.value == "hello" == node.register("motd").value
    motd.set("bye")
    assert motd.value == "bye" and motd.conflicts == ()
    motd.delete()
    assert motd.value is None


# --- all of them ------------------------------------------------------------------------------------------------


def test_one_name_under_four_types_is_four_objects(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            ann.map("x", int)["k"] = 1
            ann.set("x", str).add("k")
            ann.counter("x").increment(5)
            ann.register("x", int).set(9)
            ann.map("x", int)["last"] = 1
            await until(lambda: "last" in bob.map("x"))
            assert dict(bob.map("x")) == {"k": 1, "last": 1} and set(bob.set("x")) == {"k"}
            assert bob.counter("x").value == 5 and bob.register("x").value == 9
            bob.map("x").clear()
            assert bob.set("x") == {"k"} and bob.counter("x").value == 5 and bob.register("x").value == 9

    asyncio.run(story())


def test_what_the_caller_changes_later_changes_nothing(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            cart, told = ann.map("cart", dict), ann.register("told", list)
            value = {"items": [1, 2]}
            cart["ann"] = value
            told.set(value["items"])
            value["items"].append(3)
            value["more"] = [1]
            assert cart["ann"] == {"items": [1, 2]} and told.value == [1, 2]
            there = bob.map("cart", dict)
            await until(lambda: bob.register("told").value)
            read = there["ann"]
            read["items"].clear()
            for each in (cart.get("ann"), *cart.values(), cart.entry("ann").value):
                each.clear()
            assert there["ann"] == cart["ann"] == {"items": [1, 2]}
            read["items"] += [7]
            there["ann"] = read  # assigned back, it counts
            await until(lambda: cart["ann"] == {"items": [7]})

    asyncio.run(story())


def test_two_nodes_share_all_four_types_and_deletes(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 3) as (ann, bob, eve):
            ann.map("m", int)["k"] = 1
            bob.set("s", str).add("e")
            eve.counter("c").increment(3)
            ann.counter("c").decrement()
            bob.register("r", str).set("v")
            for node in (ann, bob, eve):
                await until(
                    lambda node=node: (
                        (node.map("m"), node.set("s"), node.counter("c").value, node.register("r").value)
                        == ({"k": 1}, {"e"}, 2, "v")
                    )
                )
            del eve.map("m")["k"]
            ann.set("s").remove("e")
            ann.register("r").delete()
            for node in (ann, bob, eve):
                await until(lambda node=node: not node.map("m") and not node.set("s") and not node.register("r").value)

    asyncio.run(story())


@pytest.mark.parametrize("name", ["", 7, None, "x" * 256, "\udc80", b"x"])
def test_a_name_that_is_none_is_refused(cluster: str, name: object) -> None:
    node = gossip.Node(cluster)
    for make in (node.map, node.set, node.counter, node.register):
        with pytest.raises((ValueError, TypeError)):
            make(name)  # type: ignore[operator]


def test_handles_say_what_they_are_and_not_what_they_hold(node: gossip.Node) -> None:
    node.map("secrets", str)["k"] = "canary"
    shown = repr([node, node.map("secrets"), node.set("s"), node.counter("c"), node.register("r"), node.members])
    assert "secrets" in shown and "canary" not in shown


def test_what_can_not_be_a_key_is_simply_not_there(node: gossip.Node) -> None:
    m, s = node.map("m", int), node.set("s", str)
    m["a"] = 1
    s.add("a")
    assert 5 not in m and m.get(5) is None and m.get(5, 7) == 7 and m.pop(5, 8) == 8  # type: ignore[call-overload]
    with pytest.raises(KeyError):
        m[5]  # type: ignore[index]
    with pytest.raises(KeyError):
        m.entry(5)  # type: ignore[arg-type]
    assert m != {5: 1} and m.keys() & {5, "a"} == {"a"} and (5, 1) not in m.items()
    assert 1 not in s and s != {1} and s & {1, "a"} == {"a"} and s.isdisjoint({1}) and not s >= {1}
    with pytest.raises(gossip.WrongType):
        m[5] = 1  # type: ignore[index]
    with pytest.raises(gossip.WrongType):
        s.add(1)  # type: ignore[arg-type]
    node.map("m")["b"] = "not an int"
    with pytest.raises(gossip.WrongType):  # what is there and is wrong is told
        m.get("b")


def test_a_repr_tells_how_much_and_never_what(cluster: str) -> None:
    node = gossip.Node(cluster)
    flags, online, hits, motd = node.map("flags"), node.set("online"), node.counter("hits"), node.register("motd")
    assert repr(flags) == f"<Map 'flags' of cluster {cluster!r}>"
    with node:
        flags["a"], flags["b"] = "secret", "secret"
        online.add("ann")
        hits.increment(7)
        assert repr(motd).endswith(": empty>")
        motd.set("secret")
        told = [repr(each).split(": ")[-1] for each in (flags, online, hits, motd)]
        assert told == ["2 keys>", "1 element>", "7>", "has a value>"]
        assert repr(node).endswith(": alone>")


def test_only_counters_are_among_counters(node: gossip.Node) -> None:
    node.map("views/map")["k"] = 1
    node.set("views/set").add(1)
    node.counters("views")["page"].increment()
    assert node.counters("views").totals() == {"page": 1}


def test_the_first_change_of_a_counter_that_nobody_had_counted_is_one_from_0(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            hits = node.counter("hits")
            async with hits.watch() as changes:
                assert (await anext(changes)).kind == "complete"
                hits.increment(3)
                change = await anext(changes)
                assert (change.kind, change.previous, change.value) == ("set", 0, 3)

    asyncio.run(story())
