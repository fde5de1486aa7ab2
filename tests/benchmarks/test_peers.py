"""Do the peers that are programs of their own do what the questions ask of them?

Whatever is built or installed here has a tiny round, for real; the rest is skipped by name. That needs no toolchain:
`make bench-peers` is what builds them. What stands between them and the questions is tested without any.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import textwrap
from array import array
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import detect, peers, sustained, visible, watching
from benchmarks.measure import OURS, Result
from benchmarks.peers import BUILT, READY, Member, Peer, channel, flood, hearing
from tests.waiting import until_here

EVERYBODY = peers.peers()
MEMBERS = [(name, system) for name, peer in EVERYBODY.items() for system in peer.members]
GOSSIPING = [name for name, peer in EVERYBODY.items() if peer.members and peer.channels]

PATIENT = pytest.mark.timeout(600)  # on a busy machine four JVMs need a minute before they are ready

# A cluster of its own kind: who has started says so in a file, and whom it does not find there any more has died.
MEMBER = """
import json, os, select, sys, time
directory, name = sys.argv[1:]
def tell(kind, who, members): print(json.dumps([time.monotonic(), kind, who, members]), flush=True)
def alive(who):
    with open(f"{directory}/{who}") as file: pid = file.read()
    with open(f"/proc/{pid}/stat") as file: return file.read().split()[2] != "Z"
tell("imported", "", 0)
sys.stdin.readline()
with open(f"{directory}/.{name}", "w") as file: file.write(str(os.getpid()))
os.rename(f"{directory}/.{name}", f"{directory}/{name}")
known = set()
while not select.select([sys.stdin], [], [], 0.005)[0]:
    here = set()
    for who in os.listdir(directory):
        try:
            if not who.startswith(".") and alive(who): here.add(who)
        except FileNotFoundError: pass
    for who in here - known: tell("joined", who, len(here))
    for who in known - here: tell("died", who, len(here))
    known = here
