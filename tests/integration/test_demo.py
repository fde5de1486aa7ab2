"""Does `make demo` show what it claims, clean up behind itself, and would it notice if something were wrong?

The showings are real: uvicorn with its workers, a load, and a worker that is killed. The verdict is judged by evidence
made up here, wrong in one place each: a verdict that cannot fail is worthless.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from examples.demo.evidence import View
from examples.demo.load import Outcome, Tally
from examples.demo.verdict import Evidence, Kill, Replacement, judge

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the demo kills a worker by SIGKILL")


def demo(*options: str, temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.demo", "--plain", *options],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(temporary)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Like `tmp_path`, with a name so short that sockets fit into it; otherwise the demo would go elsewhere."""
    with tempfile.TemporaryDirectory(prefix="demo-") as path:
        yield Path(path)


def workers_in(output: str) -> list[int]:
    return sorted({int(pid) for pid in re.findall(r"^ {9}(\d+) (?:serving|starting)", output, re.MULTILINE)})


def wait_until_gone(pids: list[int]) -> list[int]:
    """Those that still live after a while: an orphan is reaped by somebody else, who may take a moment."""
    end = time.monotonic() + 10
    living = pids
    while living and time.monotonic() < end:
        living = [pid for pid in living if Path(f"/proc/{pid}/stat").exists() and not _is_zombie(pid)]
    return living


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_worker_is_killed_and_nothing_is_lost(temporary: Path) -> None:
    """The whole story, in short: what `make demo` shows must hold on this machine too."""
    showing = demo("--seconds", "6", temporary=temporary)
    output, _ = showing.communicate(timeout=PATIENCE)
    assert showing.returncode == 0, output
    assert "verdict: it held" in output
    assert "FAILED" not in output
    assert re.search(r"ok +all agree: 5 nodes", output), output
    assert re.search(r"ok +no answered hit is lost: [1-9]\d* hits answered, \d+ counted, 0 lost", output), output
    assert re.search(r"ok +every session is everywhere: [1-9]\d* open: 0 missing", output), output
    assert re.search(r"ok +who is online is known everywhere: [1-9]\d* online: 0 missing", output), output
    assert re.search(r"ok +the kill was noticed by all: 4 nodes", output), output
    assert re.search(r"ok +the new worker knew all: [1-9]\d* hits", output), output
    assert re.search(r"write seen elsewhere: median [\d.]+ ms", output), output
    workers = workers_in(output)
    assert len(workers) == 5
    assert wait_until_gone(workers) == []
    assert list(temporary.iterdir()) == []


def test_ctrl_c_leaves_nothing_behind(temporary: Path) -> None:
    showing = demo("--seconds", "60", "--workers", "2", temporary=temporary)
    assert showing.stdout is not None
    seen = ""
    for line in showing.stdout:
        seen += line
        if re.search(r" serving: [1-9]\d* requests answered", seen) and len(workers_in(seen)) == 2:
            break
    assert len(list(temporary.iterdir())) == 1
    showing.send_signal(signal.SIGINT)
    rest, _ = showing.communicate(timeout=PATIENCE)
    assert showing.returncode == 130, seen + rest
    assert "Traceback" not in rest
    assert wait_until_gone(workers_in(seen + rest)) == []
    assert list(temporary.iterdir()) == []


