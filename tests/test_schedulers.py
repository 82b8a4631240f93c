import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpopt.core.rungs import bracket_of, max_brackets, rung_levels
from hpopt.core.schedulers.asha import Asha
from hpopt.core.schedulers.base import NoStopping, Scheduler, Stop, in_words, make_scheduler
from hpopt.core.schedulers.median import MedianStop
from hpopt.core.trial import Trial
from tests.simulation import Simulation

BAD = -math.inf  # the goodness of a score that was not finite


def trial(number: int, bracket: int = 0) -> Trial:
    """A trial of this number."""
    return Trial(id=number, params={}, bracket=bracket)


def feed(rule: Scheduler, number: int, scores: Iterable[float], first: int = 1) -> list[bool]:
    """Report a trial's goodness from step `first` on; whether it is told to stop, step by step."""
    return [rule.observe(trial(number), step, score) is not None for step, score in enumerate(scores, first)]


# --- which rule

RULES = [("bayes_opt", None, NoStopping), ("bayes_opt", "median_stop", MedianStop), ("asha", None, Asha)]


@pytest.mark.parametrize(("search_alg", "early_stop", "rule"), RULES)
def test_the_rule_of_a_spec(search_alg: str, early_stop: str | None, rule: type) -> None:
    """The algorithm and early_stop decide which rule there is."""
    assert isinstance(make_scheduler(Simulation().spec(search_alg=search_alg, early_stop=early_stop)), rule)


def test_no_stopping_never_stops() -> None:
    """Without a rule every trial goes on, however bad."""
    rule = NoStopping()
    assert not any(feed(rule, 0, [1.0, BAD, -1e300]))
    rule.forget(trial(0))


# --- ASHA


@pytest.mark.parametrize(
    ("low", "high", "eta", "levels"),
    [
        (1, 243, 3, (1, 3, 9, 27, 81, 243)),
        (1, 10, 3, (1, 3, 9, 10)),
        (1, 1000, 10, (1, 10, 100, 1000)),
        (1, 16, 2, (1, 2, 4, 8, 16)),
        (2, 10, 2, (2, 4, 8, 10)),
        (5, 50, 3, (5, 15, 45, 50)),
        (1, 1, 3, (1,)),
        (4, 4, 2, (4,)),
        (9, 4, 2, (4,)),
        (1, 3**12, 3, tuple(3**k for k in range(13))),
    ],
)
def test_rungs(low: int, high: int, eta: int, levels: tuple[int, ...]) -> None:
    """Powers in integers, the last rung is max_iterations."""
    assert rung_levels(low, high, eta) == levels
    assert max_brackets(low, high, eta) == len(levels)


@given(low=st.integers(1, 50), high=st.integers(1, 10**6), eta=st.integers(2, 10), bracket=st.integers(0, 8))
def test_rungs_rise(low: int, high: int, eta: int, bracket: int) -> None:
    """Rungs rise and end with max_iterations; each bracket begins where the one before has its second."""
    levels = rung_levels(low, high, eta, bracket)
    assert list(levels) == sorted(set(levels))
    assert levels[-1] == high
    assert rung_levels(low, high, eta, bracket + 1) == (levels[1:] or levels)


def asha(levels: tuple[int, ...] = (1, 3, 9), eta: int = 3, sign: float = 1.0) -> Asha:
    """The rule with one bracket."""
    return Asha([levels], eta, sign)


def test_asha_keeps_the_best_third() -> None:
    """Of all who arrived at a rung so far, the best third goes on, and at least one."""
    rule = asha()
    arrivals = [5.0, 4.0, 6.0, 5.5, 1.0, 5.6, 5.4]
    # kept so far:  1    1    1    1    1    2    2
    assert [rule.observe(trial(i), 1, score) is None for i, score in enumerate(arrivals)] == [
        True, False, True, False, False, True, False,
    ]  # fmt: skip


def test_asha_lets_ties_go_on() -> None:
    """Who is as good as the worst that is kept goes on."""
    rule = asha()
    assert [rule.observe(trial(i), 1, 5.0) for i in range(6)] == [None] * 6


