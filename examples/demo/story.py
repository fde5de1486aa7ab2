"""What happens, and when?

uvicorn starts, the visitors come, in the middle one worker is killed, uvicorn replaces it, the visitors go, everybody
falls silent, and every node is asked what it holds. The demo's own process is one more node of the cluster: what the
screen shows of the workers is shared state, which they write and this node watches.

Invariant: every wait is for a condition, with a deadline; whatever happens, what was started is ended.
Not here: how it looks (`screen`), and what is right (`verdict`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gossip
from examples.demo.evidence import View, agree, alike, hits_by_worker, views_of
from examples.demo.load import Outcome, Tally
from examples.demo.screen import Row, Scene, Screen
from examples.demo.server import Load, NoDemo, Server, clear_environment, private_directory, usable_port
from examples.demo.verdict import Evidence, Finding, Kill, Replacement, judge
from examples.demo.workers import QUIET, Report

_START = 60.0
"""Seconds for the workers to start: Python on a busy machine, several at a time."""
_AGREE = 15.0
"""Seconds for all nodes to hold the same, once nobody writes; a gap that was missed is found by a probe, 1 s apart."""
_DRAW_EVERY = 0.1


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    seconds: float
    workers: int
    rate: float
    visitors: int
    port: int
    kill: bool
    keep_open: bool


async def show(options: Options, screen: Screen) -> bool:
    """Shows it all; whether all held. Raises `NoDemo` where it can not be shown."""
    clear_environment()
    port = usable_port(options.port)
    cluster = f"demo-{secrets.token_hex(3)}"
    with private_directory(cluster) as directory:
        server = Server(port, options.workers, cluster, directory)
        load = Load(server.url, options.seconds, options.visitors, options.rate)
        node = gossip.Node(cluster, name=f"screen-{os.getpid()}", tags={"role": "screen"}, runtime_dir=str(directory))
        try:
            async with node:
                with screen:
                    return await Story(options, screen, node, server, load).tell()
        finally:
            await load.stop()
            await server.stop()


class Story:
    """One showing."""

    def __init__(self, options: Options, screen: Screen, node: gossip.Node, server: Server, load: Load) -> None:
        self._options = options
        self._screen = screen
        self._node = node
        self._server = server
        self._load = load
        self._scene = Scene(server.url, node.config.cluster, options.seconds)
        self._reports = node.map("reports", Report)
        self._began: float | None = None
        """When the visits began: the one clock of all that is shown, which stands still before."""
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._tallies: deque[Tally] = deque(maxlen=10_000)
        self._outcome: Outcome | None = None
        self._ended = 0.0
        self._dead: set[int] = set()
        """Workers whose death is told, or about to be."""

    async def tell(self) -> bool:
        await self._server.start()
        with self._running():
            workers = self._options.workers
            await self._must(lambda: len(self._scene.reports) == workers, _START, f"{workers} workers serving")
            self._event(f"{workers} workers serve at {self._server.url}; the visitors come")
            await self._visited()
            kill, replacement = await self._accident() if self._options.kill else (None, None)
            await self._must(lambda: self._outcome is not None, self._options.seconds + 60, "the end of the visits")
            findings = await self._judged(kill, replacement)
            self._screen.verdict(self._scene, findings)
            if self._options.keep_open:
                await self._kept_open()
            return all(finding.held for finding in findings)

    # -- the acts ---------------------------------------------------------------------------------------------------

    async def _visited(self) -> None:
        """The visitors begin; returns when the first were answered."""
        self._scene.phase = "serving"
        self._began = time.monotonic()
        self._tasks.append(asyncio.create_task(self._follow_load()))
        await self._must(lambda: self._scene.tally.answered > 0, _START, "a first answer")

    async def _accident(self) -> tuple[Kill, Replacement | None]:
        """Kills the busiest worker in the middle, and waits for the one that comes instead."""
        await self._until(lambda: self._clock() >= self._options.seconds / 2, self._options.seconds)
        before = {report.pid: report for report in self._scene.reports}
        pid = max(before, key=lambda each: self._scene.tally.workers.get(str(each), 0))
        kill = Kill(f"worker-{pid}", time.time(), time.monotonic_ns())
        self._server.kill_worker(pid)
        self._event(f"worker {pid} gets SIGKILL, in the middle of its work")

        def newcomers() -> list[Report]:
            return [report for report in self._scene.reports if report.pid not in before]

        if not await self._until(lambda: bool(newcomers()), _START):
            return kill, None
        new = newcomers()[0]
        took = (new.ready_ns - kill.at_ns) / 1e6
        self._event(f"worker {new.pid} serves, {took:.0f} ms after the kill; it joined in {new.joined_ms:.0f} ms")
        return kill, self._replacement(new)

    def _replacement(self, new: Report) -> Replacement:
        """With what the visitors had been told by then. A session that somebody asked to end meanwhile may be gone."""
        before = max((each for each in self._tallies if each.at_ns <= new.began_ns), key=lambda each: each.at_ns)
        after = next((each for each in self._tallies if each.at_ns >= new.ready_ns), self._scene.tally)
        sessions = max(0, before.open - (after.ends - before.ends))
        name = f"worker-{new.pid}"
        return Replacement(name, new.ready_ns, new.joined_ms, new.first_hits, new.first_sessions, before.hits, sessions)

    async def _judged(self, kill: Kill | None, replacement: Replacement | None) -> list[Finding]:
        """Waits until all hold the same, has everybody fall silent, and asks again."""
        self._scene.phase = "comparing"
        await self._views(alike)
        agreed_ms = (time.monotonic() - self._ended) * 1000
        self._node.register("phase", str).set(QUIET)
        await self._until(lambda: all(report.final for report in self._scene.reports), _AGREE)
        views = await self._views(agree)
        assert self._outcome is not None
        self._scene.phase = "done"
        workers, kill_wanted = self._options.workers, self._options.kill
        parts = hits_by_worker(self._node)
        return judge(Evidence(workers, views, parts, self._outcome, agreed_ms, kill, replacement, kill_wanted))

    async def _views(self, enough: Callable[[list[View]], bool]) -> list[View]:
        """What all nodes hold, as soon as that is enough, or when the time is over."""
        deadline = time.monotonic() + _AGREE
        while True:
            views = await views_of(self._node)
            if (len(views) == self._options.workers + 1 and enough(views)) or time.monotonic() > deadline:
                return views
            await asyncio.sleep(0.01)

    async def _kept_open(self) -> None:
        self._node.register("phase", str).set("open")
        self._screen.say(f"still serving at {self._server.url} until Ctrl-C")
        await self._until(lambda: self._server.ended, float("inf"))

    # -- what goes on meanwhile -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        self._tasks = [asyncio.create_task(self._follow_reports()), asyncio.create_task(self._draw())]
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()

    async def _follow_reports(self) -> None:
        """The workers tell what they see, in a shared map."""
        async with self._reports.watch() as changes:
            async for change in changes:
                if (report := change.value) is not None:
                    row = self._scene.rows.setdefault(report.pid, Row(report.pid, "serving"))
                    row.report = report
                    row.status = "serving" if row.status == "starting" else row.status
                    self._news.set()

    async def _follow_load(self) -> None:
        async for told in self._load.lines():
            if "outcome" in told:
                outcome = told["outcome"]
                self._outcome = Outcome(Tally(**outcome.pop("tally")), **outcome)
                self._ended = self._outcome.tally.at_ns / 1e9
                self._scene.tally = self._outcome.tally
            else:
                self._scene.tally = Tally(**told)
            self._tallies.append(self._scene.tally)
            self._news.set()

    async def _draw(self) -> None:
        while True:
            self._look_at_members()
            scene = self._scene
            if self._outcome is None:
                scene.elapsed = self._clock()
            recent = [each for each in self._tallies if each.at_ns > time.monotonic_ns() - 2_000_000_000]
            if len(recent) > 1:
                first, last = recent[0], recent[-1]
                scene.rate = (last.answered - first.answered) / max(1e-9, (last.at_ns - first.at_ns) / 1e9)
            scene.seen = self._seen()
            self._screen.draw(scene)
            self._news.set()
            await asyncio.sleep(_DRAW_EVERY)

    def _seen(self) -> str:
        node = self._node
        members, hits = len(node.members), node.counter("hits").value
        sessions, online = len(node.map("sessions")), len(node.set("online"))
        return f"this screen is a node too: members {members}, hits {hits}, sessions {sessions}, online {online}"

    def _look_at_members(self) -> None:
        for member in self._node.members.all:
            if "pid" not in member.tags:
                continue
            pid = int(member.tags["pid"])
            row = self._scene.rows.setdefault(pid, Row(pid, "starting"))
            status = member.status if member.status != "alive" else "serving" if row.report else "starting"
            if status == row.status:
                continue
            if member.status == "dead":  # shown when it is told, not before
                if pid not in self._dead:
                    self._dead.add(pid)
                    self._tasks.append(asyncio.create_task(self._tell_death(member, row)))
                continue
            if member.status != "alive":
                self._event(f"worker {pid} is {member.status}: {member.evidence}", self._on_clock(member.since))
            row.status = status
            if member.status == "left":
                self._forget(member, pid)

    def _forget(self, member: gossip.Member, pid: int) -> None:
        self._reports.pop(str(pid), None)
        self._node.map("probes", int).pop(f"{member.instance:016x}", None)

    # -- words ------------------------------------------------------------------------------------------------------

    def _clock(self) -> float:
        """Seconds since the visits began."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def _on_clock(self, since: float) -> float:
        """A moment of the wall clock in seconds since the visits began."""
        return max(0.0, self._clock() + since - time.time())

    async def _tell_death(self, member: gossip.Member, row: Row) -> None:
        """With the reason of whoever noticed it first: the screen may only have heard of it."""
        views = await views_of(self._node)
        known = [view.deaths[member.name] for view in views if member.name in view.deaths]
        since, why = min(known, default=(member.since, member.evidence))
        row.status = "dead"
        self._forget(member, row.pid)
        self._event(f"worker {row.pid} is dead: {why}", self._on_clock(since))

    def _event(self, text: str, at: float | None = None) -> None:
        at = self._clock() if at is None else at
        self._scene.events.append((at, text))
        self._screen.event(at, text)

    # -- waiting ----------------------------------------------------------------------------------------------------

    async def _until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Waits for a condition, which is looked at whenever there is news; whether it came to hold in time."""
        deadline = time.monotonic() + seconds
        while not holds():
            if self._server.ended:
                raise NoDemo(f"uvicorn has ended by itself. Its last words:\n{self._server.last_words()}")
            for task in self._tasks:
                if task.done():
                    task.result()
            if time.monotonic() >= deadline:
                return False
            self._news.clear()
            await self._news.wait()
        return True

    async def _must(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        if not await self._until(holds, seconds):
            raise NoDemo(
                f"{what}: that did not come about within {seconds:.0f} s. uvicorn's last words:\n"
                f"{self._server.last_words()}"
            )