def test_a_port_that_is_taken_is_told(temporary: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        showing = demo("--port", str(port), temporary=temporary)
        output, _ = showing.communicate(timeout=PATIENCE)
    assert showing.returncode == 2
    assert f"can not listen at 127.0.0.1:{port}" in output
    assert "--port" in output
    assert "Traceback" not in output


# -- the verdict -----------------------------------------------------------------------------------------------------


def evidence() -> Evidence:
    """Two workers, and one that was killed: 10 hits answered by it and the others, one broken and counted."""
    killed = {"worker-1": (100.2, "its stream ended")}
    views = [
        View(name, 11, {"s1": "ann"}, frozenset({"ann"}), "c0ffee", 3, 0, killed)
        for name in ("screen-9", "worker-2", "worker-3")
    ]
    tally = Tally(answered=13, hits=10, hits_unanswered=1, unanswered=1, workers={"1": 4, "2": 8, "3": 1})
    numbers = {"1": [1, 2, 3], "2": [1, 2, 3, 4, 5, 6, 7]}
    outcome = Outcome(tally, {"s1": "ann"}, {"s2": "bob"}, {}, numbers, [])
    replacement = Replacement("worker-3", 2_000_000_000, 9.0, 8, 1, 7, 1)
    return Evidence(
        2, views, {"1": 4, "2": 7}, outcome, 12.0, Kill("worker-1", 100.0, 1_000_000_000), replacement, True
    )


def failed(given: Evidence) -> list[str]:
    return [finding.claim for finding in judge(given) if not finding.held]


def with_view(given: Evidence, **changes: object) -> Evidence:
    """The same, but for what the second node says."""
    return replace(given, views=[given.views[0], replace(given.views[1], **changes), given.views[2]])  # type: ignore[arg-type]


def test_good_evidence_is_believed() -> None:
    assert failed(evidence()) == []


def test_a_lost_hit_is_found_even_behind_a_broken_one_that_was_counted() -> None:
    """The sum alone would hide it: 10 answered and 10 counted, but one of the counted was never answered."""
    given = evidence()
    given = replace(given, outcome=replace(given.outcome, numbers={**given.outcome.numbers, "1": [1, 2, 5]}))
    assert failed(given) == ["no answered hit is lost"]


def test_more_counted_than_was_ever_asked_is_found() -> None:
    given = evidence()
    given = replace(given, views=[replace(view, hits=12) for view in given.views])
    assert failed(given) == ["no answered hit is lost"]


@pytest.mark.parametrize(
    ("changes", "claims"),
    [
        ({"hits": 9}, {"all agree", "no answered hit is lost"}),
        ({"sessions": {}}, {"all agree", "every session is everywhere"}),
        ({"sessions": {"s1": "ann", "s2": "bob"}}, {"all agree", "every session is everywhere"}),
        ({"sessions": {"s1": "ann", "s3": "visitor-9"}}, {"all agree", "every session is everywhere"}),
        ({"online": frozenset()}, {"all agree", "who is online is known everywhere"}),
        ({"online": frozenset({"ann", "visitor-9"})}, {"all agree", "who is online is known everywhere"}),
        ({"context": "bad"}, {"all agree"}),
        ({"members": 2}, {"all agree"}),
        ({"diverged": 1}, {"all agree"}),
        ({"deaths": {}}, {"the kill was noticed by all"}),
    ],
)
def test_one_node_that_differs_is_found(changes: dict[str, object], claims: set[str]) -> None:
    assert set(failed(with_view(evidence(), **changes))) == claims


def test_a_person_who_logs_in_meanwhile_is_welcome() -> None:
    given = evidence()
    views = [
        replace(view, sessions={"s1": "ann", "s3": "eve"}, online=frozenset({"ann", "eve"})) for view in given.views
    ]
    assert failed(replace(given, views=views)) == []


def test_a_node_that_did_not_answer_is_missed() -> None:
    given = evidence()
    assert failed(replace(given, views=given.views[:2])) == ["all agree"]


def test_a_newcomer_that_served_too_early_is_found() -> None:
    given = evidence()
    assert given.replacement is not None
    for early in (replace(given.replacement, hits=6), replace(given.replacement, sessions=0), None):
        assert failed(replace(given, replacement=early)) == ["the new worker knew all"]


def test_requests_that_broke_without_a_kill_are_found() -> None:
    given = replace(evidence(), kill_wanted=False, kill=None, replacement=None)
    assert failed(given) == ["serving went on"]
