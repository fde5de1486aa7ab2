"""Is a command that prints addresses believed like a file, and does one that hangs, floods or breaks do no harm?"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from discovery import CommandFailed, ask_command
from tests.waiting import until


def ask(*words: str, patience: float = 5.0) -> list[str]:
    return [str(seed) for seed in asyncio.run(ask_command(words, patience=patience))]


def alive(pid: int) -> bool:
    """Whether a process exists that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


def test_it_prints_what_a_file_would_hold() -> None:
    text = "# all of them\na:1\n\n  b:2 # the second\nsrv:_gossamesh._tcp.shop.example\na:1\n"
    assert ask("printf", text) == ["a:1", "b:2", "srv:_gossamesh._tcp.shop.example"]
    assert ask("true") == []


def test_no_shell_reads_it() -> None:
    assert ask("echo", "a:1 # $(touch x); `id`") == ["a:1"]
    with pytest.raises(CommandFailed, match="the command 'echo a:1' can not be started: No such file"):
        ask("echo a:1")


def test_its_failure_is_told_with_its_last_words_and_without_its_arguments() -> None:
    with pytest.raises(CommandFailed) as failed:
        ask("sh", "-c", "echo a:1; echo first >&2; printf 'no access\\033[0m' >&2; exit 3", "--password=canary")
    assert str(failed.value) == "the command 'sh' ended with status 3"
    assert failed.value.detail == "no access?[0m"
    with pytest.raises(CommandFailed, match="was ended by signal 9"):
        ask("sh", "-c", "kill -9 $$")
    with pytest.raises(ValueError, match=r"seed 'x' in the command 'echo', line 1: .*no port"):
        ask("echo", "x")


def test_it_does_not_see_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOSSAMESH_KEY", "canary")
    monkeypatch.setenv("GOSSAMESH_ZONE", "seen")
    with pytest.raises(CommandFailed) as failed:
        ask("sh", "-c", 'echo "$GOSSAMESH_KEY,$GOSSAMESH_ZONE" >&2; exit 1')
    assert failed.value.detail == ",seen"


def test_a_flood_is_cut_off() -> None:
    begun = time.monotonic()
    with pytest.raises(CommandFailed, match="printed more than 1048576 bytes"):
        ask("yes", "a:1")
    assert time.monotonic() - begun < 4
    with pytest.raises(CommandFailed, match="status 1"):
        ask("sh", "-c", "head -c 3000000 /dev/zero >&2; exit 1")  # a full pipe would have stopped it


@pytest.mark.parametrize(
    "script",
    ["sleep 60 & echo $! > pids; echo $$ >> pids; wait", "sleep 60 & echo $! > pids; echo a:1"],
    ids=["it waits for its child", "its child holds its output"],
)
def test_what_is_late_is_killed_with_its_children(script: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        begun = time.monotonic()
        with pytest.raises(CommandFailed, match=r"took longer than 0\.5 s"):
            await ask_command(["sh", "-c", f"cd {tmp_path}; {script}"], patience=0.5)
        assert time.monotonic() - begun < 2
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        await until(lambda: not any(alive(pid) for pid in pids), "all of the group are gone")

    asyncio.run(scenario())


def test_who_is_not_waited_for_any_more_is_killed_with_its_children(tmp_path: Path) -> None:
    async def scenario() -> None:
        file = tmp_path / "pids"
        asking = asyncio.create_task(ask_command(["sh", "-c", f"sleep 60 & echo $! $$ > {file}; wait"]))
        await until(lambda: file.exists() and len(file.read_text().split()) == 2)
        pids = [int(pid) for pid in file.read_text().split()]
        assert all(alive(pid) for pid in pids)
        before = time.monotonic()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert time.monotonic() - before < 1
        await until(lambda: not any(alive(pid) for pid in pids), "all of the group are gone")

    asyncio.run(scenario())


def test_what_ended_well_is_left_in_peace(tmp_path: Path) -> None:
    """A command may start something that goes on, if that lets go of its output."""
    file = tmp_path / "pid"
    assert ask("sh", "-c", f"sleep 60 >/dev/null 2>&1 & echo $! > {file}; echo a:1") == ["a:1"]
    pid = int(file.read_text())
    assert alive(pid)
    os.kill(pid, 9)


def test_a_hundred_runs_leave_nothing_open() -> None:
    async def scenario() -> None:
        await ask_command(["echo", "a:1"])
        before = os.listdir("/proc/self/fd")
        for _ in range(20):
            await asyncio.gather(*(ask_command([sys.executable, "-c", ""]) for _ in range(2)), return_exceptions=True)
            with pytest.raises(CommandFailed):
                await ask_command(["sleep", "9"], patience=0.01)
        assert len(os.listdir("/proc/self/fd")) <= len(before)

    asyncio.run(scenario())
