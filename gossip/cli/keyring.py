"""How does a cluster come to another key while it runs?

In three rounds, each through all hosts before the next begins: add the new key, use it, remove the old one. A command
speaks to all nodes of the cluster on this host; there is no way to another host, for a key never travels.

Invariants: a key is read from a file or from stdin, never from the command line, and never printed, only what it is
called (`gossip.keyring.fingerprint`); either all nodes of this host are in reach or none is asked to change.
"""

from __future__ import annotations

import base64
import sys
from contextlib import ExitStack
from typing import Any

import click

from gossip.checks import keys_of
from gossip.cli.asking import as_json, key_of_file, of_cluster
from gossip.cli.conversation import Conversation, converse_with_all
from gossip.cli.printing import document, printable, refused, say, say_table
from gossip.errors import ConfigError

_RESTARTS = {
    "add": "a node that is restarted has the keys of its configuration: put the new one after the old one in the key "
    "file (or GOSSAMESH_KEY), now",
    "use": "a node that is restarted seals with the first key of its configuration: put this one first there, now",
    "remove": "a node that is restarted has the keys of its configuration: remove this one there too, now",
}
"""What is left to do by hand. At any moment before it is done, a restarted node still understands the others."""
_AWAY = {
    "add": "Add the key there as well, before anybody uses it",
    "use": "One that has not this key does not hear these any more: if `gossip keyring list` does not show it there, "
    "add it there now",
    "remove": "Remove the key there as well",
}
"""What the other hosts have to do with it."""
_MOST_NAMED = 5


@click.group("keyring", no_args_is_help=True)
def command() -> None:
    """Change the key of a cluster while it runs, without losing a message.

    Each command speaks to all nodes of the cluster on this host. Run it on every host before you run the next:
    add the new key everywhere, use it everywhere, remove the old one everywhere. Change the key files as well, or a
    node that is restarted begins with the old keys. Keys are shown by their fingerprints.

    \b
    Example:
      gossip keygen new.key
      gossip keyring add new.key
      gossip keyring list
      gossip keyring use c54a929d
      gossip keyring remove 5186b527
    """


@command.command("list")
@of_cluster
@as_json
def list_(cluster: str | None, as_json: bool) -> None:
    """Print the fingerprints of the keys that each node has: of the one that seals, then of those that open too."""
    _change(cluster, as_json, None)


@command.command("add")
@click.argument("file", type=click.Path())
@of_cluster
@as_json
def add(file: str, cluster: str | None, as_json: bool) -> None:
    """Have all nodes open what is sealed with the key in FILE (- is stdin); they go on sealing with the one they have.

    A file with several keys, one a line, adds those that are not there yet.
    """
    try:
        keys = keys_of(key_of_file(file))
    except ConfigError as error:
        raise refused(f"{file}: {error}") from None
    _change(cluster, as_json, "add", key=" ".join(base64.b64encode(key).decode() for key in keys))


@command.command("use")
@click.argument("fingerprint")
@of_cluster
@as_json
def use(fingerprint: str, cluster: str | None, as_json: bool) -> None:
    """Have all nodes seal with this key, once every node of every host has it."""
    _change(cluster, as_json, "use", fingerprint=fingerprint)


@command.command("remove")
@click.argument("fingerprint")
@of_cluster
@as_json
def remove(fingerprint: str, cluster: str | None, as_json: bool) -> None:
    """Have all nodes forget this key, once no node of any host seals with it."""
    _change(cluster, as_json, "remove", fingerprint=fingerprint)


def _change(cluster: str | None, as_json: bool, change: str | None, **request: str) -> None:
    """Has every node change its keys, if all of them can; prints what they have then."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(each) for each in converse_with_all(cluster)]
        nodes.sort(key=lambda node: (node.name, str(node.hello.get("instance"))))
        found = [(node, node.ask("keyring")) for node in nodes]
        if change is not None:
            had = any(request.get("fingerprint") in keys for _, keys in found)
            for node, keys in found:
                _demand(node, keys, change, request.get("fingerprint", ""))
            found = [(node, node.ask("keyring", change=change, **request)) for node in nodes]
            away = _away(nodes)
        told = [{"node": each.name, "instance": each.hello.get("instance"), "keys": keys} for each, keys in found]
    if as_json:
        say(document(told))
        return
    say_table(("node", "instance", "seals with", "opens too"), map(_row, told))
    if change is None:
        return
    if change == "remove" and not had:
        lack = f"no node here had the key {printable(request['fingerprint'])}: there was nothing to remove"
        print(f"gossip: {lack}", file=sys.stderr)
    print(f"gossip: {_RESTARTS[change]}", file=sys.stderr)
    if away:
        named = ", ".join(map(printable, away[:_MOST_NAMED])) + ("" if len(away) <= _MOST_NAMED else ", ...")
        print(f"gossip: these were not asked, for they are on other hosts: {named}. {_AWAY[change]}", file=sys.stderr)


def _away(nodes: list[Conversation]) -> list[str]:
    """The living members that no command of this host reaches, by their names."""
    here = {each.hello.get("instance") for each in nodes}
    members = nodes[0].ask("members")
    return sorted(each["name"] for each in members if each["status"] == "alive" and each["instance"] not in here)


def _demand(node: Conversation, keys: list[str], change: str, fingerprint: str) -> None:
    """Refuses what some node would refuse after others have done it."""
    if not keys:
        raise refused(f"the node {node.name!r} runs without a key: it can be given one when it is started")
    if change == "use" and fingerprint not in keys:
        raise refused(f"the node {node.name!r} has no key {fingerprint}: add it everywhere first")
    if change == "remove" and fingerprint == keys[0]:
        raise refused(f"the node {node.name!r} seals with {fingerprint}: have another one used everywhere first")


def _row(told: dict[str, Any]) -> list[str]:
    first, *others = told["keys"] or ["-"]
    return [str(told["node"]), str(told["instance"]), first, " ".join(others) or "-"]
