"""How fast is the stash of gunicorn, tables that its workers share?

They are in the memory of the arbiter of its "dirty" workers, which is asked over a unix socket: `gunicorn.dirty.stash`.
gunicorn runs here for real, with one worker and one dirty worker; who measures asks as a worker does, from a process of
its own. There is one client, which blocks, and no faster setting. Nobody can be told of a write, and there are neither
counters nor sets.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from benchmarks.peers import PATIENCE, Client, Peer, served

APPLICATION = """
import os
from gunicorn.dirty import DirtyApp

class Nothing(DirtyApp):
    pass

def application(environ, start_response):
    start_response("200 OK", [])
    return []

def post_worker_init(worker):  # a hook of gunicorn: this file is its configuration as well
    with open("stash.address", "w") as told:
        told.write(os.environ["GUNICORN_DIRTY_SOCKET"] + "\\n")
"""


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """The socket of its arbiter, which gunicorn tells its workers. Its own has a short path: such are bounded."""
    (directory / "shared.py").write_text(APPLICATION, encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="gm-") as short:
        door = Path(short) / "web"
        settings = ["--config", "shared.py", "--bind", f"unix:{door}", "--dirty-app", "shared:Nothing"]
        command = [sys.executable, "-m", "gunicorn", *settings, "--workers", "1", "--dirty-workers", "1"]
        with served([*command, "shared:application"], directory, door):
            told, deadline = directory / "stash.address", time.monotonic() + PATIENCE
            while not (told.exists() and told.read_text(encoding="utf-8").endswith("\n")):
                if time.monotonic() > deadline:
                    raise RuntimeError("gunicorn started no dirty arbiter")
                time.sleep(0.02)
            yield told.read_text(encoding="utf-8").strip()


@asynccontextmanager
async def table(address: str) -> AsyncIterator[Client]:
    os.environ["GUNICORN_DIRTY_SOCKET"] = address  # as a worker has it
    from gunicorn.dirty import stash

    shared = stash.table("shared")
    yield Client(read=shared.__getitem__, write=shared.__setitem__)


PEER = Peer(
    "gunicorn stash",
    running,
    clients={"gunicorn stash": table},
    modules=("gunicorn.dirty",),
    packages=("gunicorn",),
)
