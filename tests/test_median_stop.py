import copy
import math
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpopt.core.schedulers import median as median_module
from hpopt.core.schedulers.base import Stop
from hpopt.core.schedulers.median import MedianStop
from tests.simulation import Simulation
from tests.test_schedulers import BAD, feed, trial


def median_rule(iterations: int = 10, first_trial: int = 0) -> MedianStop:
    """A rule with one step of grace and three peers whose means are 1, 2 and 3 at every step."""
    rule = MedianStop(first_trial, math.ceil(0.1 * iterations), min_peers=3)
    for number, score in enumerate([1.0, 2.0, 3.0], start=100):
        assert not any(feed(rule, number, [score] * iterations))
    return rule


@pytest.mark.parametrize(
    ("best", "stops"),
    [(1.9, True), (2.0, False), (2.1, False), (BAD, True)],
    ids=["worse than the median", "equal to it", "better", "no valid score"],
)
def test_median_rule(best: float, stops: bool) -> None:
    """A trial stops when its best is worse than the median of the others' means; a tie goes on."""
    assert feed(median_rule(), 0, [best, best]) == [False, stops]


def test_median_rule_looks_at_the_best_score() -> None:
    """One good score is enough to go on, however the others are."""
    assert not any(feed(median_rule(), 0, [2.5, 0.0, 0.0, BAD]))


def test_median_rule_compares_with_the_mean_of_the_others() -> None:
    """The others count with their means over the later half of the steps: not with their best, nor how they began."""
    rule = MedianStop(0, grace=1, min_peers=3)
    for number in range(3):
        feed(rule, 100 + number, [-900.0, 0.0, 4.0])  # best 4, mean of steps 2 and 3: 2
    assert feed(rule, 0, [1.0, 2.0, 2.0]) == [False, False, False]
    assert feed(rule, 1, [1.0, 1.9, 1.9]) == [False, False, True]


def test_median_rule_with_the_smallest_scores() -> None:
    """Equal scores are a tie, also those that cannot be halved."""
    rule = MedianStop(0, grace=1)
    for number in range(5):
        assert not any(feed(rule, number, [-5e-324] * 3))


def test_median_rule_in_mode_min() -> None:
    """Smaller scores are better, and the reason names them as they were reported."""
    rule = MedianStop.of(Simulation().spec(mode="min", max_iterations=10, num_init_trials=1))
    for number, loss in enumerate([1.0, 2.0, 3.0], start=100):
        feed(rule, number, [-loss] * 5)
    assert feed(rule, 1, [-1.5, -1.5]) == [False, False]
    stop = [rule.observe(trial(3), step, -2.5) for step in (1, 2)][-1]
    peers = "the median of others' means over the later half of 2 steps"
    reason = f"median_stop: best 2.5 by step 2 is worse than 1.75, {peers}"
    assert stop == Stop("median_stop", step=2, score=2.5, threshold=1.75, reason=reason)


def test_median_rule_spares_the_first_trials() -> None:
    """The first grace_trials trials are never stopped; by default there are none of those."""
    assert MedianStop.of(Simulation().spec(max_iterations=10, grace_trials=2)).first_trial == 2
    assert MedianStop.of(Simulation().spec(max_iterations=10, num_init_trials=3)).first_trial == 0
    rule = median_rule(first_trial=2)
    assert feed(rule, 1, [0.0] * 5) == [False] * 5
    assert feed(rule, 2, [0.0] * 5) == [False, True, True, True, True]


