"""Is every question in the suite, does each system get its turn, and is nobody dropped in silence?"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import __main__ as runner
from benchmarks import local, ours, sustained, turns, visible
from benchmarks.goals import GOALS
from benchmarks.loops import TWO_LOOPS
from benchmarks.measure import OURS, SCHEMA, Result
from benchmarks.peers import Flood, Peer, peers, served
from benchmarks.peers.etcd import first, part, parts, varint

HERE = Path(runner.__file__).parent
# they ask nothing themselves
ROOMS = {"__init__", "__main__", "goals", "loops", "measure", "ours", "render", "turns", "watching"}


def questions() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ROOMS)


def test_every_question_is_asked_by_the_runner_and_stands_in_the_readme() -> None:
    assert sorted(runner.QUESTIONS) == questions()
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    missing = [
        name for name in [*questions(), *ROOMS - {"__init__", "__main__"}] if f"[{name}.py]({name}.py)" not in readme
    ]
    assert missing == []


def test_every_peer_of_the_folder_is_measured() -> None:
    files = {path.stem for path in (HERE / "peers").glob("*.py")} - {"__init__", "voter", "aionode"}
    assert {name for name in files if import_module(f"benchmarks.peers.{name}").PEER in peers().values()} == files
    assert len(peers()) == len(files)


def test_a_goal_asks_what_is_a_question_and_a_peer_that_is_there() -> None:
    names = [name for peer in peers().values() for name in (*peer.clients, *peer.channels)]
    names += ["dict of bytes", sustained.PIPELINE, sustained.PUBLISHED]
    for goal in GOALS:
        assert goal.question in runner.QUESTIONS
        assert not goal.beside or any(name.startswith(goal.beside) for name in names), goal
        assert (goal.aim >= goal.floor) == (goal.form == "better"), goal


@pytest.mark.parametrize("question", questions())
def test_a_question_opens_with_it_and_says_how_it_is_run(question: str) -> None:
    doc = import_module(f"benchmarks.{question}").__doc__ or ""
    assert doc.split("\n")[0].endswith("?")
    assert f"python benchmarks/{question}.py" in doc
    assert "[--quick] [--json]" in doc


def test_a_question_answers_alone_and_in_the_form_that_the_runner_reads(tmp_path: Path) -> None:
    """By its path, from anywhere; relay is the quickest, for it is all virtual."""
    command = [sys.executable, str(HERE / "relay.py"), "--quick", "--members", "8"]
    told = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    result = Result.from_dict(json.loads(told.stdout))
    found = result.find("8 members, messages", OURS)
    assert result.question == "relay"
    assert found is not None
    assert found.rounds == [7]


def test_the_runner_keeps_what_went_wrong_and_asks_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(question: str, quick: bool) -> Result:
        if question == "local":
            return runner_answered("no such question", quick)
        told = Result(question, "How many?")
        told.add("messages", OURS, 7.0, "messages")
        return told

    runner_answered = runner.answered
    monkeypatch.setattr(runner, "answered", answered)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", "--only", "local", "relay", "--into", str(tmp_path)])
    assert runner.main() == 1  # not all answered
    told = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (told["schema"], told["quick"]) == (SCHEMA, True)
    assert {"python", "cores", "load before", "load after"} <= told["machine"].keys()
    assert [each["question"] for each in told["questions"]] == ["no such question", "relay"]
    shown = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "failed: no such question (CalledProcessError" in shown
    assert (tmp_path / "relay.svg").exists()
    assert not (tmp_path / "local.svg").exists()

    (tmp_path / "README.md").unlink()
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--render", "--into", str(tmp_path)])
    assert runner.main() == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == shown


# -- who is measured -----------------------------------------------------------------------------------------------


@contextmanager
def nothing(directory: Path) -> Iterator[str]:
    yield str(directory)


def test_a_peer_that_is_not_installed_is_skipped_by_name(tmp_path: Path) -> None:
    absent = Peer("absent", nothing, programs=("no-such-program",), modules=("no_such_module",))
    assert absent.missing == "the program no-such-program and the module no_such_module"
    result = Result("local", "What?")
    asyncio.run(turns.compared({"absent": absent}, tmp_path, 2, 0.0, result))
    assert result.skipped == {"absent": f"{absent.missing} is not installed"}
    assert result.series == []


def test_a_server_that_does_not_start_is_told_of_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: nobody waits for one that has ended."""
    monkeypatch.setattr("benchmarks.peers.PATIENCE", 3600.0)
    complaint = "import sys; sys.exit('no room on the disk')"
    with (
        pytest.raises(RuntimeError, match="no room on the disk"),
        served([sys.executable, "-c", complaint], tmp_path, tmp_path / "never.sock"),
    ):
        pass


