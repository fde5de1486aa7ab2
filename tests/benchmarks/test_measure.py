"""Are figures kept, and ratios made of them, as benchmarks/measure.py says?"""

from __future__ import annotations

import asyncio
import json
from dataclasses import fields

import pytest

from benchmarks.measure import OURS, Result, Series, Spread, each_call, in_turn, machine, percentile, resident


def told(**rounds: list[float]) -> Result:
    """A result of one thing measured, with these rounds of each system."""
    result = Result("local", "What does a read cost?")
    for system, figures in rounds.items():
        for figure in figures:
            result.add("read", system, figure)
    return result


def test_a_ratio_is_one_of_the_same_round() -> None:
    """The machine was slow in the second round, for both: the ratio does not see it."""
    result = told(gossamesh=[1.0, 10.0, 1.0], redis=[100.0, 1000.0, 100.0])
    assert result.ratio("read", "redis", OURS) == Spread(100, 100, 100)


def test_a_ratio_has_the_spread_of_its_rounds() -> None:
    result = told(gossamesh=[1.0, 2.0, 4.0], redis=[100.0, 100.0, 100.0])
    assert result.ratio("read", "redis", OURS) == Spread(50, 25, 100)


def test_an_advantage_is_above_one_where_we_are_better_whatever_is_better() -> None:
    result = told(gossamesh=[2.0], redis=[8.0])
    result.add("done", OURS, 8.0, "writes/s", more=True)
    result.add("done", "redis", 2.0, "writes/s", more=True)
    assert result.advantage("read", "redis") == result.advantage("done", "redis") == Spread(4, 4, 4)


def test_a_loss_is_the_median_of_what_is_shown_and_not_of_its_inverse() -> None:
    """Of ten rounds the middle two were 19 and 50 times, and the page said 27: 1 by the median of the inverses."""
    result = told(gossamesh=[19.0, 50.0], redis=[1.0, 1.0])
    result.add("done", OURS, 1.0, "writes/s", more=True)
    result.add("done", "redis", 3.0, "writes/s", more=True)
    assert result.disadvantage("read", "redis") == Spread(34.5, 19.0, 50.0)
    assert result.disadvantage("done", "redis") == Spread(3, 3, 3)
    assert result.disadvantage("unasked", "redis") is None


def test_one_that_failed_is_compared_as_far_as_it_came() -> None:
    result = told(gossamesh=[1.0, 1.0, 1.0], redis=[7.0])
    assert result.ratio("read", "redis", OURS) == Spread(7, 7, 7)
    assert result.ratio("read", "nats", OURS) is None
    assert result.advantage("write", "redis") is None


def test_a_peer_stands_for_the_fastest_of_its_clients() -> None:
    result = told(**{OURS: [1.0], "redis": [9.0], "redis, unix socket": [5.0], "redis, asyncio": [20.0]})
    assert result.fastest("read", "redis") == "redis, unix socket"
    assert result.fastest("read", "nats") is None
    for system, figure in (("redis pipeline", 5.0), ("redis pub/sub", 3.0)):
        result.add("done", system, figure, "writes/s", more=True)
    assert result.fastest("done", "redis") == "redis pipeline"


def test_what_goes_through_json_is_the_same() -> None:
    result = told(gossamesh=[1.0, 2.0], redis=[3.0])
    result.skipped["nats"] = "the module nats is not installed"
    result.failed["etcd"] = "RuntimeError: no"
    result.floors.append("dict")
    result.notes.append("a note")
    assert Result.from_dict(json.loads(json.dumps(result.as_dict()))) == result


def test_the_names_in_the_json_stay_as_they_are() -> None:
    """Who reads old results reads these; another name needs another SCHEMA."""
    names = ["question", "title", "series", "skipped", "failed", "floors", "notes", "seconds"]
    assert [each.name for each in fields(Result)] == names
    assert [each.name for each in fields(Series)] == ["what", "system", "unit", "more", "rounds"]


@pytest.mark.parametrize(("share", "figure"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_percentile_is_one_of_the_figures(share: float, figure: int) -> None:
    assert percentile(range(100, 0, -1), share) == figure


def test_everybody_has_a_turn_a_round_and_another_begins() -> None:
    turns = list(in_turn("abc", 4))
    assert "".join(name for _, name in turns) == "abcbcacababc"
    assert [number for number, _ in turns] == sorted([*range(4)] * 3)
    assert list(in_turn([], 3)) == []


def test_calls_are_made_with_their_numbers_and_the_loop_gets_its_turns() -> None:
    numbers: list[int] = []
    turns = 0

    async def scenario() -> None:
        async def beat() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beating = asyncio.create_task(beat())
        cost = await each_call(numbers.extend, 0.01, most=10)
        beating.cancel()
        assert 0 < cost.call <= cost.whole

    asyncio.run(scenario())
    assert numbers[:2] == [0, 1]
    assert max(numbers) > 10  # they go on from chunk to chunk
    assert turns >= len(numbers) // 10 - 1


def test_a_coroutine_function_is_awaited() -> None:
    done = 0

    async def calls(numbers: range) -> None:
        nonlocal done
        for _ in numbers:
            await asyncio.sleep(0)
            done += 1

    assert asyncio.run(each_call(calls, 0.005)).call > 0
    assert done >= 1


def test_a_call_that_takes_all_the_time_is_made_once() -> None:
    """Ten calls of a tenth of a second each would be a second of waiting for a figure that is known after the first."""
    made: list[int] = []
    cost = asyncio.run(each_call(made.extend, 0.0))
    assert made == [0]
    assert cost.whole >= cost.call > 0


def test_the_machine_is_described_and_not_named() -> None:
    import platform

    described = json.dumps(machine())
    assert platform.python_version() in described
    assert platform.node() == "" or f'"{platform.node()}"' not in described
    assert resident() > 1 << 20
