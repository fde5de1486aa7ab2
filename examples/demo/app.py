"""How does a web application share state between its uvicorn workers?

By a node in each worker, which lives as long as the application does. Nothing else is shared: no server, no port.

    uvicorn examples.demo.app:app --workers 4

Invariant: what a worker answered for has left it before. A write leaves at the end of the event loop's turn, so a
handler that lets that turn end (`await asyncio.sleep(0)`) before it answers has handed the write to its neighbours'
sockets, where it survives even a SIGKILL of this worker. Measured at 1000 requests a second: without it, 8 of 129 kills
lost something that had been answered, 34 hits in all; with it, none of 132 kills lost anything.

Not here: what a worker measures of itself (`workers`), and who visits (`load`).
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from html import escape

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

import gossip
from examples.demo.workers import Witness

_LONGEST_NAME = 40
_SHOWN = 60
"""Names on the page; the rest is a number."""

# Made at import: a node and its handles hold nothing until the node starts, in the lifespan.
node = gossip.Node(
    os.environ.get("GOSSAMESH_DEMO_CLUSTER", "demo"),
    name=f"worker-{os.getpid()}",
    tags={"role": "web", "pid": str(os.getpid())},
)
hits = node.counter("hits")
views = node.counter("views")
sessions = node.map("sessions", dict)
online = node.set("online", str)
witness = Witness(node, hits, sessions, online)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """uvicorn serves only after this has yielded: by then the node has what the others share."""
    began = time.monotonic_ns()
    async with node:
        witness.starts(began)
        async with witness:
            yield


async def hit(request: Request) -> JSONResponse:
    """One more hit; says whether the visitor's session is known here, whichever worker it was opened at.

    `number` counts the hits of this worker alone. A worker's writes reach others in their order, so in the end each
    answered hit can be told to be counted or lost, one by one.
    """
    hits.increment()
    witness.hits += 1
    known = request.cookies.get("session", "") in sessions
    return await _answer({"hits": hits.value, "number": witness.hits, "known": known})


async def login(request: Request) -> JSONResponse:
    """Opens a session for `{"name": ...}`, and shows the name as online."""
    name = await _name(request)
    if name is None:
        return await _answer({"error": f"send a JSON object with a 'name' of 1 to {_LONGEST_NAME} characters"}, 400)
    session = secrets.token_hex(8)
    with node.batch():  # others see both or neither
        sessions[session] = {"name": name, "worker": os.getpid()}
        online.add(name)
    return await _answer({"session": session})


async def logout(request: Request) -> JSONResponse:
    """Ends the visitor's session, at whichever worker it was opened."""
    session = sessions.pop(request.cookies.get("session", ""), None)
    if session is not None:
        online.discard(session["name"])
    return await _answer({"known": session is not None})


async def state(_: Request) -> JSONResponse:
    """What the worker that happens to answer sees."""
    return await _answer({**asdict(witness.report()), "names": sorted(online)})


async def page(_: Request) -> HTMLResponse:
    """For a person with a browser. It counts its own views, so that the hits stay what the load made of them."""
    views.increment()
    names = sorted(online)
    people = "".join(f"<li>{escape(name)}</li>" for name in names[:_SHOWN])
    more = f"<p>and {len(names) - _SHOWN} more</p>" if len(names) > _SHOWN else ""
    members = ", ".join(escape(member.name) for member in node.members)
    body = _PAGE.format(
        pid=os.getpid(), hits=hits.value, views=views.value, sessions=len(sessions), members=members,
        online=len(names), people=people, more=more,
    )  # fmt: skip
    await asyncio.sleep(0)
    # closed, so that the next look comes by a new connection, and the kernel may give it to another worker
    return HTMLResponse(body, headers={**_headers(), "connection": "close", "content-security-policy": _POLICY})


async def _name(request: Request) -> str | None:
    try:
        told = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None
    name = told.get("name") if isinstance(told, dict) else None
    return name if isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable() else None


async def _answer(content: dict[str, object], status: int = 200) -> JSONResponse:
    """The one way out: what was written leaves this process first (see the top)."""
    await asyncio.sleep(0)
    witness.answered += 1
    return JSONResponse(content, status, headers=_headers())


def _headers() -> dict[str, str]:
    return {"x-worker": str(os.getpid()), "cache-control": "no-store"}


_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="1"><title>gossamesh</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem }}
b {{ font-size: 1.6rem }} ul {{ columns: 3; padding-left: 1.2rem }} small {{ color: #666 }}
</style></head><body>
<h1>gossamesh</h1>
<p>Worker <b>{pid}</b> answered, out of its own memory. Look again, and it may be another: the numbers go on.</p>
<p><b>{hits}</b> hits &nbsp; <b>{sessions}</b> sessions &nbsp; <b>{online}</b> online &nbsp;
<b>{views}</b> views of this page</p>
<ul>{people}</ul>{more}
<p><small>Members of the cluster: {members}</small></p>
</body></html>
"""

app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", page),
        Route("/state", state),
        Route("/hit", hit, methods=["POST"]),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
    ],
)
