"""Is the key, or a value, in anything that is printed, logged, raised or listed by the system? S8.

A canary of each, and then all that there is to see of a real cluster: logs at the finest level, what handles, nodes and
settings look like when they are printed, tracebacks, the arguments of processes, the status, and every command that is
not there to show values.
"""

from __future__ import annotations

import base64
import signal
import subprocess
import sys
from pathlib import Path

from tests.cli.shell import Process, Shell, until
from tests.integration.processes import free_port

CANARY = b"canary-of-thirty-two-bytes-98765"
KEY = base64.b64encode(CANARY).decode()
VALUE = "canary-value-7d1c"
HIDDEN = (VALUE, KEY, KEY.rstrip("="), CANARY.decode(), CANARY.hex(), repr(CANARY)[2:-1])

PROGRAM = """
import asyncio, logging, os, sys, traceback
import gossip
os.dup2(os.open(os.environ["LOG"], os.O_CREAT | os.O_WRONLY, 0o600), 2)  # a pipe that nobody reads would stop it
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
value = os.environ.pop("VALUE")
async def live():
    node = gossip.Node("shop", name="ann", bind=os.environ["BIND"], data_dir=os.environ["DATA"], discovery_interval=0.2)
    print(repr(node), repr(node.config), node.config, vars(node).keys())
    async with node, node.events() as events:
        secret, typed, one = node.map("secret"), node.map("typed", int), node.register("one")
        secret["k"], one_, _ = value, one.set(value), node.set("all").add(value)
        secret.set("short", value, ttl=0.3)
        runtime = node._runtime
        print(repr(secret), repr(one), node, node.me, node.members, events, node.token, node.seen)
        print(runtime, runtime.keyring, runtime.transport.seal, runtime.engine, runtime.transport, runtime.keeping)
        print(node.status())
        print(await node.snapshot())
        for wrong in (
            lambda: typed.__setitem__("k", value), lambda: secret.__setitem__(object(), value), lambda: secret["none"],
            lambda: secret.__setitem__("k", {value}), lambda: secret.set("k", value, ttl=-1), lambda: node.__reduce__(),
            lambda: gossip.Config(cluster="shop", key=os.environ["GOSSAMESH_KEY"] + "A"),
            lambda: gossip.Node("shop", key=os.environ["GOSSAMESH_KEY"][:20], bind="0.0.0.0:1"),
            lambda: gossip.Config(cluster="shop", key=[os.environ["GOSSAMESH_KEY"], 7]),
            lambda: asyncio.run(node.start()),
        ):
            try:
                wrong()
            except Exception:
                traceback.print_exc()
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, input)
asyncio.run(live(), debug=True)
"""
"""A worker whose author wants to see everything, and makes every mistake."""


def test_no_secret_is_in_anything_that_a_cluster_shows(shell: Shell) -> None:
    port, seen = free_port(), []
    key_file = shell.directory / "shop.key"
    key_file.write_text(KEY + "\n")
    key_file.chmod(0o600)
    log = shell.directory / "ann.log"
    world = {"GOSSAMESH_KEY": KEY, "VALUE": VALUE, "BIND": f"127.0.0.1:{port}", "DATA": str(shell.directory / "data")}
    world["LOG"] = str(log)
    ann = Process([sys.executable, "-X", "dev", "-c", PROGRAM], shell.environment | world, stdin=subprocess.PIPE)
    shell._started.append(ann)
    while (line := ann.line()) != "ready":
        seen.append(line)
    bob = shell.daemon("bob", "shop", "--key-file", str(key_file), "--data-dir", str(shell.directory / "bob"))
    eve = shell.daemon("eve", "shop", GOSSAMESH_DISCOVERY_INTERVAL="0.1")
    until("bob has it", lambda: shell.run("get", "secret", "k", "--node", "bob").out.strip() == VALUE)
    until("eve is refused", lambda: "unsealed" in shell.run("status", "--node", "bob").out)
    saved = str(shell.directory / "all.gossamesh")
    for command in (
        ("status",), ("members",), ("keys",), ("doctor",), ("why", "bob"), ("keys", "secret"),
        ("explain", "hits"), ("get", "nothing"),
        ("snapshot", "save", saved), ("snapshot", "show", saved), ("snapshot", "list", str(shell.directory)),
        ("snapshot", "verify", saved), ("set", "secret", "k", VALUE), ("add", "secret", VALUE), ("incr", "one"),
        ("keygen", str(key_file)), ("keyring", "list"), ("keyring", "add", str(key_file)),
        ("keyring", "add", saved), ("run", "-c", "shop", "--key-file", saved), ("help",),
    ):  # fmt: skip
        for node in ((), ("--node", "bob"), ("--node", "eve")):
            asked = (*command, *node) if command[0] not in ("keygen", "keyring", "run", "help", "snapshot") else command
            for more in ((), ("--json",)):
                result = shell.run(*asked, *more, GOSSAMESH_KEY=KEY)
                shown = result.out + result.err
                if command[0] in ("set", "add"):  # which say what they were told to write
                    shown = result.err
                seen.append(shown)
    for wrong in (KEY + "x", KEY[:-9], "canary " + KEY):
        result = shell.run("doctor", GOSSAMESH_KEY=wrong)
        assert result.code == 1 and "GOSSAMESH_KEY" in result.out + result.err
        seen += [result.out, result.err.replace(KEY, wrong)]
    for pid in (ann.pid, bob.process.pid, eve.process.pid):
        seen += [Path(f"/proc/{pid}/cmdline").read_text(), Path(f"/proc/{pid}/comm").read_text()]
    bob.process.signal(signal.SIGKILL)
    until("bob is missed", lambda: "dead" in shell.run("members", "--node", "ann").out)
    ann.tell("")
    eve.process.signal(signal.SIGTERM)
    seen += [ended.out + ended.err for ended in (ann.wait(), bob.process.wait(), eve.process.wait())]
    seen.append(log.read_text())
    everything = "".join(seen)
    for shown in ("DEBUG", "Traceback", "<Node of cluster", "unsealed", "WrongType", "has another key"):
        assert shown in everything, f"{shown} is a part of what is searched"
    for hidden in HIDDEN:
        assert hidden not in everything, everything[max(0, everything.index(hidden) - 300) :][:600]
