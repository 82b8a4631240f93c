import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpopt.core.schedulers.later_half import LaterHalf

BAD = -math.inf
scores = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.just(BAD)


@pytest.mark.parametrize(("steps", "first"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (10, 6), (1000, 501)])
def test_where_it_begins(steps: int, first: int) -> None:
    """The later half of 10 steps is 6 to 10; the one in the middle of an odd number belongs to it."""
    half = LaterHalf()
    for step in range(1, steps + 1):
        half.add(step, float(step))
    assert half.mean() == (first + steps) / 2


@given(st.lists(st.tuples(st.integers(1, 9), scores), min_size=1, max_size=60))
def test_by_definition(reports: list[tuple[int, float]]) -> None:
    """The mean is that of the valid scores whose steps are in the later half, whatever steps were left out."""
    steps = list(accumulate(gap for gap, _ in reports))
    half = LaterHalf()
    for count, (step, (_, score)) in enumerate(zip(steps, reports, strict=True), start=1):
        half.add(step, score)
        seen = zip(steps[:count], (score for _, score in reports[:count]), strict=True)
        valid = [score for when, score in seen if when > step // 2 and score > BAD]
        dust = 1e-15 * math.fsum(map(abs, valid))
        assert half.mean() == (pytest.approx(math.fsum(valid) / len(valid), rel=0, abs=dust) if valid else BAD)


def test_a_huge_score_leaves_nothing_behind() -> None:
    """A loss of 1e300 at the first steps is gone when these are: it is never subtracted from a sum."""
    half = LaterHalf()
    for step in range(1, 100):
        half.add(step, -1e300 if step < 4 else -0.5)
        assert half.mean() == -0.5 or step < 6
    assert half.mean() == -0.5


def test_a_sum_that_overflows() -> None:
    """Infinite sums are gone with the steps that made them so."""
    half = LaterHalf()
    for step in range(1, 12):
        half.add(step, 1.7e308 if step <= 5 else 2.0)
    assert half.mean() == 2.0


def test_a_thousand_steps_take_a_few_thousand_additions() -> None:
    """The fixed part is summed anew when the steps have doubled, not at every step."""
    half, renewals = LaterHalf(), 0
    for step in range(1, 1025):
        fixed = half._fixed
        half.add(step, 1.0)
        renewals += half._fixed is not fixed
    assert renewals == 11
    assert half.mean() == 1.0
