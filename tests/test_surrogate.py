"""The Gaussian process and what it is made of: kernel, priors, transform, acquisition. Arrays only."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from hpopt.samplers import surrogate
from hpopt.samplers.acquisition import Acquisition, LogExpectedImprovement, UpperConfidenceBound
from hpopt.samplers.optimize import Screen
from hpopt.samplers.posterior import FitError, Posterior, inverse_root
from hpopt.samplers.subset import informative
from hpopt.samplers.surrogate import Objective, Rows, fit, posterior_at
from hpopt.samplers.transform import half_rank, is_constant, symlog

Array = NDArray[np.float64]

GROUPS = np.array([0, 1, 2, 2, 2])
"""Two numbers and a choice of three options."""


def rows(n: int, seed: int = 0, noise: float = 0.0) -> Rows:
    """Results of a smooth function of two numbers and a choice, scaled to about mean 0 and variance 1."""
    rng = np.random.default_rng(seed)
    numbers, option = rng.random((n, 2)), rng.integers(3, size=n)
    X = np.column_stack([numbers, np.eye(3)[option] * math.sqrt(0.5)])
    y = np.sin(4.0 * X[:, 0]) + X[:, 1] ** 2 + 0.3 * option + noise * rng.standard_normal(n)
    return Rows(X, (y - 1.1) / 0.5, np.ones(n), np.zeros(n))


def slopes(function: Callable[[Array], float], x: Array, step: float = 1e-6) -> Array:
    """Central differences of a function of a vector."""
    return np.array([(function(x + e) - function(x - e)) / (2.0 * step) for e in step * np.eye(len(x))])


@pytest.mark.parametrize("seed", range(3))
def test_gradient_of_the_objective(seed: int) -> None:
    """The analytic gradient is that of finite differences, repeats and extra noise included."""
    data, rng = rows(25, seed, noise=0.1), np.random.default_rng(seed)
    data = Rows(data.X, data.y, 1.0 / rng.integers(1, 4, size=25), rng.choice([0.0, 0.1], size=25))
    objective = Objective(data, GROUPS)
    theta = objective.prior_mean + 0.5 * rng.standard_normal(4)
    assert objective(theta)[1] == pytest.approx(slopes(lambda at: objective(at)[0], theta), rel=1e-5, abs=1e-5)


def test_objective_is_a_density_of_the_profiled_model() -> None:
    """Without priors on mean and scale it would be sklearn's marginal likelihood at the profiled scale."""
    data = rows(20, noise=0.1)
    theta = np.array([-0.3, 0.2, 0.1, -3.0])
    objective = Objective(data, GROUPS)
    posterior = posterior_at(theta, data, GROUPS)
    deviation = (theta - objective.prior_mean) / np.array([1.0, 1.0, 1.0, 1.5])
    n, s2 = len(data.y), posterior.scale
    reference = reference_process(posterior, data)
    residual = (data.y - posterior.mean) @ posterior.alpha
    # log|s^2 R| / 2 + residual / 2 s^2 + n/2 log 2 pi is minus the log likelihood
    half_log_det = -reference.log_marginal_likelihood_value_ - 0.5 * (residual / s2 + n * math.log(2.0 * math.pi * s2))
    N = n + 2.0 * surrogate.SCALE_SHAPE
    expected = half_log_det + 0.5 * N * math.log(s2 * N) + 0.5 * deviation @ deviation
    assert objective(theta)[0] == pytest.approx(expected, rel=1e-8)


def reference_process(posterior: Posterior, data: Rows) -> GaussianProcessRegressor:
    """scikit-learn's Gaussian process with the hyper-parameters of ours."""
    kernel = ConstantKernel(posterior.scale) * Matern(1.0 / np.sqrt(posterior.weights), nu=2.5)
    alpha = posterior.scale * (posterior.noise * data.share + data.excess + 1e-8)
    return GaussianProcessRegressor(kernel, alpha=alpha, optimizer=None).fit(data.X, data.y - posterior.mean)


def test_posterior_is_that_of_scikit_learn() -> None:
    """Mean and standard deviation agree with another implementation."""
    data, at = rows(40, noise=0.1), rows(200, seed=1).X
    posterior = posterior_at(np.array([-0.5, 0.3, 0.0, -2.0]), data, GROUPS)
    mean, std = reference_process(posterior, data).predict(at, return_std=True)
    ours, our_std = posterior.predict(at)
    assert ours - posterior.mean == pytest.approx(mean, abs=1e-8)
    assert our_std == pytest.approx(std, abs=1e-8)


