"""Does everybody see on whose behalf something was written, and why, for as long as it is there and no longer?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import gossip
from crdt import Batch, Malformed, Note, Write, decode_batch, encode_batch
from crdt.codec import pack
from gossip.protocol.log import Entry, Log
from tests.waiting import nodes, until


@pytest.fixture
def node(cluster: str) -> Iterator[gossip.Node]:
    with gossip.Node(cluster) as node:
        yield node


def test_the_author_and_the_note_of_a_batch_show_everywhere_and_go_with_what_it_wrote(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            with ann.batch(author="ann@shop", note="prices of May"):
                ann.map("prices")["tea"] = 3
                ann.set("sold out").add("cake")
                ann.register("motd").set("new prices")
            ann.map("prices")["milk"] = 1
            await until(lambda: len(bob.map("prices")) == 2)
            for node in (ann, bob):
                tea, milk = node.map("prices").entry("tea"), node.map("prices").entry("milk")
                motd = node.register("motd").entry()
                assert (tea.by, tea.note) == ("ann@shop", "prices of May")
                assert tea.author == milk.author == ann.me.instance, "which is who wrote it"
                assert (milk.by, milk.note) == (None, None), "what came after the batch is not of it"
                assert node.set("sold out").entry("cake").note == motd.note == "prices of May"  # type: ignore[union-attr]
            bob.map("prices")["tea"] = 4
            bob.set("sold out").remove("cake")
            bob.register("motd").delete()
            await until(lambda: ann.map("prices")["tea"] == 4 and not ann.set("sold out"))
            await until(lambda: ann.register("motd").entry() is None)
            assert ann.map("prices").entry("tea").note is None
            assert ann._store.notes == bob._store.notes == {}, "nothing of it is kept"

    asyncio.run(story())


def test_a_newcomer_and_a_disk_have_the_notes_too(cluster: str, tmp_path: Path) -> None:
    with gossip.Node(cluster, data_dir=tmp_path) as ann:
        with ann.batch(note="because"):
            ann.map("m")["k"] = 1
        with gossip.Node(cluster) as late:
            assert late.map("m").entry("k").note == "because"
    with gossip.Node(cluster, data_dir=tmp_path) as again:
        assert again.map("m").entry("k").note == "because"


def test_a_block_inside_another_says_what_it_says_and_takes_the_rest_from_it(node: gossip.Node) -> None:
    m = node.map("m")
    with node.batch(author="ann", note="outer"):
        m["a"] = 1
        with node.batch(note="inner"):
            m["b"] = 1
        with node.batch():
            m["c"] = 1
        m["d"] = 1
    told = {key: (m.entry(key).by, m.entry(key).note) for key in m}
    assert told == {"a": ("ann", "outer"), "b": ("ann", "inner"), "c": ("ann", "outer"), "d": ("ann", "outer")}


def test_all_of_a_batch_is_one_step_however_its_notes_change(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            seen: list[set[str]] = []
            bob_map = bob.map("m")
            async with bob_map.watch(snapshot=False) as changes:
                with ann.batch(note="outer"):
                    ann.map("m")["a"] = 1
                    with ann.batch(note="inner"):
                        ann.map("m")["b"] = 1
                    ann.map("m")["c"] = 1
                async for _ in changes:
                    seen.append(set(bob_map))
                    if len(seen) == 3:
                        break
            assert seen == [{"a", "b", "c"}] * 3

    asyncio.run(story())


def test_what_the_loop_writes_beside_a_threads_batch_does_not_get_its_note(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            begun, done = threading.Event(), threading.Event()

            def work() -> None:
                with ann.batch(note="of the thread"):
                    ann.map("m")["thread"] = 1
                    begun.set()
                    done.wait(20)
                    ann.map("m")["thread again"] = 1

            thread = threading.Thread(target=work)
            thread.start()
            await asyncio.to_thread(begun.wait)
            ann.map("m")["loop"] = 1
            done.set()
            await asyncio.to_thread(thread.join)
            await until(lambda: len(bob.map("m")) == 3)
            notes = {key: bob.map("m").entry(key).note for key in bob.map("m")}
            assert notes == {"thread": "of the thread", "loop": None, "thread again": "of the thread"}

    asyncio.run(story())


@pytest.mark.parametrize(
    ("by", "note", "what"),
    [
        ("x" * 129, None, "an author has 1 to 128 bytes, and this one 129"),
        (None, "x" * 1025, "a note has 1 to 1024 bytes"),
        ("", None, "an author has 1 to 128 bytes"),
        (None, "\ud800", "a note has a lone surrogate"),
        (7, None, "an author is a str, not int"),
    ],
)
def test_what_can_not_be_a_note_is_refused_before_anything_is_written(
    node: gossip.Node, by: str | None, note: str | None, what: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=what), node.batch(author=by, note=note):
        raise AssertionError("it began")


def test_many_notes_between_plain_writes_fit_what_others_may_hold_back(cluster: str) -> None:
    """Each change of the note makes a batch with the whole note: they count, or a legal transaction could be so large
    that no peer takes it."""
    with (
        gossip.Node(cluster, max_transaction=100_000) as node,
        pytest.raises(ValueError, match="larger than 100000"),
        node.batch(),
    ):
        for number in range(200):
            with node.batch(note="x" * 1_000):
                node.map("m")[f"k{number}"] = 1
            node.map("m")[f"plain{number}"] = 1


# -- the format --------------------------------------------------------------------------------------------------------

WRITE = Write((7, 1), (1, "m", b"\xa1k"), 5, b"\x01", ())


def test_a_batch_without_a_note_has_the_bytes_that_it_always_had() -> None:
    old = bytes.fromhex("950701" + "01c291" + "9700" + "01a16d" + "c402a16b" + "05" + "c40101" + "90")
    assert encode_batch(Batch(7, 1, 1, (WRITE,))) == old
    assert decode_batch(old) == Batch(7, 1, 1, (WRITE,))


@pytest.mark.parametrize(
    "note", [7, "text", (), ("a",), (None, None), ("", "x"), ("x" * 129, None), (None, "x" * 1025), (1, 2)]
)
def test_a_note_that_nobody_can_have_made_is_malformed(note: object) -> None:
    (*fields,) = (7, 1, 1, False, [(0, 1, "m", b"\xa1k", 5, b"\x01", [])])
    assert decode_batch(pack((*fields, ("ann", None)))).note == Note("ann", None)
    with pytest.raises(Malformed):
        decode_batch(pack((*fields, note)))


def test_the_log_finds_the_batch_of_a_write_as_long_as_it_has_it() -> None:
    log = Log(budget=700)
    for first, last in ((1, 2), (3, 3), (4, 9)):
        log.append(Entry(7, first, last, b"%d" % first))
    assert [log.find(7, sequence) for sequence in (1, 2, 3, 4, 9, 10)] == [b"1", b"1", b"3", b"4", b"4", None]
    log.append(Entry(8, 1, 1, b"other"))
    assert (log.find(7, 1), log.find(7, 3), log.find(9, 1)) == (None, b"3", None)


def test_a_newcomer_gets_what_has_long_notes(cluster: str, tmp_path: Path) -> None:
    """Ours: 20 000 keys with a note of 1 KB each were in parts larger than any frame, and stayed where they were."""
    with gossip.Node(cluster, data_dir=tmp_path) as ann:
        for number in range(3_000):
            with ann.batch(note=f"{number:x>1000}"):
                ann.map("m")[str(number)] = number
        with ann.batch(note="y" * 1_000):
            ann.map("m").update({f"also {number}": number for number in range(3_000)})
        with gossip.Node(cluster) as late:
            assert len(late.map("m")) == 6_000
            assert late.map("m").entry("7").note == f"{7:x>1000}"
    with gossip.Node(cluster, data_dir=tmp_path) as again:
        assert again.map("m").entry("also 7").note == "y" * 1_000
