"""What did a cluster share at one moment, as a value, and as a file that can be trusted?

A file is a line that says what it is, and frames, each with a checksum that takes in the one before:

    gossamesh snapshot 1
    length (4 bytes), checksum (16), content      the head: of which cluster, by which node, as of when, how much
    length, checksum, content                     the parts of the state, as peers send them to each other
    0, checksum                                   the end

Contents are compressed, each by itself, so that none unpacks to more than a part may have.

Invariants:
  - a file bears its name only when all of it is on the disk; what was there before is never replaced;
  - what is read is what was written, or nothing: not a bit less, more, or from another file;
  - it holds what a reader could see, apart from what is owned: that ends with its worker, and a file outlives it.

Source: BLAKE2 (RFC 7693), Zstandard (RFC 8878). Not here: how it is put back (`restore`), and how a moment is found
that is past (`past`).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple, Self

from crdt import (
    FOREVER,
    Link,
    Live,
    Malformed,
    Stage,
    State,
    decode_element,
    decode_value,
    encode_value,
    value_of,
    visible,
)
from crdt.codec import COUNTER, MAP, REGISTER, SET, pack, unpack
from crdt.live import dots_in, linked, packed, unpacked
from crdt.state import state_parts
from crdt.timestamp import Timestamp, at
from crdt.write import Object
from gossip.errors import SnapshotError

SUFFIX: Final = ".gossamesh"
"""What the names of such files end with."""
TYPES: Final = {MAP: "map", SET: "set", COUNTER: "counter", REGISTER: "register"}
_MAGIC = b"gossamesh snapshot "
_FORMAT = b"1\n"
_LENGTH = 4
_CHECKSUM = 16
_LONGEST = 4 << 20
"""Bytes of a frame, compressed or not: a part of 256 KiB, with a largest value at its end, or a largest context."""
_LATEST = 1 << 47
"""Milliseconds since 1970: far in the future, and still a date."""
_LEVEL = 3
"""Of compression: 1 is half as fast again and leaves a tenth more, 9 takes five times as long for a twentieth less."""


class Head(NamedTuple):
    """What a file says of itself at its beginning. `at` is milliseconds since 1970."""

    cluster: str
    node: str
    at: int
    objects: int
    entries: int

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**self._asdict(), "at": _time(self.at).isoformat(timespec="milliseconds")}


@dataclass(frozen=True, slots=True)
class Difference:
    """What is under a key in one snapshot, and in another.

    `type` and `name` say in which object, `key` is its key or element, and None of a counter or register. `before` and
    `after` are the values, None for nothing; of a set True and False, of a counter its totals.
    """

    type: str
    name: str
    _element: bytes = field(repr=False)
    _before: Link | None = field(repr=False)
    _after: Link | None = field(repr=False)

    @property
    def key(self) -> Any:
        """The key of a map, or the element of a set."""
        return decode_element(self._element) if self.type in ("map", "set") else None

    @property
    def before(self) -> Any:
        """What is there in the first."""
        return self._value(self._before)

    @property
    def after(self) -> Any:
        """What is there in the second."""
        return self._value(self._after)

    @property
    def kind(self) -> Literal["set", "deleted"]:
        """Whether the second has something there."""
        return "deleted" if self._after is None else "set"

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        told = {"object": self.name, "type": self.type, "key": self.key, "kind": self.kind}
        return {**told, "before": self.before, "after": self.after}

    def _value(self, link: Link | None) -> Any:
        if self.type == "set":
            return link is not None
        return None if link is None else decode_value(link[3])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a cluster shared at one moment: `await node.snapshot()` takes one, `await node.restore(snapshot)` puts it
    back.

    `cluster` is whose it is, `node` the name of the node that took it, and `at` the moment that it shows, in UTC. What
    is owned by a worker is not in it.
    """

    cluster: str
    node: str
    at: datetime
    _state: State = field(repr=False)

    @classmethod
    def _of(cls, cluster: str, node: str, state: State, mortal: Mapping[Object, Iterable[bytes]], now: int) -> Self:
        """What is visible of a state at `now`, in milliseconds; `mortal` are the keys that have something that ends."""
        moment = at(now + 1) - 1  # all of its millisecond
        objects = dict(state.objects)
        for name, keys in mortal.items():
            elements = dict(objects[name])
            for element in keys:
                kept = packed(linked(list(visible(elements.pop(element), moment, ())), None))
                if kept is not None:
                    elements[element] = kept
            objects[name] = elements
        objects = {name: elements for name, elements in objects.items() if elements}
        lives = (live for each in objects.values() for live in each.values()) if state.notes else ()
        left = {dot for live in lives for dot in dots_in(live)}
        notes = {dot: note for dot, note in state.notes.items() if dot in left}
        return cls(cluster, node, _time(now), State(state.context, frozenset(), objects, notes=notes))

    @property
    def head(self) -> Head:
        """What its file says of it at the beginning."""
        objects = self._state.objects
        entries = sum(map(len, objects.values()))
        return Head(self.cluster, self.node, round(self.at.timestamp() * 1000), len(objects), entries)

    # -- looking -----------------------------------------------------------------------------------------------------

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Of each object its type, its name, and how many entries it has."""
        return [
            {"type": TYPES.get(kind, str(kind)), "name": name, "entries": len(elements)}
            for (kind, name), elements in sorted(self._state.objects.items())
        ]

    def contents(self, name: str, type: str | None = None) -> Any:
        """What an object held: a dict, a set, the total of a counter, or the value of a register.

        Raises `KeyError` if there is nothing of this name, `ValueError` if there are several and no `type` says which.
        """
        kinds = [
            kind for kind, called in TYPES.items() if (kind, name) in self._state.objects and type in (None, called)
        ]
        if not kinds:
            raise KeyError(name)
        if len(kinds) > 1:
            raise ValueError(f"{name!r} is a {' and a '.join(TYPES[kind] for kind in kinds)}: say which, by type=")
        elements = self._state.objects[kinds[0], name]
        match kinds[0]:
            case 1:
                return {decode_element(element): decode_value(value_of(live)) for element, live in elements.items()}
            case 2:
                return set(map(decode_element, elements))
            case 3:
                return _total(elements)
        return decode_value(value_of(elements[b""]))

    def diff(self, other: Snapshot, objects: Collection[str] | None = None) -> list[Difference]:
        """What is different in the other: from this one, these changes lead to it. Of the named objects, or of all."""
        return list(differences(self._state, other._state, objects))

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Writes it into a new file, which only its owner can read; gives the path.

        Takes about 3 s for a million entries: `await asyncio.to_thread(snapshot.save, path)` where a loop runs. Raises
        `FileExistsError`, and `OSError` if the disk refuses; then there is no file.
        """
        path = Path(path).absolute()
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists, and is not replaced: give another name, or remove it")
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with open(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb") as file:
                self._write(file)
                file.flush()
                os.fsync(file.fileno())
            _name(unfinished, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(unfinished)
        _sync_directory(path.parent)
        return path

    def _write(self, file: BinaryIO) -> None:
        from zstandard import ZstdCompressor  # here, since few programs take snapshots, and all import this

        compressor = ZstdCompressor(level=_LEVEL)
        file.write(_MAGIC + _FORMAT)
        checksum = b""
        for content in chain((pack(self.head),), state_parts(self._state)):
            checksum = _write_frame(file, checksum, compressor.compress(content))
        _write_frame(file, checksum, b"")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a file. Raises `SnapshotError` if it is none, of a newer version, or damaged, and `OSError`."""
        path = Path(path)
        with open(path, "rb") as file:
            frames = _frames(path, file)
            head = _head(path, frames)
            stage = Stage()
            try:
                for content in frames:
                    stage.add(content)
                state = stage.state()
            except Malformed as error:
                raise SnapshotError(_damaged(path, str(error))) from None
        return cls(head.cluster, head.node, _time(head.at), state)

    def __repr__(self) -> str:
        return f"<Snapshot of cluster {self.cluster!r} at {self.at.isoformat()}: {self.head.entries} entries>"


def read_head(path: Path) -> Head:
    """What a file says of itself; whether the rest is whole, only `Snapshot.load` tells. Raises as that does."""
    with open(path, "rb") as file:
        return _head(path, _frames(path, file))


def differences(
    before: State, after: State, objects: Collection[str] | None, moment: Timestamp = 0
) -> Iterator[Difference]:
    """The keys that show something else, or end at another time, object by object; of `after` what has not ended by
    this moment."""
    names = {**before.objects, **after.objects}
    for name in sorted(names):
        if (objects is not None and name[1] not in objects) or name[0] not in TYPES:
            continue
        mine, theirs = before.objects.get(name, {}), after.objects.get(name, {})
        if name[0] == COUNTER:
            mine, theirs = _as_total(mine), _as_total(theirs)
        for element in {**mine, **theirs}:
            here, there = mine.get(element), theirs.get(element)
            if isinstance(here, bytes) and here == there:
                continue  # the usual case; chains are not compared whole, which recurses as deep as they are
            old, new = unpacked(here), next(visible(there, moment, ()), None)
            if (old and old[3:5]) != (new and new[3:5]):
                yield Difference(TYPES[name[0]], name[1], element, old, new)


def _as_total(elements: Mapping[bytes, Live]) -> dict[bytes, Link]:
    """A counter as one entry, with its total; none for nothing, which shows 0 as well."""
    total = _total(elements)
    return {b"": (0, 0, 0, encode_value(total), FOREVER, None)} if total else {}


def _total(elements: Mapping[bytes, Live]) -> int:
    total = 0
    for live in elements.values():
        up, down = decode_value(value_of(live))
        total += up - down
    return total


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


# -- frames ------------------------------------------------------------------------------------------------------------


def _write_frame(file: BinaryIO, before: bytes, content: bytes) -> bytes:
    checksum = _checksum(before, content)
    file.write(len(content).to_bytes(_LENGTH, "big") + checksum + content)
    return checksum


def _checksum(before: bytes, content: bytes) -> bytes:
    return blake2b(before + len(content).to_bytes(_LENGTH, "big") + content, digest_size=_CHECKSUM).digest()


def _frames(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """What the frames hold, up to the end. Raises `SnapshotError`; nothing is allocated by a length that lies."""
    from zstandard import ZstdDecompressor, ZstdError

    first = file.read(len(_MAGIC + _FORMAT))
    if not first.startswith(_MAGIC):
        raise SnapshotError(f"{path} is no snapshot of gossamesh: those begin with {_MAGIC.decode()!r}")
    if not first.endswith(_FORMAT):
        raise SnapshotError(
            f"{path} is a snapshot of a newer format than this version of gossamesh knows, or its first line is "
            "damaged: update gossamesh, or take another copy"
        )
    decompressor = ZstdDecompressor()
    before = b""
    while True:
        start = file.read(_LENGTH + _CHECKSUM)
        length = int.from_bytes(start[:_LENGTH], "big")
        content = file.read(length) if length <= _LONGEST else b""
        before = _checksum(before, content)
        if start[_LENGTH:] != before or len(content) != length:
            raise SnapshotError(_damaged(path, f"what is before byte {file.tell()} does not fit its checksum"))
        if not length:
            break
        try:
            if _unpacked(content) > _LONGEST:
                raise SnapshotError(_damaged(path, "a part of it unpacks to more than any may have"))
            part = decompressor.decompress(content)
        except ZstdError as error:
            raise SnapshotError(_damaged(path, str(error))) from None
        yield part
    if file.read(1):
        raise SnapshotError(_damaged(path, "something follows its end"))


def _unpacked(content: bytes) -> int:
    """How much a frame unpacks to, by its own word, which is all that is allocated: not known is too much."""
    from zstandard import CONTENTSIZE_UNKNOWN, get_frame_parameters

    size: int = get_frame_parameters(content).content_size
    return _LONGEST + 1 if size == CONTENTSIZE_UNKNOWN else size


def _head(path: Path, frames: Iterator[bytes]) -> Head:
    content = next(frames, b"")
    try:
        fields = unpack(content)
        head = Head(*fields)
    except (Malformed, TypeError):
        raise SnapshotError(_damaged(path, "it does not say what it is of")) from None
    if list(map(type, head)) != [str, str, int, int, int] or not 0 <= head.at < _LATEST:
        raise SnapshotError(_damaged(path, "it does not say what it is of"))
    return head


def _damaged(path: Path, why: str) -> str:
    return f"the snapshot {path} is damaged ({why}), so nothing of it is taken: use another copy, or another snapshot"


def _name(unfinished: Path, path: Path) -> None:
    """Gives a file its name, unless there is one of that name by now."""
    try:
        os.link(unfinished, path)
    except FileExistsError:
        raise FileExistsError(f"{path} exists, and is not replaced: give another name, or remove it") from None
    except OSError:  # a file system without links
        os.rename(unfinished, path)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
