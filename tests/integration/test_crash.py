"""Is the crash of a worker known on its host at once, and by proof, whatever hides it?

Where nothing hides it, `test_one_host` says so.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import pytest

from tests.integration.processes import Host, Worker

PROOF = "its process has ended"


def known_dead(victim: Worker, rest: list[Worker], within: float) -> float:
    """Kills it; gives the seconds until the last of the others called it dead, which must have been by proof."""
    name = victim.settings["name"]
    killed = time.time()
    victim.kill()
    for worker in rest:
        worker.until(lambda worker: worker.statuses(name) == ["dead"], "its death is known", timeout=within + 1.0)
    victim.process.wait(10)
    told = [each for worker in rest for each in worker.ask("members") if each["name"] == name]
    took = max(each["since"] for each in told) - killed
    print(f"all know after {took * 1000:.0f} ms: {sorted({each['evidence'] for each in told})}")
    assert took < within
    assert any(each["evidence"] == PROOF for each in told), "whoever saw it told the others"
    for worker in rest:
        gone = [each["name"] for each in worker.ask("members") if each["status"] in ("dead", "left")]
        assert gone == [name], "and nobody else"
    return took


def test_one_that_holds_a_gigabyte_is_known_dead_by_proof(here: Host) -> None:
    """The kernel takes its memory apart before it closes its files, so everybody hears of it late."""
    workers = here.several(4)
    victim, *rest = workers
    victim.ask("hold", mebibytes=1024)
    # a quarter of a second here; a machine without huge pages and with others on it takes several times that
    known_dead(victim, rest, within=5.0)


@pytest.mark.parametrize("by", ["fork", "exec"])
def test_a_child_that_has_all_its_descriptors_does_not_keep_it_alive(here: Host, by: str) -> None:
    """A library in C forks and runs none of Python's hooks, or a program is started that inherits everything: streams
    and lock stay open, and nobody answers on them."""
    workers = here.several(4)
    victim, *rest = workers
    child = victim.ask("have a child", by=by)
    try:
        os.kill(child, 0)
        known_dead(victim, rest, within=0.5)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
