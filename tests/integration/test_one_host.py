"""Do real workers on one host find each other with nothing configured, and does a crash lose nothing?"""

from __future__ import annotations

import signal
import time

import pytest

from tests.integration.processes import Host, Worker, agree, network_ports, together
from tests.waiting import until_here


def test_four_workers_find_each_other_and_share_all_four_types(here: Host) -> None:
    workers = here.several(4)
    one, two, three, four = workers
    one.ask("set", key="k", value={"deep": [1, None]})
    two.ask("add", element="e")
    three.ask("count", amount=5)
    four.ask("count", amount=7)
    four.ask("put", value="v")
    agree(workers, "map", {"k": {"deep": [1, None]}})
    agree(workers, "elements", ["e"])
    agree(workers, "value", 12)
    agree(workers, "read", "v")
    three.ask("delete", key="k")
    agree(workers, "map", {})
    for worker in workers:
        assert network_ports(worker.pid) == [], "no port was asked for, so none is open"
        assert worker.ask("status")["counters"].get("diverged", 0) == 0
    assert len(here.files()) == 12
    print("leaves took", [round(worker.terminated(), 3) for worker in workers])
    assert here.files() == [], "nothing of any of them is left"


def test_a_worker_killed_under_load_is_noticed_and_nothing_seen_is_lost(here: Host) -> None:
    workers = here.several(8)
    together(workers, "start load")
    victim, *rest = workers
    name = victim.settings["name"]
    until_here(lambda: rest[-1].ask("value", name="load") > 800)
    seen = max(seen_of(name, worker) for worker in rest)
    killed = time.time()
    victim.killed()
    for worker in rest:
        worker.until(lambda worker: name not in worker.living(), "its death is noticed", timeout=2.0)
    since = [each["since"] for worker in rest for each in worker.ask("members") if each["name"] == name]
    print("noticed after", sorted(round(moment - killed, 3) for moment in since))
    assert max(since) - killed < 2.0
    done = sum(together(rest, "stop load"))
    of_victim = until_here(lambda: the_same([seen_of(name, worker) for worker in rest]))
    assert of_victim >= seen, "what was visible anywhere is visible everywhere"
    agree(rest, "value", done + of_victim, name="load")
    agree(rest, "size", done + of_victim, name="load")
    for worker in rest:
        gone = [each["name"] for each in worker.ask("members") if each["status"] in ("dead", "left")]
        assert gone == [name], "and nobody else was taken for dead"
        assert worker.ask("status")["counters"].get("diverged", 0) == 0


def seen_of(name: str, worker: Worker) -> int:
    """How many counts of a worker are visible at another. Each came in one step with the entry of its number."""
    numbers = sorted(number for key, number in worker.ask("map", name="load").items() if key.startswith(name + ":"))
    assert numbers == list(range(1, len(numbers) + 1)), "in order, and none between is missing"
    return len(numbers)


def the_same(answers: list[int]) -> int | None:
    return answers[0] if len(set(answers)) == 1 else None


def test_crash_after_crash_and_every_newcomer_gets_everything(here: Host) -> None:
    steady = here.several(2)
    expected = {}
    took = []
    for cycle in range(10):
        begun = time.monotonic()
        newcomer = here.begin("phoenix").ready()
        took.append(time.monotonic() - begun)
        assert newcomer.ask("map") == expected, "at once: a start waits for the state of the others"
        newcomer.ask("count", amount=1)
        newcomer.ask("set", key=str(cycle), value=cycle)  # made later, so whoever has it has the count as well
        expected[str(cycle)] = cycle
        agree(steady, "map", expected)
        newcomer.killed()
    print("ready after", [round(each, 2) for each in took])
    agree(steady, "value", 10)
    for worker in steady:
        worker.until(lambda worker: worker.living() == ["w1", "w2"])
        assert worker.ask("status")["counters"].get("diverged", 0) == 0
    last = here.start("last")
    assert last.ask("map") == expected and last.ask("value") == 10
    assert len(here.files()) == 9, "what the killed ones left was swept"


def test_newcomers_that_start_at_once_all_have_everything_when_they_have_started(here: Host) -> None:
    """They find each other as well, who have nothing yet: only the one who was there has what they wait for."""
    first = here.start()
    first.ask("fill", count=500)
    newcomers = [here.begin() for _ in range(4)]
    assert [worker.ready().me["size"] for worker in newcomers] == [500] * 4
    for worker in newcomers:
        worker.until(lambda worker: len(worker.living()) == 5, "all know each other")
        assert worker.ask("status")["counters"].get("diverged", 0) == 0


def test_a_killed_workers_files_are_swept_by_the_next_who_looks(here: Host) -> None:
    worker = here.start()
    worker.killed()
    assert len(here.files()) == 3, "a crash cleans nothing up"
    newcomer = here.start()
    assert len(here.files()) == 3 and newcomer.living() == ["w2"]
    newcomer.terminated()
    assert here.files() == []