def test_posterior_interpolates_noiseless_results() -> None:
    """At a known point the model says what is known, and is sure of it."""
    data = rows(30)
    mean, std = fit(data, GROUPS).predict(data.X)
    assert mean == pytest.approx(data.y, abs=0.02)
    assert std.max() < 0.05


def test_posterior_predicts() -> None:
    """Points that were not tried are predicted, within the uncertainty that is claimed."""
    data, more = rows(60, noise=0.02), rows(400, noise=0.02, seed=5)
    mean, std = fit(data, GROUPS).predict(more.X)
    assert np.sqrt(np.mean((mean - more.y) ** 2)) < 0.2
    assert np.mean(np.abs(mean - more.y) < 3.0 * std + 0.1) > 0.95


def test_lengthscales_tell_what_matters() -> None:
    """A hyper-parameter without effect gets the longest lengthscale."""
    rng = np.random.default_rng(3)
    X = rng.random((60, 3))
    y = np.sin(6.0 * X[:, 1])
    weights = fit(Rows(X, (y - y.mean()) / y.std(), np.ones(60), np.zeros(60)), np.arange(3)).weights
    assert weights[1] > 10.0 * max(weights[0], weights[2])


def test_a_doubtful_result_counts_less() -> None:
    """Extra noise on one result lets the model deviate from it."""
    data = rows(30)
    spoilt = data.y.copy()
    spoilt[0] += 3.0
    theta = np.array([-0.5, 0.0, 0.0, -6.0])
    doubt = np.zeros(30)
    doubt[0] = 1.0
    error = [
        abs(posterior_at(theta, Rows(data.X, spoilt, data.share, excess), GROUPS).predict(data.X)[0][0] - data.y[0])
        for excess in (np.zeros(30), doubt)
    ]
    assert error[1] < 0.3 < error[0]


def test_gradients_of_the_posterior() -> None:
    """Mean and standard deviation have the gradients of finite differences, pending points or not."""
    posterior = fit(rows(30, noise=0.1), GROUPS).condition(rows(3, seed=7).X)
    X = rows(4, seed=8).X
    mean, std, mean_slope, std_slope = posterior.gradients(X)
    assert np.stack([mean, std]) == pytest.approx(np.stack(posterior.predict(X)))
    for i, x in enumerate(X):
        assert mean_slope[i] == pytest.approx(slopes(lambda at: posterior.predict(at[None])[0][0], x), abs=1e-5)
        assert std_slope[i] == pytest.approx(slopes(lambda at: posterior.predict(at[None])[1][0], x), abs=1e-5)


def test_pending_points_change_the_variance_only() -> None:
    """Pending points are as good as results that are just what the mean says."""
    data, pending, at = rows(30, noise=0.1), rows(5, seed=1).X, rows(50, seed=2).X
    theta = np.array([-0.5, 0.0, 0.0, -3.0])
    posterior = posterior_at(theta, data, GROUPS)
    believed = posterior.predict(pending)[0]
    full = Rows(np.concatenate([data.X, pending]), np.concatenate([data.y, believed]), np.ones(35), np.zeros(35))
    expected = posterior_at(theta, full, GROUPS).predict(at)[1] / math.sqrt(posterior_at(theta, full, GROUPS).scale)
    mean, std = posterior.condition(pending).predict(at)
    assert mean == pytest.approx(posterior.predict(at)[0])
    assert std / math.sqrt(posterior.scale) == pytest.approx(expected, abs=1e-7)


def test_screen_follows_the_posterior() -> None:
    """The pool's mean and deviation after rank-1 updates are those of a new prediction."""
    posterior, pool = fit(rows(30, noise=0.1), GROUPS), rows(300, seed=4).X
    screen = Screen(posterior, pool, room=3)
    for x in rows(3, seed=9).X:
        posterior = posterior.condition(x[None])
        screen.update(posterior)
        mean, std = posterior.predict(pool)
        assert screen.mean == pytest.approx(mean)
        assert screen.std == pytest.approx(std, abs=1e-7)


