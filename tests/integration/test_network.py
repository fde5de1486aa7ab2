"""Do workers that share no runtime directory, as on different hosts, find each other by seeds and agree?

All of it on loopback. Each worker has a runtime directory of its own, so that no unix socket can be used.
"""

from __future__ import annotations

import base64
import secrets
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.processes import Host, Worker, agree, can_be_elsewhere, free_port, network_ports


def key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def start(here: Host, port: int, seed: int, **settings: Any) -> Worker:
    return here.start(apart=True, bind=f"127.0.0.1:{port}", seeds=[f"127.0.0.1:{seed}"], **settings)


@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
def test_workers_join_by_a_seed_and_a_newcomer_gets_everything(here: Host, sealed: bool) -> None:
    secret = key() if sealed else ""
    ports = [free_port() for _ in range(4)]
    one = here.start(apart=True, bind=f"127.0.0.1:{ports[0]}", key=secret)
    two = start(here, ports[1], ports[0], key=secret)
    three = start(here, ports[2], ports[1], key=secret)
    workers = [one, two, three]
    for worker in workers:
        worker.until(lambda worker: len(worker.living()) == 3, "all know each other")
    one.ask("fill", count=20_000)
    two.ask("big", name="large", key="k", letter="z")
    three.ask("count", amount=3)
    agree(workers, "size", 20_000)
    agree(workers, "big?", [(1 << 20) - 5, ["z"]], name="large", key="k")
    agree(workers, "value", 3)
    begun = time.monotonic()
    four = start(here, ports[3], ports[0], key=secret)
    took = time.monotonic() - begun
    four.until(lambda four: four.ask("size") == 20_000)
    print(
        f"{'sealed' if sealed else 'open'}: ready after {took:.2f} s, everything after {time.monotonic() - begun:.2f} s"
    )
    assert four.ask("big?", name="large", key="k") == [(1 << 20) - 5, ["z"]] and four.ask("value") == 3
    for worker in [*workers, four]:
        assert worker.ask("status")["counters"].get("diverged", 0) == 0
        assert len(network_ports(worker.pid)) >= 2, "TCP and UDP, both at loopback"
        assert all(line.split()[2].startswith("0100007F:") for line in network_ports(worker.pid))
    killed = time.monotonic()
    four.killed()
    for worker in workers:
        worker.until(lambda worker: len(worker.living()) == 3, timeout=5.0)
    print(f"a crash over TCP was noticed after {time.monotonic() - killed:.2f} s")
    assert three.terminated() < 1.5
    one.until(lambda one: one.statuses(three.settings["name"]) == ["left"])


def test_a_worker_frozen_over_tcp_comes_back(here: Host) -> None:
    ports = [free_port(), free_port(), free_port()]
    fast: dict[str, Any] = {"probe_interval": 0.2, "probe_timeout": 0.1, "key": key(), "discovery_interval": 0.5}
    workers = [start(here, port, ports[0], **fast) for port in ports]
    for worker in workers:
        worker.until(lambda worker: len(worker.living()) == 3)
    *rest, sleeper = workers
    before = sleeper.ask("me")["instance"]
    sleeper.ask("set", key="before", value=0)
    sleeper.kill(signal.SIGSTOP)
    for worker in rest:
        worker.until(lambda worker: len(worker.living()) == 2)
    sleeper.kill(signal.SIGCONT)
    sleeper.ask("set", key="after waking", value=1)
    agree(workers, "map", {"before": 0, "after waking": 1})
    for worker in workers:
        worker.until(lambda worker: len(worker.living()) == 3)
    assert sleeper.ask("me")["instance"] != before, "with another pair of keys"
    for worker in workers:
        counters = worker.ask("status")["counters"]
        assert not counters.get("forged") and not counters.get("impersonated")


@pytest.mark.parametrize("strange", ["another key", "no key", "another cluster"])
def test_strangers_stay_strangers_and_are_not_answered(here: Host, strange: str) -> None:
    secret, ports = key(), [free_port(), free_port(), free_port()]
    one = here.start(apart=True, bind=f"127.0.0.1:{ports[0]}", key=secret)
    two = start(here, ports[1], ports[0], key=secret)
    settings: dict[str, Any] = {"another key": {"key": key()}, "no key": {}}.get(strange, {"key": secret})
    if strange == "another cluster":
        settings["cluster"] = here.cluster + "-other"
    stranger = start(here, ports[2], ports[0], discovery_interval=0.1, **settings)
    stranger.ask("set", key="strange", value=1)
    one.ask("set", key="own", value=1)
    before = refused(one)
    one.until(lambda one: refused(one) > before + 3, "the stranger knocks again and again, and is counted")
    agree([two], "map", {"own": 1})
    assert one.living() == two.living() == ["w1", "w2"] and stranger.living() == ["w3"]
    assert one.ask("map") == {"own": 1} and stranger.ask("map") == {"strange": 1}
    assert refused(stranger) == 0, "nobody ever sent it a packet"
    assert len(one.ask("members")) == 2


