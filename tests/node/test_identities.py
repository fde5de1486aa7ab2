"""Can a real holder of the cluster's key speak in the name of another member, to real nodes over real sockets?

Eve has the key, an identity of her own, and the transport that nodes have. What she may say of whom is told packet by
packet in tests/protocol/test_identity.py, what she may do to a handshake in tests/node/test_handshake.py.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

import gossip
from crdt import LWWMap, Store
from crdt.codec import Batch, encode_batch
from discovery import Address
from gossip.identity import KeyPair
from gossip.keyring import Keyring
from gossip.protocol.codec import Codec
from gossip.protocol.members import Claim, Status
from gossip.protocol.messages import Gossip, Message, Push
from gossip.runtime import Runtime
from gossip.seal import Seal
from gossip.transport import Transport
from tests.node.test_members import heard
from tests.waiting import until

KEY = secrets.token_bytes(32)
WIRES = ("unix", "tcp", "udp")
NAMES = ["ann", "bob", "cat"]


class Eve:
    """Somebody with the key, who says what she likes."""

    def __init__(self, cluster: str) -> None:
        self.codec = Codec(cluster)
        self.identity = KeyPair(cluster, secrets.token_bytes(32))
        seal = Seal(Keyring([KEY]), cluster, secrets.token_bytes(16))
        self.lost: list[int] = []
        self.transport = Transport(
            lambda *packet: True, self.lost.append, 1 << 20, 16, seal=seal, identity=self.identity
        )

    @property
    def claim(self) -> Claim:
        """What is true of her."""
        return self.identity.sign(Claim(self.identity.instance, "eve", ("127.0.0.1:1",), 1))

    async def say(self, wire: str, to: gossip.Node, message: Message, name: int = 0) -> None:
        """Says something to a node, in her own name or in another one."""
        payload = self.codec.encode(name or self.identity.instance, message)
        unix, tcp = (str(address) for address in to.status()["addresses"])
        if wire == "unix":
            self.transport.dial(unix, payload)
            return
        self.transport.send(to.me.instance, (tcp,), payload, datagram=wire == "udp")
        if wire == "udp":  # the first one went by the stream, in whose shelter they go
            await until(lambda: self.transport._links[to.me.instance].posts)
            self.transport.send(to.me.instance, (tcp,), payload, datagram=True)


@asynccontextmanager
async def besieged(cluster: str) -> AsyncIterator[tuple[gossip.Node, gossip.Node, Eve]]:
    """Two nodes that know each other, and eve."""
    eve = Eve(cluster)
    async with (
        gossip.Node(cluster, name="ann", key=KEY, bind="127.0.0.1:0") as ann,
        gossip.Node(cluster, name="bob", key=KEY, bind="127.0.0.1:0", tags={"role": "web"}) as bob,
    ):
        await until(lambda: len(ann.members) == len(bob.members) == 2)
        await eve.transport.listen_network(Address("127.0.0.1", 0))
        eve.transport._neighbourhood.add(str(runtime_of(ann).whereabouts.place.socket_path.parent))  # of the same user
        try:
            yield ann, bob, eve
        finally:
            await eve.transport.close()


def runtime_of(node: gossip.Node) -> Runtime:
    assert node._runtime is not None
    return node._runtime


def table(node: gossip.Node) -> dict[int, Claim]:
    return dict(runtime_of(node).engine.members.table)


def count(node: gossip.Node, *names: str) -> int:
    return sum(node.status()["counters"].get(name, 0) for name in names)


FORGED: dict[str, Callable[[Claim], Claim]] = {
    "it has left": lambda claim: claim.ended(Status.LEFT),
    "it refuted": lambda claim: claim._replace(incarnation=claim.incarnation + 1),
    "it is suspect, and can not refute": lambda claim: claim._replace(status=Status.SUSPECT, incarnation=1 << 63),
    "it has moved": lambda claim: claim._replace(addresses=("127.0.0.1:1",)),
    "it has other tags": lambda claim: claim._replace(tags=(("role", "admin"),)),
    "it has a key of hers": lambda claim: claim._replace(proof=b""),
}


@pytest.mark.parametrize("wire", WIRES)
def test_what_eve_forges_of_bob_changes_nothing_and_is_counted(cluster: str, wire: str) -> None:
    async def story() -> None:
        async with besieged(cluster) as (ann, bob, eve):
            before = table(ann)
            me = runtime_of(bob).engine.me
            for number, forge in enumerate(FORGED.values(), 1):
                claim = forge(me)
                claim = claim if claim.proof else eve.identity.sign(claim._replace(incarnation=1))
                await eve.say(wire, ann, Gossip((claim,)))
                await until(lambda number=number: count(ann, "forged") >= number)
            await eve.say(wire, ann, Gossip((Claim(7, "zoe", ("127.0.0.1:1",), 1, proof=eve.claim.proof), eve.claim)))
            await until(lambda: "eve" in [member.name for member in ann.members.all], "what is true holds")
            after = table(ann)
            del after[eve.identity.instance]
            assert after == before and 7 not in after, "nor is anybody who is not the hash of its key"
            assert count(ann, "impersonated", "malformed", "unsealed") == 0
            assert runtime_of(bob).engine.me == me

    asyncio.run(story())


@pytest.mark.parametrize("wire", WIRES)
def test_what_eve_says_as_bob_is_dropped_and_counted(cluster: str, wire: str) -> None:
    async def story() -> None:
        async with besieged(cluster) as (ann, bob, eve):
            before, me = table(ann), runtime_of(bob).engine.me
            store = Store()
            write = LWWMap(store, "m").set("k", "as if bob had written it", me.instance, 1)
            push = Push((encode_batch(Batch(me.instance, 1, 1, (write,))),))
            for number, message in enumerate((push, Gossip((me._replace(status=Status.DEAD),))), 1):
                await eve.say(wire, ann, message, name=me.instance)
                await until(lambda number=number: count(ann, "impersonated") >= number)
            assert ann.map("m") == {} and table(ann) == before
            assert count(ann, "forged", "malformed", "unsealed") == 0
            ann.map("m")["k"] = "and streams between the two go on"
            await until(lambda: bob.map("m").get("k"))

    asyncio.run(story())


def test_an_old_claim_of_bob_that_eve_has_kept_changes_nothing(cluster: str) -> None:
    async def story() -> None:
        async with besieged(cluster) as (ann, bob, eve):
            old = runtime_of(bob).engine.me
            await eve.say("tcp", ann, Gossip((old.by_whom(Status.SUSPECT, eve.identity.instance),)))
            await until(lambda: table(ann)[old.instance].incarnation == 1, "he has refuted what she may say")
            before = table(ann)
            for claim in (old, old.by_whom(Status.SUSPECT, eve.identity.instance)):
                await eve.say("tcp", ann, Gossip((claim,)))
            await eve.say("tcp", ann, Gossip((eve.claim,)))
            await until(lambda: eve.identity.instance in table(ann))
            assert {**before, eve.identity.instance: table(ann)[eve.identity.instance]} == table(ann)
            assert [member.status for member in ann.members if member.name == "bob"] == ["alive"]

    asyncio.run(story())


def test_eve_at_the_address_of_bob_hears_nothing_that_is_for_him(cluster: str) -> None:
    """He is gone without a word, and she listens where he did: who speaks to him ends the stream."""

    async def story() -> None:
        async with AsyncExitStack() as stack:
            one, two = (stack.enter_context(tempfile.TemporaryDirectory(prefix="gm-")) for _ in range(2))
            settings: dict[str, Any] = {"key": KEY, "bind": "127.0.0.1:0", "probe_interval": 0.2}
            ann = await stack.enter_async_context(gossip.Node(cluster, runtime_dir=one, **settings))
            seeds = [str(runtime_of(ann).whereabouts.bound)]
            bob = gossip.Node(cluster, runtime_dir=two, seeds=seeds, **settings)
            await bob.start()
            await until(lambda: len(ann.members) == len(bob.members) == 2)
            address = Address("127.0.0.1", runtime_of(bob).whereabouts.bound.port)  # type: ignore[union-attr]
            before = bob.me.instance
            runtime_of(bob).transport.send = lambda *rest: None  # type: ignore[method-assign]
            await bob.leave()
            eve, came = Eve(cluster), []
            eve.transport._received = lambda packet, *rest: came.append(packet) or True
            await eve.transport.listen_network(address)
            stack.push_async_callback(eve.transport.close)
            ann.map("m")["k"] = "a secret for bob"
            await until(lambda: count(ann, "replaced") > 0)
            await until(lambda: before not in runtime_of(ann).engine.members, "and he is found dead")
            assert not [packet for packet in came if b"secret" in packet]

    asyncio.run(story())


# -- rebirth ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [False, True], ids=["unix", "tcp"])
def test_who_goes_on_as_another_loses_nothing_and_is_taken_for_nobody_else(cluster: str, apart: bool) -> None:
    """What it had written and not sent leaves in the name of who it was, what it writes then in the new one."""

    async def story() -> None:
        async with AsyncExitStack() as stack:
            made: list[gossip.Node] = []
            places = [stack.enter_context(tempfile.TemporaryDirectory(prefix="gm-")) for _ in NAMES]
            for place, name in enumerate(NAMES):
                where = places[place if apart else 0]
                seeds = [str(runtime_of(made[0]).whereabouts.bound)] if made else []
                node = gossip.Node(cluster, name=name, key=KEY, runtime_dir=where, bind="127.0.0.1:0", seeds=seeds)
                made.append(await stack.enter_async_context(node))
            ann, bob, _ = made
            await until(lambda: all(len(node.members) == 3 for node in made))
            before, runtime = bob.me.instance, runtime_of(bob)
            for number in range(3):
                bob.map("m")[f"sent {number}"] = number
                await asyncio.sleep(0)
                bob.map("m")[f"not sent {number}"] = number
                buried = runtime.engine.me._replace(status=Status.DEAD, by=())
                with runtime.lock:
                    runtime.engine._born_at = float("-inf")  # else no more than one rebirth a second
                    runtime.perform(heard(runtime, (buried,)))
                bob.map("m")[f"anew {number}"] = number
            assert bob.me.instance != before
            due = {f"{when} {number}": number for when in ("sent", "not sent", "anew") for number in range(3)}
            await until(lambda: all(node.map("m") == due for node in made))
            here = sorted((node.me.name, node.me.instance) for node in made)
            await until(
                lambda: all(sorted((each.name, each.instance) for each in node.members) == here for node in made)
            )
            assert sum(count(node, "impersonated", "forged", "unsealed", "unproved") for node in made) == 0
            ann.map("m")["to him"] = 1
            await until(lambda: "to him" in bob.map("m"))

    asyncio.run(story())


def test_instances_have_the_ids_of_their_keys_and_without_a_key_there_are_none(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, key=KEY) as ann, gossip.Node(cluster + "-open") as open_:
            claim = runtime_of(ann).engine.me
            assert KeyPair(cluster, secrets.token_bytes(32)).verify(claim) and claim.instance == ann.me.instance
            assert runtime_of(open_).engine.me.proof == b""
            first = ann.me.instance
        async with gossip.Node(cluster, key=KEY) as again:
            assert again.me.instance != first, "a pair of keys for each start"

    asyncio.run(story())
