"""What does the detector ask and judge, taken alone?"""

from __future__ import annotations

from math import inf

import pytest

from gossip.protocol.detector import Ask, Detector, Verdict
from gossip.protocol.settings import Settings


def detector() -> Detector:
    return Detector(Settings())


def unheard(seconds: float) -> Verdict:
    """Of member 7, of whom nobody was asked and nothing is known."""
    why = f"no ack within {seconds:.2f} s, directly or through others; it never answered before"
    return Verdict(7, False, why)


def test_a_probe_goes_ping_then_others_then_suspicion() -> None:
    probes = detector()
    assert probes.deadline == inf
    assert probes.probe(7, now=0.0) == Ask(7, 1, others=False)
    assert probes.deadline == 0.5
    assert probes.tick(0.4) == ([], [])
    assert probes.tick(0.5) == ([], [Ask(7, 2, others=True)])
    assert probes.deadline == 1.0
    assert probes.tick(1.0) == (
        [unheard(1.00)],
        [],
    )
    assert probes.deadline == inf


def test_others_have_the_rest_of_the_interval_however_short_the_timeout_is() -> None:
    probes = Detector(Settings(probe_interval=5.0, probe_timeout=0.2))
    probes.probe(7, now=0.0)
    assert probes.tick(0.2) == ([], [Ask(7, 2, others=True)])
    assert probes.tick(4.9) == ([], [])
    assert probes.tick(5.0) == (
        [unheard(5.00)],
        [],
    )


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
    probes.widened(2, [8, 9])
    probes.acked(2, 8, now=0.6)
    assert probes.rtt == {}
    assert probes.tick(5.0) == ([], [])


def test_the_ack_of_one_who_was_not_asked_ends_nothing() -> None:
    probes = detector()
    probes.probe(7, now=0.0)
    probes.tick(0.5)
    probes.widened(2, [8])
    probes.acked(2, 9, now=0.6)
    verdicts, _ = probes.tick(5.0)
    assert [verdict.instance for verdict in verdicts] == [7]


def test_before_others_were_asked_only_the_member_itself_can_answer() -> None:
    """A successor at its address would otherwise answer for the dead, for ever."""
    probes = detector()
    probes.probe(7, now=0.0)
    probes.acked(1, 8, now=0.1)
    assert probes.tick(0.5) == ([], [Ask(7, 2, others=True)])


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
    probes.suspect(7, members=3, accusers=1, now=0.2, hinted=True)
    probes.suspect(7, members=3, accusers=1, now=0.2)
    assert probes.deadline == 1.2, "the shorter time holds, whoever else suspects it"


@pytest.mark.parametrize("number", [1, 2])
def test_any_ack_ends_all_probes_of_the_member(number: int) -> None:
    probes = detector()
    probes.probe(7, now=0.0)
    probes.probe(7, now=0.1, hint="its stream ended")
    probes.acked(number, 7, now=0.2)
    assert probes.tick(5.0) == ([], [])


@pytest.mark.parametrize(("members", "least"), [(2, 4.0), (10, 4.0), (100, 8.0), (1000, 12.0)])
def test_a_suspect_whom_three_suspect_has_four_intervals_and_more_among_many(members: int, least: float) -> None:
    probes = detector()
    probes.suspect(7, members, accusers=3, now=1.0)
    assert probes.deadline == pytest.approx(1.0 + least)
    (verdict,) = probes.tick(1.01 + least)[0]
    assert verdict == Verdict(7, True, f"it was suspected and did not refute within {0.01 + least:.2f} s")


@pytest.mark.parametrize(
    ("members", "accusers", "patience"),
    [(10, 1, 24.0), (10, 2, 11.38), (10, 3, 4.0), (10, 9, 4.0), (3, 1, 24.0), (3, 2, 4.0), (2, 1, 4.0), (1, 1, 4.0)],
)
def test_a_suspicion_is_shorter_the_more_confirm_it(members: int, accusers: int, patience: float) -> None:
    """Lifeguard: one accuser may be the one who is ill. Among three only one other can say so too, among two nobody."""
    probes = detector()
    probes.suspect(7, members, accusers, now=0.0)
    assert probes.deadline == pytest.approx(patience, abs=0.01)


