"""How long until the others know who has come, crashed or stopped, and what does it cost to wait for it?

Real processes on one host, each with a node as a program has it, with nothing configured. Every process tells what its
node tells it, with the time of CLOCK_MONOTONIC, which all of a machine share.

  join   all start at once, in processes that have imported everything: until each knows all
  kill   `kill -9` of one: until all others have called it dead; another takes its place, and so on
  hang   SIGSTOP of one: until the first other doubts it, and until all do
  idle   processor (of one core) and memory of each, while nothing happens

    python benchmarks/detect.py [--members 8 32] [--kills 20] [--hangs 5] [--idle 20] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import mean
from typing import Any

import gossip

PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
PATIENCE = 60.0
DOUBTS = ("suspected", "stalled")


async def peer(cluster: str, name: str) -> None:
    """A member: waits for the word, and tells whatever happens from then on, and how many it knows."""
    loop = asyncio.get_running_loop()
    tell("imported", "", 0)
    await loop.run_in_executor(None, sys.stdin.readline)
    async with gossip.Node(cluster, name=name) as node, node.events() as events:
        tell("started", name, len(node.members))
        async for event in events:
            tell(event.kind, event.member.name if event.member else "", len(node.members))


def tell(kind: str, name: str, members: int) -> None:
    print(json.dumps([time.monotonic(), kind, name, members]), flush=True)


class Peer:
    """One of them, seen from outside: what it told so far."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name, self.process = name, process
        self.told: list[tuple[float, str, str, int]] = []
        self.heard = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.told.append(tuple(json.loads(line)))
            self.heard.set()

    async def first(self, what: Callable[[tuple[float, str, str, int]], bool], since: int = 0) -> float:
        """When it first told this, from its line `since` on."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for line in self.told[since:]:
                    if what(line):
                        return line[0]
                self.heard.clear()
                await self.heard.wait()

    @property
    def knows(self) -> int:
        return self.told[-1][3]

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    def usage(self) -> tuple[float, float]:
        """Seconds of processor so far, and MiB in memory."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        with open(f"/proc/{self.process.pid}/statm") as file:
            resident = int(file.read().split()[1])
        return (int(fields[11]) + int(fields[12])) / TICKS, resident * PAGE / (1 << 20)


class Cluster:
    """Members on this host; whoever is killed is replaced."""

    def __init__(self) -> None:
        self.name = f"bench-{os.getpid()}"
        self.peers: list[Peer] = []
        self._number = 0

    async def begin(self) -> Peer:
        self._number += 1
        name = f"n{self._number}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--peer", self.name, name,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        peer = Peer(name, process)
        self.peers.append(peer)
        await peer.first(lambda line: line[1] == "imported")
        return peer

    async def joined(self, members: int) -> float:
        """Seconds until each of so many that start at once knows all."""
        await asyncio.gather(*(self.begin() for _ in range(members)))
        begun = time.monotonic()
        for peer in self.peers:
            peer.begin()
        return max([await peer.first(lambda line: line[3] == members) for peer in self.peers]) - begun

    async def killed(self, victim: Peer) -> list[float]:
        """Seconds until each of the others knew; another has taken its place when this returns."""
        others = [peer for peer in self.peers if peer is not victim]
        begun = time.monotonic()
        victim.process.kill()
        known = [await peer.first(lambda line: line[1:3] == ("died", victim.name)) for peer in others]
        await victim.process.wait()
        self.peers.remove(victim)
        (await self.begin()).begin()
        await self.settled()
        return [moment - begun for moment in known]

    async def hung(self, victim: Peer) -> list[float]:
        """Seconds until each of the others doubted it; it is back when this returns."""
        others = [peer for peer in self.peers if peer is not victim]
        told = [len(peer.told) for peer in others]
        begun = time.monotonic()
        victim.process.send_signal(signal.SIGSTOP)
        try:
            doubted = [
                await peer.first(lambda line: line[1] in DOUBTS and line[2] == victim.name, since)
                for peer, since in zip(others, told, strict=True)
            ]
        finally:
            victim.process.send_signal(signal.SIGCONT)
        await self.settled()
        return [moment - begun for moment in doubted]

    async def settled(self) -> None:
        """Waits until each knows all, and nothing has been told for two rounds of probes."""
        async with asyncio.timeout(PATIENCE):
            while True:
                told = [len(peer.told) for peer in self.peers]
                await asyncio.sleep(2.0)
                quiet = told == [len(peer.told) for peer in self.peers]
                if quiet and all(peer.knows == len(self.peers) for peer in self.peers):
                    return

    async def idle(self, seconds: float) -> dict[str, float]:
        """Percent of one core, and MiB, of each on average; and what the hungriest takes."""
        await self.settled()
        before, begun = [peer.usage() for peer in self.peers], time.monotonic()
        await asyncio.sleep(seconds)
        took, after = time.monotonic() - begun, [peer.usage() for peer in self.peers]
        cpu = [100 * (end[0] - start[0]) / took for start, end in zip(before, after, strict=True)]
        return {"cpu": mean(cpu), "most_cpu": max(cpu), "mib": mean(end[1] for end in after)}

    async def over(self) -> None:
        for peer in self.peers:
            if peer.process.returncode is None:
                peer.process.kill()
            await peer.process.wait()


