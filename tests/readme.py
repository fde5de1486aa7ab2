"""Which code stands in README.md, and what may be asked of it? For tests/test_readme.py and tests/test_exports.py.

A comment in the line before a fence speaks about the block:
    <!-- continued -->           it goes on where the python block before it ended, in the same program
    <!-- not run: reason -->     it is read, not run, and the reason is printed
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[\w+-]*)")
NOT_RUN = re.compile(r"<!-- *not run: *(?P<reason>.*?) *-->")
CONTINUED = re.compile(r"<!-- *continued *-->")


@dataclass(frozen=True)
class Block:
    language: str
    line: int  # of its first line of code, counted from 1
    code: str
    continued: bool = False
    not_run: str | None = None  # the reason


def blocks(text: str) -> list[Block]:
    """Every fenced block, in order."""
    found: list[Block] = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        number += 1
        if not opening:
            continue
        start = number
        while number < len(lines) and not lines[number].strip().startswith(opening["fence"]):
            number += 1
        code = textwrap.dedent("\n".join(lines[start:number]) + "\n")
        before = next((line for line in reversed(lines[: start - 1]) if line.strip()), "")
        reason = NOT_RUN.search(before)
        continued = bool(CONTINUED.search(before))
        found.append(Block(opening["language"], start + 1, code, continued, reason["reason"] if reason else None))
        number += 1
    return found


def programs(found: list[Block]) -> list[Block]:
    """The python blocks, each with those that continue it. Blank lines keep every line at its place in the README."""
    chains: list[Block] = []
    for block in found:
        if block.language != "python":
            continue
        if not (block.continued and chains):
            chains.append(block)
            continue
        first = chains.pop()
        gap = block.line - first.line - first.code.count("\n")
        chains.append(
            Block("python", first.line, first.code + "\n" * gap + block.code, not_run=first.not_run or block.not_run)
        )
    return chains


def commands(found: list[Block]) -> Iterator[tuple[int, str]]:
    """Line and text of every command after `$ ` in console blocks; a backslash at the end joins the next line."""
    for block in found:
        if block.language != "console":
            continue
        joined = re.sub(r"\\\n", lambda _: " \0", block.code)  # \0 keeps the count of lines
        line = block.line
        for text in joined.split("\n"):
            if text.lstrip().startswith("$ "):
                yield line, text.lstrip()[2:].replace("\0", "")
            line += 1 + text.count("\0")


def names(found: list[Block], package: str) -> Iterator[tuple[int, str]]:
    """Line and name of every `package.name` and `from package import name` in the python blocks."""
    for block in found:
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.code)):
            match node:
                case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == package:
                    yield block.line + node.lineno - 1, attribute
                case ast.ImportFrom(module=module, names=aliases, level=0) if module == package:
                    yield from ((block.line + node.lineno - 1, alias.name) for alias in aliases)
