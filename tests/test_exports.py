"""Is what `__init__` lists the public surface, and does importing it do nothing at all?

A worker imports gossip before it forks, before it has a loop, and perhaps without ever starting a node. So an import
opens nothing, starts nothing, draws no random number, and does not pay for what only some programs use.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.readme import README, blocks, names

PACKAGES = ("crdt", "discovery", "gossip")
ONLY_WHEN_USED = {
    "aiohttp": "by no node yet",
    "asyncio": "where there is a node",
    "click": "by the command line",
    "cryptography": "where there is a key",
    "difflib": "to guess what a misspelt setting was meant to be",
    "discovery": "where there is a node, which looks for others",
    "dns": "for SRV records",
    "email": "by nothing of ours; some modules of the standard library bring it along",
    "gossip.control": "by a node that has started",
    "gossip.protocol.engine": "where there is a node",
    "gossip.restore": "by programs that take snapshots, or go back to one",
    "gossip.runtime": "where there is a node",
    "gossip.snapshot": "by programs that take snapshots, or go back to one",
    "gossip.status": "when something is wrong",
    "gossip.storage": "where there is a data_dir",
    "hashlib": "where there is a node: it brings OpenSSL along",
    "http": "by nothing of ours yet",
    "importlib.metadata": "by nothing of ours: it brings email along, and looks through all that is installed",
    "logging": "where there is a node, or something is wrong",
    "msgspec": "where a type is given that JSON has not",
    "multiprocessing": "by nothing of ours",
    "pathlib": "where there is a node: it brings the parts of URLs along",
    "pydantic": "by a program whose own types are of it",
    "rich": "by the command line",
    "shlex": "where there is a seeds_command",
    "shutil": "by tempfile, with every compressor of the standard library",
    "socket": "where there is a node",
    "sqlite3": "where there is a data_dir",
    "tempfile": "where the user has no session's directory",
    "tomllib": "where there is a configuration file",
    "uvloop": "by the daemon",
    "zeroconf": "where there is mDNS",
    "zstandard": "when a snapshot is saved or loaded",
}
"""What a program loads when it needs it, and when that is. A list, since a time would say another thing each day."""

LATE = {"gossip.control", "gossip.thread", "gossip.answers", "gossip.checkup"}
"""What is loaded only when a node starts: a thread for it where there is no loop, and the window on it."""

each_package = pytest.mark.parametrize("package", PACKAGES)


def groups(source: str) -> list[list[str]]:
    """The names of `__all__` as they stand there, parted by blank lines and by lines that are comments."""
    for node in ast.parse(source).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List() | ast.Tuple() as value)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.List() | ast.Tuple() as value)
            ):
                break
    else:
        return []
    lines = source.splitlines()
    found: list[list[str]] = [[]]
    last = value.lineno
    for element in value.elts:
        between = [text.strip() for text in lines[last : element.lineno - 1]]
        if any(text == "" or text.startswith("#") for text in between):
            found.append([])
        found[-1].append(ast.literal_eval(element))
        last = element.lineno
    return [group for group in found if group]


def is_sorted(group: list[str]) -> bool:
    """By letter, whatever the case; or constants, then classes, then functions, as linters sort."""

    def kind(name: str) -> int:
        return 0 if name.isupper() else 1 if name[:1].isupper() else 2

    return group in (sorted(group, key=str.casefold), sorted(group), sorted(group, key=lambda name: (kind(name), name)))


def undocumented(module: ModuleType) -> list[str]:
    """Public classes, functions and methods of the module's `__all__` that nobody described. Methods may inherit."""
    missing = []
    for name in module.__all__:
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        text = value.__doc__ or ""
        if not text.strip() or text.startswith(f"{name}("):  # the second is what @dataclass writes by itself
            missing.append(name)
        missing += [f"{name}.{method}" for method in silent_methods(value)] if inspect.isclass(value) else []
    return missing


