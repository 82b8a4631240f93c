"""What the Gaussian process says about points that were not tried.

n observed points, then q pending ones; p features. All matrices are of correlations: covariance is scale times that.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dtrtri

from hpopt.samplers.kernel import matern, squared_distances

Array = NDArray[np.float64]

JITTERS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
_LEAST_VARIANCE = 1e-12


class FitError(ArithmeticError):
    """No surrogate can be made of these values."""


@dataclass(frozen=True, slots=True)
class Posterior:
    """Mean from the observed points, variance from observed and pending ones (GP-BUCB, Desautels et al. 2014).

    A pending point at its posterior mean, as its result would most likely be, leaves the mean as it is; so it only
    adds a row to `root`.
    """

    points: Array  # (n + q, p)
    root: Array  # (n + q, n + q), lower triangular: the inverse of the Cholesky factor of R + noise
    alpha: Array  # (n + q,): (R + noise)^-1 (y - mean), 0 at pending points
    weights: Array  # (p,): inverse squared lengthscales
    noise: float  # noise variance / signal variance
    mean: float
    scale: float  # signal variance

    def correlations(self, X: Array) -> Array:
        """(n + q, m) between the known points and X (m, p)."""
        return self.correlate(self.points, X)

    def correlate(self, A: Array, B: Array) -> Array:
        """(a, b) between A (a, p) and B (b, p)."""
        return matern(squared_distances(A, B, self.weights))[0]

    def std(self, explained: Array) -> Array:
        """Standard deviation (m,) of points of whose variance the known points explain this share (m,)."""
        return np.sqrt(self.scale * np.maximum(1.0 - explained, _LEAST_VARIANCE))

    def predict(self, X: Array) -> tuple[Array, Array]:
        """Mean and standard deviation (m,) of the noise-free value at X (m, p)."""
        K = self.correlations(X)
        return self.mean + self.alpha @ K, self.std(np.sum((self.root @ K) ** 2, axis=0))

    def gradients(self, X: Array) -> tuple[Array, Array, Array, Array]:
        """Mean and standard deviation (m,) at X (m, p), and their gradients (m, p) by X."""
        K, slope = matern(squared_distances(self.points, X, self.weights))
        half = self.root @ K
        std = self.std(np.sum(half**2, axis=0))
        by_mean = self.alpha[:, None] * slope
        by_std = -self.scale / std * (self.root.T @ half) * slope
        return self.mean + self.alpha @ K, std, self._pull(X, by_mean), self._pull(X, by_std)

    def _pull(self, X: Array, c: Array) -> Array:
        """sum_i c_i dk_i / dx / slope_i, for c (n + q, m): dk_i / dx_j = -slope_i w_j (x_j - x_ij)."""
        return np.asarray(self.weights * (c.T @ self.points - np.sum(c, axis=0)[:, None] * X))

    def condition(self, X: Array) -> "Posterior":
        """The posterior with the points X (m, p) pending as well; raises FitError when they cannot be told apart."""
        cross = self.root @ self.correlations(X)
        block = self.correlate(X, X) - cross.T @ cross
        corner = inverse_root(block, np.full(len(X), self.noise))
        n, m = len(self.points), len(X)
        root = np.zeros((n + m, n + m))
        root[:n, :n] = self.root
        root[n:, :n] = -corner @ (cross.T @ self.root)
        root[n:, n:] = corner
        points, alpha = np.concatenate([self.points, X]), np.concatenate([self.alpha, np.zeros(m)])
        return replace(self, points=points, root=root, alpha=alpha)


def inverse_root(R: Array, noise: Array) -> Array:
    """L^-1 of the Cholesky factor L of R (n, n) + diag(noise); raises FitError when no small jitter makes one."""
    for jitter in JITTERS:
        factor, failed = dpotrf(R + np.diag(noise + jitter), lower=1)
        if not failed:
            root, failed = dtrtri(factor, lower=1)
            if not failed and np.isfinite(root).all():
                return np.ascontiguousarray(root)
    raise FitError(f"the correlations of {len(R)} points are not positive definite")
