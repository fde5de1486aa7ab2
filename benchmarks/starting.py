"""How long does an import take, and how long from the start of a process until it can read and write?

Each time a fresh interpreter. An import is timed inside it, without the interpreter's own start. What drives a node
comes with the first one that is made, not with the import: so ours is timed a second time, with a node made. The clock
of a start runs from outside, from the start of the process to its end, with one write and one read in it: it shows that
nothing was only put off. Ours starts a node that finds nobody; a peer's server runs, and its client connects.

    python benchmarks/starting.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import ours
from benchmarks.measure import OURS, Result, alone, in_turn
from benchmarks.peers import Peer, peers

IMPORTS = {
    OURS: "gossip",
    "asyncio": "asyncio",
    "redis": "redis",
    "redis, asyncio": "redis.asyncio",
    "multiprocessing.Manager": "multiprocessing.managers",
    "diskcache": "diskcache",
    "memcached": "pylibmc",
    "nats": "nats",
    "pysyncobj": "pysyncobj",
    "etcd": "grpc",
    "gunicorn stash": "gunicorn.dirty.stash",
}
STARTS = {
    "python": "pass",
    OURS: "import gossip, sys\n"
    "with gossip.Node('b', runtime_dir=sys.argv[1]) as b:\n  m = b.map('m'); m['k'] = 1; m['k']",
    "redis": "import redis, sys\nr = redis.Redis(unix_socket_path=sys.argv[1].split()[1]); r.set('k', 1); r.get('k')",
    "diskcache": "import diskcache, sys\nc = diskcache.Cache(sys.argv[1]); c['k'] = 1; c['k']",
    "memcached": "import pylibmc, sys\nc = pylibmc.Client([sys.argv[1].split()[1]]); c.set('k', 1); c.get('k')",
    "gunicorn stash": "import os, sys\nos.environ['GUNICORN_DIRTY_SOCKET'] = sys.argv[1]\n"
    "from gunicorn.dirty import stash; stash.put('t', 'k', 1); stash.get('t', 'k')",
    "multiprocessing.Manager": "from multiprocessing import Manager\nwith Manager() as m:\n  d = m.dict(k=1); d['k']",
}
PATIENCE = 60.0
MADE = "import gossip; gossip.Node('b')"
_TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def done(statement: str) -> float:
    """Milliseconds."""
    command = [sys.executable, "-c", _TIMED.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout) * 1e3


def started(program: str, address: str) -> float:
    """Milliseconds from the start of the process to its end, of which a pidfd tells: to wait with a timeout is to look
    now and then, at last every 50 ms."""
    begun = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", program, address]) as process:
        end = os.pidfd_open(process.pid)
        ended, _, _ = select.select([end], [], [], PATIENCE)
        took = time.perf_counter() - begun
        os.close(end)
        if not ended:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"a program that starts, writes and reads ended with {process.returncode}")
    return took * 1e3


async def ask(options: argparse.Namespace, result: Result) -> None:
    rounds = 2 if options.quick else 20
    result.floors += ["python", "asyncio"]
    everybody: dict[str, Peer] = {OURS: ours.PEER, **peers()}
    absent = {name: peer.missing for name, peer in everybody.items() if peer.missing and name in IMPORTS}
    result.skipped |= {name: f"{why} is not installed" for name, why in absent.items()}
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        addresses = {"python": ""}
        for name in STARTS.keys() & everybody.keys() - absent.keys():
            (base / name).mkdir()
            addresses[name] = stack.enter_context(everybody[name].running(base / name))
        here = {name: f"import {module}" for name, module in IMPORTS.items() if name.partition(",")[0] not in absent}
        for statement in (*here.values(), MADE):  # compiled, and in the cache of the disk
            subprocess.run([sys.executable, "-c", statement], capture_output=True, check=False, timeout=60)
        for _, name in in_turn(here, rounds):
            result.add("import", name, done(here[name]), "ms")
            if name == OURS:
                result.add("import, and make a node", name, done(MADE), "ms")
        for _, name in in_turn([name for name in STARTS if name in addresses], rounds):
            result.add("start, write, read, end", name, started(STARTS[name], addresses[name]), "ms")


if __name__ == "__main__":
    alone(__file__, __doc__ or "", ask)