async def measure(members: int, options: argparse.Namespace) -> dict[str, Any]:
    """One cluster of so many."""
    cluster = Cluster()
    try:
        figures: dict[str, Any] = {"members": members, "join": await cluster.joined(members)}
        figures["idle"] = await cluster.idle(options.idle)
        if members == options.members[0]:  # in the others the figures would be those of this machine's processors
            figures["kill"] = [await cluster.killed(cluster.peers[0]) for _ in range(options.kills)]
            figures["hang"] = [await cluster.hung(cluster.peers[number % members]) for number in range(options.hangs)]
        return figures
    finally:
        await cluster.over()


def percentile(values: list[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def report(figures: dict[str, Any]) -> None:
    """A few lines for people."""
    idle = figures["idle"]
    print(f"{figures['members']} members")
    print(f"  join: each knows all after {figures['join']:.2f} s")
    print(
        f"  idle: {idle['cpu']:.2f} % of a core each ({idle['most_cpu']:.2f} % at most), {idle['mib']:.0f} MiB resident"
    )
    if figures.get("kill"):
        last, each = [max(kill) for kill in figures["kill"]], [one for kill in figures["kill"] for one in kill]
        print(f"  kill -9, {len(last)} times: known to one of the others, and to the last of them, after")
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            print(f"    {name}: {percentile(each, share) * 1e3:8.1f} ms {percentile(last, share) * 1e3:8.1f} ms")
    if figures.get("hang"):
        first, last = [min(hang) for hang in figures["hang"]], [max(hang) for hang in figures["hang"]]
        print(f"  SIGSTOP, {len(last)} times: doubted by the first of the others, and by the last of them, after")
        for name, share in (("p50", 0.5), ("max", 1.0)):
            print(f"    {name}: {percentile(first, share):8.2f} s  {percentile(last, share):8.2f} s")


def main() -> None:
    """Measures, and prints text or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[8, 32], help="the first is the one that is harmed")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--hangs", type=int, default=5)
    parser.add_argument("--idle", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peer", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        asyncio.run(peer(*options.peer))
        return
    with tempfile.TemporaryDirectory(prefix="gm-") as directory:
        os.environ["GOSSAMESH_RUNTIME_DIR"] = directory
        results = [asyncio.run(measure(members, options)) for members in options.members]
    if options.json:
        print(json.dumps({"python": platform.python_version(), "results": results}))
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for figures in results:
        report(figures)


if __name__ == "__main__":
    main()