def test_singular_matrices_get_a_jitter() -> None:
    """Equal points without noise have no Cholesky factor, and still a posterior."""
    root = inverse_root(np.ones((5, 5)), np.zeros(5))
    assert np.isfinite(root).all()


def test_no_matrix_no_posterior() -> None:
    """What cannot be repaired by a jitter raises the one error that the sampler handles."""
    with pytest.raises(FitError, match="3 points"):
        inverse_root(np.full((3, 3), math.nan), np.zeros(3))
    with pytest.raises(FitError, match="4 results"):
        fit(Rows(np.full((4, 1), math.nan), np.zeros(4), np.ones(4), np.zeros(4)), np.array([0]))


def test_one_result_is_enough() -> None:
    """The smallest fit there is has no pairs at all."""
    posterior = fit(Rows(np.zeros((1, 1)), np.zeros(1), np.ones(1), np.zeros(1)), np.array([0]))
    assert np.isfinite(posterior.predict(np.ones((1, 1)))).all()


def test_upper_confidence_bound() -> None:
    """The mean plus kappa standard deviations."""
    value, by_mean, by_std = UpperConfidenceBound(2.0)(np.array([1.0]), np.array([0.5]))
    assert (value[0], by_mean[0], by_std[0]) == (2.0, 1.0, 2.0)


@pytest.mark.parametrize("z", [-30.0, -6.0, -1.001, -0.999, 0.0, 2.0, 9.0])
def test_log_expected_improvement(z: float) -> None:
    """The logarithm of the integral, also where the improvement itself is 1e-200."""
    # E[max(0, z + t)] = phi(z) times the integral of s exp(-z^2/2 ...), written so that nothing underflows for z < 0
    integral = quad(lambda s: s * math.exp(s * z - 0.5 * s * s), 0.0, 60.0, epsabs=0.0, epsrel=1e-11, limit=200)[0]
    value = LogExpectedImprovement(1.0)(np.array([1.0 + 0.5 * z]), np.array([0.5]))[0][0]
    assert value == pytest.approx(norm.logpdf(z) + math.log(integral) + math.log(0.5), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("acquisition", [UpperConfidenceBound(1.8), LogExpectedImprovement(0.3)])
@pytest.mark.parametrize("mean", [-900.0, -20.0, -0.5, 0.3, 4.0])
def test_derivatives_of_acquisitions(acquisition: Acquisition, mean: float) -> None:
    """The derivatives by mean and standard deviation are those of finite differences."""
    at = np.array([mean, 0.7])
    expected = slopes(lambda x: float(acquisition(x[:1], x[1:])[0][0]), at)
    assert np.concatenate(acquisition(at[:1], at[1:])[1:]) == pytest.approx(expected, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("z", [-1.0, -1e3])
def test_log_expected_improvement_is_continuous(z: float) -> None:
    """Its branches meet."""
    values = LogExpectedImprovement(0.0)(np.array([z * (1.0 - 1e-9), z * (1.0 + 1e-9)]), np.ones(2))[0]
    assert values[0] == pytest.approx(values[1], rel=1e-8)


def test_log_expected_improvement_far_below() -> None:
    """Far below the best there is still a finite value, and a slope upwards."""
    value, by_mean, _ = LogExpectedImprovement(0.0)(np.array([-1e6]), np.ones(1))
    assert np.isfinite(value[0])
    assert by_mean[0] == pytest.approx(1e6, rel=1e-3)


def test_half_rank_keeps_the_good_half() -> None:
    """Above the median differences keep their ratios; below it only ranks matter."""
    scores = np.array([-1e30, -5.0, 0.0, 1.0, 3.0])
    z = half_rank(scores)
    assert (z[4] - z[2]) / (z[3] - z[2]) == pytest.approx(3.0)
    assert z == pytest.approx(half_rank(np.array([-6.0, -5.0, 0.0, 1.0, 3.0])))
    # Phi^-1(0.1), Phi^-1(0.3), then 0, 1 and 3 in units of sqrt((0 + 1 + 9) / 3)
    raw = np.array([norm.ppf(0.1), norm.ppf(0.3), 0.0, math.sqrt(0.3), 3.0 * math.sqrt(0.3)])
    assert z == pytest.approx((raw - raw.mean()) / raw.std())


@pytest.mark.parametrize(
    "scores",
    [
        [0.0, 1.0],
        [1e30, 1.0, 2.0, 3.0],
        [1e308, -1e308, 0.0, 1.0],
        [1.0, 1.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, 1.0],
        [1e-300, 2e-300, 3e-300, 1e300],
        [5e-324, 0.0, 0.0],
        [0.1, 0.2, 0.2, 0.2, 0.9],
    ],
)
@pytest.mark.parametrize("transform", [half_rank, symlog])
def test_transforms_are_monotone(transform: Callable[[Array], Array], scores: list[float]) -> None:
    """Any scores become values of mean 0 and variance 1 in the same order; equal ones stay equal."""
    y = np.array(scores)
    z = transform(y)
    assert (z.mean(), z.std()) == (pytest.approx(0.0, abs=1e-12), pytest.approx(1.0))
    order = np.argsort(y, kind="stable")
    assert (np.diff(z[order]) >= 0.0).all()
    assert all((z[y == score] == each).all() for score, each in zip(y, z, strict=True))


@pytest.mark.parametrize("transform", [half_rank, symlog])
def test_one_absurd_score_leaves_the_others_apart(transform: Callable[[Array], Array]) -> None:
    """A single 1e300 does not press the other good scores into one value."""
    z = transform(np.array([0.0, 1e299, 2e299, 3e299, 4e299, 5e299, 1e300]) / 1e299)
    far = transform(np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1e12]))
    for values in (z, far):
        assert values[5] - values[3] > 0.005
        assert values[6] > values[5]


