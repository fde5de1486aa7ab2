"""How does a node live that belongs to no program?

It is for shells, for programs in other languages, and so that the state outlives the workers. SIGTERM, SIGINT and the
end of the terminal make it leave, within a second: whatever is slow then is left behind.

Invariant: the key is never read from the command line, which every user of this host can see.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click

from gossip.checks import keys_of
from gossip.cli.asking import as_json, key_of_file, of_cluster, told_tags
from gossip.cli.printing import document, printable, refused, say
from gossip.config import PROFILES, Config
from gossip.errors import ConfigError, StartError
from gossip.node import Node

_LEAVE = 0.75
"""Seconds that a leave may take, out of the one that people and supervisors are promised."""


@click.command("run")
@of_cluster
@click.option("--name", help="What others see. Default: host and process.")
@click.option("--bind", metavar="HOST:PORT", help="Where to speak to other hosts. Default: this host only, no port.")
@click.option("--advertise", metavar="HOST:PORT", help="Where others reach this node, if not at --bind.")
@click.option(
    "--seed",
    "seeds",
    metavar="HOST:PORT",
    multiple=True,
    help="A node to try; a name stands for all its addresses, srv:NAME for its SRV records. Repeatable.",
)
@click.option("--seeds-command", metavar="COMMAND", help="A command that prints such seeds, run again and again.")
@click.option("--mdns/--no-mdns", default=None, help="Whether to find nodes on this link. Default: if beyond loopback.")
@click.option(
    "--key-file",
    type=click.Path(),
    help="A file with the cluster's key (see `gossip keygen`), or several, one a line: the first seals. GOSSAMESH_KEY "
    "has the key itself.",
)
@click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="A label that others see. Repeatable.")
@click.option("--data-dir", type=click.Path(), help="Keep the data in this directory: it survives this node.")
@click.option("--config", type=click.Path(), help="A TOML file with these and more.  [env var: GOSSAMESH_CONFIG]")
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    help="For how distant nodes the intervals and timeouts are. Default: lan.  [env var: GOSSAMESH_PROFILE]",
)
@click.option("--insecure", is_flag=True, default=None, help="Listen beyond this machine without a key.")
@as_json
def command(
    cluster: str | None, seeds: tuple[str, ...], key_file: str | None, tags: tuple[str, ...], config: str | None,
    as_json: bool, **told: Any,
) -> None:  # fmt: skip
    """Run a node of its own, until SIGTERM or Ctrl-C.

    It prints a line when it is ready. What is not given here is taken from the environment (GOSSAMESH_BIND, ...), then
    from the TOML file. The key never stands on the command line, which other users can see.

    \b
    Example:
      gossip run -c shop
      gossip run -c shop --bind 0.0.0.0:7946 --seed 10.0.0.5:7946 --key-file shop.key --tag role=store
      gossip run -c shop --bind 0.0.0.0:7946 --seed shop.default.svc:7946 --key-file shop.key --no-mdns
      gossip run -c shop --bind 0.0.0.0:7946 --seed 198.51.100.7:7946 --key-file shop.key --profile wan
    """
    if not cluster:
        raise click.UsageError("which cluster? gossip run -c shop, or GOSSAMESH_CLUSTER")
    key = key_of_file(key_file) if key_file else None
    try:
        keys_of(key or "")
    except ConfigError as error:
        raise click.UsageError(f"the key file {key_file}: {error}") from None
    told |= {"seeds": seeds or None, "tags": dict(told_tags(tags)) or None, "key": key}
    try:
        node = Node(cluster, config=Config.load(cluster, config, **told))
    except ConfigError as error:
        raise click.UsageError(_as_option(str(error), told["bind"])) from None
    _log_to_stderr()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_live(node, as_json))
            # Not by the end of the block: it would wait for threads that still look up the names of seeds.
            sys.stderr.flush()
            os._exit(0)
    except (StartError, OSError) as error:
        raise refused(f"the node could not start: {error}") from None


async def _live(node: Node, as_json: bool) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    signals = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signals.append(signal.SIGHUP)
    for each in signals:
        loop.add_signal_handler(each, ended.set)
    starting, ending = asyncio.ensure_future(node.start()), asyncio.ensure_future(ended.wait())
    await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        _say_ready(node, as_json)
        await ending
    starting.cancel()  # who says it twice is heard already: it takes less than a second
    try:
        async with asyncio.timeout(_LEAVE):
            await asyncio.gather(starting, return_exceptions=True)
            await node.leave()
    except TimeoutError:
        logging.getLogger("gossip").warning("left without waiting for everybody: a peer took too long")


def _as_option(message: str, bind: str | None) -> str:
    """The message as it helps at a prompt, where settings are options."""
    if "without a key" not in message:
        return message
    what = f"--bind {bind}" if bind else "bind"
    return (
        f"{what} would listen beyond this machine without a key, so anybody who reaches it "
        "could read and write everything: make a key with `gossip keygen` and give it to every node by --key-file (or "
        "GOSSAMESH_KEY), or say --insecure where the network itself is trusted"
    )


def _say_ready(node: Node, as_json: bool) -> None:
    status = node.status()
    ready = {field: status[field] for field in ("cluster", "name", "instance", "pid", "addresses")}
    line = f"ready: {ready['name']} in cluster {ready['cluster']} at {' '.join(ready['addresses'])}"
    with suppress(BrokenPipeError):  # whoever started us may not care to read it
        say(document(ready) if as_json else printable(line))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
