"""Which part of the scores an axis shows."""

import math

import pytest

from hpopt.plot.scale import scale_of


@pytest.mark.parametrize(
    ("scores", "sign", "log", "hidden"),
    [
        ([0.1, 0.5, 0.9], 1, False, 0),
        ([2.0, 1.5, 1.2], -1, False, 0),
        ([2.0, 0.5, 0.02], -1, True, 0),
        ([0.02, 0.5, 2.0], 1, False, 0),
        ([2.0, 0.5, 0.0], -1, False, 0),
        ([2.0, 0.5, -0.02], -1, False, 0),
        ([1.0 + n / 20 for n in range(20)] + [1e30], -1, False, 1),
        ([n / 20 for n in range(20)] + [-1e300, -math.ulp(0)], 1, False, 1),
        ([0.01 * 1.3**n for n in range(30)] + [1e200], -1, True, 1),
        ([1 - 0.5 * 0.8**n for n in range(10)] * 10, 1, False, 0),
        ([0.5], 1, False, 0), ([0.0, 0.0], -1, False, 0), ([1e308, -1e308], 1, False, 2), ([5e-324, 1.0], -1, True, 1),
    ],
)  # fmt: skip
def test_the_scale_suits_the_scores(scores: list[float], sign: float, log: bool, hidden: int) -> None:
    """Losses of many magnitudes are on a logarithmic axis, far worse scores beyond it, and the best always inside."""
    scale = scale_of(scores, sign)
    best_score = max(scores) if sign > 0 else min(scores)
    assert (scale.log, scale.hidden) == (log, hidden)
    assert -1e160 < scale.low < scale.high < 1e310
    if abs(best_score) < 1e150 and best_score != 5e-324:
        assert scale.inside(best_score) == best_score
    assert all(math.isfinite(scale.near(score)) for score in scores)


def test_a_scale_can_be_asked_for() -> None:
    """Linear and log overrule what suits; a log axis needs scores above 0."""
    assert scale_of([2.0, 0.02], -1, "linear").log is False
    assert scale_of([0.2, 0.3], 1, "log").log is True
    with pytest.raises(ValueError, match=r"scale='log' needs scores above 0, and there is -1"):
        scale_of([2.0, -1.0], -1, "log")
    with pytest.raises(ValueError, match="scale='cubic': use one of auto, linear, log"):
        scale_of([1.0], 1, "cubic")
