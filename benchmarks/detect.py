"""How long until the others know who has come, crashed or stopped, and what does it cost to wait for it?

Real processes on one host, each with a node as a program has it, with nothing configured. Every process tells what its
node tells it, with the time of CLOCK_MONOTONIC, which all of a machine share. Beside ours, at the first number of
members, whatever else knows its members, each in a program of its own that tells in the same lines. Nothing is asked of
them but to know each other: what else they can do differs. Nodes of one host see each other's processes, so ours is
asked a second time as on hosts of their own, over loopback sockets and by seeds, as the others are.

  join   all start at once, in processes that have imported everything: until each knows all
  kill   `kill -9` of one: until all others have called it dead; another takes its place, and so on
  hang   SIGSTOP of one: until the first other doubts it, and until all do (ours alone: to the others it is a crash)
  idle   processor (of one core) and memory of each, while nothing happens

    python benchmarks/detect.py [--members 8 1 32] [--kills 20] [--hangs 5] [--idle 20] [--systems gossamesh serf]
                                [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gossip
from benchmarks.measure import NOT_QUICK, OURS, Result, alone, in_turn, resident
from benchmarks.peers import Member, free_port, peers

PATIENCE = 120.0  # eight JVMs that start on two busy cores need most of it
OFTEN = 4  # ours is harmed so many times as often as another, of whom each time takes seconds
NETWORK = f"{OURS}, over the network"
DOUBTS = ("suspected", "stalled")


async def peer(cluster: str, name: str, *network: str) -> None:
    """A member: waits for the word, and tells whatever happens from then on, and how many it knows.

    With a port of its own, and those of its seeds, it is as on a host of its own.
    """
    loop = asyncio.get_running_loop()
    settings: dict[str, Any] = {}
    if network:
        port, *seeds = [f"127.0.0.1:{each}" for each in network]
        host = Path(os.environ["GOSSAMESH_RUNTIME_DIR"], f"{cluster}-{name}")
        host.mkdir(mode=0o700)
        settings = {"bind": port, "seeds": seeds, "mdns": False, "runtime_dir": host}
    member = gossip.Node(cluster, name=name, **settings)  # which has all imported that drives it
    tell("imported", "", 0)
    await loop.run_in_executor(None, sys.stdin.readline)
    async with member as node, node.events() as events:
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
        self._ended = False
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.told.append(tuple(json.loads(line)))
            self.heard.set()
        self._ended = True
        self.heard.set()

    async def first(self, what: Callable[[tuple[float, str, str, int]], bool], since: int = 0) -> float:
        """When it first told this, from its line `since` on."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for line in self.told[since:]:
                    if what(line):
                        return line[0]
                if self._ended:
                    raise RuntimeError(f"the process of {self.name} ended")
                self.heard.clear()
                await self.heard.wait()

    @property
    def knows(self) -> int:
        return self.told[-1][3]

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    def usage(self) -> tuple[float, float]:
        """Seconds of processor of all its threads so far, to the nanosecond, and MiB in memory."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        spent = sum(int(thread.read_text(encoding="utf-8").split()[0]) for thread in threads)
        return spent / 1e9, resident(self.process.pid) / (1 << 20)


class Cluster:
    """Members on this host; whoever is killed is replaced."""

    def __init__(self, number: int, member: Member) -> None:
        self.name = f"bench-{os.getpid()}-{number}"
        self.peers: list[Peer] = []
        self._ports: dict[str, int] = {}
        self._member = member
        self._number = 0

    async def begin(self) -> Peer:
        self._number += 1
        name, port, seeds = f"n{self._number}", free_port(), list(self._ports.values())
        self._ports[name] = port
        process = await asyncio.create_subprocess_exec(
            *self._member(self.name, name, port, seeds),
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
        del self._ports[victim.name]
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

    async def idle(self, seconds: float) -> list[tuple[float, float]]:
        """Of each the percent of one core, and the MiB."""
        await self.settled()
        before, begun = [peer.usage() for peer in self.peers], time.monotonic()
        await asyncio.sleep(seconds)
        took, after = time.monotonic() - begun, [peer.usage() for peer in self.peers]
        return [(100 * (end[0] - start[0]) / took, end[1]) for start, end in zip(before, after, strict=True)]

    async def over(self) -> None:
        for peer in self.peers:
            if peer.process.returncode is None:
                peer.process.kill()
            await peer.process.wait()


def own(cluster: str, name: str, port: int, seeds: list[int]) -> list[str]:
    """Ours needs neither a port nor seeds."""
    return [sys.executable, __file__, "--peer", cluster, name]


def own_over_the_network(cluster: str, name: str, port: int, seeds: list[int]) -> list[str]:
    """As if each were alone on its host: no process is seen by another."""
    return [*own(cluster, name, port, seeds), *map(str, (port, *seeds))]


def systems(options: argparse.Namespace, result: Result) -> dict[str, Member]:
    """Who is here, in all its settings; in a quick look only ours on one host, and who is named."""
    found: dict[str, Member] = {OURS: own, NETWORK: own_over_the_network}
    for name, peer in peers().items():
        if peer.members and peer.missing:
            result.skipped[name] = f"{peer.missing} is not installed"
        else:
            found |= peer.members
    if options.quick:
        result.skipped |= dict.fromkeys(found.keys() - {OURS, *(options.systems or ())}, NOT_QUICK)
    wanted = options.systems or ([OURS] if options.quick else found)
    return {name: member for name, member in found.items() if name in wanted}


async def one_cluster(
    label: str, cluster: Cluster, system: str, harmed: bool, options: argparse.Namespace, result: Result
) -> None:
    """The last one of a system: it idles, and is harmed."""
    for each in await cluster.idle(options.idle):
        result.add(f"{label}, idle", system, each[0], "%")
        result.add(f"{label}, resident", system, each[1], "MiB")
    if not harmed:
        return
    for _ in range(options.kills if system == OURS else options.kills // OFTEN):
        known = await cluster.killed(cluster.peers[0])
        result.add(f"{label}, kill -9 known to the first", system, min(known) * 1e3, "ms")
        result.add(f"{label}, kill -9 known to the last", system, max(known) * 1e3, "ms")
    for turn in range(options.hangs if system == OURS else 0):
        doubted = await cluster.hung(cluster.peers[turn % len(cluster.peers)])
        result.add(f"{label}, SIGSTOP doubted by the first", system, min(doubted), "s")
        result.add(f"{label}, SIGSTOP doubted by the last", system, max(doubted), "s")


async def measure(
    members: int, joins: int, everybody: dict[str, Member], options: argparse.Namespace, result: Result
) -> None:
    """Clusters of so many, one after the other and system by system; the last of each idles, and is harmed.

    In clusters of another size than the first the figures of harm would be those of this machine's processors.
    """
    label, harmed = f"{members} member{'s' if members > 1 else ''}", members == options.members[0]
    for number, system in in_turn(everybody, joins):
        if system in result.failed:
            continue
        cluster = Cluster(number, everybody[system])
        try:
            result.add(f"{label}, join", system, await cluster.joined(members) * 1e3, "ms")
            if number == joins - 1:
                await one_cluster(label, cluster, system, harmed, options, result)
        except Exception as error:
            if system == OURS:
                raise
            why = f"something took more than {PATIENCE:.0f} s" if isinstance(error, TimeoutError) else error
            result.failed[system] = f"{type(error).__name__}: {why}"
        finally:
            await cluster.over()


async def ask(options: argparse.Namespace, result: Result) -> None:
    quick, joins = options.quick, 2 if options.quick else 5
    options.members = options.members or ([8, 1] if quick else [8, 1, 32])
    options.kills = (2 if quick else 20) if options.kills is None else options.kills
    options.hangs = (0 if quick else 5) if options.hangs is None else options.hangs
    options.idle = options.idle or (3.0 if quick else 20.0)
    with tempfile.TemporaryDirectory(prefix="gm-") as directory:
        os.environ["GOSSAMESH_RUNTIME_DIR"] = directory
        everybody = systems(options, result)
        for members in options.members:
            await measure(members, joins, everybody, options, result)
            everybody = {name: member for name, member in everybody.items() if name == OURS}
    result.notes.append("idle, and resident: one figure a member. join: one a cluster. kill and SIGSTOP: one a time")


def own_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--members", type=int, nargs="+", help="the first is the one that is harmed")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--hangs", type=int)
    parser.add_argument("--idle", type=float, metavar="SECONDS")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="these only, by the names in the table")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        asyncio.run(peer(*sys.argv[2:]))
    else:
        alone(__file__, __doc__ or "", ask, own_options)
