"""What changes, as it happens?

Ends by itself when the node leaves, when whoever reads the output has read enough, by Ctrl-C and by SIGTERM.
"""

from __future__ import annotations

import select
import signal
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, NoReturn

import click

from gossip.cli.asking import of_node, of_type
from gossip.cli.conversation import Conversation, converse
from gossip.cli.printing import cut, document, forget_output, no_node, printable, say, shown


class Ended(BaseException):
    """A signal came, whose number it has."""

    @property
    def code(self) -> int:
        """The exit code."""
        forget_output()  # a reader that does not read must not keep us
        return 128 + int(self.args[0])


def end_by_signal() -> None:
    """Has Ctrl-C and SIGTERM raise `Ended`."""
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)


@click.command("watch")
@click.argument("names", metavar="OBJECT...", nargs=-1, required=True)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N changes; what is there is none.")
@click.option("--no-snapshot", is_flag=True, help="Print changes only, and not first what is there now.")
@click.option("--resume", metavar="CURSOR", help="Go on where another watch was: told is what was touched since.")
@click.option("--cursors", is_flag=True, help="With --json: a cursor with every change, for --resume.")
@of_type
@of_node
def command(
    names: tuple[str, ...], count: int | None, no_snapshot: bool, resume: str | None, cursors: bool,
    type_: str | None, cluster: str | None, node: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Print what is in objects now, and then every change as it happens.

    They need not exist yet. Columns: of several objects the name; what happened (present, set, deleted; of a set:
    present, added, removed), key, value. `lagged` means: too much changed to be read in time, or since CURSOR; what is
    there now follows. With --json an object a line, and a line of kind `complete`, with a cursor, after what is there
    at the beginning. A node that leaves ends it with exit code 3.

    \b
    Example:
      gossip watch flags
      gossip watch hits --no-snapshot --count 1      wait for the next change
      gossip watch orders --json | while read -r change; do ...; done
    """
    end_by_signal()
    try:
        with converse(cluster, node) as conversation:
            if not as_json and sys.stderr.isatty():
                _tell_what_is_waited_for(conversation, names, type_)
            asked: dict[str, Any] = {"objects": list(names), "type": type_, "snapshot": not no_snapshot}
            asked |= {"cursors": cursors} | ({} if resume is None else {"resume": resume})
            return _print_changes(conversation, count, as_json, **asked)
    except Ended as ended:
        return ended.code


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise Ended(number)


def _tell_what_is_waited_for(conversation: Conversation, names: tuple[str, ...], type_: str | None) -> None:
    """Who mistypes a name would wait for ever."""
    what = "nothing" if type_ is None else f"no {type_}"
    for name in dict.fromkeys(names):
        found = conversation.types(name)
        if not found or (type_ is not None and type_ not in found):
            print(f"gossip: {what} is called {printable(repr(name))} now: waiting", file=sys.stderr)


def _print_changes(conversation: Conversation, count: int | None, as_json: bool, **request: Any) -> int:
    several = len(request["objects"]) > 1
    line_of: Callable[[dict[str, Any]], str] = document if as_json else partial(_line, several)
    for answer in conversation.follow("watch", None, until_readable(conversation), **request):
        change = answer["ok"]
        if change["kind"] == "complete" and not as_json:
            continue
        counts = change["kind"] in ("set", "deleted")
        if change["type"] == "set":
            change["kind"] = {"set": "added", "deleted": "removed"}.get(change["kind"], change["kind"])
        say(line_of(change))
        if count is not None and counts:
            count -= 1
            if count == 0:
                return 0
    raise no_node(f"the node {conversation.name!r} is gone, without having left")


def until_readable(conversation: Conversation) -> Callable[[], None]:
    """Waits until something came; raises if nobody reads our output any more, as in `gossip watch flags | head -1`."""
    poll = select.poll()
    poll.register(conversation.connection, select.POLLIN)
    output = sys.stdout.fileno()
    poll.register(output, 0)  # of an end that only writes, what is told unasked is its failure

    def wait() -> None:
        while True:
            ready = dict(poll.poll())
            if output in ready:
                raise BrokenPipeError
            if ready:
                return

    return wait


def _line(several: bool, change: dict[str, Any]) -> str:
    kind = change["kind"]
    fields = [kind]
    if kind != "lagged":
        match change["type"]:
            case "map":
                fields.append(shown(change["key"]))
                fields += [shown(change["value"])] if kind != "deleted" else []
            case "set":
                fields.append(shown(change["key"]))
            case _:
                fields += [shown(change["value"])] if kind != "deleted" else []
    name = [change["object"] or ""] if several else []
    if not sys.stdout.isatty():
        return "\t".join(map(printable, [*name, *fields]))
    rest = f"{fields[0]:<8} {' = '.join(cut(printable(field)) for field in fields[1:])}".rstrip()
    return f"{cut(printable(name[0])):<16} {rest}" if several else rest
