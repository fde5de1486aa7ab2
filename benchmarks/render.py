"""How is a result shown: as text, as a table of Markdown, and as a drawing?

A ratio is told from the reader's side: how many times better gossamesh is than the other. Below 1 it is worse, and what
is worse is listed by itself. The drawing is a line of dots a figure, on a logarithmic scale, since the things that are
compared differ a thousandfold: the dot is the median, the line goes from the least round to the most.

Invariant: all that is in a result is shown, who was skipped and what failed included.
Not here: any figure that is not in the results. No drawing library: an SVG of lines and words is text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from benchmarks.goals import GOALS, Goal
from benchmarks.measure import OURS, Result, Series, Spread

EVEN = 0.95  # a median nearer to 1 is no difference that could be seen


def number(value: float) -> str:
    """Three digits that matter, and a thin line of thousands."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "-"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}".replace(",", " ")


def spread(of: Spread) -> str:
    """The median, and from where to where the rounds went, if there were several."""
    if of.least == of.most:
        return number(of.median)
    return f"{number(of.median)} ({number(of.least)} .. {number(of.most)})"


def beside(result: Result, series: Series) -> str:
    """What gossamesh is, seen from this row."""
    if series.system == OURS:
        return ""
    advantage = result.advantage(series.what, series.system)
    return f"{spread(advantage)} x" if advantage else ""


def rows(result: Result) -> Iterator[tuple[str, str, str, str]]:
    for what in result.whats():
        shown = what
        for series in result.of(what):
            yield shown, series.system, f"{spread(series.spread)} {series.unit}", beside(result, series)
            shown = ""


HEADS = ("", "", "median (least .. most round)", "gossamesh is better by")


def asides(result: Result) -> Iterator[str]:
    for kind, told in (("not measured", result.skipped), ("failed", result.failed)):
        yield from (f"{kind}: {system} ({why})" for system, why in told.items())
    yield from result.notes


def text(result: Result) -> str:
    """For a terminal."""
    table = [HEADS, *rows(result)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADS))]
    lines = [result.title, ""]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    lines += ["", *asides(result), f"({result.seconds:.0f} s)"]
    return "\n".join(lines)


# -- the page of all results ---------------------------------------------------------------------------------------


