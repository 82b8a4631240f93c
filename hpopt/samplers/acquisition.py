"""Acquisition functions: how much a point with posterior mean m and standard deviation s is worth trying.

Each is called with arrays m and s of one shape and returns, in that shape, the value and its derivatives by m and s.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, log_ndtr

Array = NDArray[np.float64]
Worth = tuple[Array, Array, Array]
"""(value, d value / d mean, d value / d std)."""
Acquisition = Callable[[Array, Array], Worth]

MAX_KAPPA = 1e3
"""Beyond this the mean would be lost in rounding."""

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


def decayed_kappa(kappa: float, decay: float, delay: int, finished: int) -> float:
    """The schedule kappa * decay^max(0, finished - delay), at most MAX_KAPPA; `finished` trials have ended."""
    exponent = max(0, finished - delay) * math.log(decay)
    return min(kappa * math.exp(min(exponent, 50.0)), MAX_KAPPA)


@dataclass(frozen=True, slots=True)
class UpperConfidenceBound:
    """m + kappa s (Srinivas et al. 2010)."""

    kappa: float

    def __call__(self, mean: Array, std: Array) -> Worth:
        """The bound and its derivatives."""
        return mean + self.kappa * std, np.ones_like(mean), np.full_like(mean, self.kappa)


@dataclass(frozen=True, slots=True)
class LogExpectedImprovement:
    """log E[max(0, f - best)] for f ~ N(m, s^2) (Ament et al. 2023): it has a slope where EI itself underflows."""

    best: float

    def __call__(self, mean: Array, std: Array) -> Worth:
        """With z = (m - best) / s and h = phi(z) + z Phi(z), EI = s h, dEI/dm = Phi(z) and dEI/ds = phi(z)."""
        z = (mean - self.best) / std
        value = _log_h(z) + np.log(std)
        return value, np.exp(log_ndtr(z) - value), np.exp(-0.5 * z**2 - _LOG_SQRT_2PI - value)


def _log_h(z: Array) -> Array:
    """log(phi(z) + z Phi(z)), in three branches, for the sum cancels as z -> -inf."""
    out = np.empty_like(z)
    upper, lower = z > -1.0, z < -1e3
    middle = ~(upper | lower)
    a, b, c = z[upper], -z[middle], -z[lower]
    out[upper] = np.log(np.exp(-0.5 * a**2 - _LOG_SQRT_2PI) + a * np.exp(log_ndtr(a)))
    # Phi(-b) = erfcx(b / sqrt 2) exp(-b^2 / 2) / 2 takes exp(-b^2 / 2) out of both terms
    out[middle] = -0.5 * b**2 - _LOG_SQRT_2PI + np.log1p(-math.sqrt(0.5 * math.pi) * b * erfcx(b / math.sqrt(2.0)))
    out[lower] = -0.5 * c**2 - _LOG_SQRT_2PI - 2.0 * np.log(c)  # h -> phi(z) / z^2
    return out