def refused(worker: Worker) -> int:
    counters = worker.ask("status")["counters"]
    return int(counters.get("unsealed", 0) + counters.get("malformed", 0))


def test_a_stranger_gets_no_byte_back(here: Host) -> None:
    """No answer at all, so nobody can be drowned in answers to questions that were asked in his name."""
    port = free_port()
    worker = here.start(apart=True, bind=f"127.0.0.1:{port}", key=key())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect(("127.0.0.1", port))
        for packet in (b"", b"x", b"gm\x01" + bytes(100), secrets.token_bytes(1000)):
            datagrams.send(packet)
        worker.until(lambda worker: refused(worker) == 4)
        datagrams.setblocking(False)
        with pytest.raises(BlockingIOError):
            datagrams.recv(1)
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall((20).to_bytes(4, "big") + b"g" * 20)
        worker.until(lambda worker: refused(worker) == 5)
        stream.settimeout(10)
        assert stream.recv(1) == b"", "closed, without a word"


@pytest.mark.parametrize("apart", [False, True], ids=["unix", "tcp"])
def test_no_secret_is_in_anything_a_worker_shows(here: Host, apart: bool) -> None:
    """S8: the key and the values in output, in logs, in the status and on the command line. Searched in all of it."""
    canary = b"canary-of-thirty-two-bytes-01234"
    secret = base64.b64encode(canary).decode()
    port, seed = free_port(), free_port()
    network = {"bind": f"127.0.0.1:{port}", "seeds": [f"127.0.0.1:{seed}"]} if apart else {}
    value = "canary-value-5f2e"
    worker = here.start(apart=apart, key=secret, **network)
    settings = {"bind": f"127.0.0.1:{seed}", "seeds": [f"127.0.0.1:{port}"]} if apart else {}
    other = here.start(apart=apart, key=secret, **settings)
    wrong = here.start(
        apart=apart, key=key(), **({"bind": "127.0.0.1:0", "seeds": [f"127.0.0.1:{port}"]} if apart else {})
    )
    worker.ask("set", key="k", value=value)
    other.until(lambda other: other.ask("size") == 1)
    shown = [repr(each.ask(what)) for each in (worker, other, wrong) for what in ("status", "members", "me")]
    for each in (worker, other, wrong):
        shown.append(Path(f"/proc/{each.pid}/cmdline").read_text(errors="replace"))
    with pytest.raises(AssertionError):
        worker.ask("add", element=[value])  # an error of the program's own making, and what it says
    other.kill(signal.SIGSTOP)
    other.kill(signal.SIGCONT)
    other.killed()
    worker.until(lambda worker: len(worker.living()) == 1)
    for each in (worker, wrong):
        each.terminated()
    everything = "".join(shown) + here.output()
    assert "ready" in everything
    for hidden in (value, secret, secret.rstrip("="), canary.decode(), canary.hex(), repr(canary)[2:-1]):
        assert hidden not in everything


@pytest.mark.skipif(not can_be_elsewhere(), reason="needs the right to make mount namespaces")
def test_hosts_whose_runtime_directories_have_one_path_call_nobody_dead(here: Host) -> None:
    """As all containers have. A worker without a port of its own can not be dialled from the other host, where no file
    of it is found: that was taken for proof of its death, once a second."""
    ports = [free_port(), free_port()]
    with tempfile.TemporaryDirectory() as path:
        gate = here.start("gate", runtime_dir=path, bind=f"127.0.0.1:{ports[0]}")
        inner = here.start("inner", runtime_dir=path)
        seeds = [f"127.0.0.1:{ports[0]}"]
        far = here.start("far", elsewhere=path, runtime_dir=path, bind=f"127.0.0.1:{ports[1]}", seeds=seeds)
        _agree_in_peace(gate, inner, far)


def _agree_in_peace(gate: Worker, inner: Worker, far: Worker) -> None:
    workers = [gate, inner, far]
    for worker in workers:
        worker.until(lambda worker: worker.living() == ["far", "gate", "inner"])
    for number in range(3):
        far.ask("set", key="k", value=number)
        inner.until(lambda inner, number=number: inner.ask("get", key="k") == number, "it comes by the gate")
    inner.ask("set", key="j", value="from inside")
    far.until(lambda far: far.ask("get", key="j") == "from inside")
    for worker in workers:
        assert worker.ask("status")["counters"].get("reborn", 0) == 0
        assert [each["status"] for each in worker.ask("members")] == ["alive"] * 3
