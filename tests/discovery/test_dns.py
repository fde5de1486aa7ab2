"""Does a name stand for all addresses that it has, and does a name server that fails, or lies, cost nothing but a word?

The name server is a real one, and so is the system's resolver that asks it: both are in a network namespace.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from discovery import MOST_SEEDS
from tests.integration.processes import ROOT
from tests.namespaces import Machine, link, needs_namespaces

pytestmark = needs_namespaces


class Host:
    """A host with its name server."""

    def __init__(self, place: Machine) -> None:
        self.place = place
        self.process = place.started([sys.executable, "-W", "error", "-m", "tests.discovery.lookup"], ROOT)

    def look_up(self, *seeds: str, zone: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"seeds": seeds, "zone": zone or {}, **more}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def end(self) -> float:
        """Ends the program; gives the seconds that this took."""
        begun = time.monotonic()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        code = self.process.wait(30)
        self.process.stdout.close()
        assert code == 0
        return time.monotonic() - begun


@pytest.fixture(scope="module")
def place() -> Iterator[Machine]:
    with link(1) as places:
        yield places[0]


@pytest.fixture
def host(place: Machine) -> Iterator[Host]:
    made = Host(place)
    try:
        yield made
        made.end()
    finally:
        made.process.kill()
        made.process.wait()
        for pipe in (made.process.stdin, made.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


def test_a_name_stands_for_all_its_addresses_of_both_families(host: Host) -> None:
    zone = {"shop.example.": {"A": ["10.0.0.1", "10.0.0.2"], "AAAA": ["2001:db8::1"]}}
    answer = host.look_up("shop.example:7946", zone=zone)
    assert sorted(answer["found"]) == ["10.0.0.1:7946", "10.0.0.2:7946", "[2001:db8::1]:7946"]
    zone = {"shop.example.": {"AAAA": ["2001:db8::2"]}}
    assert host.look_up("shop.example:7946", zone=zone)["found"] == ["[2001:db8::2]:7946"], "asked anew each time"


def test_a_name_of_the_hosts_file_is_one_as_well(host: Host) -> None:
    """M12: Debian writes 127.0.1.1 for the host's own name. Whether that is ourselves is for the caller to say."""
    (host.place.files / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 myself\n10.0.0.9 other\n")
    assert host.look_up("myself:7946", "other:1")["found"] == ["127.0.1.1:7946", "10.0.0.9:1"]


def test_what_no_peer_can_have_is_left_out(host: Host) -> None:
    zone = {"shop.example.": {"A": ["0.0.0.0", "224.0.0.251", "255.255.255.255", "10.0.0.1"], "AAAA": ["::"]}}
    assert host.look_up("shop.example:7946", zone=zone)["found"] == ["10.0.0.1:7946"]


def test_a_service_with_a_thousand_addresses_gives_as_many_as_are_of_use(host: Host) -> None:
    many = {"A": [f"10.{number >> 8}.{number & 255}.7" for number in range(1000)]}
    zone: dict[str, Any] = {"shop.example.": many, "pods.shop.example.": many}
    zone["_gossamesh._tcp.shop.example."] = {"SRV": ["0 0 7946 pods.shop.example."]}
    for seed in ("shop.example:7946", "srv:_gossamesh._tcp.shop.example"):
        found = host.look_up(seed, zone=zone, patience=30)["found"]
        assert len(set(found)) == MOST_SEEDS


def test_a_service_stands_for_the_hosts_and_ports_in_its_records(host: Host) -> None:
    zone = {
        "_gossamesh._tcp.shop.example.": {"SRV": ["9 0 7948 c.shop.example.", "0 0 7946 a.shop.example.",
                                                  "1 0 7947 b.shop.example.", "0 0 7949 .", "0 0 0 a.shop.example."]},
        "a.shop.example.": {"A": ["10.0.0.1"]},
        "b.shop.example.": {"A": ["10.0.0.2"], "AAAA": ["2001:db8::2"]},
    }  # fmt: skip
    expected = {"10.0.0.1:7946", "10.0.0.2:7947", "[2001:db8::2]:7947"}
    answer = host.look_up("srv:_gossamesh._tcp.shop.example", zone=zone)
    assert set(answer["found"]) == expected and answer["found"][0] == "10.0.0.1:7946" and not answer["wrong"]
    assert ["a.shop.example.", "A"] not in answer["asked"], "what was sent along is not asked for"
    answer = host.look_up("srv:_gossamesh._tcp.shop.example", zone=zone, along=False)
    assert set(answer["found"]) == expected, "c has no address, and hides nobody"
    assert ["a.shop.example.", "A"] in answer["asked"] and [".", "AAAA"] not in answer["asked"]


def test_why_there_is_no_answer_is_said_in_the_same_words_each_time(host: Host) -> None:
    zone = {"empty.example.": {"TXT": ["x"]}, "_empty._tcp.example.": {"TXT": ["x"]}}
    seeds = ("none.example:1", "srv:_none._tcp.example", "srv:_empty._tcp.example", "empty.example:1")
    wrong = host.look_up(*seeds, zone=zone)["wrong"]
    assert wrong[0].startswith("none.example: ") and wrong[3].startswith("empty.example: ")
    assert wrong[1:3] == [
        "srv:_none._tcp.example: there is no such name",
        "srv:_empty._tcp.example: this name has no SRV records",
    ]
    assert host.look_up(*seeds, zone=zone)["wrong"] == wrong


def test_a_name_server_that_is_silent_costs_one_thread_a_name_and_holds_up_nobody(host: Host) -> None:
    """Not the other names, not who asks, and not the end of the program, which waited ten seconds once."""
    (host.place.files / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:20 attempts:1\n")
    zone = {"shop.example.": {"A": ["10.0.0.1"]}}
    for _ in range(3):
        seeds = ("silent.example:1", "silent.example:2", "srv:_silent._tcp.silent.example", "shop.example:7946")
        answer = host.look_up(*seeds, zone=zone | {"_silent._tcp.silent.example.": {}}, patience=0.3)
        assert answer["found"] == ["10.0.0.1:7946"] and answer["took"] < 3
        assert answer["threads"] == 1
        assert answer["wrong"][0] == "no answer about silent.example:1 within 0.3 s"
    names = [f"silent.{number}.example:1" for number in range(60)]
    answer = host.look_up(*names, patience=0.3)
    assert len(answer["wrong"]) == 60 and answer["threads"] == 16, "the others wait for their turn"
    assert host.end() < 3, "nobody waits for those that are still under way"


def test_without_a_name_server_there_is_an_error_and_no_crash(host: Host) -> None:
    (host.place.files / "resolv.conf").write_text("")
    wrong = host.look_up("srv:_gossamesh._tcp.shop.example")["wrong"]
    assert len(wrong) == 1 and wrong[0].startswith("srv:_gossamesh._tcp.shop.example: ")
    (host.place.files / "resolv.conf").write_text("nameserver 127.0.0.1\n")


def test_nobody_answering_at_all_is_told_in_the_same_words(host: Host) -> None:
    (host.place.files / "resolv.conf").write_text("nameserver 127.0.0.77\noptions timeout:1 attempts:1\n")
    seeds = ("shop.example:7946", "srv:_gossamesh._tcp.shop.example")
    wrong = host.look_up(*seeds, patience=3)["wrong"]
    assert len(wrong) == 2 and host.look_up(*seeds, patience=3)["wrong"] == wrong


def test_the_word_of_a_machine_is_the_same_for_the_shell(host: Host) -> None:
    """What `getent` says, a seed stands for: hosts file, search domains, both families."""
    (host.place.files / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch default.svc\n")
    zone = {"shop.default.svc.": {"A": ["10.0.0.5"]}}
    answer = host.look_up("shop:7946", "srv:_gossamesh._tcp.shop", zone=zone | {
        "_gossamesh._tcp.shop.default.svc.": {"SRV": ["0 0 7947 shop.default.svc."]}
    })  # fmt: skip
    assert answer["found"] == ["10.0.0.5:7946", "10.0.0.5:7947"]


def test_the_program_of_these_tests_can_fail() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.discovery.lookup"], input="nonsense\n", text=True,
                          capture_output=True, cwd=ROOT, check=False)  # fmt: skip
    assert done.returncode != 0
