"""From scores as reported to the values that the surrogate models."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Vector = NDArray[np.float64]

CONSTANT = 1e-12
"""Scores whose spread is at most this, relative to the largest of them, count as all the same."""
TAIL = 10.0
"""Beyond this many typical deviations a score is compressed."""

_LARGEST = 1e300


def is_constant(y: Vector) -> bool:
    """Whether the scores (n,) carry no ranking at all."""
    y = _scaled(y)
    return bool(np.ptp(y) <= CONSTANT)


def half_rank(y: Vector) -> Vector:
    """Scores (n,), larger is better and not all the same, to values of mean 0 and variance 1.

    The half-rank warp of Song et al. 2024 (Vizier, arXiv 2408.11527): above the median the shape of the scores is
    kept, for that is where the optimum is; below it only their ranks are, as normal quantiles, so that no score,
    however bad, distorts the model. The transform is monotone.
    """
    y = _scaled(y)
    above = y - np.median(y)
    good = above >= 0.0
    z = np.empty_like(y)
    z[good] = _good_half(above[good])
    z[~good] = ndtri(_quantiles(y)[~good])
    return np.asarray((z - z.mean()) / z.std())


def symlog(y: Vector) -> Vector:
    """Scores (n,), not all the same, to values of mean 0 and variance 1 that keep the proportions of the scores.

    Deviations from the median are measured in interquartile ranges; beyond TAIL of them only their logarithm grows.
    Late in a study most scores are good and close together: half_rank then sees little but the differences between
    these, and this transform still sees how far away all the others are. The worst tenth, and the worst score in any
    case, count as no worse than TAIL or than the best of that tenth: one failed training must not hide all the rest.
    """
    y = _scaled(y)
    deviations = y - np.median(y)
    size = np.abs(deviations)
    low, high = np.quantile(y, [0.25, 0.75])
    dust = 0.25 * CONSTANT * max(abs(low), abs(high))  # rounding errors; scores that are not constant exceed it
    unit = high - low if high - low > dust else np.median(size[size > dust])
    with np.errstate(over="ignore"):
        size = np.minimum(size / unit, _LARGEST)
    size = np.where(size > TAIL, TAIL * (1.0 + np.log(np.maximum(size, TAIL) / TAIL)), size)
    z = np.copysign(size, deviations)
    z = np.maximum(z, min(-TAIL, float(np.quantile(z, 0.1, method="higher"))))
    return np.asarray((z - z.mean()) / z.std())


def _scaled(y: Vector) -> Vector:
    """No score of 1e300 may overflow when it is squared; ratios keep their precision."""
    largest = float(np.max(np.abs(y)))
    return y / largest if largest > 0.0 else y


def _good_half(above: Vector) -> Vector:
    """Deviations from the median (m,), none negative, in units of their root mean square."""
    some = above > 0.0
    if not some.any():
        return above
    with np.errstate(over="ignore"):
        units = above / np.median(above[some])
    # t (2 - t/u) continues u at t with slope 1 and ends at 2t: one absurd score leaves the others their shape.
    units = np.where(units > TAIL, TAIL * (2.0 - TAIL / np.maximum(units, TAIL)), units)
    return np.asarray(units / np.sqrt(np.mean(units**2)))


def _quantiles(y: Vector) -> Vector:
    """(rank + 1/2) / n of each score (n,); equal scores share their average rank."""
    _, inverse, counts = np.unique(y, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts + 1) / 2.0
    return np.asarray((ranks[inverse] + 0.5) / len(y))
