"""What was done to a directory, in its order, and what may be left of it when the power fails in between?

Read from strace, in the order in which the calls returned. Names (creations, renames, removals) are
safe with the next fsync of the directory, and are kept in their order, as journals keep them; what is written to files
is safe with the next fsync of that file. What is not safe may be there, or not, or in part, in any combination.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.storage.processes import ROOT, command

_CALLS = "openat,pwrite64,write,fdatasync,fsync,ftruncate,unlink,rename"
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)")
_FILE = re.compile(r"\d+<([^>]*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Op:
    """One thing that was done: `say`, `create`, `write`, `truncate`, `sync`, `rename`, `unlink`."""

    what: str
    name: str = ""
    data: bytes = b""
    at: int = 0


def record(directory: Path, log: Path, **options: Any) -> list[Op]:
    """Runs a writer to its end, and gives what it did to the directory and what it said."""
    trace = ["strace", "-f", "-y", "-xx", "-s", "20000000", "--seccomp-bpf", "-o", str(log), "-e", f"trace={_CALLS}"]
    subprocess.run([*trace, *command(directory=directory, **options)], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return list(_read(log, str(directory)))


def _read(log: Path, directory: str) -> Iterator[Op]:
    begun: dict[tuple[str, str], str] = {}
    with log.open() as lines:
        for line in lines:
            if not (match := _LINE.match(line)):
                continue
            pid, resumed, called, rest = match.groups()
            call = resumed or called
            if resumed:
                rest = begun.pop((pid, call), "") + rest
            elif "<unfinished" in rest:
                begun[pid, call] = rest.partition("<unfinished")[0]
                continue
            if not re.search(r"\) += -1", rest):
                yield from _op(call, rest, directory)


def _op(call: str, rest: str, directory: str) -> Iterator[Op]:
    texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(rest)]
    names = [_decoded(name) for name in _FILE.findall(rest)]
    if call == "write":
        if rest.startswith("1<"):
            yield Op("say", data=texts[0])
        return
    paths = [text.decode(errors="replace") for text in texts] if call in ("openat", "unlink", "rename") else names[:1]
    if not paths or not (paths[0] + "/").startswith(directory + "/"):
        return
    inside = [path.removeprefix(directory).removeprefix("/") for path in paths]
    match call:
        case "openat" if "O_CREAT" in rest:
            yield Op("create", inside[0])
        case "pwrite64":
            size, offset = map(int, re.findall(r", (\d+), (\d+) *\)", rest)[-1])
            assert len(texts[0]) == size, "the trace has the whole of it"
            yield Op("write", inside[0], texts[0], offset)
        case "ftruncate":
            yield Op("truncate", inside[0], at=int(re.findall(r", (\d+) *\)", rest)[-1]))
        case "fsync" | "fdatasync":
            yield Op("sync", inside[0])
        case "unlink":
            yield Op("unlink", inside[0])
        case "rename":
            yield Op("rename", inside[0], inside[1].encode())


def _decoded(name: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), name)


@dataclass
class _File:
    safe: bytearray = field(default_factory=bytearray)
    pending: list[Op] = field(default_factory=list)


@dataclass
class Disk:
    """What the kernel has, and what of it is safe."""

    files: list[_File] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    safe_names: dict[str, int] = field(default_factory=dict)
    renamed: list[tuple[str, str, int]] = field(default_factory=list)
    """Changes of names that are not safe: what, which, and the file or the new name's file."""

    def do(self, op: Op) -> None:
        match op.what:
            case "create" if op.name not in self.names:
                self.files.append(_File())
                self._name("set", op.name, len(self.files) - 1)
            case "write" | "truncate":
                self.files[self.names[op.name]].pending.append(op)
            case "sync" if op.name == "":
                self.safe_names, self.renamed = dict(self.names), []
            case "sync" if op.name in self.names:
                file = self.files[self.names[op.name]]
                for each in file.pending:
                    _put(file.safe, each)
                file.pending = []
            case "unlink":
                self._name("drop", op.name, -1)
            case "rename":
                number = self.names[op.name]
                self._name("set", op.data.decode(), number)
                self._name("drop", op.name, -1)

    def _name(self, what: str, name: str, number: int) -> None:
        self.renamed.append((what, name, number))
        _rename(self.names, what, name, number)

    def cut(self, keeps: Callable[[str, Op], bytes | bool | None], names: int) -> dict[str, bytes]:
        """The files after a power cut. `keeps` says of each pending write whether it is there: wholly (True), not at
        all (False), as zeros (None), or as so many bytes of it; `names` how many changes of names are."""
        there = dict(self.safe_names)
        for what, name, number in self.renamed[:names]:
            _rename(there, what, name, number)
        image = {}
        for name, number in there.items():
            content = bytearray(self.files[number].safe)
            for op in self.files[number].pending:
                kept = keeps(name, op)
                if kept is None:
                    kept = bytes(len(op.data))
                if kept is True or (op.what == "truncate" and kept):
                    _put(content, op)
                elif kept:
                    assert isinstance(kept, bytes)
                    _put(content, Op("write", op.name, kept, op.at))
            image[name] = bytes(content)
        return image


