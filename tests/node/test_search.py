"""Are all sources of addresses asked side by side and for ever, and does one that is slow or broken hold up nobody?"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from zeroconf.asyncio import AsyncZeroconf

import gossip
from tests.integration.processes import ROOT, free_port
from tests.waiting import until

OFTEN: dict[str, Any] = {"bind": "127.0.0.1:0", "discovery_interval": 0.05}


@pytest.fixture
def apart() -> Iterator[list[dict[str, str]]]:
    """Nodes that share no host: each has a runtime directory of its own."""
    folders = [tempfile.TemporaryDirectory(prefix="gm-") for _ in range(3)]
    yield [{"runtime_dir": folder.name} for folder in folders]
    for folder in folders:
        folder.cleanup()


def network_address(node: gossip.Node) -> str:
    return str(node.status()["addresses"][1])


def test_a_command_is_asked_again_and_again_and_its_failure_told_once(
    cluster: str, apart: Any, tmp_path: Path, caplog: Any
) -> None:
    script = tmp_path / "list"
    script.write_text("#!/bin/sh\necho run >> runs\ndate +%N >&2\nexit 3\n")
    script.chmod(0o700)

    def runs() -> int:
        return len((tmp_path / "runs").read_text().split())

    async def scenario() -> None:
        async with gossip.Node(cluster, **OFTEN, **apart[0]) as ann:
            command = ["sh", "-c", f"cd {tmp_path} && ./list"]
            async with gossip.Node(cluster, seeds_command=command, **OFTEN, **apart[1]) as bob:
                await until(lambda: runs() > 3, "it is run again and again")
                assert len(bob.members) == 1
                told = [each for each in caplog.messages if "command for seeds" in each]
                assert len(told) == 1 and "ended with status 3: " in told[0], "though it says another thing each time"
                script.write_text(f"#!/bin/sh\necho run >> runs\necho {network_address(ann)}\n")
                await until(lambda: len(bob.members) == 2, "what it says is used")
                before = runs()
                await until(lambda: runs() > before + 2, "and it is asked for ever")
            assert len([each for each in caplog.messages if "command for seeds" in each]) == 2, "that it works is told"

    with caplog.at_level(logging.INFO, "gossip"):
        asyncio.run(scenario())


def test_a_source_that_hangs_holds_up_no_other(cluster: str, apart: Any, tmp_path: Path) -> None:
    """Neither the file, nor the start beyond `join_timeout`, nor the end, and its process is gone with us."""
    pid, file = tmp_path / "pid", tmp_path / "seeds"
    command = ["sh", "-c", f"echo $$ > {pid}; exec sleep 60"]

    async def scenario() -> None:
        async with gossip.Node(cluster, **OFTEN, **apart[0]) as ann:
            begun = time.monotonic()
            bob = gossip.Node(cluster, seeds_command=command, seeds_file=file, join_timeout=0.5, **OFTEN, **apart[1])
            await bob.start()
            assert 0.4 < time.monotonic() - begun < 2, "it might have said something"
            file.write_text(network_address(ann))
            await until(lambda: len(bob.members) == 2)
            begun = time.monotonic()
            await bob.leave()
            assert time.monotonic() - begun < 1
            running = Path(f"/proc/{pid.read_text().strip()}")
            await until(lambda: not running.exists(), "it is killed")

    asyncio.run(scenario())


def test_a_newcomer_is_not_ready_with_nothing_while_a_source_still_thinks(
    cluster: str, apart: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with gossip.Node(cluster, **OFTEN, **apart[0]) as ann:
            ann.map("m")["k"] = 1
            slow = ["sh", "-c", f"sleep 0.5; echo {network_address(ann)}"]
            async with gossip.Node(cluster, seeds_command=slow, join_timeout=5.0, **OFTEN, **apart[1]) as bob:
                assert dict(bob.map("m")) == {"k": 1}, "when it has started"

    asyncio.run(scenario())


def test_a_source_that_says_nothing_is_not_waited_for(cluster: str, apart: Any) -> None:
    async def scenario() -> None:
        begun = time.monotonic()
        async with gossip.Node(cluster, seeds_command="true", join_timeout=20.0, **OFTEN, **apart[0]):
            assert time.monotonic() - begun < 5

    asyncio.run(scenario())


def test_while_nobody_is_known_sources_are_asked_every_second(cluster: str, apart: Any, tmp_path: Path) -> None:
    file = tmp_path / "seeds"
    file.touch()
    seldom: dict[str, Any] = {"bind": "127.0.0.1:0", "discovery_interval": 600.0}

    async def scenario() -> None:
        async with (
            gossip.Node(cluster, **seldom, **apart[0]) as ann,
            gossip.Node(cluster, seeds_file=file, **seldom, **apart[1]) as bob,
        ):
            file.write_text(network_address(ann))
            await until(lambda: len(bob.members) == 2, timeout=5)

    asyncio.run(scenario())


def test_ourselves_among_the_seeds_is_nobody(cluster: str, apart: Any) -> None:
    """By any address of this host: all of them are ours where we listen on every interface."""
    port = free_port()
    seeds = [f"{host}:{port}" for host in ("127.0.0.1", "127.0.1.1", "127.9.9.9", "localhost")]
    settings: dict[str, Any] = {"bind": f"0.0.0.0:{port}", "key": bytes(32), "mdns": False, "join_timeout": 20.0}

    async def scenario() -> None:
        begun = time.monotonic()
        async with gossip.Node(cluster, seeds=seeds, discovery_interval=0.05, **settings, **apart[0]) as node:
            assert time.monotonic() - begun < 5, "nobody was waited for"
            counters = node.status()["counters"]
            assert not counters.get("dial_failed") and len(node.members) == 1

    asyncio.run(scenario())


def test_a_zeroconf_of_the_program_is_used_and_not_closed(cluster: str, apart: Any, caplog: Any) -> None:
    """On loopback, where mDNS is off unless somebody asks for it."""

    async def scenario() -> None:
        own = AsyncZeroconf(interfaces=["127.0.0.1"])
        async with (
            gossip.Node(cluster, zeroconf=own, **OFTEN, **apart[0]) as ann,
            gossip.Node(cluster, mdns=True, **OFTEN, **apart[1]) as bob,
        ):
            await until(lambda: len(ann.members) == len(bob.members) == 2, "they hear of each other")
            assert not own.zeroconf.done
        assert not own.zeroconf.done
        async with gossip.Node(cluster, zeroconf=own, **OFTEN, **apart[0]) as ann:
            await until(lambda: own.zeroconf.registry.async_get_service_infos(), "it is announced")
            await own.async_close()
            await until(lambda: "is closed" in caplog.text, "that it was closed too early is told")
            assert len(ann.members) == 1

    asyncio.run(scenario())


def test_a_zeroconf_of_another_loop_is_told_and_not_used(cluster: str, apart: Any, caplog: Any) -> None:
    async def scenario() -> None:
        own = AsyncZeroconf(interfaces=["127.0.0.1"])
        node = await asyncio.to_thread(lambda: gossip.Node(cluster, zeroconf=own, **OFTEN, **apart[0]).open())
        await until(lambda: "another event loop" in caplog.text)
        await asyncio.to_thread(node.close)
        await own.async_close()

    asyncio.run(scenario())
    assert caplog.text.count("another event loop") == 1
    with pytest.raises(gossip.ConfigError, match="without bind"):
        gossip.Node(cluster, zeroconf=object())  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", [None, True])
def test_without_the_library_it_is_said_once_and_no_more(cluster: str, wanted: bool | None, tmp_path: Path) -> None:
    program = (
        "import sys, logging, asyncio\n"
        "sys.modules['zeroconf'] = None\n"
        "import gossip\n"
        "logging.basicConfig(level=logging.INFO, format='%(levelname)s %(message)s', stream=sys.stdout)\n"
        "async def main():\n"
        f"    async with gossip.Node({cluster!r}, bind='0.0.0.0:0', key=bytes(32), mdns={wanted},\n"
        "                           discovery_interval=0.01) as node:\n"
        "        assert len(node.members) == 1\n"
        "        while node._runtime._search._asking: await asyncio.sleep(0.01)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, "")
    level = "WARNING" if wanted else "INFO"
    assert done.stdout.splitlines() == [
        f"{level} nodes on this link are not looked for by mDNS: pip install 'gossamesh[mdns]' for that"
    ]