"""


def options(**more: object) -> argparse.Namespace:
    told = {"members": [2], "kills": detect.OFTEN, "hangs": 0, "idle": 0.05, "systems": None, "quick": False}
    return argparse.Namespace(**(told | more))


def installed(name: str) -> Peer:
    peer = EVERYBODY[name]
    if peer.missing:
        pytest.skip(f"{peer.missing} is not installed")
    return peer


# -- what is built and installed here ------------------------------------------------------------------------------


@PATIENT
@pytest.mark.parametrize(("name", "system"), MEMBERS)
def test_members_know_each_other_and_who_was_killed(name: str, system: str) -> None:
    async def scenario() -> None:
        cluster = detect.Cluster(0, installed(name).members[system])
        try:
            assert await cluster.joined(3) > 0
            assert [each.knows for each in cluster.peers] == [3, 3, 3]
            assert all(resident > 1 for _, resident in (each.usage() for each in cluster.peers))
            victim, *others = cluster.peers
            victim.process.kill()
            for each in others:
                await each.first(lambda line: line[1:3] == ("died", victim.name))
        finally:
            await cluster.over()

    asyncio.run(scenario())


@PATIENT
@pytest.mark.parametrize("name", GOSSIPING)
def test_what_is_written_at_one_process_is_heard_at_another(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = installed(name)
    monkeypatch.setattr(visible, "peers", lambda: {name: peer})
    monkeypatch.setattr(visible, "WARM", 1)
    result = Result("visible", "How long?")
    asyncio.run(visible.measure(1, 2, 5, result, visible.AMONG))
    assert (result.failed, result.notes) == ({}, [])  # nothing was lost
    for system in (OURS, *peer.channels):
        found = result.find(f"at the other process{visible.AMONG}, p50", system)
        assert found is not None
        assert len(found.rounds) == 2
        assert all(figure > 0 for figure in found.rounds)


@PATIENT
@pytest.mark.parametrize("name", GOSSIPING)
def test_the_last_of_many_writes_is_heard_at_another_process(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = installed(name)
    monkeypatch.setattr(sustained, "peers", lambda: {name: peer})
    result = Result("sustained", "How many?")
    asyncio.run(sustained.among(2, 400, False, result))
    assert result.failed == {}
    for system in (OURS, name):
        found = result.find("1 peer, among those that gossip, one key", system)
        assert found is not None
        assert len(found.rounds) == 2


def test_the_stash_gives_what_was_put_into_it(tmp_path: Path) -> None:
    peer = installed("gunicorn stash")

    async def scenario() -> None:
        with peer.running(tmp_path) as address:
            async with peer.clients["gunicorn stash"](address) as client:
                for value in (7, {"name": "ann", "tags": ["a", "b"], "score": 1.5, "active": True}, bytes(1024)):
                    client.write("key", value)
                    assert client.read("key") == value

    asyncio.run(scenario())


@pytest.mark.parametrize("name", [name for name, peer in EVERYBODY.items() if peer.built])
def test_a_program_says_what_it_was_built_from(name: str) -> None:
    told = installed(name).versions
    assert all(word in told for word in name.split(", "))
    assert all(version.lstrip("v")[0].isdigit() for version in told.values())


def test_what_has_no_toolchain_is_named_and_is_no_failure(tmp_path: Path) -> None:
    for tool in ("dirname", "mkdir"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    script = BUILT.parent / "build.sh"
    told = subprocess.run(
        [str(shutil.which("sh")), str(script)], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout == ""
    for line in ("memberlist and serf: not built, there is no go", "chitchat: not built, there is no cargo"):
        assert line in told.stderr
    assert "Apache Pekko: not built, there is no mvn" in told.stderr
    assert "no Python >= 3.13" in told.stderr


# -- what stands between them and the questions ---------------------------------------------------------------------


def in_files(directory: Path) -> Member:
    def command(cluster: str, name: str, port: int, seeds: list[int]) -> list[str]:
        assert port not in seeds
        return [sys.executable, "-c", MEMBER, str(directory), name]

    return command


def test_a_system_that_can_not_start_is_named_and_others_go_on(tmp_path: Path) -> None:
    def broken(cluster: str, name: str, port: int, seeds: list[int]) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no room')"]

    result = Result("detect", "How long?")
    asyncio.run(detect.measure(2, 1, {"broken": broken, "in files": in_files(tmp_path)}, options(), result))
    assert list(result.failed) == ["broken"]
    assert "ended" in result.failed["broken"]
    for what in ("join", "idle", "resident", "kill -9 known to the first", "kill -9 known to the last"):
        found = result.find(f"2 members, {what}", "in files")
        assert found is not None, what
        assert all(figure >= 0 for figure in found.rounds)
    assert result.find("2 members, SIGSTOP doubted by the first", "in files") is None


def test_who_was_killed_is_replaced_and_a_newcomer_is_told_who_lives(tmp_path: Path) -> None:
    seen: list[tuple[int, list[int]]] = []
    member = in_files(tmp_path)

    def watched(cluster: str, name: str, port: int, seeds: list[int]) -> list[str]:
        seen.append((port, list(seeds)))
        return member(cluster, name, port, seeds)

    async def scenario() -> None:
        cluster = detect.Cluster(0, watched)
        try:
            await cluster.joined(2)
            known = await cluster.killed(cluster.peers[0])
            assert len(known) == 1
            assert len(cluster.peers) == 2
        finally:
            await cluster.over()

    asyncio.run(scenario())
    (first, none), (second, before), (_, alive) = seen
    assert (none, before, alive) == ([], [first], [second])


def test_a_quick_look_is_at_ours_and_who_is_named_and_says_who_else_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    member = in_files(tmp_path)
    here = Peer("here", EVERYBODY["redis"].running, members={"one": member, "two": member})
    absent = Peer("absent", here.running, members={"three": member}, built=("no-such-program",))
    monkeypatch.setattr(detect, "peers", lambda: {"here": here, "absent": absent})
    result = Result("detect", "How long?")
    assert list(detect.systems(options(), result)) == [OURS, detect.NETWORK, "one", "two"]
    assert list(detect.systems(options(systems=["two"]), result)) == ["two"]
    assert result.skipped == {"absent": "the program no-such-program of `make bench-peers` is not installed"}
    assert list(detect.systems(options(quick=True), result)) == [OURS]
    assert list(detect.systems(options(quick=True, systems=["two"]), result)) == ["two"]
    assert result.skipped.keys() == {"absent", detect.NETWORK, "one", "two"}


def test_ours_is_not_measured_again_where_nobody_else_gossips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who tunes ours has no programs built, and should not wait twice as long for the same figures."""
    redis, chitchat = EVERYBODY["redis"], EVERYBODY["chitchat"]
    absent = replace(redis, name="absent", programs=("no-such-program",))
    gone = replace(chitchat, built=("no-such-program",))
    measured: list[tuple[object, ...]] = []

    async def measure(*arguments: object) -> None:
        measured.append(arguments)

    for question in (visible, sustained):
        monkeypatch.setattr(question, "peers", lambda: {"redis": absent, "chitchat": gone})
        monkeypatch.setattr(question, "measure", measure)
        result = Result("question", "How long?")
        asyncio.run(question.ask(argparse.Namespace(quick=True, peers=[1]), result))
        assert result.skipped["chitchat"] == "the program no-such-program of `make bench-peers` is not installed"
        assert result.series == []
    assert len(measured) == 2  # once for each question