def test_who_confirms_later_shortens_the_time_that_runs_and_does_not_begin_it_anew() -> None:
    probes = detector()
    probes.suspect(7, 10, accusers=1, now=0.0)
    probes.suspect(7, 10, accusers=3, now=3.0)
    assert probes.deadline == 4.0
    probes.suspect(7, 10, accusers=1, now=3.5)
    assert probes.deadline == 4.0
    probes.clear(7)
    assert probes.tick(9.0) == ([], [])


def test_a_timeout_follows_the_round_trips_within_its_bounds() -> None:
    probes = detector()
    assert probes.timeout(7) == 0.5, "nothing is known of it"
    for trip, timeout in ((0.001, 0.05), (0.03, 0.12), (0.002, 0.12), (0.4, 0.5)):
        ask = probes.probe(7, now=0.0)
        assert ask is not None
        probes.acked(ask.number, 7, now=trip)
        assert probes.timeout(7) == pytest.approx(timeout)
    assert probes.timeout(8) == 0.5


def test_an_answer_that_came_by_stream_is_no_round_trip_of_a_datagram() -> None:
    """Where datagrams are dropped every answer comes after the timeout, which would grow by it each time."""
    probes = detector()
    for turn in range(3):
        assert probes.takes_datagrams(7) is None
        probes.probe(7, now=float(turn))
        (ask,) = probes.tick(turn + 0.5)[1]
        probes.acked(ask.number, 7, now=turn + 0.51)
    assert (probes.timeout(7), probes.takes_datagrams(7)) == (0.5, False)
    assert probes.rtt[7] == pytest.approx(0.01), "since the second ping"
    first = probes.probe(7, now=9.0)
    assert first is not None
    probes.acked(first.number, 7, now=9.02)
    assert probes.takes_datagrams(7) is True
    first = probes.probe(7, now=10.0)
    probes.tick(10.5)
    assert first is not None
    probes.acked(first.number, 7, now=10.5)
    assert probes.rtt[7] == pytest.approx(0.02), "it stood still, and answered the first ping as the second was sent"


def test_a_round_trip_ends_when_the_ack_came_and_not_when_it_was_read() -> None:
    probes = detector()
    probes.probe(7, now=1.0)
    probes.acked(1, 7, now=1.4, ago=0.38)
    assert probes.rtt[7] == pytest.approx(0.02) and probes.timeout(7) == pytest.approx(0.08)
    probes.probe(7, now=2.0)
    probes.acked(2, 7, now=2.4, ago=None)
    assert probes.rtt[7] == pytest.approx(0.02), "nobody knows how long it lay there"
    assert not probes.waits and probes.heard[7] == 2.4, "but it came"
    probes.probe(7, now=3.0)
    probes.acked(3, 7, now=3.1, ago=0.2)
    assert probes.rtt[7] == 0.0, "before it was asked for nothing can have come: a clock was set"


def test_who_asks_by_two_ways_is_one_who_asks() -> None:
    probes = detector()
    mine = probes.relay(3, 11, 7, now=0.0)
    assert mine is not None and probes.relay(3, 11, 7, now=0.1) is None
    assert probes.relay(4, 11, 7, now=0.1) is not None, "another one may use the same number"
    probes.probe(7, now=1.0)
    probes.widened(3, [8, 9])
    for _ in range(2):
        probes.nacked(3, 8)
    probes.tick(1.5)
    verdicts, _ = probes.tick(2.5)
    assert "2 were asked and 1 had no answer" in verdicts[0].why and probes.health == 1


def failed_probe(probes: Detector, now: float, witnesses: list[int], nacks: list[int]) -> None:
    ask = probes.probe(7, now)
    assert ask is not None
    probes.tick(now + probes.timeout(7))
    probes.widened(ask.number, witnesses)
    for sender in nacks:
        probes.nacked(ask.number, sender)
    assert probes.tick(now + probes.interval)[0]


