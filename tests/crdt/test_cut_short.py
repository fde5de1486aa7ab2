"""What if a signal handler raises in the middle of counting?

At any line: a soft time limit or Ctrl-C comes wherever it likes. Not here: who is cut short while writing
(test_replication, in tests/protocol).
"""

from __future__ import annotations

import sys

from crdt import Store, Write

ANN = 0xA


def test_who_is_cut_short_while_he_counts_has_counted_nothing() -> None:
    """A signal handler raised (a soft time limit, Ctrl-C) at any line: what was counted twice was wrong for ever."""

    class TimeIsUp(Exception):
        pass

    def cut_short_at(event: int) -> bool:
        store, events = Store(), 0
        for number in range(1, 4):
            store.merge(Write((ANN, number), (1, "m", b"%d" % number), number, b"\x01", (), 0 if number < 3 else 70))
        store.merge(Write((ANN, 4), (1, "m", b"1"), 4, None, ((ANN, 1),)))

        def trace(frame: object, what: str, argument: object) -> object:
            nonlocal events
            events += 1
            if events == event:
                raise TimeIsUp
            return trace

        tracing = sys.gettrace()
        try:
            sys.settrace(trace)  # type: ignore[arg-type]
            told = store.fingerprint, store.context_fingerprint()
            assert told
        except TimeIsUp:
            pass
        finally:
            sys.settrace(tracing)
        told = store.fingerprint, store.context_fingerprint()
        store.recount()
        assert told == (store.fingerprint, store.context.fingerprint()), f"cut short at event {event}"
        return events >= event

    event = 1
    while cut_short_at(event):
        event += 1
    assert event > 30
