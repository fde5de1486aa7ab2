"""What is a file of this repository, what is a rule about it, and which files are there? For tests/test_tidy.py.

A rule is a function from one file to its complaints, registered together with snippets that it must refuse and
snippets that it must let pass.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent

# Who may import whom inside gossip: downwards and sideways, never upwards. A new file is entered here, on purpose.
LAYERS = (
    {"gossip.protocol"},
    {
        "gossip.bell",
        "gossip.checks",
        "gossip.config",
        "gossip.datadir",
        "gossip.datagrams",
        "gossip.door",
        "gossip.drafts",
        "gossip.errors",
        "gossip.events",
        "gossip.forks",
        "gossip.handshake",
        "gossip.identity",
        "gossip.keeping",
        "gossip.keyring",
        "gossip.memo",
        "gossip.neighbours",
        "gossip.past",
        "gossip.pulse",
        "gossip.reach",
        "gossip.records",
        "gossip.roster",
        "gossip.runtime",
        "gossip.schema",
        "gossip.seal",
        "gossip.endings",
        "gossip.search",
        "gossip.snapshot",
        "gossip.sources",
        "gossip.token",
        "gossip.waits",
        "gossip.whereabouts",
        "gossip.storage",
        "gossip.streams",
        "gossip.transport",
        "gossip.udp",
        "gossip.verdicts",
        "gossip.version",
        "gossip.writing",
    },
    # a node makes handles and lends them itself
    {
        "gossip.answers",
        "gossip.checkup",
        "gossip.control",
        "gossip.counting",
        "gossip.handle",
        "gossip.node",
        "gossip.restore",
        "gossip.shared",
        "gossip.status",
        "gossip.thread",
        "gossip.watch",
        "gossip.watches",
    },
    {"gossip.coordination", "gossip.history"},
    {"gossip"},  # the public face, gossip/__init__.py: it shows what lies below and nothing above
    {"gossip.http", "gossip.integrations"},
    {"gossip.cli", "gossip.__main__"},
)
LAYER = {module: height for height, modules in enumerate(LAYERS) for module in modules}


@dataclass(frozen=True)
class Import:
    line: int
    module: str  # absolute, also where it was written relative
    name: str | None  # of `from module import name`
    typing: bool  # under `if TYPE_CHECKING:`

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    @property
    def target(self) -> str:
        """The known module that this import reaches: `from gossip import node` reaches gossip.node."""
        full = f"{self.module}.{self.name}" if self.name else self.module
        second = ".".join(full.split(".")[:2])
        return second if second in LAYER else self.top


@dataclass(frozen=True)
class Source:
    """One file of the repository, or a snippet that pretends to be one."""

    path: PurePosixPath
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def module(self) -> str:
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        """The module's place among the layers: gossip.protocol.engine stands in gossip.protocol."""
        return ".".join(self.module.split(".")[:2])

    @cached_property
    def imports(self) -> list[Import]:
        found: list[Import] = []
        self._collect(self.tree, False, found)
        return found

    def _collect(self, node: ast.AST, typing: bool, found: list[Import]) -> None:
        match node:
            case ast.Import(names=names):
                found += [Import(node.lineno, alias.name, None, typing) for alias in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                base = self._absolute(module, level)
                found += [Import(node.lineno, base, alias.name, typing) for alias in names]
            case ast.If(test=test, body=body, orelse=orelse) if ast.unparse(test).endswith("TYPE_CHECKING"):
                for statement in body:
                    self._collect(statement, True, found)
                for statement in orelse:
                    self._collect(statement, typing, found)
            case _:
                for child in ast.iter_child_nodes(node):
                    self._collect(child, typing, found)

    def _absolute(self, module: str | None, level: int) -> str:
        if level == 0:
            return module or ""
        package = self.path.parent.parts
        return ".".join([*package[: len(package) - level + 1], *([module] if module else [])])

    def calls(self) -> Iterator[tuple[int, str, ast.Call]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                yield node.lineno, ast.unparse(node.func), node


Checker = Callable[[Source], Iterator[str]]


@dataclass(frozen=True)
class Rule:
    name: str
    applies: Callable[[PurePosixPath], bool]
    check: Checker
    bad: tuple[tuple[str, str], ...]
    good: tuple[tuple[str, str], ...]

    def complaints(self, source: Source) -> list[str]:
        return [f"{source.path}:{text}" for text in self.check(source)] if self.applies(source.path) else []


RULES: list[Rule] = []


def rule(
    applies: Callable[[PurePosixPath], bool], *, bad: list[tuple[str, str]], good: list[tuple[str, str]]
) -> Callable[[Checker], Checker]:
    def register(check: Checker) -> Checker:
        RULES.append(Rule(check.__name__, applies, check, tuple(bad), tuple(good)))
        return check

    return register


def under(*folders: str) -> Callable[[PurePosixPath], bool]:
    def applies(path: PurePosixPath) -> bool:
        return path.suffix == ".py" and any(path.is_relative_to(folder) for folder in folders)

    return applies


def everywhere(path: PurePosixPath) -> bool:
    return True


def python(path: PurePosixPath) -> bool:
    return path.suffix == ".py"


NOT_OURS = frozenset({"__pycache__", "build", "dist", "htmlcov"})


def repository() -> list[Source]:
    """Every text file that belongs to the repository. Walked, not asked of git: an unpacked archive has no git."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        hidden = {name for name in folders if name.startswith(".") and name not in {".ci", ".github"}}
        folders[:] = sorted(set(folders) - hidden - NOT_OURS)
        for name in sorted(names):
            path = Path(folder, name)
            try:
                text = path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue  # a picture or a socket
            found.append(Source(PurePosixPath(path.relative_to(ROOT).as_posix()), text))
    return found
