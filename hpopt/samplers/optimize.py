"""Where an acquisition function is largest: a pool of candidates, the best of which are improved."""

import numpy as np
from numpy.typing import NDArray

from hpopt.samplers.acquisition import Acquisition
from hpopt.samplers.encoding import Encoding
from hpopt.samplers.posterior import Posterior
from hpopt.samplers.sobol import lattice

Array = NDArray[np.float64]

GLOBAL_POINTS = 1024
LOCAL_POINTS = 768
ENUMERATED = 4096
"""Spaces of at most so many configurations are searched completely."""
STARTS = 8
CLIMBED = 3
ASCENT_STEPS = 20
_CHUNK = 256  # columns at a time: the kernel's temporaries stay in the processor's cache


def candidates(encoding: Encoding, best: Array, rng: np.random.Generator) -> Array:
    """Unit rows (m, d): all of a small space, else points all over the space and some near the `best` rows (b, d)."""
    everything = encoding.everything(ENUMERATED)
    if everything is not None:
        return everything
    spread = (lattice(len(encoding.axes), GLOBAL_POINTS) + rng.random(len(encoding.axes))) % 1.0
    return np.concatenate([encoding.snap(spread), _mutants(encoding, best, rng)])


def _mutants(encoding: Encoding, best: Array, rng: np.random.Generator) -> Array:
    """Copies of the best rows with some of their coordinates changed, by distances of all magnitudes."""
    U = np.resize(best, (LOCAL_POINTS, best.shape[1]))
    m, d = U.shape
    changed = rng.random((m, d)) < max(0.25, 1.5 / d)
    changed[np.arange(m), rng.integers(d, size=m)] = True
    sigma = np.exp(rng.uniform(np.log(0.005), np.log(0.3), size=m))
    moved = np.column_stack([axis.perturb(u, sigma, rng) for axis, u in zip(encoding.axes, U.T, strict=True)])
    return encoding.snap(np.where(changed, moved, U))


class Screen:
    """Mean and standard deviation (m,) of the pool, kept up to date while points are added as pending ones.

    V (n, m) = L^-1 k(points, pool), one row per known point; the sum of its squares is the share of variance that is
    explained. `room` is how many points may be added.
    """

    def __init__(self, posterior: Posterior, X: Array, room: int) -> None:
        self._X, self._known = X, len(posterior.points)
        self._V = np.empty((self._known + room, len(X)))
        self._explained, self.mean = np.empty(len(X)), np.empty(len(X))
        for start in range(0, len(X), _CHUNK):
            part = slice(start, start + _CHUNK)
            K = posterior.correlations(X[part])
            V = posterior.root @ K
            self._V[: self._known, part] = V
            self._explained[part] = np.sum(V**2, axis=0)
            self.mean[part] = posterior.mean + posterior.alpha @ K
        self.std = posterior.std(self._explained)

    def update(self, posterior: Posterior) -> None:
        """Take in the last point of the posterior: a new row of V, and less variance."""
        n, last = self._known, posterior.points[-1:]
        kernel = posterior.correlations(last)[:n, 0]
        row = posterior.correlate(self._X, last)[:, 0] - (posterior.root[:n, :n] @ kernel) @ self._V[:n]
        row *= posterior.root[n, n]
        self._V[n], self._known = row, n + 1
        self._explained += row**2
        self.std = posterior.std(self._explained)


def improve(posterior: Posterior, acquisition: Acquisition, encoding: Encoding, U: Array, known: set[bytes]) -> Array:
    """Better unit rows (s, d) than the starts U (s, d), the best one first; none of the `known` rows is gone to."""
    if len(encoding.smooth):
        U = _ascend(posterior, acquisition, encoding, U)
    values = _values(posterior, acquisition, encoding, U)
    order = np.argsort(-values, kind="stable")
    U, values = U[order], values[order]
    for i in range(min(CLIMBED, len(U))):
        U[i], values[i] = _climb(posterior, acquisition, encoding, (U[i], values[i]), known)
    return np.asarray(U[np.argsort(-values, kind="stable")])


def _values(posterior: Posterior, acquisition: Acquisition, encoding: Encoding, U: Array) -> Array:
    return acquisition(*posterior.predict(encoding.features(U)))[0]


def _ascend(posterior: Posterior, acquisition: Acquisition, encoding: Encoding, U: Array) -> Array:
    """Rprop (Riedmiller & Braun 1993) on the smooth columns, all starts at once; the snapped result, or the start.

    Only signs of the gradient are used, so neither its scale nor that of the acquisition matters.
    """
    smooth, features = encoding.smooth, encoding.smooth_features
    X, start = encoding.features(U), _values(posterior, acquisition, encoding, U)
    best, best_X = np.full(len(U), -np.inf), X.copy()
    step, before = np.full((len(U), len(smooth)), 0.04), np.zeros((len(U), len(smooth)))
    for _ in range(ASCENT_STEPS):
        mean, std, mean_slope, std_slope = posterior.gradients(X)
        value, by_mean, by_std = acquisition(mean, std)
        better = value > best
        best, best_X = np.where(better, value, best), np.where(better[:, None], X, best_X)
        sign = np.sign(by_mean[:, None] * mean_slope + by_std[:, None] * std_slope)[:, features]
        step *= np.choose((sign * before).astype(int) + 1, [0.5, 1.0, 1.3])
        before = sign
        X = X.copy()
        X[:, features] = np.clip(X[:, features] + sign * step, 0.0, 1.0)
    moved = U.copy()
    moved[:, smooth] = best_X[:, features]
    moved = encoding.confine(encoding.snap(moved))
    gained = _values(posterior, acquisition, encoding, moved) > start
    return np.where(gained[:, None], moved, U)


def _climb(
    posterior: Posterior, acquisition: Acquisition, encoding: Encoding, at: tuple[Array, float], known: set[bytes]
) -> tuple[Array, float]:
    """To the best neighbour along one discrete axis, while that is better; five times at most."""
    u, value = at
    for _ in range(5):
        around = [row for row in _neighbours(encoding, u) if row.tobytes() not in known]
        if not around:
            break
        values = _values(posterior, acquisition, encoding, np.array(around))
        best = int(np.argmax(values))
        if values[best] <= value:
            break
        u, value = around[best], float(values[best])
    return u, value


def _neighbours(encoding: Encoding, u: Array) -> Array:
    rows = []
    for j, axis in enumerate(encoding.axes):
        for coordinate in axis.neighbours(float(u[j])):
            row = u.copy()
            row[j] = coordinate
            rows.append(row)
    return encoding.confine(np.array(rows).reshape(-1, len(u)))
