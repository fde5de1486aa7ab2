"""What does a small web application share among its uvicorn workers? For test_web.py."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import gossip

node = gossip.Node(os.environ.get("TEST_CLUSTER", "app"))
flags = node.map("flags", str)
hits = node.counter("hits")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with node:
        yield


async def show(request: Request) -> JSONResponse:
    members = sorted(member.name for member in node.members)
    return JSONResponse({"pid": os.getpid(), "flags": dict(flags), "hits": hits.value, "members": members})


async def put(request: Request) -> JSONResponse:
    flags[request.path_params["key"]] = request.path_params["value"]
    hits.increment()
    return JSONResponse({"pid": os.getpid()})


app = Starlette(lifespan=lifespan, routes=[Route("/", show), Route("/{key}/{value}", put, methods=["POST"])])
