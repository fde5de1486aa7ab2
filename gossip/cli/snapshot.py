"""How is what a cluster holds kept in a file, looked at, compared, and put back?"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click

from gossip.cli.asking import as_json, of_node, of_type
from gossip.cli.conversation import Conversation, converse
from gossip.cli.printing import Failure, cut, document, missing, no_node, printable, refused, say, say_table, shown
from gossip.errors import SnapshotError
from gossip.snapshot import SUFFIX, Head, Snapshot, read_head

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MOST_LINES = 40
"""Differences printed on a terminal."""

of_objects = click.option(
    "--object", "objects", multiple=True, metavar="NAME", help="Only of this object; may be given several times."
)
of_moment = click.option(
    "--as-of", metavar="TIME", help="A moment that is past: 5m (ago), or 2026-05-01T12:00:00Z. Needs a --data-dir."
)


@click.group("snapshot", no_args_is_help=True)
def command() -> None:
    """Keep what the cluster holds in a file, look at it, compare, and go back to it.

    A file is as of one moment, compressed, and checked to the last bit when it is read. Going back is done by ordinary
    writes, so a running cluster agrees on it.

    \b
    Example:
      gossip snapshot save before.gossamesh
      gossip snapshot diff before.gossamesh
      gossip snapshot restore before.gossamesh --dry-run
      gossip snapshot restore --as-of 10m --object prices
    """


@command.command("save")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@of_moment
@of_node
def save(file: Path | None, as_of: str | None, cluster: str | None, node: str | None, as_json: bool) -> None:
    """Save what the cluster holds now, or held at a moment, in a new FILE.

    Without a FILE it is named after the cluster and the time, in this directory. It is never put in the place of
    another file, and bears its name only when it is whole and on the disk. What is owned by a worker is not in it.
    """
    with converse(cluster, node) as conversation:
        path = (file or Path(_file_name(conversation.hello["cluster"]))).absolute()
        _, told = _work(conversation, "snapshot", path=str(path), as_of=_moment(as_of))
    if as_json:
        say(document(told))
    else:
        say(f"{printable(told['path'])}: {_summary(told)}")


@command.command("list")
@click.argument("paths", nargs=-1, metavar="[FILE | DIRECTORY]...", type=click.Path(path_type=Path))
@as_json
def list_(paths: Sequence[Path], as_json: bool) -> None:
    """Print what the snapshots in a directory say of themselves; by default in this one.

    Only their beginnings are read: `gossip snapshot verify` reads all.
    """
    files: list[Path] = []
    for path in paths or [Path()]:
        files += sorted(path.glob("*" + SUFFIX)) if path.is_dir() else [path]
    found = [_read(file, partial(read_head, file)) for file in files]
    if as_json:
        say(document(found))
        return
    columns = ("file", "cluster", "at", "objects", "entries")
    for each in found:
        each.setdefault("cluster", f"can not be read: {each.get('error')}")
    say_table(columns, [[str(each.get(column, "")) for column in columns] for each in found])


@command.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("name", metavar="[OBJECT]", required=False)
@of_type
@as_json
def show(file: Path, name: str | None, type_: str | None, as_json: bool) -> None:
    """Print the objects in a FILE, or what one of them holds. No node is asked."""
    snapshot = _loaded(file)
    if name is None:
        _say_objects(snapshot, as_json)
        return
    try:
        content = snapshot.contents(name, type_)
    except KeyError:
        raise missing(f"there is nothing called {name!r} in {file}") from None
    except ValueError as error:
        raise refused(str(error).replace("by type=", "by --type")) from None
    if as_json:
        say(document(sorted(content, key=repr) if isinstance(content, set) else content))
    elif isinstance(content, dict):
        say_table(("key", "value"), [(shown(key), shown(value)) for key, value in content.items()])
    else:
        for each in sorted(map(shown, content)) if isinstance(content, set) else [shown(content)]:
            say(each)


def _say_objects(snapshot: Snapshot, as_json: bool) -> None:
    if as_json:
        say(document({**snapshot.head.told(), "objects": snapshot.objects}))
        return
    columns = ("type", "name", "entries")
    say_table(columns, [[str(each[column]) for column in columns] for each in snapshot.objects])


@command.command("diff")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("other", required=False, type=click.Path(path_type=Path))
@of_objects
@of_node
def diff(
    file: Path, other: Path | None, objects: tuple[str, ...], cluster: str | None, node: str | None, as_json: bool
) -> int:
    """Print what has changed from a FILE to now, or to an OTHER file: lines begin with + - or ~.

    Exit code 0 if nothing has, 1 if something has.
    """
    if other is not None:
        told = [each.told() for each in _loaded(file).diff(_loaded(other), objects or None)]
    else:
        _loaded(file)
        with converse(cluster, node) as conversation:
            told, _ = _work(conversation, "compare", path=str(file.absolute()), objects=list(objects))
    _say_differences(told, as_json)
    return 1 if told else 0


@command.command("restore")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@of_moment
@of_objects
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
@click.option("--no-delete", is_flag=True, help="Keep what has come since.")
@click.option("--foreign", is_flag=True, help="Take a snapshot of another cluster.")
@of_node
def restore(
    file: Path | None, as_of: str | None, objects: tuple[str, ...], dry_run: bool, no_delete: bool, foreign: bool,
    cluster: str | None, node: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Go back to a FILE, or to a moment that is past, by ordinary writes. Prints what it changes.

    What has come since is deleted, unless --no-delete says otherwise. What others write meanwhile stays, and what is
    owned by a worker is left alone.

    \b
    Example:
      gossip snapshot restore before.gossamesh --dry-run
      gossip snapshot restore --as-of 10m --object prices
    """
    if (file is None) == (as_of is None):
        raise click.UsageError("give a FILE, or a moment with --as-of")
    if file is not None:
        _loaded(file)
    with converse(cluster, node) as conversation:
        told, _ = _work(
            conversation, "restore", path=None if file is None else str(file.absolute()), as_of=_moment(as_of),
            objects=list(objects), dry_run=dry_run, delete=not no_delete, foreign=foreign,
        )  # fmt: skip
    _say_differences(told, as_json)
    if not as_json:
        print(f"gossip: {len(told)} {'would be ' if dry_run else ''}changed", file=sys.stderr)