@pytest.mark.parametrize(
    ("witnesses", "nacks", "health"),
    [([], [], 1), ([8, 9], [8, 9], 0), ([8, 9], [8], 1), ([8, 9], [], 2), ([8], [5], 1)],
)
def test_who_is_not_heard_by_witnesses_mistrusts_itself(witnesses: list[int], nacks: list[int], health: int) -> None:
    """A witness has an answer or says that it has none. If it says nothing, it may be we who are cut off."""
    probes = detector()
    failed_probe(probes, 0.0, witnesses, nacks)
    assert probes.health == health
    assert (probes.interval, probes.timeout(7)) == (health + 1.0, 0.5 * (health + 1))


def test_health_is_bounded_and_comes_back_with_every_answer() -> None:
    probes = detector()
    for turn in range(9):
        failed_probe(probes, 100.0 * turn, [8, 9], [])
    assert (probes.health, probes.interval) == (7, 8.0)
    for turn in range(9):
        ask = probes.probe(7, now=2000.0 + turn)
        assert ask is not None
        probes.acked(ask.number, 7, now=2000.01 + turn)
    assert (probes.health, probes.interval) == (0, 1.0)


def test_a_witness_without_an_answer_says_so_once_before_the_asker_judges() -> None:
    probes = detector()
    mine = probes.relay(asker=5, number=77, target=7, now=0.0)
    assert probes.deadline == pytest.approx(0.4)
    assert probes.nacks(0.39) == []
    assert probes.nacks(0.4) == [(5, 77)]
    assert probes.nacks(0.5) == []
    assert probes.acked(mine, 7, now=0.6) == (5, 77), "a late answer is passed on all the same"


def test_lateness_puts_off_everything_that_was_under_way() -> None:
    probes = detector()
    probes.probe(7, now=0.0)
    probes.suspect(8, 2, accusers=1, now=0.0)
    probes.late(10.0, now=10.5)
    assert probes.tick(10.5) == ([], []), "what was due at that very moment has time as well"
    assert probes.tick(11.0) == ([], [Ask(7, 2, others=True)])
    assert probes.tick(14.4)[0] == [unheard(14.40)]
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
    probes.suspect(7, 2, accusers=1, now=1.0)
    probes.gone(7)
    assert (probes.deadline, probes.rtt) == (inf, {})


# -- far ones ----------------------------------------------------------------------------------------------------------


def answered(probes: Detector, now: float, trip: float) -> None:
    """A probe of member 7, answered after so long, whatever was judged meanwhile."""
    ask = probes.probe(7, now)
    assert ask is not None
    while probes.waits and probes.deadline < now + trip:
        probes.tick(probes.deadline)
    assert probes.acked(ask.number, 7, now + trip) is None
    probes.ail(-7)  # how well we are ourselves is another story


def test_an_answer_that_comes_after_the_verdict_is_a_round_trip_and_the_next_probe_waits_for_it() -> None:
    probes = detector()
    probes.wake(0.0)
    probes.next_round = inf
    ask = probes.probe(7, now=0.0)
    (other,) = probes.tick(0.5)[1]
    assert probes.tick(1.0)[0] == [unheard(1.00)] and not probes.waits
    assert ask is not None and (ask.number, other.number) == (1, 2)
    probes.acked(1, 7, now=3.0)
    assert probes.rtt[7] == 3.0 and probes.heard[7] == 3.0
    assert probes.timeout(7) == 4.5
    probes.probe(7, now=10.0)
    assert probes.tick(14.4) == ([], []) and len(probes.tick(14.5)[1]) == 1
    assert probes.tick(21.9) == ([], []), "a witness is as far from it as we are, and from us"
    assert [verdict.instance for verdict in probes.tick(22.0)[0]] == [7]


def test_the_number_of_an_answer_tells_which_ping_it_answers() -> None:
    """Else it is not known whether the first took long or was lost, and a timeout that follows either never fits."""
    probes = detector()
    probes.probe(7, now=0.0)
    (second,) = probes.tick(0.5)[1]
    probes.tick(1.0)
    probes.acked(second.number, 7, now=3.0)
    assert probes.rtt[7] == 2.5


