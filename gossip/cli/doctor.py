"""Why do they not find each other, or why is it slow?"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import click

from gossip.checkup import Greeting, greeting, knocked, seeds_of
from gossip.cli.asking import of_node
from gossip.cli.conversation import PATIENCE, Conversation, everybody
from gossip.cli.diagnosis import Finding, Patient, findings, seed_finding
from gossip.cli.printing import Failure, document, printable, say, say_table
from gossip.cli.surroundings import ANY, look, nobody, settings
from gossip.config import Config
from gossip.keyring import Keyring

_SURVEY = 2.0
"""Seconds in which every node of this host may answer: one whose loop stands still does not."""
_WIDTH = 10


class Told(NamedTuple):
    """A finding, and of which node; of none what holds for this host."""

    finding: Finding
    cluster: str = ""
    node: str = ""

    def as_json(self) -> dict[str, Any]:
        """As a program reads it."""
        level, check, found, fault, step = self.finding
        of = {"cluster": self.cluster or None, "node": self.node or None}
        return {"level": level, "check": check, "found": found, "fault": fault or None, "next": step or None, **of}


@click.command("doctor")
@click.option("--config", type=click.Path(), help="A TOML file to look at.  [env var: GOSSAMESH_CONFIG]")
@of_node
def command(config: str | None, cluster: str | None, node: str | None, as_json: bool) -> int:
    """Look for what is wrong: here, at a node of each cluster of this host, and at the addresses that it knows.

    Each line says whether something is ok, a warning or a problem, what was found, whose fault that is, and what to do
    next. It works without a node, too: then settings, directory and seeds are looked at. A knock at an address costs
    whoever listens there a counter, and nothing else.

    Exit code 0 if there is no problem (warnings are none), 1 if there is one.

    \b
    Example:
      gossip doctor
      gossip doctor -c shop --config node.toml
      gossip doctor --json | jq -r '.[] | select(.level == "problem") | .next'
    """
    told = list(_all(cluster, node, config))
    if as_json:
        say(document([each.as_json() for each in told]))
    elif sys.stdout.isatty():
        _say_lines(told)
    else:
        rows = ((*each.finding, f"{each.node} of {each.cluster}" if each.node else "") for each in told)
        say_table((), rows)
    return int(any(each.finding.level == "problem" for each in told))


def _all(cluster: str | None, node: str | None, file: str | None) -> Iterator[Told]:
    found, config = settings(cluster, file)
    seen = look()
    yield from map(Told, [*found, *seen.findings])
    with ExitStack() as opened:
        everyone = {name: everybody(paths, _SURVEY) for name, paths in seen.living.items()}
        for conversation in (each for greeted in everyone.values() for each in greeted):
            opened.enter_context(conversation)
        wanted = {name: greeted for name, greeted in everyone.items() if _is_wanted(greeted, cluster)}
        for name in seen.living:
            yield from map(Told, _silent(seen.living[name], everyone[name]))
        if not wanted:
            others = [repr(greeted[0].hello.get("cluster")) for greeted in everyone.values() if greeted]
            yield Told(nobody(cluster, others, seen))
            if config is not None:
                yield from map(Told, _seeds_alone(config))
        strangers = _ports(everyone)
        for greeted in wanted.values():
            yield from _examined(greeted, node, strangers)


def _is_wanted(greeted: list[Conversation], cluster: str | None) -> bool:
    return bool(greeted) and (not cluster or greeted[0].hello.get("cluster") == cluster)


def _silent(paths: list[Path], greeted: list[Conversation]) -> Iterator[Finding]:
    """Nodes that hold their place and do not answer."""
    for path in set(paths) - {each.path for each in greeted}:
        yield Finding(
            "problem", "nodes", f"the node at {path} lives, and has not answered for {_SURVEY:g} s",
            "its program: it was stopped, or something blocks its event loop",
            f"find it (fuser {path.with_suffix('.lock')}), and look what it does: py-spy dump --pid PID",
        )  # fmt: skip


def _ports(everyone: Mapping[str, list[Conversation]]) -> dict[str, dict[str, str]]:
    """By instance, at which ports of this host it listens, and who it is."""
    ports: dict[str, dict[str, str]] = {}
    for conversation in (each for greeted in everyone.values() for each in greeted):
        hello, who = (
            conversation.hello,
            f"the node {conversation.name!r} of the cluster {conversation.hello['cluster']!r}",
        )
        key = {True: " with a key", False: " without a key"}.get(hello.get("sealed", ""), "")
        addresses = [each for each in conversation.ask("status")["addresses"] if not each.startswith("unix:")]
        ports[str(hello["instance"])] = {each.rpartition(":")[2]: who + key for each in addresses}
    return ports


def _examined(greeted: list[Conversation], node: str | None, ports: dict[str, dict[str, str]]) -> Iterator[Told]:
    """What one node of a cluster finds: the one that was named, or the oldest."""
    named = [each for each in greeted if node in (None, each.name, each.hello.get("instance"))]
    if not named:
        there = ", ".join(repr(each.name) for each in greeted)
        yield Told(
            Finding("problem", "nodes", f"no node is called {node!r}; there are: {there}", "the name", "correct it")
        )
        return
    asked = named[0]
    of = (str(asked.hello["cluster"]), asked.name)
    try:
        status, members = asked.ask("status"), asked.ask("members")
        told = next(answer["ok"] for answer in asked.follow("checkup", PATIENCE) if "ok" in answer)
    except (Failure, StopIteration) as failure:
        step = "try again; if it is of an older version, restart it with this one"
        yield Told(Finding("problem", "nodes", f"it can not be examined: {failure}", "that node", step), *of)
        return
    known = {member["instance"] for member in members}
    strangers = {port: who for instance, at in ports.items() if instance not in known for port, who in at.items()}
    patient = Patient(status, members, told, [each.hello for each in greeted], strangers)
    yield from (Told(finding, *of) for finding in findings(patient))


def _seeds_alone(config: Config) -> Iterator[Finding]:
    """Whether somebody listens at the seeds, where no node could say so."""
    try:
        seeds = seeds_of(config)
    except (OSError, ValueError):
        return  # that was told with the settings
    said = Greeting() if config.cluster == ANY else greeting(config, Keyring(config.key), secrets.randbits(64) | 1)
    for each in asyncio.run(knocked(seeds, said)):
        if each.answer == "open" and not said.frame:
            what = f"{each.address}: somebody listens there; whether it is one of ours can be told with -c CLUSTER"
            yield Finding("ok", "seeds", what)
        else:
            yield seed_finding(each._asdict(), each.address, "", bool(config.key), alone=True)


def _say_lines(told: list[Told]) -> None:
    """For people, with how much there is to do in the last line, where they look first."""
    of = ("", "")
    for each in told:
        if each[1:] != of:
            of = each[1:]
            say(f"\n{printable(each.node)} of {printable(each.cluster)}:" if each.node else "")
        level, check, found, fault, step = each.finding
        colour = {"ok": "green", "warning": "yellow", "problem": "red"}[level]
        say(f"{click.style(f'{level:{_WIDTH}}', fg=colour)}{check}: {printable(found)}")
        if fault:
            say(f"{'':{_WIDTH}}fault: {printable(fault)}\n{'':{_WIDTH}}next: {printable(step)}")
    counts = [sum(each.finding.level == level for each in told) for level in ("problem", "warning")]
    say(f"\n{counts[0]} problems, {counts[1]} warnings")
