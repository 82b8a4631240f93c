"""The surrogate: a Gaussian process whose mean and signal variance are profiled out, fitted by maximum a posteriori.

Notation: X (n, p) features; y (n,) values of mean 0 and variance 1; d lengthscales, feature c has number groups[c].
theta = (log l_1, ..., log l_d, log lam), lam the noise variance relative to the signal's.
R (n, n) = correlations + diag(lam share + excess); share_i = 1 / (number of results averaged in y_i), excess_i = extra
noise of results that are not to be trusted as the others are.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs
from scipy.optimize import minimize

from hpopt.samplers.kernel import matern, squared_distances
from hpopt.samplers.posterior import JITTERS, FitError, Posterior, inverse_root
from hpopt.samplers.subset import informative

Array = NDArray[np.float64]

MEAN_PRECISION = 0.01
"""tau: the constant mean is N(0, s^2 / tau) a priori."""
SCALE_SHAPE, SCALE_RATE = 2.0, 1.5
"""a0, b0: the signal variance s^2 is inverse-gamma a priori, with a mode where standardised values put it."""
LENGTHSCALE_CENTRE, LENGTHSCALE_SPREAD = -0.5, 1.0
"""log l ~ N(log(d) / 2 + centre, spread^2): distances grow with sqrt(d), so must lengthscales (Hvarfner et al. 2024).

Shorter and longer ones were worse on the benchmarks' problems, longer ones by far."""
NOISE_CENTRE, NOISE_SPREAD = -4.0, 1.5
"""log lam ~ N(centre, spread^2)."""
LENGTHSCALE_BOUNDS = (0.01, 1e3)
NOISE_BOUNDS = (1e-6, 10.0)
THETA_ROWS = 150
"""theta, of a dozen numbers, is fitted to so many rows at most: an evaluation costs their number cubed."""
_HOPELESS = 1e10  # the objective where R has no Cholesky factor: the line search turns back


@dataclass(frozen=True, slots=True)
class Rows:
    """The training data."""

    X: Array  # (n, p)
    y: Array  # (n,)
    share: Array  # (n,)
    excess: Array  # (n,)

    def part(self, chosen: NDArray[np.intp]) -> "Rows":
        """Some of the rows, by their indices."""
        return Rows(self.X[chosen], self.y[chosen], self.share[chosen], self.excess[chosen])


@dataclass(frozen=True, slots=True)
class _Profile:
    """The mean m and scale S / N that are best for one R, given R^-1 1 and R^-1 y."""

    mean: float
    alpha: Array  # R^-1 (y - m)
    S: float
    N: float

    @classmethod
    def of(cls, y: Array, ones_solved: Array, y_solved: Array) -> "_Profile":
        mean = float(y_solved.sum() / (ones_solved.sum() + MEAN_PRECISION))
        alpha = y_solved - mean * ones_solved
        S = float((y - mean) @ alpha) + MEAN_PRECISION * mean**2 + 2.0 * SCALE_RATE
        return cls(mean, alpha, S, len(y) + 2.0 * SCALE_SHAPE)