def test_a_program_that_hears_says_when_it_had_a_write(capsys: pytest.CaptureFixture[str]) -> None:
    """Not when its line was read: the way from it to here is no part of what is measured."""
    heard = array("q")
    watching.take(b"5 1000 4000", heard)
    watching.take(b"6 1000", heard)
    watching.take(b"%d 1000" % watching.END, heard)
    first, (number, delay, now) = json.loads(capsys.readouterr().out)
    assert first == [5, 3000, 4000] and number == 6 and delay == now - 1000 > 3000
    assert not heard


TELLER = """
    import sys, time
    print("ready", flush=True)
    for line in sys.stdin:
        first, count = map(int, line.split())
        with open(sys.argv[1], "a") as file:
            file.writelines(f"{number} {time.monotonic_ns()}\\n" for number in range(first, first + count))
"""
HEARER = """
    import os, sys, threading, time
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
    print("ready", flush=True)
    with open(sys.argv[1], "a+") as file:
        file.seek(0)
        while True:
            if line := file.readline(): print(line.strip(), time.monotonic_ns(), flush=True)
            else: time.sleep(0.002)
"""


def program(source: str, address: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(source), address]


def numbers(lines: Iterator[bytes], count: int) -> list[int]:
    """Of so many that are heard, each after it was written."""
    words = [[int(word) for word in next(lines).split()] for _ in range(count)]
    assert all(begun <= came for _, begun, came in words)
    return [number for number, _, _ in words]


def test_a_channel_of_programs_tells_one_write_at_a_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        one = channel(lambda address: program(TELLER, address), lambda address: program(HEARER, address))
        with closing(hearing(program(HEARER, str(tmp_path / "file")))) as lines:
            assert next(lines) == READY
            async with one.tell(str(tmp_path / "file")) as tell:
                tell(3, b"a payload with a time of its own")
                tell(-1, b"")
                assert await asyncio.to_thread(numbers, lines, 2) == [3, -1]

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_flood_of_programs_tells_all_that_it_is_given(tmp_path: Path) -> None:
    async def scenario() -> None:
        many = flood(lambda address: program(TELLER, address), lambda address: program(HEARER, address))
        with closing(hearing(program(HEARER, str(tmp_path / "file")))) as lines:
            assert next(lines) == READY
            async with many.tell(str(tmp_path / "file")) as tell:
                tell([(number, b"") for number in (3, 4, 5)])
                assert await asyncio.to_thread(numbers, lines, 3) == [3, 4, 5]

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_program_that_ends_before_it_could_write_is_told_of() -> None:
    async def scenario() -> None:
        with pytest.raises(RuntimeError, match="ended before it could write"):
            async with channel(lambda address: ["false"], lambda address: ["false"]).tell(""):
                pass

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_program_ends_with_the_process_that_hears_by_it(tmp_path: Path) -> None:
    """`Watching` kills that one with a signal that nobody can pass on."""
    source = f"""
        import sys
        from benchmarks.peers import hearing
        command = [sys.executable, "-c", {textwrap.dedent(HEARER)!r}, {str(tmp_path / "none")!r}]
        for line in hearing(command):
            print(line.decode(), flush=True)
    """
    parent = subprocess.Popen(program(source, ""), stdout=subprocess.PIPE, cwd=BUILT.parents[2])
    assert parent.stdout is not None
    with parent, parent.stdout:
        assert parent.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text(encoding="utf-8").split()
        assert len(children) == 1
        parent.kill()
        parent.wait()
        until_here(lambda: not alive(int(children[0])), "the program has ended")


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
