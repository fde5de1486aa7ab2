"""What should the figures be?

For each a floor, which must be met, and an aim. A goal beside a peer is a ratio of figures of the same round, and
counts against the fastest of the ways to use that peer.

Not here: how anything is measured, and what was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.measure import OURS, Result, Spread


@dataclass(frozen=True)
class Goal:
    """One line of the table.

    `better`: so many times better than the peer, at least. `share`: our figure is at most so much of the peer's.
    `most`: our figure is at most this.
    """

    title: str
    question: str
    what: str
    form: Literal["better", "share", "most"]
    floor: float
    aim: float
    beside: str = ""
    unit: str = "x"

    @property
    def sign(self) -> str:
        return ">=" if self.form == "better" else "<="

    def holds(self, figure: float, limit: float) -> bool:
        return figure >= limit if self.form == "better" else figure <= limit

    def measured(self, results: list[Result]) -> tuple[Spread, str] | None:
        """Our figure, and beside whom it is one; None if this run has not asked, or the peer is not here."""
        result = next((each for each in results if each.question == self.question), None)
        series = result.find(self.what, OURS) if result else None
        if result is None or series is None:
            return None
        if self.form == "most":
            return series.spread, ""
        peer = result.fastest(self.what, self.beside)
        if peer is None:
            return None
        found = result.advantage(self.what, peer) if self.form == "better" else result.ratio(self.what, OURS, peer)
        return (found, peer) if found else None


NUMBER = "a number"
OTHER = "at the other process"
GOALS = (
    Goal("local read, beside a `GET`", "local", f"read, {NUMBER}", "better", 100, 200, "redis"),
    Goal("local write, beside a `SET`", "local", f"write, {NUMBER}", "better", 25, 50, "redis"),
    Goal(
        "local write, and sent, 100 a turn, beside a `SET`",
        "local",
        f"write, {NUMBER}, and sent",
        "better",
        25,
        50,
        "redis",
    ),
    Goal("local write, beside a Manager's dict", "local", f"write, {NUMBER}", "better", 8, 15, "Manager"),
    Goal(
        "local write, and sent, 100 a turn, beside a Manager's dict",
        "local",
        f"write, {NUMBER}, and sent",
        "better",
        8,
        15,
        "Manager",
    ),
    Goal("visible in another process, p50", "visible", f"{OTHER}, p50", "share", 0.8, 0.5, "redis pub/sub"),
    Goal("visible in another process, p99", "visible", f"{OTHER}, p99", "share", 1.2, 0.8, "redis pub/sub"),
    Goal("at all 7 processes, p50", "visible", "at all 7 processes, p50", "most", 5_000, 2_000, unit="µs"),
    Goal("at all 7 processes, p99", "visible", "at all 7 processes, p99", "most", 25_000, 10_000, unit="µs"),
    Goal(
        "writes a second by `update`, held by one peer, beside `SET` in pipelines of 200",
        "sustained",
        "1 peer, held, and not read",
        "better",
        2,
        3,
        "redis pipeline",
    ),
    Goal(
        "writes a second one by one, each read at one peer, beside the same SETs",
        "sustained",
        "1 peer, keys of their own",
        "better",
        2,
        3,
        "redis pipeline",
    ),
    Goal(
        "visible at one peer at 50 000 writes a second, p99",
        "sustained",
        "1 peer, 50 000 a second, p99",
        "most",
        5,
        2,
        unit="ms",
    ),
    Goal("memory an entry of 1 000 000", "memory", "1 000 000 entries, resident", "share", 2.5, 2.0, "dict of bytes"),
    Goal(
        "kill -9 known to all of 8 of one host",
        "detect",
        "8 members, kill -9 known to the last",
        "most",
        100,
        15,
        unit="ms",
    ),
    Goal("8 nodes start, until all see all", "detect", "8 members, join", "most", 500, 100, unit="ms"),
    Goal("idle, processor of one of 8", "detect", "8 members, idle", "most", 0.5, 0.2, unit="%"),
    Goal("idle, memory of one of 8", "detect", "8 members, resident", "most", 40, 30, unit="MiB"),
    Goal("messages a write, 8 simulated members", "relay", "8 members, messages", "most", 8, 7, unit=""),
    Goal("messages a write, 100 simulated members", "relay", "100 members, messages", "most", 100, 99, unit=""),
    Goal("import gossip", "starting", "import", "most", 150, 60, unit="ms"),
)