@pytest.mark.parametrize("rule", [asha(), MedianStop(0, 1)], ids=["asha", "median_stop"])
def test_a_score_of_a_repeated_step_counts(rule: Scheduler) -> None:
    """A later attempt goes over steps again: nothing is judged there, and its scores may be the best later on."""
    feed(rule, 0, [0.85] * 9)
    assert rule.observe(trial(1), 1, 0.86) is None
    assert rule.observe(trial(1), 1, 0.1) is None
    assert rule.observe(trial(1), 1, 0.9) is None
    assert rule.observe(trial(1), 2, 0.8) is None
    assert rule.observe(trial(1), 3, 0.8) is None
    assert rule.marks(trial(1))[0] == (1, 0.86)
    assert rule.marks(trial(1))[-1][1] == 0.9
    rule.forget(trial(1))
    assert rule.marks(trial(1)) == ()


@pytest.mark.parametrize(
    ("value", "worst", "words"),
    [
        (0.5, 0.6, ("0.5", "0.6")),
        (1000.0001, 1000.0002, ("1000.0001", "1000.0002")),
        (1 / 3, math.nextafter(1 / 3, 1), ("0.3333333333333333", "0.3333333333333334")),
        (BAD, 2.0, ("no valid score", "2")),
    ],
)
def test_reasons_tell_scores_apart(value: float, worst: float, words: tuple[str, str]) -> None:
    """With as many digits as that takes, and in words where there is no score."""
    assert (in_words(value, worst, 1.0), in_words(worst, value, 1.0)) == words
    assert in_words(0.5, 0.75, -1.0) == "-0.5"


def test_asha_decides_at_rungs_only() -> None:
    """Between two rungs, and at the last one, nobody stops."""
    rule = asha()
    assert not any(feed(rule, 0, [9.0] * 9))
    stops = feed(rule, 1, [9.0, 0.0, 9.0, *[0.0] * 6])
    assert not any(stops)
    assert feed(rule, 2, [9.0, 9.0, 9.0, *[9.0] * 6]) == [False] * 9


def test_asha_takes_the_best_so_far() -> None:
    """At a rung a trial counts with its best score so far, not with its last."""
    rule = asha()
    feed(rule, 0, [5.0, 5.0, 5.0])
    assert feed(rule, 1, [6.0, 1.0, 1.0]) == [False, False, False]
    assert rule.rungs[0][1] == [5.0, 6.0]


@pytest.mark.parametrize(
    ("reports", "recorded", "stops"),
    [
        ([(1, 4.0), (9, 8.0)], [4.0, 4.0], True),
        ([(2, 8.0), (3, 1.0)], [None, 8.0], False),
        ([(4, 8.0)], [None, None], False),
        ([(3, 4.0)], [None, 4.0], True),
        ([(1, 6.0), (2, 8.0), (4, 9.0)], [6.0, 8.0], False),
    ],
    ids=["jump to the end", "late, but good", "nothing known", "first report at a rung", "best before the rung"],
)
def test_asha_when_a_report_jumps_over_rungs(
    reports: list[tuple[int, float]], recorded: list[float | None], stops: bool
) -> None:
    """A rung that was jumped over gets the best score known before, or nothing; the highest one passed decides."""
    rule = asha()
    feed(rule, 100, [5.0, 5.0, 5.0])
    answers = [rule.observe(trial(0), step, score) for step, score in reports]
    assert rule.progress[0].recorded == recorded
    assert (answers[-1] is not None) == stops
    assert rule.rungs[0] == [[5.0] if value is None else sorted([5.0, value]) for value in recorded]


def test_asha_ranks_invalid_scores_worst() -> None:
    """A trial without a valid score is stopped by anybody's; alone, it goes on."""
    rule = asha()
    assert rule.observe(trial(0), 1, BAD) is None
    assert rule.observe(trial(1), 1, -1e300) is None
    assert rule.observe(trial(2), 1, BAD) is not None


def test_asha_in_mode_min() -> None:
    """Smaller scores are better, and the reason names them as they were reported."""
    rule = Asha.of(Simulation().spec(search_alg="asha", mode="min", max_iterations=9, reduction_factor=3))
    assert rule.observe(trial(0), 1, -0.5) is None
    assert rule.observe(trial(1), 1, -0.25) is None
    reason = "asha: 0.75 at rung 1 is not among the best 1 of 3 (worst kept: 0.25)"
    assert rule.observe(trial(2), 1, -0.75) == Stop("asha", step=1, score=0.75, threshold=0.25, reason=reason)