def test_symlog_takes_no_rounding_error_for_a_range() -> None:
    """Equal scores with rounding errors between them leave the other scores their proportions."""
    dusty = np.array([0.5, 0.5 + 1e-16, 0.5 - 1e-16, 0.5, 0.5, 0.5, 0.4, 0.6, 1.3])
    clean = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.4, 0.6, 1.3])
    assert symlog(dusty) == pytest.approx(symlog(clean), abs=1e-9)


def test_symlog_forgets_how_bad_a_few_scores_are() -> None:
    """One terrible score in twenty is like a merely bad one; of four in twenty only the worst are moved."""
    good = np.linspace(0.0, 1.0, 19)
    terrible, bad = (symlog(np.append(good, score)) for score in (-1e30, -1e3))
    assert terrible == pytest.approx(bad)
    z = symlog(np.append(good[:16], [-40.0, -50.0, -60.0, -70.0]))
    assert z[16] > z[17] == z[18] == z[19]
    assert z[0] - z[16] > 5.0 * (z[15] - z[0])


def test_symlog_keeps_proportions_of_both_halves() -> None:
    """Within ten interquartile ranges of the median the scores are only moved and scaled."""
    scores = np.array([-20.0, 1.0, 2.0, 3.0, 4.0, 25.0])
    assert symlog(scores) == pytest.approx((scores - scores.mean()) / scores.std())
    # median 2, interquartile range 2: 102 is 50 of them away, and counts as 10 (1 + log 5)
    raw = np.array([-0.5, 0.0, 0.5, 10.0 * (1.0 + math.log(5.0)), -1.0])
    z = symlog(np.array([1.0, 2.0, 3.0, 102.0, 0.0]))
    assert z == pytest.approx((raw - raw.mean()) / raw.std())


@pytest.mark.parametrize(
    ("scores", "constant"),
    [([0.0, 0.0], True), ([1e30, 1e30], True), ([1.0, 1.0 + 1e-14], True), ([0.0, 1e-15], False)],
)
def test_constant_scores(scores: list[float], constant: bool) -> None:
    """Scores are constant when they differ by rounding errors only, whatever their magnitude."""
    assert is_constant(np.array(scores)) is constant


def test_subset_has_the_best_the_near_and_the_far() -> None:
    """Of too many results the best stay, with bad ones beside them and points at the ends of the space."""
    X = np.linspace(0.0, 1.0, 1001)[:, None]
    y = -np.abs(X[:, 0] - 0.3)
    y[301] = -9.0
    chosen = informative(X, y, limit=30)
    assert len(set(chosen)) == 30
    assert {0, 300, 301, 1000} <= set(chosen)
    assert informative(X[:30], y[:30], limit=30).tolist() == list(range(30))
