"""Does the README tell the truth? Its programs run as they stand there, and its commands exist.

Each program runs in an interpreter of its own, as a reader would run it: a fresh namespace, warnings as errors, a
traceback that points into README.md. A top-level `await` or `async with` is compiled as such and run by asyncio.run.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.readme import README, Block, blocks, commands, programs

FOUND = blocks(README.read_text(encoding="utf-8")) if README.exists() else []
DEADLINE = 60  # seconds for one program: generous, since it is only reached by one that hangs

RUN = """
import ast, asyncio, inspect, sys
path, line = sys.argv.pop(1), int(sys.argv.pop(1))
code = compile("\\n" * (line - 1) + sys.stdin.read(), path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
world = {"__name__": "__main__", "__builtins__": __builtins__}
sys.modules["__main__"].__dict__.update(world)
result = eval(code, sys.modules["__main__"].__dict__)
if inspect.iscoroutine(result):
    asyncio.run(result)
"""


def run(program: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, str(README), str(program.line)],
        input=program.code,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        cwd=folder,
        check=False,
    )


def as_parameter(program: Block) -> Any:
    marks = [pytest.mark.skip(reason=f"README says: {program.not_run}")] if program.not_run else []
    return pytest.param(program, id=f"line {program.line}", marks=marks)


def test_the_readme_shows_python() -> None:
    assert README.exists(), "README.md is missing"
    assert programs(FOUND), "README.md has no ```python block: what does the reader type first?"


def test_the_readme_goes_with_the_package() -> None:
    project = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project.get("readme") == "README.md", 'pyproject.toml lacks readme = "README.md"'


@pytest.mark.parametrize("program", [as_parameter(program) for program in programs(FOUND)])
def test_the_program_runs(program: Block, tmp_path: Path) -> None:
    done = run(program, tmp_path)
    assert done.returncode == 0, f"README.md, the program at line {program.line}:\n{done.stdout}{done.stderr}"


def test_every_command_exists() -> None:
    wrong = [f"README.md:{line}: {problem}" for line, text in commands(FOUND) for problem in problems(text)]
    assert not wrong, "\n" + "\n".join(wrong)


# --- what a command line may say ----------------------------------------------------------------------------------


def problems(text: str) -> list[str]:
    """What is wrong with one shell line, as far as it speaks of this project."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split = True
    found: list[str] = []
    command: list[str] = []
    redirected = False
    for word in [*lexer, ";"]:
        if word and set(word) <= set("|&;()"):
            found += problems_of(command)
            command, redirected = [], False
        elif word and set(word) <= set("<>&"):
            redirected = True  # what follows is a file, not a word of the command
        elif not redirected:
            command.append(word)
    return found


def problems_of(words: list[str]) -> list[str]:
    while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
        words = words[1:]  # NAME=value before the command
    match words:
        case [program, *rest] if Path(program).name == "gossip":
            return problems_of_gossip(rest)
        case ["make", *rest]:
            asked = [word for word in rest if not word.startswith("-") and "=" not in word]
            return [f"make has no target {word!r}" for word in asked if word not in make_targets()]
        case [program, "-m", module, *_] if Path(program).name.startswith("python"):
            ours = module.partition(".")[0] in {"crdt", "discovery", "gossip", "examples", "tests", "benchmarks"}
            return [f"there is no module {module}"] if ours and not module_exists(module) else []
        case _:
            return []


def module_exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def make_targets() -> set[str]:
    text = (README.parent / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", text, re.MULTILINE))


def problems_of_gossip(words: list[str]) -> list[str]:
    from gossip.cli.program import program

    return problems_of_click(program, words, "gossip")


def problems_of_click(command: Any, words: list[str], name: str) -> list[str]:
    """Walk down the groups: every name must be a command, every option one that it takes."""
    import click

    context = click.Context(command, info_name=name)
    options = {
        text: option for option in command.get_params(context) for text in [*option.opts, *option.secondary_opts]
    }
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            break
        if word.startswith("-") and not re.fullmatch(r"-\d.*", word):
            option = options.get(word.partition("=")[0]) or (None if word.startswith("--") else options.get(word[:2]))
            if option is None:
                return [f"`{name}` has no option {word}"]
            takes_value = not getattr(option, "is_flag", False) and not getattr(option, "count", False)
            if takes_value and "=" not in word and waiting:
                waiting.pop(0)
        elif isinstance(command, click.Group):
            below = command.get_command(context, word)
            return (
                problems_of_click(below, waiting, f"{name} {word}") if below else [f"`{name}` has no command {word!r}"]
            )
    return []


# --- the reader of the README, on a README of its own ---------------------------------------------------------------

SAMPLE = """\
# Sample

```python
x = 1
```

Then:

<!-- continued -->
```python
import asyncio
await asyncio.sleep(0)
assert x == 1
```

<!-- not run: needs three hosts -->

```python
boom()
```

```python
raise ValueError("here")
```

```console
$ make test && make dance
$ gossip --json \\
    members
  output
$ ls
```
"""


def test_blocks_are_found_with_what_is_said_of_them() -> None:
    first, skipped, failing = programs(blocks(SAMPLE))
    assert (first.line, first.code.splitlines()[0]) == (4, "x = 1")
    assert first.code.splitlines()[12 - 4] == "await asyncio.sleep(0)", "each line stays where it is in the README"
    assert skipped.not_run == "needs three hosts"
    assert failing.not_run is None
    assert list(commands(blocks(SAMPLE))) == [
        (27, "make test && make dance"),
        (28, "gossip --json      members"),
        (31, "ls"),
    ]


def test_a_program_runs_as_a_whole_and_a_failure_names_its_line(tmp_path: Path) -> None:
    first, _, failing = programs(blocks(SAMPLE))
    assert run(first, tmp_path).returncode == 0
    done = run(failing, tmp_path)
    assert done.returncode == 1
    assert f'README.md", line {failing.line}' in done.stderr


def test_a_missing_target_module_command_or_option_is_a_problem() -> None:
    import click

    @click.group()
    @click.option("--cluster")
    def group() -> None: ...

    @group.command("get")
    @click.option("--json", "as_json", is_flag=True)
    @click.argument("key")
    def get() -> None: ...

    assert problems("CI=1 make test SEEDS=7 && make dance > out 2>&1 | tee log") == ["make has no target 'dance'"]
    assert problems("python -m examples_of_others; python3 -m tests.nothing") == ["there is no module tests.nothing"]
    assert problems_of_click(group, ["--cluster", "shop", "get", "k", "--json"], "gossip") == []
    assert problems_of_click(group, ["put", "k"], "gossip") == ["`gossip` has no command 'put'"]
    assert problems_of_click(group, ["get", "k", "--fast"], "gossip") == ["`gossip get` has no option --fast"]


NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_the_tests_that_hold_the_promises_exist() -> None:
    named = NAMED.findall(README.read_text(encoding="utf-8"))
    assert len(named) >= 8, "each promise names a test"
    for file, test in named:
        text = (README.parent / file).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {test}\(", text, re.MULTILINE), f"README names {file}::{test}"


def test_each_test_that_the_readme_names_exists() -> None:
    named = re.findall(r"`(tests/[a-z_/]+\.py)::(test_[a-z_0-9]+)`", README.read_text(encoding="utf-8"))
    assert len(named) > 20
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (README.parent / path).read_text()]
    assert not missing