class Objective:
    """F(theta) = log|R| / 2 + N/2 log S + priors: the negative log posterior of theta, up to a constant."""

    def __init__(self, rows: Rows, groups: NDArray[np.intp]) -> None:
        n, d = len(rows.y), int(groups.max()) + 1
        self._rows, self._targets = rows, np.column_stack([np.ones(n), rows.y])
        self._i, self._j = np.tril_indices(n, -1)
        self._lower = self._j * n + self._i  # places of the pairs i > j in a matrix stored by columns
        self._D = np.zeros((d, len(self._i)))  # squared differences of each pair, per lengthscale
        for column, group in enumerate(groups):
            self._D[group] += (rows.X[self._i, column] - rows.X[self._j, column]) ** 2
        self.prior_mean = np.append(np.full(d, 0.5 * math.log(d) + LENGTHSCALE_CENTRE), NOISE_CENTRE)
        self._prior_spread = np.append(np.full(d, LENGTHSCALE_SPREAD), NOISE_SPREAD)
        self.bounds = [tuple(np.log(LENGTHSCALE_BOUNDS))] * d + [tuple(np.log(NOISE_BOUNDS))]

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """F and its gradient (d + 1,)."""
        weights, lam = np.exp(-2.0 * theta[:-1]), math.exp(theta[-1])
        k, slope = matern(weights @ self._D)
        L, failed = dpotrf(self._matrix(k, lam), lower=1, clean=0, overwrite_a=1)
        if failed:
            return _HOPELESS, np.zeros_like(theta)
        solved, _ = dpotrs(L, self._targets, lower=1)
        profile = _Profile.of(self._rows.y, solved[:, 0], solved[:, 1])
        deviation = (theta - self.prior_mean) / self._prior_spread
        value = np.sum(np.log(np.diag(L))) + 0.5 * profile.N * math.log(profile.S) + 0.5 * deviation @ deviation
        inverse, _ = dpotri(L, lower=1, overwrite_c=1)
        gradient = self._slopes(inverse, profile, weights, lam, slope)
        return float(value), gradient + deviation / self._prior_spread

    def _matrix(self, k: Array, lam: float) -> Array:
        """The lower half of R, stored by columns as LAPACK wants it."""
        n = len(self._rows.y)
        flat = np.zeros(n * n)
        flat[self._lower] = k
        flat[:: n + 1] = 1.0 + lam * self._rows.share + self._rows.excess + JITTERS[0]
        return flat.reshape(n, n, order="F")

    def _slopes(self, inverse: Array, profile: _Profile, weights: Array, lam: float, slope: Array) -> Array:
        """The gradient: dF = tr(Q dR) / 2 with Q = R^-1 - alpha alpha' / s^2, by theta and without the priors."""
        scaled = profile.alpha / math.sqrt(profile.S / profile.N)
        Q = inverse.reshape(-1, order="F")[self._lower] - scaled[self._i] * scaled[self._j]
        # every pair stands twice in R, which cancels the 1/2; dk / dlog l_j = slope w_j D_j
        by_lengthscale = weights * (self._D @ (Q * slope))
        by_noise = 0.5 * lam * self._rows.share @ (np.diag(inverse) - scaled**2)
        return np.append(by_lengthscale, by_noise)


def fit(rows: Rows, groups: NDArray[np.intp]) -> Posterior:
    """The posterior of all rows at the theta that is best for THETA_ROWS of them.

    Falls back to the prior's theta, and raises FitError when that fails too.
    """
    objective = Objective(rows.part(informative(rows.X, rows.y, THETA_ROWS)), groups)
    noisy = np.append(objective.prior_mean[:-1], math.log(0.1))
    for theta in (_optimum(objective), objective.prior_mean, noisy):
        try:
            return posterior_at(theta, rows, groups)
        except FitError:
            continue
    raise FitError(f"no Gaussian process can be fitted to {len(rows.y)} results")


def _optimum(objective: Objective) -> Array:
    """Where L-BFGS-B ends, from the better of two fixed starts: what was fitted before may not change an answer."""
    smooth_and_noisy = np.append(objective.prior_mean[:-1] + 1.0, math.log(0.3))
    start = min((objective.prior_mean, smooth_and_noisy), key=lambda theta: objective(theta)[0])
    options = {"maxiter": 60, "ftol": 1e-6, "gtol": 1e-2}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=objective.bounds, options=options)
    return np.asarray(found.x)


def posterior_at(theta: Array, rows: Rows, groups: NDArray[np.intp]) -> Posterior:
    """The posterior for given hyper-parameters; raises FitError when R has no Cholesky factor."""
    weights, lam = np.exp(-2.0 * theta[:-1])[groups], math.exp(theta[-1])
    R = matern(squared_distances(rows.X, rows.X, weights))[0]
    root = inverse_root(R, lam * rows.share + rows.excess)
    profile = _Profile.of(rows.y, root.T @ root.sum(axis=1), root.T @ (root @ rows.y))
    return Posterior(rows.X, root, profile.alpha, weights, lam, profile.mean, profile.S / profile.N)