def _rename(names: dict[str, int], what: str, name: str, number: int) -> None:
    if what == "set":
        names[name] = number
    else:
        names.pop(name, None)


def _put(content: bytearray, op: Op) -> None:
    if op.what == "truncate":
        content[op.at :] = bytes(max(0, op.at - len(content)))
        return
    if len(content) < op.at:
        content.extend(bytes(op.at - len(content)))
    content[op.at : op.at + len(op.data)] = op.data


def killed(ops: list[Op]) -> Iterator[tuple[int, dict[str, bytes]]]:
    """The files as the kernel has them after each op: what is there after a kill."""
    disk = Disk()
    for place, op in enumerate(ops, 1):
        disk.do(op)
        yield place, disk.cut(lambda name, op: True, len(disk.renamed))


def power_cuts(ops: list[Op], chance: Random, more: int) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Files that a power cut may leave, after each op that changed anything: the extremes, and `more` by chance."""
    disk = Disk()
    for place, op in enumerate(ops, 1):
        disk.do(op)
        by_chance = 0 if op.what == "say" else more  # who heard it had no time yet to do anything
        renames = len(disk.renamed)
        seen = set()
        for names in {0, renames}:
            for image in (
                disk.cut(lambda name, op: False, names),
                disk.cut(lambda name, op: True, names),
                disk.cut(lambda name, op: name.endswith("wal"), names),
                disk.cut(lambda name, op: not name.endswith("wal"), names),
                disk.cut(lambda name, op: None, names),
                *(disk.cut(_by_chance(chance), chance.randint(0, renames)) for _ in range(by_chance)),
            ):
                key = tuple(sorted(image.items()))
                if key not in seen:
                    seen.add(key)
                    yield place, image


def _by_chance(chance: Random) -> Callable[[str, Op], bytes | bool | None]:
    lost = chance.choice((0.1, 0.5, 0.9))

    def keeps(name: str, op: Op) -> bytes | bool | None:
        if chance.random() >= lost:
            return True
        if not op.data:
            return False
        torn = op.data[: chance.randrange(len(op.data)) // 512 * 512]
        return chance.choice((False, None, torn, op.data[: chance.randrange(len(op.data))]))

    return keeps


def said_before(ops: list[Op], place: int, word: str) -> int:
    """The last ticket that was spoken of in the first ops."""
    found = [op.data.decode() for op in ops[:place] if op.what == "say"]
    tickets = [int(line.split()[1]) for text in found for line in text.splitlines() if line.startswith(word + " ")]
    return max(tickets, default=0)


def lay_out(image: dict[str, bytes], directory: Path) -> Path:
    directory.mkdir()
    for name, content in image.items():
        (directory / name).write_bytes(content)
    return directory