def silent_methods(cls: type) -> list[str]:
    """Public methods and properties that neither the class nor a parent describes."""
    missing = []
    for name, member in vars(cls).items():
        describable = inspect.isroutine(member) or isinstance(member, property)
        described = any(getattr(vars(parent).get(name), "__doc__", None) for parent in cls.__mro__)
        if describable and not name.startswith("_") and not described:
            missing.append(name)
    return missing


@each_package
def test_all_is_sorted_or_grouped(package: str) -> None:
    file = importlib.import_module(package).__file__
    assert file is not None, f"{package} has no __init__.py"
    listed = groups(Path(file).read_text(encoding="utf-8"))
    flat = list(itertools.chain.from_iterable(listed))
    assert flat, f"{package}/__init__.py lists nothing in a literal __all__"
    assert len(flat) == len(set(flat)), "a name stands there twice"
    for group in listed:
        assert is_sorted(group), f"sort these, or part them with a comment that says what they are: {group}"


@each_package
def test_every_listed_name_can_be_imported(package: str) -> None:
    module = importlib.import_module(package)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@each_package
def test_every_listed_name_is_described(package: str) -> None:
    assert undocumented(importlib.import_module(package)) == []


@each_package
def test_the_readme_uses_listed_names_only(package: str) -> None:
    assert README.exists(), "README.md is missing"
    module = importlib.import_module(package)
    wrong = [
        f"README.md:{line}: {package}.{name}"
        for line, name in names(blocks(README.read_text(encoding="utf-8")), package)
        if name not in module.__all__ and importlib.util.find_spec(f"{package}.{name}") is None
    ]
    assert not wrong, "\n" + "\n".join(wrong)


# --- an import starts nothing -------------------------------------------------------------------------------------

WATCHED_IMPORT = """
import asyncio, json, random, sys, threading

seen = []
WATCHED = ("socket.", "subprocess.Popen", "os.fork", "os.posix_spawn", "os.putenv", "sqlite3.connect",
           "signal.", "_thread.start_new_thread")

def hook(event, arguments):
    if event.startswith(WATCHED):
        seen.append(event)

def note(owner, name):
    real = getattr(owner, name)
    def noted(*arguments, **keywords):
        seen.append(name)
        return real(*arguments, **keywords)
    setattr(owner, name, noted)

import asyncio.base_events, asyncio.events, signal
note(asyncio.base_events.BaseEventLoop, "__init__")
for owner in (asyncio, asyncio.events):
    note(owner, "set_event_loop_policy")
    note(owner, "new_event_loop")
note(threading.Thread, "start")
note(signal, "signal")
chance, policy = random.getstate(), getattr(asyncio.events, "_event_loop_policy", None)
sys.addaudithook(hook)

exec(sys.argv[1])

if random.getstate() != chance:
    seen.append("random")
if getattr(asyncio.events, "_event_loop_policy", None) is not policy:
    seen.append("policy")
if threading.active_count() != 1:
    seen.append("threads")
print(json.dumps({"seen": seen, "modules": sorted(sys.modules)}))
"""


def watch(statement: str) -> tuple[list[str], set[str]]:
    """What a fresh interpreter did while it ran the statement, and the modules it then had."""
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", WATCHED_IMPORT, statement],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=README.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    return report["seen"], set(report["modules"])


@each_package
def test_an_import_starts_nothing(package: str) -> None:
    seen, _ = watch(f"import {package}")
    assert seen == []


