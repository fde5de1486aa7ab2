"""Which node do we speak to, and how?

A node of this user on this host, through its control socket, found by the name of its cluster. The oldest is asked
first; if it does not answer at once, the next is asked as well, and the first that answers is spoken to. A process
that was stopped, or whose loop is busy, costs half a second.

Invariant: a node says hello before it is asked for anything. What was asked of one node is never asked of another, for
it may still be done: a counter must not count twice.
Not here: what can be asked (`gossip.control`), other hosts, and asyncio, which a question and an answer do not need.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from discovery import HostDirectory, UnsafeDirectory, clusters
from gossip.cli.printing import Failure, missing, no_node, printable, refused

PATIENCE = 5.0
"""Seconds without a word until we give up."""
_HEAD_START = 0.5
"""Seconds that a node has to itself until the next is asked too."""
_STARTING = 0.4
"""Seconds until it is believed that no node runs: one that a script started just before needs a moment."""
_SURVEY = 1.0
"""Seconds to learn what the clusters are called, if there are several."""


class Conversation:
    """An open connection to a node. `hello` is what it said of itself."""

    def __init__(self, path: Path) -> None:
        self.hello: dict[str, Any] = {}
        self.path = path
        self.connection = socket.socket(socket.AF_UNIX)
        self._begun: list[bytes] = []
        try:
            self.connection.setblocking(False)
            self.connection.connect(str(path))
            with suppress(BrokenPipeError):  # a node that is too busy says so and closes without listening
                self.connection.send(b'{"do": "hello"}\n')
        except BaseException:
            self.connection.close()
            raise

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.hello.get("name", "?"))

    def greeted(self) -> bool:
        """Takes what has come; whether that completes the greeting. Raises `OSError` for a node not to speak to."""
        for line in self._received():
            answer = _answer(line)
            if "ok" not in answer:
                raise OSError(str(answer.get("error")))
            self.hello = dict(answer["ok"])
            return True
        return False

    def ask(self, do: str, **request: Any) -> Any:
        """What the node answers. Raises `Failure`."""
        return self.ask_all(do, **request)[1]

    def ask_all(self, do: str, **request: Any) -> tuple[list[Any], Any]:
        """What the node answers in parts, and what it says at the end. Raises `Failure`."""
        parts: list[Any] = []
        for answer in self.follow(do, PATIENCE, **request):
            if "part" not in answer:
                return parts, answer.get("ok")
            parts += answer["part"]
        raise no_node(f"the node {self.name!r} closed the conversation: whether it did what was asked is not known")

    def types(self, name: str) -> list[str]:
        """The types under which there is something of this name. Raises `Failure`."""
        found, _ = self.ask_all("keys")
        return [str(each["type"]) for each in found if each["name"] == name]

    def follow(
        self, do: str, patience: float | None, before_reading: Callable[[], None] = lambda: None, **request: Any
    ) -> Iterator[dict[str, Any]]:
        """One answer after the other, until the node closes. Raises `Failure`."""
        self.connection.settimeout(patience)
        try:
            self.connection.sendall(json.dumps({"do": do, **request}).encode() + b"\n")
            while True:
                before_reading()
                for line in self._received():
                    answer = _answer(line)
                    if "error" in answer:
                        raise _failure(answer)
                    yield answer
        except TimeoutError:
            raise no_node(
                f"the node {self.name!r} was asked and has not answered for {PATIENCE:g} s: it may still do it"
            ) from None
        except BrokenPipeError:
            raise  # whoever read what we print
        except OSError:
            return

    def _received(self) -> Iterator[bytes]:
        """The whole lines that came with the next bytes. Raises `OSError` where there will be no more."""
        data = self.connection.recv(1 << 18)
        if not data:
            raise ConnectionError("it closed the conversation")
        *lines, rest = data.split(b"\n")
        for line in lines:
            yield b"".join(self._begun) + line
            self._begun.clear()
        self._begun.append(rest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.connection.close()


def _answer(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ConnectionError("what it says is not understood: is it of another version?")
    return answer


def _failure(answer: dict[str, Any]) -> Failure:
    message = str(answer["error"])
    match answer.get("kind"):
        case "missing":
            nothing = message.startswith("there is nothing called")
            return missing(f"{message}: `gossip keys` lists what is there" if nothing else message)
        case "left" | "busy":
            return no_node(message)
    return refused(message)


@contextmanager
def telling_if_made(conversation: Conversation, name: str, kind: str, as_json: bool) -> Iterator[None]:
    """Tells somebody at a terminal that what is done inside made a new object: the name may be misspelt."""
    is_new = not as_json and sys.stderr.isatty() and not conversation.types(name)
    yield
    if is_new:
        print(f"gossip: {printable(f'made the {kind} {name!r}')}", file=sys.stderr)


def converse(cluster: str | None, node: str | None) -> Conversation:
    """A conversation with the oldest node that answers, or with a certain one, by name or instance.

    Raises `Failure` if there is none, or several clusters to choose from.
    """
    try:
        directory = _only(cluster, _living_soon(cluster))
        paths = _controls(directory)
        return _first(paths, PATIENCE) if node is None else _named(node, paths)
    except (OSError, ValueError) as error:
        raise _no_directory(error) from None


def converse_with_all(cluster: str | None) -> list[Conversation]:
    """A conversation with every node of a cluster on this host. Raises `Failure` if one of them does not answer."""
    try:
        paths = _controls(_only(cluster, _living_soon(cluster)))
    except (OSError, ValueError) as error:
        raise _no_directory(error) from None
    greeting = _Greeting(paths, 0.0, PATIENCE)
    try:
        answered = list(greeting.answers())
        if len(answered) < len(paths):
            silent = f"{len(paths) - len(answered)} of {len(paths)} nodes on this host"
            raise no_node(f"{silent} can not be spoken to, so none was asked for anything: {greeting.story}")
        for conversation in answered:
            greeting.keep(conversation)
        return answered
    finally:
        greeting.close()


def _no_directory(error: Exception) -> Failure:
    return no_node(f"the directory where nodes meet can not be used: {error}")


def everybody(paths: list[Path], patience: float) -> list[Conversation]:
    """Conversations with all of these nodes that answer in time, the oldest first."""
    greeting = _Greeting(paths, 0.0, patience)
    try:
        greeted = list(greeting.answers())
        for conversation in greeted:
            greeting.keep(conversation)
    finally:
        greeting.close()
    return sorted(greeted, key=lambda each: paths.index(each.path))


def _living_soon(cluster: str | None) -> dict[str, list[Path]]:
    """As `_living`, but a node that was started just before, in a script, has a moment to be there."""
    deadline = time.monotonic() + _STARTING
    while not (living := _living(cluster)) and time.monotonic() < deadline:
        time.sleep(_STARTING / 10)
    return living


def _living(cluster: str | None) -> dict[str, list[Path]]:
    """The directories of each cluster that has living nodes. Two places may have one of the same cluster."""
    found: dict[str, list[Path]] = {}
    unsafe: UnsafeDirectory | None = None
    for path in clusters(cluster or None):
        try:
            if HostDirectory(path).controls():
                found.setdefault(path.name, []).append(path)
        except UnsafeDirectory as error:
            unsafe = error  # another user's trap must not hide what is ours
    if unsafe is not None and not found:
        raise unsafe
    return found


def _controls(directories: list[Path]) -> list[Path]:
    return [Path(each.path) for directory in directories for each in HostDirectory(directory).controls()]


def _only(cluster: str | None, living: dict[str, list[Path]]) -> list[Path]:
    if len(living) == 1:
        return next(iter(living.values()))
    if living:
        raise Failure(
            f"there are {len(living)} clusters on this host, so say which: "
            f"--cluster (or GOSSAMESH_CLUSTER) {' | '.join(_names(living))}",
            "several clusters",
            3,
        )
    name = cluster or "shop"
    how = f"start one with `gossip run -c {name}`, or a gossip.Node({name!r}) in a program; "
    how += "if one runs, `gossip doctor` tells where it is looked for, and where it is"
    if not cluster:
        raise no_node(f"no node of yours runs on this host: {how}")
    others = _names(_living(None))
    there = f" (there are nodes of: {', '.join(others)})" if others else ""
    raise no_node(f"no node of yours runs on this host in the cluster {cluster!r}{there}: {how}")


def _names(living: dict[str, list[Path]]) -> list[str]:
    """What clusters are called is not written on their directories: ask a node of each."""
    names = []
    for directory, paths in living.items():
        try:
            conversation = _first(_controls(paths), _SURVEY)
        except (Failure, OSError):
            names.append(f"{directory} (does not answer)")
        else:
            with conversation:
                names.append(repr(conversation.hello.get("cluster")))
    return sorted(names)


def _first(paths: list[Path], patience: float) -> Conversation:
    """The first that greets, each with a head start before the next."""
    greeting = _Greeting(paths, _HEAD_START, patience)
    try:
        for conversation in greeting.answers():
            greeting.keep(conversation)
            return conversation
    finally:
        greeting.close()
    raise no_node(f"{_count(len(paths))} on this host can not be spoken to: {greeting.story}")


def _named(node: str, paths: list[Path]) -> Conversation:
    """The one of this instance, or the only one of this name."""
    greeting = _Greeting(paths, 0.0, PATIENCE)
    seen: list[Conversation] = []
    try:
        for conversation in greeting.answers():
            seen.append(conversation)
            if conversation.hello.get("instance") == node.lower():
                greeting.keep(conversation)
                return conversation
            if conversation.name == node:
                greeting.hurry()  # the others only matter if they bear the same name
        named = [each for each in seen if each.name == node]
        if len(named) == 1:
            greeting.keep(named[0])
            return named[0]
    finally:
        greeting.close()
    if named:
        instances = ", ".join(str(each.hello.get("instance")) for each in named)
        raise no_node(f"{len(named)} nodes are called {node!r}: say which by its instance: {instances}")
    there = ", ".join(repr(each.name) for each in seen)
    story = f"; {greeting.story}" if greeting.story else ""
    raise no_node(f"no node of this cluster on this host is called {node!r}; there are: {there or 'none'}{story}")


def _count(number: int) -> str:
    return "the only node" if number == 1 else f"all {number} nodes"


class _Greeting:
    """Connections to several nodes, on which hello was said and not answered yet."""

    def __init__(self, paths: list[Path], head_start: float, patience: float) -> None:
        self._deadline = time.monotonic() + patience
        self._next = iter(paths)
        self._head_start = head_start
        self._selector = selectors.DefaultSelector()
        self._open: set[Conversation] = set()
        self._more = True
        self.story = ""
        """What went wrong last."""

    def answers(self) -> Iterator[Conversation]:
        """Those that answer, in that order, until patience ends."""
        due = time.monotonic()
        while (now := time.monotonic()) < self._deadline:
            waiting = bool(self._selector.get_map())
            if self._more and (now >= due or not waiting):
                self._connect()
                due = now + self._head_start
                continue
            if not waiting:
                return
            for key, _ in self._selector.select((min(self._deadline, due) if self._more else self._deadline) - now):
                if self._answered(key.data):
                    yield key.data
        self.story = self.story or f"no answer within {PATIENCE:g} s; stopped, or busy with something else?"

    def _connect(self) -> None:
        path = next(self._next, None)
        if path is None:
            self._more = False
            return
        try:
            conversation = Conversation(path)
        except OSError as error:
            self.story = str(error)
            return
        self._open.add(conversation)
        self._selector.register(conversation.connection, selectors.EVENT_READ, conversation)

    def _answered(self, conversation: Conversation) -> bool:
        try:
            done = conversation.greeted()
        except OSError as error:
            self.story = str(error)
            self._selector.unregister(conversation.connection)
            return False
        if done:
            self._selector.unregister(conversation.connection)
        return done

    def hurry(self) -> None:
        """Grants the rest no more than a head start."""
        self._deadline = min(self._deadline, time.monotonic() + _HEAD_START)

    def keep(self, conversation: Conversation) -> None:
        """Lets this one live on."""
        self._open.discard(conversation)

    def close(self) -> None:
        """Ends all that were not kept."""
        self._selector.close()
        for conversation in self._open:
            conversation.connection.close()
