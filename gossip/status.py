"""What is there to know of a running node, for whoever looks for what is wrong?

Numbers of every part, as one plain dict that JSON has: who is known, what is held, what waits for whom, what was
dropped and how often.

Invariants: all of it is as of one moment, and nothing in it is a key or a value of anybody.
Not here: what to make of it (`gossip.cli.diagnosis`), and what a node finds by asking around (`checkup`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gossip.snapshot import TYPES

if TYPE_CHECKING:
    from gossip.node import Node


def status_of(node: Node) -> dict[str, Any]:
    """All that a node tells of itself."""
    runtime = node._running()
    node._settled()
    inside = runtime.door.inside()  # of a signal handler that interrupted a step: to count then would spoil the count
    with runtime.lock:
        engine, replication = runtime.engine, runtime.engine.replication
        digest = None if inside else engine.digest
        objects = [
            {"type": TYPES.get(kind, str(kind)), "name": name, "entries": len(elements)}
            for (kind, name), elements in sorted(node._store.objects.items())
        ]
        return {
            "cluster": node.config.cluster,
            "name": engine.me.name,
            "instance": f"{engine.me.instance:016x}",
            "pid": os.getpid(),
            "ready": engine.repair.ready,
            "addresses": list(engine.me.addresses),
            "members": [
                {"name": member.name, "instance": member.id, "status": member.status}
                | runtime.transport.backlog(member.instance)
                for member in node.members.all
            ],
            "objects": objects,
            "digest": {
                "context": None if digest is None else f"{digest.context:016x}",
                "state": None if digest is None or digest.state is None else f"{digest.state:016x}",
            },
            "replicas": len(node._store.context),
            "writes_delivered": sum(node._store.context.values()),
            "named_early": len(node._store.named),
            "held_back": replication.inbox.size,
            "log_bytes": replication.log.size,
            "coalesced": replication.coalesced + node._drafts.replaced,
            "storage": runtime.keeping.status(),
            "watches": len(list(node._watches)),
            "listeners": len(node._listening),
            "counters": dict(engine.counters + runtime.transport.counters),
        }