def markdown_table(heads: Iterable[str], body: Iterable[Iterable[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (heads, *body)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return [lines[0], "|" + " --- |" * len(cells[0]), *lines[1:]]


def worse(result: Result) -> Iterator[tuple[str, str, Spread]]:
    """What another does better, who that is, and by how much."""
    for what in result.whats():
        for series in result.others(what):
            factor = result.disadvantage(what, series.system)
            if factor and factor.median > 1 / EVEN:
                yield what, series.system, factor


def slower(results: list[Result]) -> Iterator[tuple[str, ...]]:
    """The rows of the table of what others do better."""
    for result in results:
        for what, system, factor in worse(result):
            yield result.question, what, system, f"{spread(factor)} x"


def reached(goal: Goal, results: list[Result]) -> tuple[str, ...]:
    """A row of the table of goals."""
    wanted = f"{goal.sign} {number(goal.floor)} / {number(goal.aim)} {goal.unit}".strip()
    found = goal.measured(results)
    if found is None:
        return goal.title, wanted, "not measured", ""
    figure, against = found
    verdict = "aim" if goal.holds(figure.median, goal.aim) else "floor" if goal.holds(figure.median, goal.floor) else ""
    words = {"better": f"times as fast as {against}", "share": f"times that of {against}", "most": goal.unit}
    return goal.title, wanted, f"{spread(figure)} {words[goal.form]}".strip(), verdict or "**missed**"


def page(told: dict[str, Any], results: list[Result]) -> str:
    """results/README.md."""
    kind = "A quick look (`make bench-quick`): too short for figures to quote." if told["quick"] else "`make bench`."
    lines = [
        "# Results",
        "",
        f"{kind} Measured on {told['at']} at {told['commit']}.",
        "[How to read it](../README.md); every round of every figure is in [results.json](results.json).",
    ]
    lines += ["", *markdown_table(("machine", ""), ((k, str(v)) for k, v in told["machine"].items()))]
    lines += ["", *markdown_table(("version of", ""), told["versions"].items())]
    lines += ["", "## Goals", "", "The floor must be met, the aim is where this should go."]
    heads = ("goal", "floor / aim", "measured", "met")
    lines += ["", *markdown_table(heads, (reached(goal, results) for goal in GOALS))]
    lines += ["", "## Where another does better", ""]
    losses = list(slower(results))
    lines += markdown_table(("question", "what", "who", "better by"), losses) if losses else ["Nowhere in this run."]
    for result in results:
        lines += ["", f"## {result.question}", "", result.title, ""]
        if result.series:
            lines += markdown_table(("what", "who", HEADS[2], HEADS[3]), rows(result))
            lines += ["", f"![{result.question}]({result.question}.svg)"]
        lines += ["", *(f"* {aside}" for aside in asides(result)), f"* took {result.seconds:.0f} s"]
    return "\n".join(lines) + "\n"


# -- what the project's README says of it -----------------------------------------------------------------------------

BEGIN, END = "<!-- figures: written by `make bench ARGS=--quote` -->", "<!-- end of figures -->"
NAMED = 2  # losses that are named for each peer: its greatest
GOALS_ARE = """What this should reach, each beside the fastest way to use *that* peer; others may be faster.
Of what is missed, [a profile says why](benchmarks/README.md#what-stands-in-the-way)."""
LOSSES_ARE = """What others do better, and by how much in the median round: of each the two greatest. [All of
them](benchmarks/results/README.md#where-another-does-better) stand on the page of results."""
PLAIN = (
    ("a read, of a key that was read before", "local", "read, a number"),
    ("a read, the first since the key was written", "local", "read, a number, the first since it was written"),
    ("a write: the call", "local", "write, a number"),
    ("a write with its sending, one in a turn, as of a web request", "local", "write, a number, and sent, one a turn"),
    ("a write with its sending, of 100 in a turn", "local", "write, a number, and sent"),
    ("until another process that waits has it, p50", "visible", "at the other process, p50"),
    ("until all 7 others have it, p50", "visible", "at all 7 processes, p50"),
    ("one by one, each read at one other", "sustained", "1 peer, keys of their own"),
    ("one by one, each read at 7 others", "sustained", "7 peers, keys of their own"),
    ("at 50 000 a second, each read at 7 others, p99", "sustained", "7 peers, 50 000 a second, p99"),
    ("an entry of 100 bytes, of 1 000 000, in each worker", "memory", "1 000 000 entries, resident"),
    ("import, and make a node", "starting", "import, and make a node"),
)  # what a program has of it, good or bad, whatever it is beside others


def quote(told: dict[str, Any], results: list[Result]) -> str:
    """The goals that were measured, and who is faster at what."""
    if told["quick"]:
        raise ValueError("these are of a quick look, too short for figures to quote: make bench ARGS=--quote")
    where = f"{told['machine']['processor']}, {told['machine']['cores']} cores, Python {told['machine']['python']}"
    lines = [f"Measured on {told['at']} at {told['commit']} ({where}, load {told['machine']['load before']}).", ""]
    heads = ("", "gossamesh: median (least .. most round)", "the best way to use Redis", "the best of all others")
    lines += markdown_table(heads, plain(results))
    lines += ["", GOALS_ARE, ""]
    rows = [reached(goal, results) for goal in GOALS if goal.measured(results)]
    heads = ("", "measured: median (least .. most round)", "floor / aim", "met")
    lines += markdown_table(heads, ([title, figure, wanted, met] for title, wanted, figure, met in rows))
    lines += ["", LOSSES_ARE, ""]
    losses: dict[str, list[tuple[float, str, str]]] = {}
    for result in results:
        for what, system, factor in worse(result):
            losses.setdefault(system, []).append((factor.median, what, f"{what} ({number(factor.median)} x)"))
    for system, told_of in losses.items():
        named = [shown for _, _, shown in sorted(told_of, reverse=True)[:NAMED]]
        more = f", and {len(told_of) - NAMED} more" if len(told_of) > NAMED else ""
        lines.append(f"* {system}: {'; '.join(named)}{more}")
    return "\n".join(lines if losses else [*lines, "Nothing in this run."])


def plain(results: list[Result]) -> Iterator[tuple[str, str, str, str]]:
    """The rows of the table of plain figures."""
    asked = {result.question: result for result in results}
    for title, question, what in PLAIN:
        result = asked.get(question)
        ours = result.find(what, OURS) if result else None
        if result is None or ours is None:
            continue
        yield title, f"{spread(ours.spread)} {ours.unit}", best_of(result, what, "redis"), best_of(result, what)


def best_of(result: Result, what: str, beside: str = "") -> str:
    """The best figure of another, and whose it is: of those whose names begin so."""
    ways = [each for each in result.others(what) if each.system.startswith(beside)]
    if not ways:
        return ""
    best = min(ways, key=lambda each: -each.spread.median if each.more else each.spread.median)
    return f"{number(best.spread.median)} {best.unit}, {best.system}"


def quoted(readme: str, told: dict[str, Any], results: list[Result]) -> str:
    """The README with these figures in the place of those that it has."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md has no place for figures: {BEGIN} and {END} are gone")
    return f"{before}{begin}\n\n{quote(told, results)}\n\n{end}{after}"


# -- the drawing ---------------------------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT, ROW, HEAD = 900, 250, 230, 19, 30
STYLE = """
  svg { font: 12px system-ui, sans-serif; background: #fff }
  text { fill: #24292f } .unit, .tick { fill: #6e7781 } .what { font-weight: 600 }
  line { stroke: #d0d7de } .other { stroke: #6e7781; fill: #6e7781 } .ours { stroke: #0969da; fill: #0969da }
  line.other, line.ours { stroke-width: 2 } text.ours { stroke: none; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117 } text { fill: #e6edf3 } .unit, .tick { fill: #8d96a0 } line { stroke: #30363d }
    .other { stroke: #8d96a0; fill: #8d96a0 } .ours { stroke: #58a6ff; fill: #58a6ff }
  }
"""


def drawing(result: Result) -> str:
    """An SVG: for each thing measured a scale of its own, for each system a line on it."""
    parts: list[str] = []
    y = HEAD
    for what in result.whats():
        shown = [each for each in result.of(what) if each.spread.median > 0]
        if shown:
            parts += panel(what, shown, y)
            y += HEAD + ROW * len(shown) + ROW
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">'
    label = f"<title>{escape(result.title)}</title>"
    return "\n".join([head, label, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"


def panel(what: str, shown: list[Series], y: int) -> Iterator[str]:
    low = math.floor(math.log10(min(each for series in shown for each in series.rounds if each > 0)))
    high = max(low + 1, math.ceil(math.log10(max(series.spread.most for series in shown))))
    scale = (WIDTH - LEFT - RIGHT) / (high - low)

    def x(value: float) -> float:  # a round of 0 has no place on such a scale: it stands at the left end
        return LEFT + (math.log10(max(value, 10.0**low)) - low) * scale

    better = "more is better" if shown[0].more else "less is better"
    yield f'<text class="what" x="8" y="{y}">{escape(what)}</text>'
    yield f'<text class="unit" x="{WIDTH - 8}" y="{y}" text-anchor="end">{escape(shown[0].unit)}, {better}</text>'
    bottom = y + 12 + ROW * len(shown)
    for power in range(low, high + 1):
        at = f"{x(10.0**power):.1f}"
        yield f'<line x1="{at}" x2="{at}" y1="{y + 8}" y2="{bottom}"/>'
        yield f'<text class="tick" x="{at}" y="{bottom + 12}" text-anchor="middle">{number(10.0**power)}</text>'
    for place, series in enumerate(shown):
        kind, middle, figure = "ours" if series.system == OURS else "other", y + 20 + ROW * place, series.spread
        name_kind = ' class="ours"' if kind == "ours" else ""
        yield f'<text{name_kind} x="{LEFT - 10}" y="{middle + 4}" text-anchor="end">{escape(series.system)}</text>'
        ends = f'x1="{x(figure.least):.1f}" x2="{x(figure.most):.1f}" y1="{middle}" y2="{middle}"'
        yield f'<line class="{kind}" {ends}/>'
        yield f'<circle class="{kind}" cx="{x(figure.median):.1f}" cy="{middle}" r="4"/>'
        yield f'<text x="{WIDTH - RIGHT + 14}" y="{middle + 4}">{escape(spread(figure))}</text>'