def test_asha_does_not_mix_brackets() -> None:
    """A trial is compared with those of its own bracket."""
    rule = Asha([(1, 3, 9), (3, 9)], 3)
    for step in (1, 3):
        assert rule.observe(trial(0, bracket=0), step, 9.0) is None
    assert rule.observe(trial(1, bracket=1), 3, 1.0) is None
    assert rule.observe(trial(2, bracket=1), 3, 0.0) is not None


def test_asha_forgets() -> None:
    """What is forgotten no longer counts, and the trial begins anew."""
    rule = asha()
    feed(rule, 0, [5.0, 5.0, 5.0])
    feed(rule, 1, [7.0, 7.0, 7.0])
    rule.forget(trial(1))
    rule.forget(trial(1))
    assert rule.rungs == [[[5.0], [5.0]]]
    assert feed(rule, 1, [5.5, 5.5, 5.5]) == [False] * 3


events = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.floats(-5, 5) | st.just(BAD)), max_size=30)


@given(events, st.sampled_from(["asha", "median_stop"]), st.data())
def test_rules_can_be_rebuilt(events: list[tuple[int, int, float]], kind: str, data: st.DataObject) -> None:
    """Fed trial by trial instead of as they came, and with one forgotten, a rule ends up in the same state."""

    def make() -> Any:
        return asha((1, 2, 4, 8, 16)) if kind == "asha" else MedianStop(0, grace=1, min_peers=2, lenient_every=2)

    live = make()
    curves: dict[int, list[tuple[int, float]]] = {number: [] for number in range(6)}
    for number, ahead, score in events:
        step = (curves[number][-1][0] if curves[number] else 0) + ahead
        curves[number].append((step, score))
        live.observe(trial(number), step, score)
    gone = data.draw(st.integers(0, 6))
    live.forget(trial(gone))
    rebuilt = make()
    for number, curve in curves.items():
        if curve and number != gone:
            rebuilt.recall(trial(number), curve)
    rebuilt.forget(trial(gone))
    if kind == "asha":
        assert (rebuilt.rungs, rebuilt.progress) == (live.rungs, live.progress)
    else:
        steps = {step: means for step, means in live.by_step.items() if means}
        assert (rebuilt.by_step, rebuilt.curves) == (steps, live.curves)
    for number, curve in curves.items():
        following = (curve[-1][0] if curve and number != gone else 0) + 1
        assert rebuilt.observe(trial(number), following, 0.0) == live.observe(trial(number), following, 0.0)


# --- brackets


def test_brackets_are_drawn_with_the_shares_of_hyperband() -> None:
    """Bracket s of K + 1 gets a share of eta^(K-s) (K+1) / (K-s+1); trials with the same number always the same."""
    spec = Simulation().spec(search_alg="asha", max_iterations=27, reduction_factor=3, num_brackets=4)
    drawn = Counter(bracket_of(spec, number) for number in range(4000))
    weights = [27, 9 * 4 / 3, 3 * 4 / 2, 4]
    for bracket, weight in enumerate(weights):
        assert drawn[bracket] / 4000 == pytest.approx(weight / sum(weights), abs=0.03)
    assert [bracket_of(spec, number) for number in range(50)] == [bracket_of(spec, number) for number in range(50)]


@pytest.mark.parametrize("brackets", [None, 1])
def test_one_bracket(brackets: int | None) -> None:
    """None means one bracket, the most aggressive one."""
    spec = Simulation().spec(search_alg="asha", max_iterations=27, reduction_factor=3, num_brackets=brackets)
    assert {bracket_of(spec, number) for number in range(20)} == {0}
    assert Asha.of(spec).levels == [(1, 3, 9)]


def test_as_many_brackets_as_rungs() -> None:
    """(1, 243, 3) has six brackets; the last of them stops nobody."""
    spec = Simulation().spec(search_alg="asha", max_iterations=243, reduction_factor=3, num_brackets=6)
    assert Asha.of(spec).levels[0] == (1, 3, 9, 27, 81)
    assert Asha.of(spec).levels[5] == ()
    assert Asha.of(spec).observe(trial(0, bracket=5), 243, 0.0) is None