@pytest.mark.parametrize("moment", ["starting", "idle", "loaded", "sending", "receiving", "in a batch"])
def test_sigterm_at_any_moment_ends_soon_with_a_leave(here: Host, moment: str) -> None:
    witness = here.start("witness")
    if moment == "receiving":
        witness.ask("fill", count=30_000)
    worker = here.begin("worker")
    if moment == "starting":
        # its place is claimed before it joins, and the signal is expected once its handler is there
        until_here(lambda: len(here.files()) > 3)
    elif moment == "receiving":
        witness.until(lambda witness: "worker" in witness.living())
    else:
        worker.ready()
        witness.until(lambda witness: "worker" in witness.living())
    if moment == "loaded":
        worker.ask("start load")
        witness.until(lambda witness: witness.ask("size", name="load") > 50)
    elif moment == "sending":
        worker.ask("fill", count=5_000)
    elif moment == "in a batch":
        worker.ask("set", key="before", value=1)
        worker.ask("open a batch")
        worker.ask("set", key="half", value=1)
    took = worker.terminated()
    print(f"{moment}: ended after {took:.3f} s")
    assert took < 1.5, "a second for the leave, and what Python takes to end"
    witness.until(lambda witness: witness.living() == ["witness"], timeout=2.0)
    # one that was stopped before anybody answered its join knows nobody yet to whom it could say goodbye
    starting = moment in ("starting", "receiving")
    assert witness.statuses("worker") in ([["left"], ["dead"], []] if starting else [["left"]])
    if moment == "sending":
        assert witness.ask("size") == 5_000, "what it had written it handed over"
    if moment == "in a batch":
        assert witness.ask("map") == {"before": 1}
    assert len(here.files()) == 3


@pytest.mark.parametrize("wakes", [True, False], ids=["and wakes", "and is killed"])
def test_a_worker_that_stands_still_is_stalled_and_not_dead(here: Host, wakes: bool) -> None:
    """A laptop's lid, a paused container: its process exists, so it keeps what it owns, its place and its name."""
    workers = here.several(4, probe_interval=0.2, probe_timeout=0.1, suspicion_factor=1.0)
    sleeper, *rest = workers
    name, instance = sleeper.settings["name"], sleeper.me["instance"]
    sleeper.ask("set", key="its own", value=1)
    agree(workers, "size", 1)
    sleeper.kill(signal.SIGSTOP)
    stopped = time.monotonic()
    for worker in rest:
        worker.until(lambda worker: worker.statuses(name) == ["stalled"], "its process is seen", timeout=20.0)
    print(f"stalled after {time.monotonic() - stopped:.2f} s")
    rest[1].ask("set", key="while it slept", value=1)
    # twice the longest time that any suspicion may run: 6 x 1.0 x 0.2 s
    until_here(lambda: time.monotonic() > stopped + 2.4, "time passes", 10)
    assert all(worker.statuses(name) == ["stalled"] for worker in rest)
    if not wakes:
        sleeper.kill(signal.SIGKILL)
        for worker in rest:
            worker.until(lambda worker: name not in worker.living(), "its end is seen as well")
        return
    sleeper.kill(signal.SIGCONT)
    sleeper.ask("set", key="after waking", value=1)
    agree(workers, "map", dict.fromkeys(("its own", "while it slept", "after waking"), 1))
    for worker in workers:
        worker.until(lambda worker: [each["status"] for each in worker.ask("members")] == ["alive"] * 4)
    assert sleeper.ask("me")["instance"] == instance
    for worker in workers:
        assert not [each for each in worker.ask("members") if each["status"] == "dead"], "the sleeper accused nobody"
        assert worker.ask("status")["counters"].get("diverged", 0) == 0


def test_who_writes_waits_for_nobody_though_all_others_stand_still(here: Host) -> None:
    """100 000 writes past a buffer that holds half of them: what was dropped on its way is pulled afterwards."""
    patient = {"suspicion_factor": 60.0, "max_transaction": 1 << 20, "push_bytes": 1 << 20, "send_buffer": 4 << 20}
    writer, *rest = here.several(3, **patient)
    for worker in rest:
        worker.kill(signal.SIGSTOP)
    name = "n" * 100
    writer.ask("fill", name=name, count=100_000)
    assert writer.ask("size", name=name) == 100_000
    assert writer.until(lambda worker: worker.ask("status")["counters"].get("dropped"), "the buffers are full")
    for worker in rest:
        worker.kill(signal.SIGCONT)
    agree([writer, *rest], "size", 100_000, timeout=60.0, name=name)
    digests = [worker.ask("status")["digest"] for worker in (writer, *rest)]
    assert digests == [digests[0]] * 3


def test_six_start_at_once_and_leave_at_once_and_no_file_stays(here: Host) -> None:
    for _ in range(2):
        workers = here.several(6)
        for number, worker in enumerate(workers):
            worker.ask("set", key=str(number), value=number)
        agree(workers, "size", 6)
        for worker in workers:
            worker.kill(signal.SIGTERM)
        for worker in workers:
            assert worker.process.wait(10) == 0, worker.errors
        assert here.files() == []
