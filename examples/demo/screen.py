"""How does it look?

Live in a terminal, or as plain lines where there is none. Both draw the same scene, and neither knows where it is from.

Not here: what happens (`story`), and what it means (`verdict`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from examples.demo.load import Tally
from examples.demo.verdict import Finding
from examples.demo.workers import Report

_EVENTS = 7
"""Shown at a time in the terminal, the newest."""
_STYLES = {
    "serving": "green", "starting": "yellow", "suspect": "yellow", "stalled": "yellow", "dead": "bold red",
    "left": "dim",
}  # fmt: skip


@dataclass(slots=True)
class Row:
    """One node: what the screen's node says of it (`status`), and what it says itself, if it did yet."""

    pid: int
    status: str
    report: Report | None = None


@dataclass(slots=True)
class Scene:
    """All there is to show."""

    url: str
    cluster: str
    seconds: float
    phase: str = "starting"
    elapsed: float = 0.0
    """Seconds of load so far; the events count from the same moment."""
    rows: dict[int, Row] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    rate: float = 0.0
    """Requests answered a second, of late."""
    events: list[tuple[float, str]] = field(default_factory=list)
    seen: str = ""
    """What the screen's own node sees."""

    @property
    def sorted_rows(self) -> list[Row]:
        """By pid, those that are gone last."""
        return sorted(self.rows.values(), key=lambda row: (row.status in ("dead", "left"), row.pid))

    @property
    def reports(self) -> list[Report]:
        """Of the workers that live."""
        return [row.report for row in self.rows.values() if row.report and row.status == "serving"]


