"""Does every parser stand what a seed makes of real bytes? The part of the fuzzing that runs with the other tests.

The same every time, and done in half a minute; `make fuzz` goes on from here, with a million and a look at coverage.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import get_args

import pytest

from gossip.protocol.codec import Codec
from gossip.protocol.messages import Message
from tests.fuzz import __main__ as fuzz
from tests.fuzz.messages import CLUSTER, contents
from tests.fuzz.mutation import bent
from tests.fuzz.targets import TARGETS, Messages, Target

ONE_SHARE = 15
"""Of so many of the million, each target is run: some 66 000 in all."""
MOST = 200_000
"""Bytes of the corpus: it is read by people, and cloned by everybody."""


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_seed_makes_of_real_bytes_is_taken_or_refused(name: str) -> None:
    done, taken = fuzz.seeded(name, fuzz.SHARES[name] // ONE_SHARE, seed=1, seconds=8.0)
    assert taken > 3, "a target that refuses everything tests nothing"
    print(f"{name}: {done} runs, {taken} taken")


@pytest.mark.parametrize("name", TARGETS)
def test_each_seed_cut_off_anywhere_is_taken_or_refused(name: str) -> None:
    target = TARGETS[name]()
    try:
        for seed in target.seeds():
            for length in range(0, len(seed), 1 + len(seed) // 40):
                target.run(seed[:length])
    finally:
        target.close()


def test_nodes_say_each_kind_of_message_in_the_story_that_the_fuzzing_begins_with() -> None:
    assert set(contents()) == {kind.__name__ for kind in get_args(Message)}


def test_the_corpus_is_small_and_has_what_nodes_say_now() -> None:
    """It was written by `python -m tests.fuzz --corpus`: once more, if messages have changed since."""
    files = [path for path in fuzz.CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(TARGETS) == set(fuzz.SHARES)
    assert sum(path.stat().st_size for path in files) < MOST
    head = Messages()._head
    kinds = {
        type(Codec(CLUSTER).decode(head + path.read_bytes())[1]) for path in files if path.parent.name == "messages"
    }
    assert kinds == set(get_args(Message))


def test_a_million_is_a_million() -> None:
    assert sum(fuzz.SHARES.values()) >= 1_000_000


class Careless:
    """A parser with a bug: it believes a length."""

    taken = 0

    def seeds(self) -> list[bytes]:
        return [b"\x04abcd"]

    def run(self, data: bytes) -> None:
        if data:
            assert len(data) > data[0]

    def close(self) -> None:
        pass


def test_a_bug_is_found_kept_and_can_be_replayed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fuzz, "FOUND", tmp_path)
    monkeypatch.setitem(TARGETS, "careless", Careless)
    with pytest.raises(AssertionError):
        fuzz.seeded("careless", 1_000, seed=1)
    (found,) = tmp_path.iterdir()
    with pytest.raises(AssertionError):
        fuzz.replay("careless", found)


def test_one_seed_bends_one_way() -> None:
    target: Target = Messages()
    seeds = target.seeds()

    def made() -> list[bytes]:
        chance = Random(7)
        return [bent(chance.choice(seeds), chance, seeds) for _ in range(500)]

    assert made() == made()
    assert len(set(made())) > 400, "and no two alike, or few"