def test_ours_takes_its_turns_beside_one_that_fails(tmp_path: Path) -> None:
    """Real processes: one that measures us, another node beside it, and a client that never connects."""
    everybody = {
        "dict": local.EVERYBODY["dict"],
        OURS: ours.PEER,
        "broken": Peer("broken", nothing, {"broken": ours.in_loop}),  # its process knows nobody of this name
    }
    result = Result("local", "What?")
    asyncio.run(turns.compared(everybody, tmp_path, 2, 0.001, result))
    for what in ("read, a number", "write, 1 KiB, and sent", "write, a number, from a thread"):
        for system in (OURS, "dict"):
            found = result.find(what, system)
            assert found is not None, result.failed
            assert len(found.rounds) == 2
    assert list(result.failed) == ["broken"]
    assert "its process ended" in result.failed["broken"]  # ours went on


# -- who waits for a write -----------------------------------------------------------------------------------------


def test_what_is_written_is_heard_by_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visible, "peers", dict)
    monkeypatch.setattr(visible, "WARM", 1)
    result = Result("visible", "How long?")
    asyncio.run(visible.measure(2, 2, 5, result))
    assert result.failed == {}
    assert result.notes == []  # nothing was lost
    for what in ("at one of 2 processes, p50", "at all 2 processes, p99"):
        for system in (OURS, TWO_LOOPS):
            found = result.find(what, system)
            assert found is not None
            assert len(found.rounds) == 2
            assert all(figure > 0 for figure in found.rounds)


def test_delays_belong_to_the_round_of_their_number() -> None:
    heard = [[(0, 9_000, 0), (visible.WARM, 1_000, 0), (visible.WARM + 3, 2_000, 0)], [(visible.WARM, 5_000, 0)]]
    assert visible.by_round(heard, 2, 3) == [{visible.WARM: [1.0, 5.0]}, {visible.WARM + 3: [2.0]}]


def test_a_write_that_is_heard_twice_counts_when_it_was_heard_first() -> None:
    """A watch that fell behind gives everything anew."""
    heard = [(4, 9_000_000, 0), (5, 1_000_000, 0), (6, 2_000_000, 0), (5, 700_000_000, 0)]
    assert sustained.first_heard(heard, first=5) == [1.0, 2.0]


def test_a_flood_ends_when_the_last_write_is_there(tmp_path: Path) -> None:
    result = Result("sustained", "How many?")

    async def scenario() -> None:
        flood: Flood = ours.PEER.floods[sustained.OWN_KEYS]
        load = sustained.Load(ours.PEER, flood, 1)
        async with AsyncExitStack() as stack:
            await load.open(sustained.OWN_KEYS, tmp_path / "ours", stack)
            for _ in range(2):
                await sustained.one_round(load, f"1 peer, {sustained.OWN_KEYS}", OURS, 500, 0.01, result)

    asyncio.run(scenario())
    rate = result.find(f"1 peer, {sustained.OWN_KEYS}", OURS)
    late = result.find(f"1 peer, {sustained.AT_RATE}, p99", OURS)
    assert rate is not None
    assert late is not None
    assert len(rate.rounds) == len(late.rounds) == 2
    assert all(figure > 0 for figure in rate.rounds + late.rounds)


def test_one_that_can_not_be_flooded_is_named_and_ours_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def broken(directory: Path) -> Iterator[str]:
        raise RuntimeError("no room on the disk")
        yield ""

    monkeypatch.setattr(
        sustained, "peers", lambda: {"redis": Peer("redis", broken, floods={sustained.OWN_KEYS: ours.flood()})}
    )
    result = Result("sustained", "How many?")
    asyncio.run(sustained.measure(1, 1, 300, 0.01, result))
    why = "RuntimeError: no room on the disk"
    assert result.failed == {
        f"{sustained.PUBLISHED}, {sustained.OWN_KEYS}, 1 peer": why,
        f"{sustained.PIPELINE}, 1 peer": why,
    }
    assert result.find("1 peer, one key", OURS) is not None
    assert result.find("1 peer, batches of 200", OURS) is not None


# -- what stands in for a client -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 1 << 21, (1 << 63) - 1])
def test_messages_of_etcd_are_read_as_they_are_written(number: int) -> None:
    content = bytes(number % 300)
    message = varint(3 << 3) + varint(number) + part(5, content) + part(11, b"x")
    assert list(parts(message)) == [(5, content), (11, b"x")]
    assert first(message, 11) == b"x"
    assert first(message, 7) == b""


def test_no_file_here_has_a_figure_of_one_machine() -> None:
    """Ports are free ones, directories are given: a server of the machine itself is never spoken to."""
    for path in HERE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"\b(6379|11211|4222|2379)\b", source), path


def test_what_is_measured_of_relaying_is_handed_on() -> None:
    """Ours: who was not heard is not trusted to hand on, and a hundred were told by the author himself."""
    from benchmarks import relay

    result = Result("relay", "How far?")
    relay.measure(40, 1, result)
    found = {each.what: each.rounds[0] for each in result.series}
    assert (found["40 members, messages"], found["40 members, hops to the last"]) == (39, 3)
