"""Is all of a result shown, and shown the right way round?"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.goals import GOALS, Goal
from benchmarks.measure import OURS, Result, Spread
from benchmarks.render import BEGIN, END, drawing, number, page, plain, quoted, reached, slower, spread, text

TOLD: dict[str, Any] = {
    "quick": True,
    "at": "2026-01-01 00:00 UTC",
    "commit": "abc1234",
    "machine": {"cores": 2},
    "versions": {"redis": "1.2"},
}


def result() -> Result:
    """Faster than redis, slower than memcached; a dict is a floor."""
    told = Result("local", "What does a read & a write cost?")
    for figure in (1.0, 2.0):
        told.add("read <1 KiB>", OURS, figure)
        told.add("read <1 KiB>", "redis", 100 * figure)
        told.add("read <1 KiB>", "memcached", 0.5 * figure)
        told.add("read <1 KiB>", "dict", 0.1 * figure)
    told.floors.append("dict")
    told.skipped["nats"] = "the module nats is not installed"
    told.failed["etcd"] = "RuntimeError: no"
    return told


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.012345, "0.0123"), (1.5, "1.50"), (99.96, "100.0"), (1234567.0, "1 234 567"), (float("inf"), "-")],
)
def test_a_number_has_three_digits_that_matter(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_spread_that_is_none_is_not_shown_as_one() -> None:
    assert spread(Spread(5, 5, 5)) == "5.00"
    assert spread(Spread(5, 4, 7)) == "5.00 (4.00 .. 7.00)"


def test_the_text_has_everybody_and_everything_that_went_wrong() -> None:
    shown = text(result())
    for word in (
        "redis",
        "memcached",
        "dict",
        "not measured: nats (the module nats",
        "failed: etcd (RuntimeError: no)",
    ):
        assert word in shown
    line = next(line for line in shown.splitlines() if "redis" in line)
    assert line.endswith("100 x")


def test_who_is_better_is_listed_with_how_much_and_a_floor_is_not() -> None:
    assert list(slower([result()])) == [("local", "read <1 KiB>", "memcached", "2.00 x")]


def test_the_page_has_everything() -> None:
    shown = page(TOLD, [result(), Result("relay", "relay", failed={"relay": "it broke"})])
    assert "too short for figures to quote" in shown
    for word in ("| cores | 2 |", "| redis | 1.2 |", "## local", "![local](local.svg)", "failed: relay (it broke)"):
        assert word in shown
    assert "![relay]" not in shown  # there is no drawing of nothing
    assert shown.count("not measured |") == len(GOALS)  # this run has none of what the goals are about


def test_a_drawing_is_well_formed_and_has_a_dot_for_each_system() -> None:
    root = ElementTree.fromstring(drawing(result()))
    names = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert {OURS, "redis", "memcached", "dict", "read <1 KiB>"} <= names
    circles = [element for element in root.iter() if element.tag.endswith("circle")]
    assert len(circles) == 4
    width = float(root.attrib["width"])
    assert all(0 < float(circle.attrib["cx"]) < width for circle in circles)
    ours = [circle for circle in circles if circle.attrib["class"] == "ours"]
    assert len(ours) == 1
    assert "prefers-color-scheme: dark" in drawing(result())


def test_the_scale_of_a_drawing_is_even_and_its_dots_stand_where_they_should() -> None:
    told = Result("local", "What?")
    for system, figure in ((OURS, 3.0), ("redis", 100.0), ("etcd", 2000.0)):
        told.add("read", system, figure)
    root = ElementTree.fromstring(drawing(told))
    ticks = [float(element.attrib["x"]) for element in root.iter() if element.attrib.get("class") == "tick"]
    steps = {round(right - left) for left, right in pairwise(ticks)}
    assert (len(ticks), len(steps)) == (5, 1)  # 1, 10, 100, 1 000, 10 000
    dots = [float(element.attrib["cx"]) for element in root.iter() if element.tag.endswith("circle")]
    assert ticks[0] < dots[0] < ticks[1]
    assert dots[1] == ticks[2]
    assert ticks[3] < dots[2] < ticks[4]


def test_a_drawing_of_figures_that_are_nothing_leaves_them_out() -> None:
    told = Result("sustained", "How many?")
    told.add("lost", OURS, 0.0, "writes")
    assert ElementTree.fromstring(drawing(told)) is not None


def goal(form: Any, floor: float, aim: float, beside: str = "") -> Goal:
    return Goal("it", "local", "read <1 KiB>", form, floor, aim, beside)


@pytest.mark.parametrize(
    ("asked", "verdict"),
    [
        (goal("better", 50, 99, "redis"), "aim"),
        (goal("better", 50, 200, "redis"), "floor"),
        (goal("better", 150, 200, "redis"), "**missed**"),
        (goal("share", 0.02, 0.01, "redis"), "aim"),
        (goal("share", 1.2, 0.8, "memcached"), "**missed**"),
        (goal("most", 2.0, 1.0), "floor"),
        (goal("most", 1.0, 0.5), "**missed**"),
        (goal("better", 1, 2, "nats"), ""),
    ],
)
def test_a_goal_is_met_or_missed(asked: Goal, verdict: str) -> None:
    assert reached(asked, [result()])[3] == verdict


def test_a_goal_says_beside_whom() -> None:
    assert reached(goal("better", 50, 99, "redis"), [result()])[2] == "100 times as fast as redis"
    assert reached(goal("share", 1, 0.5, "memcached"), [result()])[2] == "2.00 times that of memcached"
    assert reached(goal("better", 1, 2, "nats"), [result()])[2] == "not measured"


def test_figures_are_quoted_in_their_place_and_again_in_the_same() -> None:
    readme = f"before\n{BEGIN}\nold figures\n{END}\nafter\n"
    machine = {"processor": "some", "cores": 2, "python": "3.11", "load before": 0.1}
    told = {**TOLD, "quick": False, "machine": machine}
    once = quoted(readme, told, [result()])
    assert once.startswith(f"before\n{BEGIN}\n") and " at abc1234 (some, 2 cores" in once
    assert once.endswith(f"{END}\nafter\n")
    assert "old figures" not in once
    assert "* memcached: read <1 KiB> (2.00 x)" in once
    assert "redis" not in once  # it is slower, and no goal is about it
    assert quoted(once, told, [result()]) == once
    with pytest.raises(ValueError, match="too short for figures to quote"):
        quoted(readme, {**told, "quick": True}, [result()])


def test_plain_figures_are_ours_and_those_of_the_fastest_other_that_is_no_floor() -> None:
    told = Result("local", "What does a write cost?")
    for system, figure in ((OURS, 2.0), ("redis", 60.0), ("memcached", 50.0), ("dict", 0.1)):
        told.add("write, a number", system, figure)
    told.floors.append("dict")
    alone, much = Result("starting", "How soon?"), Result("sustained", "How many?")
    alone.add("import, and make a node", OURS, 9.0, "ms")
    for system, figure in ((OURS, 7.0), ("redis", 8.0), ("redis, slowly", 1.0)):
        much.add("7 peers, keys of their own", system, figure, "writes/s", more=True)
    assert list(plain([told, alone, much])) == [
        ("a write: the call", "2.00 µs", "60.0 µs, redis", "50.0 µs, memcached"),
        ("one by one, each read at 7 others", "7.00 writes/s", "8.00 writes/s, redis", "8.00 writes/s, redis"),
        ("import, and make a node", "9.00 ms", "", ""),
    ]


def test_the_readme_has_a_place_for_figures() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    assert BEGIN in readme.partition(END)[0]
    with pytest.raises(ValueError, match="no place for figures"):
        quoted("a README without", TOLD, [])