def loaded(statements: str) -> set[str]:
    """The modules of an interpreter that has done nothing but this, printed at its end."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{statements}\nprint(*sorted(modules))"],
        capture_output=True, text=True, timeout=60, cwd=README.parent, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_gossip_loads_only_what_every_program_needs() -> None:
    modules = loaded("import gossip; modules = set(sys.modules)")
    assert "gossip.node" in modules
    assert {name: f"is for use {when}" for name, when in ONLY_WHEN_USED.items() if name in modules} == {}


def test_who_has_made_a_node_has_loaded_what_drives_it() -> None:
    """Before the workers are forked that share it, and before any thread or handler could come upon a half of it."""
    runtime = "{'gossip.runtime', 'gossip.protocol.engine', 'asyncio', 'discovery'}"
    assert loaded(f"import gossip; gossip.Node('a'); modules = {runtime} - set(sys.modules)") == set()
    late = loaded("""if True:
        import tempfile, gossip
        with tempfile.TemporaryDirectory() as directory:
            node, before = gossip.Node("a", runtime_dir=directory), set(sys.modules)
            with node:
                node.map("m")["k"] = 1
                modules = {name for name in set(sys.modules) - before if name.startswith(("gossip", "discovery"))}
    """)
    assert late == LATE


def test_what_is_loaded_when_it_is_asked_for_looks_like_all_the_rest() -> None:
    watch("""if True:
        import gossip, pydoc
        assert set(gossip.__all__) <= set(dir(gossip))
        assert "gossip.snapshot" not in sys.modules
        assert gossip.Snapshot is sys.modules["gossip.snapshot"].Snapshot is gossip.Snapshot
        try:
            gossip.Snapshott
        except AttributeError as error:
            assert str(error) == "module 'gossip' has no attribute 'Snapshott'"
        else:
            raise AssertionError("a misspelt name was found")
    """)
    watch("""if True:
        import gossip, pydoc
        assert "class Difference(" in pydoc.plain(pydoc.render_doc(gossip))
    """)
    watch("from gossip import *; Snapshot, Difference")


# --- the checks above can fail ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import socket; socket.socket().close()", "socket.__new__"),
        ("import socket; socket.socketpair()[0].close()", "socket.__new__"),
        ("threading.Thread(target=int).start()", "start"),
        ("asyncio.new_event_loop().close()", "new_event_loop"),
        ("asyncio.SelectorEventLoop().close()", "__init__"),
        ("asyncio.run(asyncio.sleep(0))", "__init__"),
        (
            "import warnings; warnings.simplefilter('ignore'); asyncio.set_event_loop_policy(None)",
            "set_event_loop_policy",
        ),
        ("random.random()", "random"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("import sqlite3; sqlite3.connect(':memory:').close()", "sqlite3.connect"),
        ("signal.signal(signal.SIGTERM, signal.SIG_DFL)", "signal"),
    ],
)
def test_the_watch_sees(statement: str, expected: str) -> None:
    seen, _ = watch(statement)
    assert expected in seen


def test_the_watch_sees_modules() -> None:
    assert "click" in watch("import click")[1]


def test_an_unsorted_group_is_noticed() -> None:
    parted = groups('__all__ = [\n    # values\n    "b",\n    "c",\n\n    "a",\n]\n')
    assert parted == [["b", "c"], ["a"]]
    assert groups("__all__ = ['x', 'y']") == [["x", "y"]]
    assert is_sorted(["Map", "Node", "connect"])
    assert is_sorted(["connect", "Map", "Node"])
    assert not is_sorted(["Node", "Map"])


def test_a_missing_description_is_noticed() -> None:
    from dataclasses import dataclass

    class Silent(dict[str, int]):
        def items(self) -> None: ...  # type: ignore[override]  # inherits its text

        def shout(self) -> None: ...

    @dataclass
    class Bare:
        x: int

    module = ModuleType("sample")
    module.__dict__.update(__all__=["Silent", "Bare", "VERSION"], Silent=Silent, Bare=Bare, VERSION="1")
    assert undocumented(module) == ["Silent", "Silent.shout", "Bare"]


def test_names_in_a_readme_are_found() -> None:
    found = blocks("```python\nimport gossip\nasync with gossip.Node('a') as node: ...\n```\n")
    assert list(names(found, "gossip")) == [(3, "Node")]
