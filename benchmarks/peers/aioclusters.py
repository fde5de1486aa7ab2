"""How fast is aiocluster, chitchat's protocol for asyncio?

A library in Python for 3.13 and later, so it runs with a Python of its own, which `make bench-peers` makes if there is
one so new. It speaks TCP, a connection for each exchange. As for chitchat: in rounds of a second, which is its default,
and of 50 ms, for speed; a node writes only its own keys, and a write waits for the next round.
"""

from benchmarks.peers.scuttlebutt import in_rounds

PEER = in_rounds("aiocluster")
