"""Do nodes on one link hear of each other, and does nothing that anybody says there do harm?

Each of them is on a host of its own, with real multicast between them.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest
from zeroconf import DNSIncoming, DNSRecord, DNSText

from discovery.mdns import MOST_REMEMBERED
from tests.integration.processes import ROOT
from tests.namespaces import Machine, link, needs_namespaces
from tests.waiting import until_here

pytestmark = needs_namespaces

TYPE = "_gossamesh._tcp.local."
CLUSTER = "shop-canary"


class Neighbour:
    """One host, and what we have done there."""

    def __init__(self, place: Machine, number: int) -> None:
        self.place = place
        self.instance = f"{number:016x}"
        self.process = place.started(
            [sys.executable, "-W", "error", "-m", "tests.discovery.onlink"], ROOT, subprocess.PIPE
        )
        self.errors: list[str] = []
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line)

    def ask(self, do: str, **more: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise OSError(answer["error"])
        return answer["answer"]

    def open(self, cluster: str = CLUSTER, port: int = 7946, **more: Any) -> None:
        self.ask("open", cluster=cluster, instance=self.instance, **{"host": self.place.ipv4, "port": port, **more})

    def until(self, *candidates: str) -> None:
        until_here(lambda: self.ask("candidates") == list(candidates), f"it knows {candidates}")

    def end(self) -> None:
        """It must have ended well, without a word."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(20) == 0
        self._listening.join(10)
        assert not self.errors, "".join(self.errors)

    def over(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None and not pipe.closed:
                pipe.close()


@pytest.fixture(scope="module")
def places() -> Iterator[list[Machine]]:
    with link(3) as made:
        yield made


@pytest.fixture
def three(places: list[Machine]) -> Iterator[list[Neighbour]]:
    made = [Neighbour(place, number) for number, place in enumerate(places, 1)]
    try:
        yield made
        for each in made:
            each.end()
    finally:
        for each in made:
            each.over()


def said(*records: tuple[str, str, str]) -> str:
    """A packet of answers."""
    message = dns.message.Message(id=0)
    message.flags = dns.flags.QR | dns.flags.AA
    for name, kind, value in records:
        message.answer.append(dns.rrset.from_text(name, 4500, "IN", kind, value))
    return message.to_wire().hex()


def service(instance: str, host: str, port: int, text: str) -> list[tuple[str, str, str]]:
    name, server = f"{instance}.{TYPE}", f"{instance}.local."
    kind = "AAAA" if ":" in host else "A"
    return [(TYPE, "PTR", name), (name, "SRV", f"0 0 {port} {server}"), (name, "TXT", text), (server, kind, host)]


def text_of(ann: Neighbour, bob: Neighbour) -> str:
    """What a node of the cluster says of itself, as text."""
    bob.ask("listen")
    ann.open()
    packets: list[str] = []
    until_here(lambda: packets.extend(bob.ask("heard")) or len(packets) > 2, "it announces itself")
    everything = "".join(packets)
    assert CLUSTER.encode().hex() not in everything and b"canary".hex() not in everything
    (text,) = {each.text for each in answers(packets) if isinstance(each, DNSText)}
    parts = []
    while text:
        parts.append(f'"{text[1 : 1 + text[0]].decode()}"')
        text = text[1 + text[0] :]
    return " ".join(parts)


def answers(packets: list[str]) -> list[DNSRecord]:
    return [answer for packet in packets for answer in DNSIncoming(bytes.fromhex(packet)).answers()]


def test_neighbours_hear_of_each_other_and_of_their_end(three: list[Neighbour]) -> None:
    ann, bob, cyd = three
    ann.open()
    bob.open(port=7947)
    ann.until("10.77.0.2:7947")
    bob.until("10.77.0.1:7946")
    cyd.open(cluster="other")
    cyd.until()
    seconds, left = bob.ask("close")
    assert seconds < 0.2 and left == [], "one goodbye has to do: three would take 0.25 s"
    ann.until()
    bob.open(port=7948)
    ann.until("10.77.0.2:7948")
    assert cyd.ask("candidates") == []


def test_nothing_but_a_hash_and_a_version_is_said_of_the_cluster(three: list[Neighbour]) -> None:
    ann, bob, _ = three
    text = text_of(ann, bob)
    assert sorted(each.partition("=")[0] for each in text.replace('"', "").split()) == ["c", "v"]
    assert len(text) < 60


def test_who_asks_by_himself_is_told_nothing(three: list[Neighbour]) -> None:
    """S7: a question from beyond the link, or in the name of a victim there, would be answered with more than it says.
    Who asks the group, hears what is said to the group."""
    ann, bob, cyd = three
    ann.open()
    bob.open()
    ann.until("10.77.0.2:7946")
    cyd.ask("listen")
    for name, kind in ((TYPE, "PTR"), ("_services._dns-sd._udp.local.", "PTR"), (f"{ann.instance}.{TYPE}", "ANY")):
        question = dns.message.make_query(name, kind).to_wire().hex()
        for to in ([ann.place.ipv4, 5353], ["224.0.0.251", 5353]):
            assert cyd.ask("ask", packet=question, to=to) == []
    assert answers(cyd.ask("heard")), "to the group it is answered"


def test_what_can_not_be_a_packet_changes_nothing(three: list[Neighbour]) -> None:
    """S7: names that point to themselves, to each other, in a ring, beyond the end; all cuts and many flipped bits."""
    ann, bob, cyd = three
    bob.open()
    good = bytes.fromhex(said(*service("ab" * 8, "10.77.0.9", 1, '"c=00"')))
    head = bytes.fromhex("000084000000000100000000")
    tail = bytes.fromhex("000c000100001194")
    loops = [head + name + tail + b"\0\2" + name for name in (
        b"\xc0\x0c", b"\xc0\x0e\xc0\x0c", b"\x01a\xc0\x0c", b"\xff\xff", b"\xc0", b"\x40a", b"\x3f" * 70,
        b"\xc0\x10\xc0\x12\xc0\x0c", b"".join(b"\xc0" + bytes([14 + 2 * step]) for step in range(100)),
    )]  # fmt: skip
    cut = [good[:size] for size in range(len(good))]
    rng, bent = random.Random(7), []
    for _ in range(1000):
        packet = bytearray(good)
        packet[rng.randrange(len(packet))] ^= 1 << rng.randrange(8)
        bent.append(bytes(packet))
    counts = [head[:4] + b"\xff" * 8 + good[12:], b"", b"x", bytes(8000), b"\xff" * 8900]
    packets = [each.hex() for each in (*loops, *cut, *bent, *counts)]
    cyd.ask("send", packets=packets)
    cyd.ask("send", packets=packets, to=[bob.place.ipv4, 5353])
    ann.open()
    bob.until("10.77.0.1:7946")
    bob.ask("look again")
    assert bob.ask("candidates") == ["10.77.0.1:7946"]


def crowd(count: int, text: str) -> list[str]:
    """Packets that announce so many services, 16 in each."""
    few = [(f"{number:x}" * 16, f"203.0.113.{number + 1}") for number in range(16)]
    like = bytes.fromhex(said(*(record for name, host in few for record in service(name, host, 7946, text))))
    packets = []
    for start in range(0, count, 16):
        packet = like
        for number, (name, host) in enumerate(few, start):
            packet = packet.replace(name.encode(), f"{number + 0x1000:016x}".encode())
            packet = packet.replace(bytes(map(int, host.split("."))), (0x0A000001 + number).to_bytes(4, "big"))
        packets.append(packet.hex())
    return packets


def test_ten_thousand_services_are_forgotten_but_for_some_and_hide_nobody(three: list[Neighbour]) -> None:
    ann, bob, cyd = three
    text = text_of(ann, bob)
    bob.open()
    bob.until("10.77.0.1:7946")
    ann.ask("close")
    most, packets = 0, crowd(10_000, text)
    for start in range(0, len(packets), 10):
        cyd.ask("send", packets=packets[start : start + 10])
        most = max(most, *bob.ask("remembered"))
    assert most == MOST_REMEMBERED
    nameless = [(TYPE, "PTR", f"{number:016x}.{TYPE}") for number in range(0x100_0000, 0x100_0000 + 2_000)]
    cyd.ask("send", packets=[said(*nameless[start : start + 30]) for start in range(0, len(nameless), 30)])
    until_here(lambda: bob.ask("remembered")[1] > 0, "names without a place are remembered as well")
    assert max(bob.ask("remembered")) <= MOST_REMEMBERED
    bob.ask("look again")
    ann.open(port=7949)
    until_here(lambda: "10.77.0.1:7949" in bob.ask("candidates"), "who comes now is heard")
    assert len(bob.ask("candidates")) <= MOST_REMEMBERED
    assert bob.ask("close")[0] < 0.3


def test_whoever_names_us_or_nobody_is_no_candidate(three: list[Neighbour]) -> None:
    ann, bob, cyd = three
    text = text_of(ann, bob)
    bob.open(port=7947)
    bob.until("10.77.0.1:7946")
    lies = [
        service(bob.instance, "10.77.0.66", 7946, text),  # our name, elsewhere
        service("a" * 16, "10.77.0.2", 7947, text),  # our place, under another name
        service("b" * 16, "10.77.0.67", 0, text),
        service("c" * 16, "0.0.0.0", 7946, text),
        service("d" * 16, "224.0.0.251", 7946, text),
        service("e" * 16, "127.0.0.1", 7946, text),
        service("f" * 16, "10.77.0.68", 7946, '"c=0123" "v=1"'),
        service("0" * 16, "10.77.0.69", 7946, '""'),
        service("not-hexadecimal", "10.77.0.70", 7946, text),
        service("%s{0}<script>", "10.77.0.71", 7946, text),
        service("1" * 16, "10.77.0.72", 7946, text),  # the truth, as far as anybody can tell
    ]
    cyd.ask("send", packets=[said(*lie) for lie in lies])
    bob.until("10.77.0.1:7946", "10.77.0.72:7946")


def test_what_was_lost_of_an_announcement_is_asked_for(three: list[Neighbour]) -> None:
    """The name came, and the packet with the place was lost: who knows the name is not told of it again unasked."""
    ann, bob, cyd = three
    ann.place.plug(False)
    ann.open()
    bob.open(port=7947)
    ann.ask("announced")
    ann.place.plug(True)
    cyd.ask("send", packets=[said((TYPE, "PTR", f"{ann.instance}.{TYPE}"))])
    until_here(lambda: bob.ask("remembered") == [0, 1], "bob knows that ann is, and not where")
    until_here(lambda: bob.ask("look again") or bob.ask("candidates") == ["10.77.0.1:7946"])


def test_two_whose_link_was_cut_when_they_asked_hear_of_each_other_all_the_same(three: list[Neighbour]) -> None:
    ann, bob, _ = three
    ann.place.plug(False)
    ann.open()
    bob.open(port=7947)
    for each in (ann, bob):
        each.ask("announced")
        each.ask("asked enough")
    ann.place.plug(True)
    ann.ask("look again")
    ann.until("10.77.0.2:7947")
    bob.ask("look again")
    bob.until("10.77.0.1:7946")


def test_a_zeroconf_of_the_program_is_used_and_left_as_it_was(three: list[Neighbour]) -> None:
    ann, bob, _ = three
    ann.ask("lend")
    ann.open()
    bob.open()
    bob.until("10.77.0.1:7946")
    ann.until("10.77.0.2:7946")
    seconds, _ = ann.ask("close")
    assert seconds < 0.3
    bob.until()
    assert ann.ask("lent") == [True, 0, 1, False], "its own service is there, nothing of ours is, and it was open"


def test_where_there_is_no_link_there_is_an_error_and_no_more(three: list[Neighbour]) -> None:
    with pytest.raises(OSError, match=r"\S"):
        three[0].open(bind="10.1.2.3")
    three[0].open()
    three[1].open()
    three[1].until("10.77.0.1:7946")
    assert all("Warning" in "".join(three[0].errors) for _ in three[0].errors), (
        "zeroconf leaves a socket to the collector"
    )
    three[0].errors.clear()
