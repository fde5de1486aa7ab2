"""How does it look?

Live in a terminal, or as plain lines where there is none. Both draw the same scene, and neither knows where it is from.

Not here: what happens (`story`), and what it means (`verdict`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from examples.demo.load import Tally
from examples.demo.verdict import Finding
from examples.demo.workers import Report

_EVENTS = 7
"""Shown at a time in the terminal, the newest."""
_STYLES = {"serving": "green", "starting": "yellow", "suspect": "yellow", "dead": "bold red", "left": "dim"}


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
        self._live.update(Group(_table(scene), _progress(scene), _events(scene)), refresh=True)

    def event(self, at: float, text: str) -> None:
        """The next drawing has it."""

    def verdict(self, scene: Scene, findings: Sequence[Finding]) -> None:
        self.draw(scene)
        self._live.stop()
        held = all(finding.held for finding in findings)
        table = Table.grid(padding=(0, 1))
        for finding in findings:
            mark = Text("✔", "bold green") if finding.held else Text("✘", "bold red")
            table.add_row(mark, Text(finding.claim, "bold" if finding.held else "bold red"))
            table.add_row("", Text(finding.numbers, "dim" if finding.held else "red"))
        content = Group(table, Text(), *(Text(line) for line in _figures(scene)))
        title = "[bold green]it held" if held else "[bold red]it did not hold"
        self._console.print(Panel(content, title=title, border_style="green" if held else "red", expand=False))

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
            f"{scene.elapsed:5.1f} s  {scene.phase}: {tally.answered} answered, {tally.unanswered} broken, "
            f"{scene.rate:.0f}/s; {scene.seen}"
        )
        for row in scene.rows.values():
            self.say("         " + " ".join(cell for cell in _cells(row) if cell))

    def event(self, at: float, text: str) -> None:
        self.say(f"{at:5.1f} s  * {text}")

    def verdict(self, scene: Scene, findings: Sequence[Finding]) -> None:
        for finding in findings:
            self.say(f"{'ok    ' if finding.held else 'FAILED'}  {finding.claim}: {finding.numbers}")
        for line in _figures(scene):
            self.say(f"        {line}")
        self.say("verdict: it held" if all(finding.held for finding in findings) else "verdict: it did not hold")

    def say(self, text: str) -> None:
        print(text, flush=True)


Screen = LiveScreen | PlainScreen

_HEADS = ("worker", "status", "members", "hits", "sessions", "online", "answered", "lag p50", "lag p99")
_WIDTHS = (7, 8, 7, 6, 8, 6, 8, 7, 7)
"""Fixed, so that nothing jumps; with the gaps less than 80 columns."""


def _table(scene: Scene) -> Table:
    title = f"{scene.url}   cluster {scene.cluster}"
    table = Table(
        title=title, title_justify="left", caption=scene.seen, caption_justify="left",
        box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False,
    )  # fmt: skip
    for head, width in zip(_HEADS, _WIDTHS, strict=True):
        table.add_column(head, justify="left" if head in _HEADS[:2] else "right", no_wrap=True, min_width=width)
    for row in scene.rows.values():
        worker, status, *numbers = _numbers(row)
        style = "dim" if row.status in ("dead", "left") else ""
        table.add_row(worker, Text(status, _STYLES.get(status, "")), *numbers, style=style)
    return table


def _numbers(row: Row) -> tuple[str, ...]:
    report = row.report
    if report is None:
        return (str(row.pid), row.status, *[""] * (len(_HEADS) - 2))
    lags = (f"{report.lag_p50:.1f} ms", f"{report.lag_p99:.1f} ms") if report.lags else ("", "")
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
        Text(f"  {scene.phase}", "bold"),
        ProgressBar(total=scene.seconds, completed=min(scene.elapsed, scene.seconds), width=20),
        f"{min(scene.elapsed, scene.seconds):.1f} of {scene.seconds:.0f} s",
        f"{tally.answered} answered{broken}, {scene.rate:.0f}/s",
    )
    return line


def _events(scene: Scene) -> Text:
    lines = [f"  {at:5.1f} s  {text}" for at, text in scene.events[-_EVENTS:]]
    return Text("\n".join(["", *lines]), overflow="fold")


def _figures(scene: Scene) -> list[str]:
    """What is worth knowing besides, without being judged."""
    tally = scene.tally
    lines = []
    if lags := [report for report in scene.reports if report.lags]:
        lines.append(
            f"from a write to its sight at another worker: median {median(each.lag_p50 for each in lags):.2f} ms, "
            f"99 % within {max(each.lag_p99 for each in lags):.2f} ms at the slowest worker "
            f"({sum(each.lags for each in lags)} measured)"
        )
    if tally.moved:
        lines.append(
            f"{tally.moved} requests reached another worker than the one that opened their session; "
            f"to {tally.unknown} of them the session was still unknown there"
        )
    return lines
