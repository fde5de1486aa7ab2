"""Does an update of a map do what its writes do one by one, and nothing if one of them can not be?"""

from __future__ import annotations

import asyncio
import threading
from random import Random
from typing import Any

import pytest

import gossip
from gossip.handle import STEP
from tests.waiting import nodes, until, until_here


class Keyed:
    """Has what a dict asks of a mapping, and no more: it can not be iterated."""

    def keys(self) -> list[str]:
        return ["a", "b"]

    def __getitem__(self, key: str) -> int:
        return ord(key)


@pytest.mark.parametrize(
    ("given", "named", "expected"),
    [
        ({"a": 1, "b": 2}, {"c": 3}, [("a", 1), ("b", 2), ("c", 3)]),
        ([("a", 1), ("a", 2)], {}, [("a", 2)]),
        (((n, n) for n in range(3)), {}, [(0, 0), (1, 1), (2, 2)]),
        ([(1, "int"), (True, "bool"), (1.0, "float")], {}, [(1, "int"), (True, "bool"), (1.0, "float")]),
        (Keyed(), {}, [("a", 97), ("b", 98)]),
        ((), {}, []),
        ((), {"other": 5}, [("other", 5)]),
    ],
    ids=[
        "mapping and keywords",
        "pairs",
        "generator",
        "keys that a dict takes for one",
        "keyed",
        "nothing",
        "a keyword",
    ],
)
def test_whatever_a_dict_takes_is_taken(cluster: str, given: Any, named: Any, expected: list[tuple[Any, Any]]) -> None:
    with gossip.Node(cluster) as node:
        m = node.map("m", key=object)
        m.update(given, **named)
        assert sorted(map(repr, m.items())) == sorted(map(repr, expected))


def test_one_that_can_not_be_written_leaves_all_unwritten(cluster: str) -> None:
    with gossip.Node(cluster) as node:
        m = node.map("m", int)
        m["before"] = 1
        with pytest.raises(gossip.WrongType, match=r"m\['bad'\]: expected int, got str"):
            m.update({"good": 1, "bad": "2"})  # type: ignore[dict-item]
        with pytest.raises(gossip.WrongType, match="a key of 'm'"):
            node.map("m").update([("good", 1), (object(), 2)])
        for wrong in (5, [1, 2], "ab", [("a",)], None):
            with pytest.raises(TypeError, match=r"m\.update takes .*pairs of key and value, not "):
                m.update(wrong)
        with pytest.raises(ValueError, match="invalid literal"):
            m.update((text, int(text)) for text in ("1", "one"))
        assert dict(m) == {"before": 1}
    with pytest.raises(gossip.NotRunning):
        m.update({"late": 1})


@pytest.mark.parametrize("where", ["loop", "thread", "batch"])
def test_many_keys_again_and_again_are_what_the_last_said_everywhere(cluster: str, where: str) -> None:
    """More than are written in one go, some of them already in the same turn, and some ending by themselves."""
    random, size = Random(1), 3 * STEP

    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            m, expected = ann.map("m", int), {}

            def write() -> None:
                for turn in range(4):
                    some = {f"k{random.randrange(size)}": turn for _ in range(size)}
                    key = next(iter(some))
                    m[key] = -1
                    m.set("mortal", turn, ttl=1000)
                    m.update(some)
                    m.update(mortal=turn, last=turn)
                    expected.update(some, mortal=turn, last=turn)

            if where == "thread":
                await asyncio.to_thread(write)
            elif where == "batch":
                with ann.batch():
                    write()
            else:
                write()
                assert dict(m) == expected, "at once"
            await until(lambda: bob.map("m", int).get("last") == 3)
            await until(lambda: ann.status()["digest"] == bob.status()["digest"])
            assert dict(bob.map("m", int)) == dict(m) == expected

    asyncio.run(story())


def test_an_update_of_a_batch_is_seen_whole(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob), bob.map("m").watch(snapshot=False) as changes:
            with ann.batch(author="ann"):
                ann.map("m").update({f"k{number}": number for number in range(500)})
                assert not bob.map("m")
            steps = changes.steps()
            assert len(await anext(steps)) == 500
            assert bob.map("m").entry("k499").by == "ann"

    asyncio.run(story())


def test_threads_that_update_at_once_lose_nothing(cluster: str) -> None:
    with gossip.Node(cluster) as ann, gossip.Node(cluster) as bob:

        def write(who: int) -> None:
            for start in range(0, 2000, 250):
                ann.map("m", int).update({f"{who}-{number}": number for number in range(start, start + 250)})

        threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until_here(lambda: len(bob.map("m")) == 8000)
        until_here(lambda: ann.status()["digest"] == bob.status()["digest"])
        assert all(bob.map("m", int)[f"{who}-{number}"] == number for who in range(4) for number in range(2000))


def test_what_is_large_reaches_others_however_much_of_it_comes_after_what_is_small(cluster: str) -> None:
    """It was one batch of five megabytes, cut into parts of as many writes each: the last had all the large ones, was
    longer than a message may be, and no peer ever took it, nor anything that was written after it."""

    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            small, large = {f"s{number}": "" for number in range(1_000)}, {f"l{n}": "x" * 1_000_000 for n in range(5)}
            ann.map("m", str).update(small | large)
            await until(lambda: len(bob.map("m")) == 1_005)

    asyncio.run(story())


def test_an_update_that_is_too_much_for_its_batch_is_refused(cluster: str) -> None:
    too_large = pytest.raises(ValueError, match="would become larger")
    with gossip.Node(cluster, max_transaction=100_000) as node, too_large, node.batch():
        node.map("m").update({f"k{number}": "x" * 1_000 for number in range(500)})


def test_what_an_update_replaces_in_a_turn_comes_after_what_was_written_before_it(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node, node.map("m").watch(snapshot=False) as changes:
            m = node.map("m")
            m["a"] = m["b"] = 1
            m.update(a=2)
            assert [(await anext(changes)).key for _ in range(2)] == ["b", "a"]

    asyncio.run(story())


def test_a_text_is_no_key_where_keys_are_of_another_type(cluster: str) -> None:
    with gossip.Node(cluster) as node, gossip.Node(cluster) as other:
        node.map("m").update(text=1)
        until_here(lambda: "text" in node.map("m") and other.status()["digest"] == node.status()["digest"])
        assert "text" not in other.map("m", key=int)