class LiveScreen:
    """A table that is drawn anew all the time."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def draw(self, scene: Scene) -> None:
        height = self._console.height - 2  # the last line is the prompt's
        self._live.update(self._drawn(scene, height), refresh=True)

    def _drawn(self, scene: Scene, height: int) -> Group:
        """As many events as there is room for, the newest, a line each."""
        table = _table(scene)
        room = max(1, height - len(table) - 2)
        return Group(*table, _progress(scene), *_events(scene)[-min(room, _EVENTS) :])

    def event(self, at: float, text: str) -> None:
        """The next drawing has it."""

    def verdict(self, scene: Scene, findings: Sequence[Finding]) -> None:
        """The details, a line each where they fit, and last of all, where the eye is, whether it held."""
        width = self._console.width
        lines = []
        for finding in findings:
            line = Text("✔ " if finding.held else "✘ ", "bold green" if finding.held else "bold red")
            line.append(f"{finding.claim}: ", "bold" if finding.held else "bold red")
            line.append(finding.numbers, "" if finding.held else "red")
            lines.append(_cut(line, width))
        lines += [_cut(Text(f"  {line}"), width) for line in _figures(scene)]
        held = all(finding.held for finding in findings)
        lines.append(Text(_summary(findings), "bold green" if held else "bold red"))
        taken = sum(-(-len(line) // width) for line in lines)
        self._live.update(self._drawn(scene, self._console.height - 1 - taken), refresh=True)
        self._live.stop()
        for line in lines:
            self._console.print(line)

    def say(self, text: str) -> None:
        self._console.print(Text(text))


class PlainScreen:
    """Lines, for a file or a build: what happens at once, the state of things every second."""

    def __init__(self) -> None:
        self._next = 0.0
        self._phase = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def draw(self, scene: Scene) -> None:
        if scene.phase != self._phase:
            self._phase, self._next = scene.phase, 0.0
        if scene.elapsed < self._next:
            return
        self._next = int(scene.elapsed) + 1.0
        tally = scene.tally
        self.say(
            f"{scene.elapsed:5.1f} s  {scene.phase}: {tally.answered} requests answered, {tally.unanswered} broken, "
            f"{scene.rate:.0f}/s; {scene.seen}"
        )
        for row in scene.sorted_rows:
            self.say("         " + " ".join(cell for cell in _cells(row) if cell))

    def event(self, at: float, text: str) -> None:
        self.say(f"{at:5.1f} s  * {text}")

    def verdict(self, scene: Scene, findings: Sequence[Finding]) -> None:
        for finding in findings:
            self.say(f"{'ok    ' if finding.held else 'FAILED'}  {finding.claim}: {finding.numbers}")
        for line in _figures(scene):
            self.say(f"        {line}")
        self.say(_summary(findings))

    def say(self, text: str) -> None:
        print(text, flush=True)


Screen = LiveScreen | PlainScreen

_HEADS = ("worker", "status", "memb", "hits", "sess", "online", "req", "p50 ms", "p99 ms")
_WIDTHS = (7, 8, 4, 6, 5, 6, 6, 6, 6)
"""The least, so that nothing jumps; with the gaps less than 80 columns. A longer number widens its column."""


def _table(scene: Scene) -> list[Text]:
    """Lines that are laid out here: what lays out tables by itself cuts numbers where it is narrow."""
    rows = scene.sorted_rows
    cells = [_HEADS, *(_numbers(row) for row in rows)]
    widths = [max(least, *map(len, column)) for least, column in zip(_WIDTHS, zip(*cells, strict=True), strict=True)]
    lines = [Text(f"{scene.url}   cluster {scene.cluster}", "italic")]
    for number, line in enumerate(cells):
        parts = [
            f"{cell:<{width}}" if at < 2 else f"{cell:>{width}}"
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        status = rows[number - 1].status if number else ""
        style = "bold underline" if not number else "dim" if status in ("dead", "left") else ""
        text = Text("  ".join(parts), style)
        if status:
            text.stylize(_STYLES.get(status, ""), widths[0] + 2, widths[0] + 2 + len(status))
        lines.append(text)
    lines.append(Text(scene.seen, "dim italic"))
    for text in lines:
        text.no_wrap, text.overflow = True, "ellipsis"
    return lines


def _numbers(row: Row) -> tuple[str, ...]:
    report = row.report
    if report is None:
        return (str(row.pid), row.status, *[""] * (len(_HEADS) - 2))
    lags = (f"{report.lag_p50:.1f}", f"{report.lag_p99:.1f}") if report.lags else ("", "")
    counts = (report.members, report.hits, report.sessions, report.online, report.answered)
    return (str(row.pid), row.status, *map(str, counts), *lags)


def _cells(row: Row) -> list[str]:
    worker, status, *numbers = _numbers(row)
    return [worker, status, *(f"{head} {cell}" for head, cell in zip(_HEADS[2:], numbers, strict=True) if cell)]


def _progress(scene: Scene) -> Table:
    line = Table.grid(padding=(0, 1))
    tally = scene.tally
    broken = f", {tally.unanswered} broken" if tally.unanswered else ""
    line.add_row(
        Text(scene.phase, "bold"),
        ProgressBar(total=scene.seconds, completed=min(scene.elapsed, scene.seconds), width=10),
        f"{min(scene.elapsed, scene.seconds):.1f} of {scene.seconds:.0f} s of visits",
        f"{tally.answered} requests{broken}, {scene.rate:.0f}/s",
    )
    return line


def _events(scene: Scene) -> list[Text]:
    return [Text(f"{at:5.1f} s  {text}", no_wrap=True, overflow="ellipsis") for at, text in scene.events]


def _cut(line: Text, width: int) -> Text:
    """The line on one line if nothing but prose is lost by it."""
    if not re.search(r"\d", line.plain[width - 1 :]):
        line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _summary(findings: Sequence[Finding]) -> str:
    failed = [finding.claim for finding in findings if not finding.held]
    if failed:
        return f"verdict: it did not hold ({len(failed)} of {len(findings)} claims: {', '.join(failed)})"
    return f"verdict: it held (all {len(findings)} claims)"


def _figures(scene: Scene) -> list[str]:
    """What is worth knowing besides, without being judged."""
    tally = scene.tally
    lines = []
    if lags := [report for report in scene.reports if report.lags]:
        lines.append(
            f"write seen elsewhere: median {median(each.lag_p50 for each in lags):.2f} ms, "
            f"p99 at worst {max(each.lag_p99 for each in lags):.2f} ms ({sum(each.lags for each in lags)} measured)"
        )
    if tally.moved:
        lines.append(
            f"{tally.moved} requests came to another worker than their login; {tally.unknown} were unknown there"
        )
    return lines