@command.command("verify")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@as_json
def verify(files: Sequence[Path], as_json: bool) -> int:
    """Read all of each FILE, and say whether it is whole. Exit code 4 if one is not. No node is asked."""
    found = [_read(file, lambda file=file: Snapshot.load(file).head) for file in files]  # type: ignore[misc]
    if as_json:
        say(document(found))
    for each in [] if as_json else found:
        say(printable(each["error"]) if "error" in each else f"{printable(each['file'])}: whole, {_summary(each)}")
    return 4 if any("error" in each for each in found) else 0


# -- asking a node -----------------------------------------------------------------------------------------------------


def _work(conversation: Conversation, do: str, **request: Any) -> tuple[list[Any], Any]:
    """Has a node do what may take its time, and tells somebody at a terminal how far it is."""
    parts: list[Any] = []
    told = False
    for answer in conversation.follow(do, None, **request):
        if "progress" in answer:
            done, total = answer["progress"]
            if sys.stderr.isatty() and total:
                print(f"\r{done:,} of {total:,} ...".replace(",", " "), end="", file=sys.stderr, flush=True)
                told = True
        elif "part" in answer:
            parts += answer["part"]
        else:
            if told:
                print(file=sys.stderr)
            return parts, answer.get("ok")
    raise no_node(f"the node {conversation.name!r} closed the conversation: what it was asked for may be done in part")


def _moment(text: str | None) -> float | None:
    """A moment, in seconds since 1970.

    >>> _moment("1970-01-01T00:01:00Z"), _moment(None), round(time.time() - _moment("5m"))
    (60.0, None, 300)
    """
    if text is None:
        return None
    ago = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])(?: ago)?", text.strip())
    if ago:
        return time.time() - timedelta(**{_UNITS[ago[2]]: float(ago[1])}).total_seconds()
    try:
        return datetime.fromisoformat(text).timestamp()  # without a zone it is this host's time
    except ValueError:
        how = "say how long ago, as 90s, 5m, 2h, 1d; or 2026-05-01T12:00:00Z"
        raise click.UsageError(f"{text!r} is no moment: {how}") from None


def _file_name(cluster: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", cluster).strip(".-") or "cluster"
    return f"{plain}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}{SUFFIX}"


# -- files -------------------------------------------------------------------------------------------------------------


def _loaded(file: Path) -> Snapshot:
    try:
        return Snapshot.load(file)
    except OSError as error:
        raise _unreadable(file, error) from None
    except SnapshotError as error:
        raise refused(str(error)) from None


def _unreadable(file: Path, error: OSError) -> Failure:
    what = f"{file}: {error.strerror or error}"
    return missing(what) if isinstance(error, FileNotFoundError) else refused(what)


def _read(file: Path, read: Callable[[], Head]) -> dict[str, Any]:
    """What a file says of itself, or why it can not be read."""
    try:
        return {"file": str(file), **read().told()}
    except OSError as error:
        return {"file": str(file), "error": f"{file}: {error.strerror or error}"}
    except SnapshotError as error:
        return {"file": str(file), "error": str(error)}


def _summary(told: dict[str, Any]) -> str:
    return f"{told['entries']} entries of {told['objects']} objects of {printable(told['cluster'])}, as of {told['at']}"


# -- differences -------------------------------------------------------------------------------------------------------


def _say_differences(told: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        say(document(told))
        return
    most = _MOST_LINES if sys.stdout.isatty() else len(told)
    for each in told[:most]:
        say(_line(each))
    if len(told) > most:
        say(f"... and {len(told) - most} more: --json or a pipe gives all")


def _line(each: dict[str, Any]) -> str:
    where = [printable(each["object"])] + ([cut(shown(each["key"]))] if each["type"] in ("map", "set") else [])
    before, after = cut(shown(each["before"])), cut(shown(each["after"]))
    if each["type"] == "set":
        return " ".join(["+" if each["after"] else "-", *where])
    if each["before"] is None:
        return " ".join(["+", *where, after])
    if each["kind"] == "deleted":
        return " ".join(["-", *where, before])
    return " ".join(["~", *where, before, "->", after])
