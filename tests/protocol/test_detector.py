"""What does the detector ask and judge, taken alone?"""

from __future__ import annotations

from math import inf

import pytest

from gossip.protocol.detector import Ask, Detector, Verdict
from gossip.protocol.settings import Settings


def detector() -> Detector:
    return Detector(Settings())


def test_a_probe_goes_ping_then_others_then_suspicion() -> None:
    probes = detector()
    assert probes.deadline == inf
    assert probes.probe(7, now=0.0) == Ask(7, 1, others=False)
    assert probes.deadline == 0.5
    assert probes.tick(0.4) == ([], [])
    assert probes.tick(0.5) == ([], [Ask(7, 1, others=True)])
    assert probes.deadline == 1.0
    assert probes.tick(1.0) == ([Verdict(7, False, "no ack within 1.00 s, directly or through others")], [])
    assert probes.deadline == inf


def test_others_have_the_rest_of_the_interval_however_short_the_timeout_is() -> None:
    probes = Detector(Settings(probe_interval=5.0, probe_timeout=0.2))
    probes.probe(7, now=0.0)
    assert probes.tick(0.2) == ([], [Ask(7, 1, others=True)])
    assert probes.tick(4.9) == ([], [])
    assert probes.tick(5.0) == ([Verdict(7, False, "no ack within 5.00 s, directly or through others")], [])


def test_an_ack_ends_the_probe_and_tells_the_round_trip() -> None:
    probes = detector()
    probes.probe(7, now=0.0)
    assert probes.acked(1, 7, now=0.03) is None
    assert probes.rtt == {7: pytest.approx(0.03)}
    assert probes.tick(5.0) == ([], [])


def test_the_ack_of_a_witness_ends_the_probe_but_is_no_round_trip() -> None:
    probes = detector()
    probes.probe(7, now=0.0)
    probes.tick(0.5)
    probes.widened(1, [8, 9])
    probes.acked(1, 8, now=0.6)
    assert probes.rtt == {}
    assert probes.tick(5.0) == ([], [])


def test_the_ack_of_one_who_was_not_asked_ends_nothing() -> None:
    probes = detector()
    probes.probe(7, now=0.0)
    probes.tick(0.5)
    probes.widened(1, [8])
    probes.acked(1, 9, now=0.6)
    verdicts, _ = probes.tick(5.0)
    assert [verdict.instance for verdict in verdicts] == [7]


def test_before_others_were_asked_only_the_member_itself_can_answer() -> None:
    """A successor at its address would otherwise answer for the dead, for ever."""
    probes = detector()
    probes.probe(7, now=0.0)
    probes.acked(1, 8, now=0.1)
    assert probes.tick(0.5) == ([], [Ask(7, 1, others=True)])


def test_an_ack_of_a_number_that_nobody_asked_for_is_nothing() -> None:
    probes = detector()
    probes.probe(7, now=0.0)
    assert probes.acked(99, 7, now=0.1) is None
    assert probes.deadline == 0.5


def test_one_probe_of_a_member_at_a_time_but_a_hint_goes_beside_it() -> None:
    probes = detector()
    assert probes.probe(7, now=0.0) is not None
    assert probes.probe(7, now=0.1) is None
    assert probes.probe(7, now=0.1, hint="its stream ended") == Ask(7, 2, others=True)
    assert probes.probe(7, now=0.1, hint="its stream ended") is None
    assert probes.probe(7, now=0.1) is None


def test_a_hint_leaves_a_suspect_after_200_milliseconds_and_little_time_then() -> None:
    probes = detector()
    probes.probe(7, now=0.0, hint="its stream ended")
    assert probes.tick(0.19) == ([], [])
    why = "its stream ended, and nobody reached it within 0.20 s"
    assert probes.tick(0.2) == ([Verdict(7, dead=False, why=why, hinted=True)], [])
    probes.suspect(7, members=3, now=0.2, hinted=True)
    probes.suspect(7, members=3, now=0.2)
    assert probes.deadline == 1.2, "the shorter time holds, whoever else suspects it"


@pytest.mark.parametrize("number", [1, 2])
def test_any_ack_ends_all_probes_of_the_member(number: int) -> None:
    probes = detector()
    probes.probe(7, now=0.0)
    probes.probe(7, now=0.1, hint="its stream ended")
    probes.acked(number, 7, now=0.2)
    assert probes.tick(5.0) == ([], [])


def test_a_suspect_has_four_intervals_and_more_among_many() -> None:
    for members, patience in ((2, 4.0), (10, 4.0), (100, 8.0), (1000, 12.0)):
        probes = detector()
        probes.suspect(7, members, now=1.0)
        assert probes.deadline == pytest.approx(1.0 + patience)
        assert probes.tick(1.01 + patience)[0] == [Verdict(7, True, "it was suspected and did not refute in time")]


def test_a_suspicion_heard_again_runs_on_and_one_cleared_is_over() -> None:
    probes = detector()
    probes.suspect(7, 2, now=0.0)
    probes.suspect(7, 2, now=3.0)
    assert probes.deadline == 4.0
    probes.clear(7)
    assert probes.tick(9.0) == ([], [])


def test_lateness_puts_off_everything_that_was_under_way() -> None:
    probes = detector()
    probes.probe(7, now=0.0)
    probes.suspect(8, 2, now=0.0)
    probes.late(10.0, now=10.5)
    assert probes.tick(10.5) == ([], []), "what was due at that very moment has time as well"
    assert probes.tick(11.0) == ([], [Ask(7, 1, others=True)])
    assert probes.tick(14.4)[0] == [Verdict(7, False, "no ack within 14.40 s, directly or through others")]
    assert [verdict.instance for verdict in probes.tick(14.5)[0]] == [8]


def test_a_relayed_ping_is_answered_to_the_asker_once() -> None:
    probes = detector()
    mine = probes.relay(asker=5, number=77, target=7, now=0.0)
    assert probes.acked(mine, 8, now=0.1) is None, "not the one that was asked about"
    assert probes.acked(mine, 7, now=0.1) == (5, 77)
    assert probes.acked(mine, 7, now=0.1) is None


def test_relays_that_are_never_answered_are_forgotten() -> None:
    probes = detector()
    for number in range(100):
        probes.relay(5, number, 7, now=float(number))
    assert len(probes._relays) <= 4


def test_of_a_member_that_is_gone_nothing_is_kept() -> None:
    probes = detector()
    probes.probe(7, now=0.0)
    probes.acked(1, 7, now=0.1)
    probes.probe(7, now=1.0)
    probes.probe(7, now=1.0, hint="its stream ended")
    probes.suspect(7, 2, now=1.0)
    probes.gone(7)
    assert (probes.deadline, probes.rtt) == (inf, {})
