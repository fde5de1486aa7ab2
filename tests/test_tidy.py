"""Does the repository keep its own rules? Which room may import which, what no file may contain, how long is too long.

A rule is a function from one file to its complaints, registered with snippets that it must refuse and may not refuse:
a rule that cannot fail is worthless, so each is tried on its own bad examples in `test_the_rule_can_fail`.
Not here: what a linter or type checker already says (see `make check`).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from tests.tidy import LAYER, RULES, Rule, Source, everywhere, python, repository, rule, under

PACKAGES = ("crdt", "discovery", "gossip")
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 600

# What the pure rooms may not know: the world, the clock, chance, and a place to write to.
# fmt: off
IMPURE = frozenset({
    "asyncio", "concurrent", "ctypes", "datetime", "fcntl", "http", "importlib", "logging", "mmap",
    "multiprocessing", "os", "pathlib", "queue", "random", "sched", "secrets", "select", "selectors",
    "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "syslog", "tempfile",
    "threading", "time", "urllib", "uuid",
})
# fmt: on


# --- the arrows -------------------------------------------------------------------------------------------------


def foreign(source: Source, *allowed: str) -> Iterator[str]:
    for item in source.imports:
        inside = any(item.module == name or item.module.startswith(name + ".") for name in allowed)
        if not inside and item.top not in sys.stdlib_module_names:
            room = ".".join(source.module.split(".")[: 2 if source.path.parts[0] == "gossip" else 1])
            yield f"{item.line} imports {item.module}; {room} may import the standard library and {allowed} only"


@rule(
    under("crdt"),
    bad=[
        ("crdt/store.py", "import gossip"),
        ("crdt/store.py", "from discovery.address import Address"),
        ("crdt/deep/store.py", "def f():\n    import aiohttp"),
        ("crdt/store.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gossip import Node"),
    ],
    good=[("crdt/store.py", "import heapq, msgpack\nfrom . import causality\nfrom crdt.timestamp import tick")],
)
def crdt_imports_the_standard_library_and_msgpack(source: Source) -> Iterator[str]:
    yield from foreign(source, "crdt", "msgpack")


@rule(
    under("discovery"),
    bad=[("discovery/dns.py", "import gossip.errors"), ("discovery/dns.py", "from crdt import Store")],
    good=[
        ("discovery/mdns.py", "import asyncio\nfrom zeroconf.asyncio import AsyncZeroconf\nfrom .address import A"),
        ("discovery/dns.py", "from dns import resolver"),
    ],
)
def discovery_imports_the_standard_library_zeroconf_and_dnspython(source: Source) -> Iterator[str]:
    yield from foreign(source, "discovery", "zeroconf", "dns")


@rule(
    under("gossip/protocol"),
    bad=[
        ("gossip/protocol/engine.py", "from gossip.errors import GossipError"),
        ("gossip/protocol/engine.py", "from .. import node"),
        ("gossip/protocol/engine.py", "import msgpack"),
    ],
    good=[
        (
            "gossip/protocol/engine.py",
            "import math\nfrom crdt import Store\nfrom . import members\nfrom .effects import Send",
        )
    ],
)
def protocol_imports_the_standard_library_and_crdt(source: Source) -> Iterator[str]:
    yield from foreign(source, "gossip.protocol", "crdt")


@rule(
    under("crdt", "gossip/protocol"),
    bad=[
        *[("crdt/store.py", f"import {name}") for name in sorted(IMPURE)],
        ("gossip/protocol/engine.py", "from time import monotonic"),
        ("gossip/protocol/engine.py", "from random import random"),
        ("gossip/protocol/engine.py", "from random import Random\nrng = Random()"),
        ("gossip/protocol/engine.py", "def f():\n    import os.path"),
        ("gossip/protocol/engine.py", "print('here')"),
        ("crdt/store.py", "with open('state') as file: pass"),
    ],
    good=[
        ("gossip/protocol/engine.py", "from random import Random\ndef f(rng: Random) -> float: return rng.random()"),
        ("gossip/protocol/engine.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import random"),
        ("gossip/runtime.py", "import asyncio, time, random"),
    ],
)
def pure_rooms_know_no_world_no_clock_no_chance(source: Source) -> Iterator[str]:
    called = {name for _, name, _ in source.calls()}
    for item in source.imports:
        a_type = item.module == "random" and (item.typing or (item.name == "Random" and "Random" not in called))
        if item.top in IMPURE and not a_type:
            yield f"{item.line} imports {item.module}; time and chance are arguments here, and effects are values"
    for line, name, _ in source.calls():
        if name in {"open", "print", "input", "breakpoint"}:
            yield f"{line} calls {name}(); return an effect, and let the runtime do it"


@rule(
    under("gossip"),
    bad=[
        ("gossip/config.py", "from gossip.node import Node"),
        ("gossip/runtime.py", "from gossip import Node"),
        ("gossip/node.py", "from gossip.coordination.leases import Lease"),
        ("gossip/node.py", "from .http import app"),
        ("gossip/coordination/leases.py", "from ..integrations import fastapi"),
        ("gossip/__init__.py", "from . import cli"),
        ("gossip/http/app.py", "import gossip.cli"),
        ("gossip/node.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gossip.http import App"),
        ("gossip/node.py", "def f():\n    from gossip.http import App"),
        ("gossip/__init__.py", "if x:\n    pass\nelse:\n    def f():\n        from gossip import cli"),
        ("gossip/shiny.py", "import math"),
    ],
    good=[
        (
            "gossip/runtime.py",
            "from gossip.protocol.engine import Engine\nfrom gossip.config import Config\nimport crdt",
        ),
        ("gossip/node.py", "from .runtime import Runtime\nfrom .shared import Map\nfrom discovery import host"),
        ("gossip/shared.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .node import Node"),
        ("gossip/__init__.py", "from gossip.node import Node\nfrom .history import Document"),
        ("gossip/cli/members.py", "from gossip import Node\nfrom gossip.http import client"),
    ],
)
def arrows_in_gossip_point_one_way(source: Source) -> Iterator[str]:
    if source.room not in LAYER:
        yield f"1 {source.room} stands in no layer; enter it in LAYERS of tests/tidy.py where it belongs"
        return
    for item in source.imports:
        # Node makes the handles and the handles know their node; these pairs are judged by a test of their own below.
        pair = "gossip.node" in (source.room, item.target) and not HANDLES.isdisjoint((source.room, item.target))
        if item.top == "gossip" and LAYER[item.target] > LAYER[source.room] and not pair:
            yield f"{item.line} {source.room} imports {item.target}, which stands above it; turn the arrow round"


def imported_at_runtime(source: Source) -> set[str]:
    return {item.target for item in source.imports if not item.typing}


HANDLES = frozenset({"gossip.shared", "gossip.counting"})


def both_ways(node: Source, handles: Source) -> bool:
    return handles.room in imported_at_runtime(node) and "gossip.node" in imported_at_runtime(handles)


def test_node_and_handles_import_each_other_only_for_types() -> None:
    """One of the two may import the other in earnest; the way back is for the type checker alone."""
    files = {source.room: source for source in repository() if source.path.suffix == ".py"}
    for handles in HANDLES:
        assert not both_ways(files["gossip.node"], files[handles]), "an import belongs under TYPE_CHECKING"


def test_the_pair_rule_can_fail() -> None:
    node = Source(PurePosixPath("gossip/node.py"), "def f():\n    from gossip import shared")
    shared = Source(PurePosixPath("gossip/shared.py"), "from .node import Node")
    for_types = Source(shared.path, "if TYPE_CHECKING:\n    from .node import Node")
    assert both_ways(node, shared)
    assert not both_ways(node, for_types)


# --- what no package contains -----------------------------------------------------------------------------------

UNSAFE_MODULES = frozenset({"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle"})
UNSAFE_CALLS = {
    "eval": "runs what it is given; parse it instead",
    "exec": "runs what it is given; parse it instead",
    "yaml.load": "builds any object it is told to; use yaml.safe_load",
    "yaml.unsafe_load": "builds any object it is told to; use yaml.safe_load",
    "time.sleep": "stops the whole worker; wait for what is being waited for",
    "asyncio.set_event_loop_policy": "changes the program that embeds us; run on the loop that is there",
}


@rule(
    under(*PACKAGES),
    bad=[
        ("gossip/storage.py", "import pickle"),
        ("gossip/storage.py", "from marshal import loads"),
        ("crdt/codec.py", "value = eval(text)"),
        ("crdt/codec.py", "exec(text)"),
        ("gossip/config.py", "import yaml\nyaml.load(text)"),
        ("discovery/dns.py", "import time\ntime.sleep(1)"),
        ("discovery/dns.py", "import time as clock\nclock.sleep(1)"),
        ("discovery/dns.py", "from time import sleep\nsleep(1)"),
        ("gossip/runtime.py", "import asyncio\nasyncio.set_event_loop_policy(policy)"),
        ("gossip/runtime.py", "from asyncio import set_event_loop_policy as policy\npolicy(None)"),
    ],
    good=[
        ("gossip/node.py", "raise TypeError('a node cannot be pickled: eval(it)')"),
        ("gossip/http/app.py", "import asyncio\nasyncio.create_subprocess_exec('true')\nasyncio.sleep(1)"),
        ("gossip/storage.py", "self.eval(1)\nregex.exec()"),
        ("gossip/cli/conversation.py", "import time\ntime.sleep(0.1)"),
    ],
)
def packages_run_no_foreign_code_and_stop_nobody(source: Source) -> Iterator[str]:
    real = {"eval": "eval", "exec": "exec"}  # the name as written here -> what it is
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            real |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            real |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for item in source.imports:
        if item.top in UNSAFE_MODULES:
            yield f"{item.line} imports {item.module}, which runs code from what it reads; use crdt.codec"
    for line, name, _ in source.calls():
        head, dot, rest = name.partition(".")
        reason = UNSAFE_CALLS.get(real.get(head, head if dot else "") + dot + rest)
        command = source.path.parts[:2] == ("gossip", "cli")  # a process of its own, which has nothing else to do
        if reason and not (command and "worker" in reason):
            yield f"{line} calls {name}(), which {reason}"


# --- size, names, words -----------------------------------------------------------------------------------------


def docstring_lines(node: ast.AST) -> set[int]:
    match node:
        case ast.FunctionDef(body=[ast.Expr(value=ast.Constant(value=str())) as text, *_]):
            return set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
        case ast.AsyncFunctionDef(body=[ast.Expr(value=ast.Constant(value=str())) as text, *_]):
            return set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
        case _:
            return set()


@rule(
    python,
    bad=[
        ("crdt/store.py", "def f():\n" + "    x = 1\n" * 60),
        ("gossip/node.py", "class A:\n    async def f(self):\n" + "        x = 1\n" * 60),
    ],
    good=[
        ("crdt/store.py", "def f():\n" + "    x = 1\n" * 59),
        ("crdt/store.py", 'def f():\n    """' + "text\n" * 80 + '"""\n' + "    # why\n\n" * 80 + "    x = 1\n" * 58),
    ],
)
def functions_fit_on_a_screen(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        prose = set().union(*(docstring_lines(child) for child in ast.walk(node)))
        span = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        code = [n for n in span if n not in prose and not re.match(r"\s*(#|$)", source.lines[n - 1])]
        if len(code) > MAX_FUNCTION_LINES:
            yield (
                f"{node.lineno} {node.name} has {len(code)} lines of code, {MAX_FUNCTION_LINES} are allowed; "
                "keep one match or the steps here, and move the computation into functions named after what they answer"
            )


@rule(
    python,
    bad=[("gossip/node.py", "x = 1\n" * 601), ("tests/test_x.py", "\n" * 601)],
    good=[("gossip/node.py", "x = 1\n" * 600)],
)
def files_answer_one_question(source: Source) -> Iterator[str]:
    if len(source.lines) > MAX_FILE_LINES:
        yield (
            f"1 has {len(source.lines)} lines, {MAX_FILE_LINES} are allowed; it answers more than one question: "
            "write each down and give each a file"
        )


@rule(
    python,
    bad=[
        ("gossip/utils.py", ""),
        ("crdt/_common.py", ""),
        ("gossip/helpers/text.py", ""),
        ("tests/protocol/base.py", ""),
    ],
    good=[("gossip/baseline.py", ""), ("crdt/store.py", "")],
)
def files_are_named_after_what_they_hold(source: Source) -> Iterator[str]:
    for part in source.path.with_suffix("").parts:
        if part.strip("_") in {"utils", "util", "helpers", "helper", "base", "common", "misc"}:
            yield f"1 is called {part!r}, which fits anything; name it after the one question it answers"


@rule(
    under(*PACKAGES),
    bad=[
        ("crdt/store.py", "x = 1"),
        ("crdt/__init__.py", ""),
        ("crdt/store.py", '"""\nWhich writes are live?\n"""'),
        ("crdt/store.py", '"""Store."""'),
        ("crdt/store.py", '"""the store of all the things"""'),
    ],
    good=[
        ("crdt/store.py", '"""Which writes are live? Those delivered and not named."""'),
        ("crdt/store.py", '"""Which writes are live, and who\ndecides?\n\n    more\n"""'),
    ],
)
def files_open_with_their_question(source: Source) -> Iterator[str]:
    opening = (ast.get_docstring(source.tree, clean=False) or "").partition("\n\n")[0]
    if not opening.split("\n")[0].strip():
        yield '1 must open with its question: """Which writes are live? ..."""'
    elif len(opening.split()) < 3 or not opening.rstrip().endswith((".", "?", "!", ":")):
        yield f"1 opens with {opening!r}; say in a sentence or a question what the file is there to answer"


@rule(
    under(*PACKAGES),
    bad=[
        ("crdt/store.py", "def merge(): pass"),
        ("crdt/store.py", "class Store: pass"),
        ("gossip/node.py", "async def start(): ..."),
    ],
    good=[
        ("crdt/store.py", "def _merge(): pass\nclass _Store: pass"),
        ("crdt/store.py", 'def merge():\n    """Say whether anything was new."""\n    def inner(): pass'),
        ("crdt/store.py", "from typing import overload\n@overload\ndef merge(): ..."),
    ],
)
def public_names_say_what_they_mean(source: Source) -> Iterator[str]:
    """Methods are asked by tests/test_exports.py: they may inherit their text, which only the living class knows."""
    for node in source.tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        stub = any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)
        if not stub and not ast.get_docstring(node):
            yield f"{node.lineno} {node.name} is public and has no docstring: meaning, units, errors, an example"


LATER = re.compile("|".join(rf"\b{word}\b" for word in ("TO" + "DO", "FIX" + "ME", "X" * 3)))


@rule(
    everywhere,
    bad=[
        ("gossip/node.py", "x = 1  # TO" + "DO: later"),
        ("README.md", "FIX" + "ME"),
        ("Makefile", "# XX" + "X"),
    ],
    good=[("gossip/node.py", "mkstemp('XXXXXX')"), ("README.md", "what is left to do")],
)
def nothing_is_left_for_later(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.lines, 1):
        if LATER.search(line):
            yield f"{number} leaves a note to nobody; do it now, open an issue, or write down why not"


MACHINE = re.compile(r"(?<![\w.~)}-])/(" + "wor" + "k|t" + "mp)(?![\\w-])")


@rule(
    everywhere,
    bad=[
        ("gossip/node.py", "path = '/t" + "mp/x'"),
        ("README.md", "cd /wor" + "k/main"),
        ("Makefile", "X := /t" + "mp"),
    ],
    good=[("README.md", "https://example.org/wor" + "k/ and $(BASE)/t" + "mp"), ("a.py", "'/workers'")],
)
def no_file_names_a_place_on_one_machine(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.lines, 1):
        if found := MACHINE.search(line):
            yield f"{number} names {found.group()}; ask tempfile, tmp_path or the caller for a directory"


# --- the tests themselves ---------------------------------------------------------------------------------------


@rule(
    under("tests"),
    bad=[
        ("tests/test_x.py", "@pytest.mark.skip\ndef test_x(): ..."),
        ("tests/test_x.py", "@pytest.mark.skip()\ndef test_x(): ..."),
        ("tests/test_x.py", "@pytest.mark.skipif(True)\ndef test_x(): ..."),
        ("tests/test_x.py", "@pytest.mark.xfail(reason='')\ndef test_x(): ..."),
        ("tests/test_x.py", "def test_x():\n    pytest.skip()"),
    ],
    good=[
        ("tests/test_x.py", "@pytest.mark.skipif(sys.platform == 'win32', reason='no pidfd there')\ndef test_x(): ..."),
        ("tests/test_x.py", "def test_x():\n    pytest.skip('no IPv6 here')"),
        ("tests/test_x.py", "mark = pytest.mark.skip(reason=reason)"),
    ],
)
def a_skipped_test_says_why(source: Source) -> Iterator[str]:
    skipping = re.compile(r"pytest\.(mark\.(skip|skipif|xfail)|skip|xfail)")
    calls = {id(call.func): call for _, _, call in source.calls()}
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Attribute) or not skipping.fullmatch(name := ast.unparse(node)):
            continue
        call = calls.get(id(node))
        reasons = [keyword.value for keyword in call.keywords if keyword.arg == "reason"] if call else []
        if call and not name.endswith(("skipif", "mark.xfail")):
            reasons += call.args[:1]
        if not any(not isinstance(reason, ast.Constant) or reason.value for reason in reasons):
            yield f"{node.lineno} {name} gives no reason"


@rule(
    under("tests"),
    bad=[
        ("tests/test_x.py", "import time\ntime.sleep(0.1)"),
        ("tests/test_x.py", "import time\ntime.sleep(delay)"),
        ("tests/test_x.py", "from time import sleep\nsleep(1)"),
        ("tests/test_x.py", "import asyncio\nasync def f():\n    await asyncio.sleep(0.05)"),
        ("tests/test_x.py", "import time\ntime.sleep(0.1)  # waits:"),
    ],
    good=[
        ("tests/test_x.py", "import asyncio\nasync def f():\n    await asyncio.sleep(0)"),
        ("tests/test_x.py", "import asyncio\nasync def f(step):\n    await asyncio.sleep(step)"),
        ("tests/test_x.py", "import time\ntime.sleep(0.1)  # waits: the kernel gives no sign when the port is free"),
    ],
)
def no_test_sleeps(source: Source) -> Iterator[str]:
    from_time = any(item.module == "time" and item.name == "sleep" for item in source.imports)
    from_asyncio = any(item.module == "asyncio" and item.name == "sleep" for item in source.imports)
    for line, name, call in source.calls():
        literal = bool(call.args) and isinstance(call.args[0], ast.Constant) and call.args[0].value != 0
        blocks = name == "time.sleep" or (name == "sleep" and from_time)
        dozes = literal and (name == "asyncio.sleep" or (name == "sleep" and from_asyncio))
        excused = any(re.search(r"# waits: *\S", text) for text in source.lines[line - 1 : call.end_lineno])
        if (blocks or dozes) and not excused:
            yield f"{line} sleeps; wait for the condition with a deadline, or say `# waits: why` on the line"


# --- every rule, on the repository and on its own bad examples --------------------------------------------------

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


@pytest.fixture(scope="module")
def files() -> list[Source]:
    return repository()


@each_rule
def test_the_repository_keeps(rule: Rule, files: list[Source]) -> None:
    complaints = [text for source in files for text in rule.complaints(source)]
    assert not complaints, "\n" + "\n".join(complaints)


@each_rule
def test_the_rule_can_fail(rule: Rule) -> None:
    assert rule.bad, "a rule that cannot fail is worthless: give it a bad example"
    for path, text in rule.bad:
        assert rule.complaints(Source(PurePosixPath(path), text)), f"{rule.name} lets this pass:\n{text[:300]}"


@each_rule
def test_the_rule_lets_good_code_pass(rule: Rule) -> None:
    assert rule.good, "a rule that refuses everything is worthless too: give it a good example"
    for path, text in rule.good:
        assert rule.complaints(Source(PurePosixPath(path), text)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_rules_find_the_package(package: str, files: list[Source]) -> None:
    """Without this, a moved package would keep every rule by being nowhere."""
    assert any(source.path.parts[0] == package for source in files), f"{package}/ has no files"
