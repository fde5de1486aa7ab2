"""Where are addresses to be asked for, and who is asked how?

Each place that the configuration names is a source of its own: a name among the seeds, the file, the command. They are
asked side by side, so that none waits for another that is slow.

Invariant: what a source gives are candidates, and why it gave none is a text that is the same as long as the reason is.
Not here: when they are asked, and whom the answers are told (`search`); how each is asked (`discovery`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from discovery import Address, Resolver, Seed, Service, ask_command, parse_address, parse_seeds, read_seeds
from gossip.config import Config


class Answer(NamedTuple):
    """What a source gave, and what went wrong with all or some of it."""

    found: tuple[Address, ...] = ()
    wrong: str = ""


class Source(NamedTuple):
    """A place where addresses may be found. `ask` raises `OSError` or `ValueError`, and takes ten seconds at most."""

    name: str
    ask: Callable[[], Awaitable[Answer]]


def known(config: Config) -> list[str]:
    """The seeds that are addresses already: there is nobody to ask."""
    return [str(seed) for seed in parse_seeds(config.seeds) if not _is_name(seed)]


def sources(config: Config) -> list[Source]:
    """All that the configuration names."""
    resolver = Resolver()
    names = [seed for seed in parse_seeds(config.seeds) if _is_name(seed)]
    made = [Source(f"the seed {name}", partial(_resolved, resolver, (name,))) for name in names]
    if config.seeds_file:
        made.append(Source("the file of seeds", partial(_file, resolver, Path(config.seeds_file))))
    if config.seeds_command:
        import shlex  # here, as in `config`: few nodes have a command

        words = shlex.split(config.seeds_command)
        made.append(Source("the command for seeds", partial(_command, resolver, words)))
    return made


def speaks_mdns(config: Config) -> bool:
    """Whether the node is announced on its links. A cluster of Kubernetes passes no multicast on, and has names."""
    if config.mdns is not None:
        return config.mdns
    beyond = bool(config.bind) and not parse_address(config.bind, allow_port_zero=True).is_loopback
    return beyond and "KUBERNETES_SERVICE_HOST" not in os.environ


def _is_name(seed: Seed) -> bool:
    return isinstance(seed, Service) or seed.is_name


async def _file(resolver: Resolver, path: Path) -> Answer:
    return await _resolved(resolver, read_seeds(path))


async def _command(resolver: Resolver, words: list[str]) -> Answer:
    return await _resolved(resolver, await ask_command(words))


async def _resolved(resolver: Resolver, seeds: Iterable[Seed]) -> Answer:
    """The addresses of all, and what is wrong with the first of those that have none."""
    tried = await asyncio.gather(*(resolver.addresses(seed) for seed in seeds), return_exceptions=True)
    found: dict[Address, None] = {}
    wrong: list[str] = []
    for each in tried:
        if isinstance(each, OSError):
            wrong.append(str(each))
        elif isinstance(each, BaseException):
            raise each
        else:
            found.update(dict.fromkeys(each))
    more = f" (and {len(wrong) - 1} more like it)" if len(wrong) > 1 else ""
    return Answer(tuple(found), wrong[0] + more if wrong else "")