def test_median_rule_gives_some_trials_twice_the_time() -> None:
    """One of so many has to be worse than the others were at half its step too, and its reason says so."""
    assert MedianStop.of(Simulation().spec(max_iterations=10)).lenient_every == 3
    rule = MedianStop(0, grace=1, lenient_every=2)
    feed(rule, 100, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    slow = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert feed(rule, 2, slow[:2]) == [False, True]
    assert feed(rule, 3, slow) == [False] * 6
    assert feed(rule, 5, [0.25, 0.5]) == [False, False]  # the other slow ones count too: 1, 0.5 and 0.5 after one step
    stop = rule.observe(trial(5), 3, 0.75)
    peers = "the median of others' means over the later half of 2 steps (1 trial in 2 is given twice the time)"
    assert stop is not None
    assert stop.reason == f"median_stop: best 0.75 by step 3 is worse than 1, {peers}"


def test_who_is_given_twice_the_time_is_never_stopped_before_the_others() -> None:
    """Nor where the others became worse, nor where it is the first to get so far."""
    rule = MedianStop(0, grace=1, lenient_every=1)
    feed(rule, 100, [9.0, 9.0, 9.0, 1.0, 1.0, 1.0])
    assert feed(rule, 1, [2.0] * 8) == [False, True, True, True, True, False, False, False]


@pytest.mark.parametrize(("iterations", "grace"), [(1, 1), (10, 1), (11, 2), (20, 2), (25, 3)])
def test_median_rule_has_a_grace(iterations: int, grace: int) -> None:
    """In the first tenth of the iterations nobody is stopped."""
    stops = feed(median_rule(iterations), 0, [0.0] * iterations)
    assert stops == [False] * grace + [True] * (iterations - grace)


def test_the_guards_of_the_median_rule_are_arguments() -> None:
    """grace_period=0 judges the first step; min_peers=1 lets one other trial be enough."""
    spec = Simulation().spec(max_iterations=10, num_init_trials=1, grace_period=0, min_peers=1)
    rule = MedianStop.of(spec)
    assert feed(rule, 1, [5.0]) == [False]
    assert feed(rule, 2, [4.0]) == [True]
    late = MedianStop.of(Simulation().spec(max_iterations=10, num_init_trials=1, grace_period=0.5, min_peers=1))
    feed(late, 1, [5.0] * 10)
    assert feed(late, 2, [4.0] * 7) == [False] * 5 + [True] * 2


def test_median_rule_needs_as_many_others_as_it_is_told() -> None:
    """Where three are asked for, two other trials say too little to stop anybody."""
    rule = MedianStop(0, grace=1, min_peers=3)
    feed(rule, 100, [5.0] * 4)
    feed(rule, 101, [5.0] * 4)
    assert not any(feed(rule, 0, [0.0] * 4))
    assert feed(rule, 1, [0.0] * 4) == [False, True, True, True]


def test_median_rule_is_not_held_up_by_a_long_gap() -> None:
    """Of the steps that are left out between two reports the last thousand count; forgetting them leaves nothing."""
    rule = MedianStop(0, grace=1_000_000)
    assert not any(rule.observe(trial(0), step, 1.0) for step in (1, 999_999))
    assert (min(rule.by_step), sorted(rule.by_step)[1], len(rule.by_step)) == (1, 998_999, 1_002)
    rule.forget(trial(0))
    assert not any(rule.by_step.values())


def test_median_rule_ignores_trials_that_did_not_get_so_far() -> None:
    """Only those who reached the step count."""
    rule = median_rule()
    for number in range(3):
        feed(rule, 200 + number, [9.0] * 2)
    stops = feed(rule, 0, [2.5] * 4)
    assert stops == [False, True, False, False]


def test_median_rule_fills_the_steps_that_were_left_out() -> None:
    """Between two reports a trial counts with what it had by then, not with what came of it; before the first not."""
    rule = MedianStop(0, grace=3, min_peers=3)
    for number in range(3):
        for step in (3, 7):
            rule.observe(trial(100 + number), step, float(step))
    assert {step: median(means) for step, means in rule.by_step.items()} == {3: 3.0, 4: 3.0, 5: 3.0, 6: 3.0, 7: 7.0}
    assert feed(rule, 0, [2.9], first=3) == [False]
    assert feed(rule, 1, [2.9], first=4) == [True]
    assert feed(rule, 2, [3.0] * 6, first=2) == [False] * 5 + [True]


def test_who_reports_seldom_is_no_bar_for_who_reports_often() -> None:
    """Two trials that learn alike both go on, whichever of them reports at every step."""
    rule = MedianStop(0, grace=1)
    for step in range(10, 101, 10):
        rule.observe(trial(0), step, float(step))
    assert not any(feed(rule, 1, map(float, range(1, 101))))


def test_median_rule_leaves_invalid_scores_out_of_the_mean() -> None:
    """The mean is that of the valid scores in the later half; a trial without any there is the worst."""
    rule = MedianStop(0, grace=1, min_peers=3)
    for number in range(3):
        feed(rule, 100 + number, [9.0, 2.0, BAD, 4.0, BAD])
    feed(rule, 103, [9.0, 9.0, BAD, BAD, BAD])
    assert list(rule.by_step[4]) == [BAD, 4.0, 4.0, 4.0]
    assert list(rule.by_step[5]) == [BAD, 4.0, 4.0, 4.0]
    assert feed(rule, 0, [1.0, 2.0, 2.0, 3.9, 4.0]) == [False, False, False, True, False]


def test_median_rule_forgets() -> None:
    """What is forgotten no longer counts, and the trial begins anew."""
    rule = median_rule()
    before = copy.deepcopy(rule.by_step)
    for step in (1, 2, 5):
        rule.observe(trial(0), step, float(-step))
    rule.forget(trial(0))
    assert rule.by_step == before
    rule.forget(trial(0))
    assert feed(rule, 0, [2.5] * 3) == [False] * 3


eighths = st.integers(-40, 40).map(lambda count: count / 8)
curves = st.lists(st.lists(eighths | st.just(BAD), min_size=1, max_size=9), min_size=1, max_size=8)


@given(curves, st.integers(0, 3))
def test_median_rule_by_definition(curves: list[list[float]], lenient_every: int) -> None:
    """It agrees with the definition, written down without any bookkeeping."""
    rule = MedianStop(0, grace=1, min_peers=3, lenient_every=lenient_every)
    for number, scores in enumerate(curves):
        lenient = lenient_every > 0 and number % lenient_every == lenient_every - 1
        for step, stops in enumerate(feed(rule, number, scores), start=1):
            worse = True
            for until in {step, math.ceil(step / 2) if lenient else step}:
                others = [mean_of(other[until // 2 : until]) for other in curves[:number] if len(other) >= until]
                worse = worse and len(others) >= 3 and max(scores[:step]) < median_of(others)
            assert stops == (worse and step > 1)


reports = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9), eighths | st.just(BAD)), max_size=40)


@given(reports, st.integers(0, 2), st.integers(1, 3))
def test_median_rule_by_definition_where_steps_are_left_out(
    reports: list[tuple[int, int, float]], lenient_every: int, min_peers: int
) -> None:
    """So it does when trials take turns, and leave out steps: at up to 3 of these they count with what they had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(median_module, "GAP", 3)
        rule = MedianStop(0, grace=1, min_peers=min_peers, lenient_every=lenient_every)
        curves: dict[int, list[tuple[int, float]]] = {number: [] for number in range(5)}
        for number, ahead, score in reports:
            own = curves[number]
            step = (own[-1][0] if own else 0) + ahead
            own.append((step, score))
            lenient = lenient_every > 0 and number % lenient_every == lenient_every - 1
            worse = step > 1
            for until in {step, math.ceil(step / 2) if lenient else step}:
                counted = [counts_as(other, until) for peer, other in curves.items() if peer != number]
                others = [mean for mean in counted if mean is not None]
                worse = worse and len(others) >= min_peers and max(score for _, score in own) < median_of(others)
            assert (rule.observe(trial(number), step, score) is not None) == worse


def counts_as(curve: list[tuple[int, float]], step: int) -> float | None:
    """The mean that a trial counts with at a step, if it counts there."""
    seen = [when for when, _ in curve if when <= step]
    later = [when for when, _ in curve if when > step]
    if not seen or (seen[-1] != step and (not later or step < later[0] - 3)):
        return None
    return mean_of([score for when, score in curve if seen[-1] // 2 < when <= seen[-1]])


def mean_of(scores: list[float]) -> float:
    """The mean of the valid scores: multiples of 1/8, so that no sum is rounded."""
    valid = [score for score in scores if score > BAD]
    return sum(valid) / len(valid) if valid else BAD


def median_of(means: list[float]) -> float:
    """The median, of values that may be infinite."""
    ordered = sorted(means)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