def test_the_answer_of_a_witness_counts_after_the_verdict_too_but_that_of_nobody_else() -> None:
    probes = detector()
    probes.probe(7, now=0.0)
    (ask,) = probes.tick(0.5)[1]
    probes.widened(ask.number, [8])
    probes.tick(1.0)
    assert probes.probed(ask.number, 8) == 7 and probes.probed(ask.number, 9) is None
    probes.acked(ask.number, 9, now=2.0)
    assert probes.probed(ask.number, 8) == 7, "what nobody was asked for ends nothing"
    health = probes.health
    probes.acked(ask.number, 8, now=3.0)
    assert probes.rtt == {} and probes.probed(ask.number, 8) is None
    assert probes.health == health > 0, "who hears it late goes on mistrusting itself"


def test_who_stood_still_once_is_not_far_and_who_is_near_again_is_not_either() -> None:
    """A crash of a near one is noticed as soon as ever, whatever befell it before."""
    probes = detector()
    for turn, trip in enumerate((0.001, 3.0, 3.0, 3.0)):
        answered(probes, 10.0 * turn, trip)
        assert probes.timeout(7) == 0.05
    answered(probes, 40.0, 3.0)
    assert probes.timeout(7) == 4.5, "the last four, all of them"
    answered(probes, 50.0, 0.001)
    assert probes.timeout(7) == 0.05


def test_of_whom_nothing_is_known_is_as_far_as_the_farthest_is_and_nobody_farther_than_four_intervals() -> None:
    probes = detector()
    answered(probes, 0.0, 0.2)
    assert (probes.timeout(7), probes.timeout(8)) == (0.5, 0.5)
    probes.gone(7)
    answered(probes, 10.0, 2.0)
    assert (probes.timeout(7), probes.timeout(8)) == (3.0, 3.0)
    probes.gone(7)
    answered(probes, 20.0, 60.0)
    assert (probes.timeout(7), probes.timeout(8)) == (6.0, 6.0)


def test_a_hint_on_a_far_one_waits_for_its_answer_and_so_does_the_suspicion() -> None:
    probes = detector()
    answered(probes, 0.0, 2.0)
    probes.probe(7, now=10.0, hint="its stream ended")
    assert probes.tick(14.9) == ([], [])
    assert [verdict.hinted for verdict in probes.tick(15.0)[0]] == [True]
    probes.suspect(7, 3, accusers=1, now=15.0, hinted=True)
    assert probes.deadline == 19.0, "and not an interval"
    probes.gone(7)
    answered(probes, 30.0, 3.0)
    probes.suspect(7, 3, accusers=2, now=40.0)
    assert probes.deadline == 46.0, "two round trips, and not four intervals"


@pytest.mark.parametrize(("hinted", "least"), [(False, 4.0), (True, 1.0)])
def test_a_suspect_that_is_heard_has_the_least_time_from_then_on(hinted: bool, least: float) -> None:
    """It lives, and what refutes the suspicion is on its way."""
    probes = detector()
    probes.suspect(7, 2, accusers=1, now=0.0, hinted=hinted)
    probes.alive(8, now=0.1)
    assert probes.deadline == least
    probes.alive(7, now=0.9)
    assert probes.deadline == 0.9 + least
    assert [verdict.dead for verdict in probes.tick(0.9 + least)[0]] == [True]
    probes.alive(7, now=9.0)
    assert probes.deadline == inf


def test_others_who_accuse_one_that_was_heard_just_now_do_not_take_its_time() -> None:
    """They did: who had been suspected for long, and was heard, had half a second from when others said so as well."""
    probes = detector()
    probes.suspect(7, 10, accusers=1, now=0.0)
    probes.alive(7, now=20.0)
    probes.suspect(7, 10, accusers=3, now=20.1)
    assert probes.deadline == 24.0, "the least time, from when it was heard"
    probes.suspect(7, 10, accusers=1, now=20.2, hinted=True)
    assert probes.deadline == 21.2, "but its stream ended since"


def test_of_probes_that_nobody_ever_answers_the_last_are_remembered() -> None:
    probes = detector()
    for turn in range(1000):
        probes.probe(turn, now=100.0 * turn)
        while probes.waits:
            probes.tick(probes.deadline)
    assert probes.probed(1, 0) is None and probes.probed(1999, 999) == 999
    assert len(probes._judged) == 64
