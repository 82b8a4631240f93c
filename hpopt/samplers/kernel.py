"""The Matern-5/2 kernel with one lengthscale per hyper-parameter (ARD), as a correlation: k(x, x) = 1.

Notation: rho^2 = sum_j w_j (x_j - x'_j)^2 with w_j = 1 / lengthscale_j^2, and
k = (1 + sqrt5 rho + 5 rho^2 / 3) exp(-sqrt5 rho)   (Rasmussen & Williams 2006, eq. 4.17).
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def matern(squared: Array) -> tuple[Array, Array]:
    """The kernel k and its slope -2 dk/d(rho^2) = 5/3 (1 + sqrt5 rho) exp(-sqrt5 rho), of rho^2 (any shape).

    The slope is what every derivative needs: d rho^2 is linear in the lengthscales' logarithms and in x.
    """
    r = np.sqrt(5.0 * squared)
    decay = np.exp(-r)
    linear = (1.0 + r) * decay
    return linear + (5.0 / 3.0) * squared * decay, (5.0 / 3.0) * linear


def squared_distances(A: Array, B: Array, weights: Array) -> Array:
    """rho^2 (a, b) between the rows of A (a, p) and B (b, p), for weights (p,)."""
    A, B = A * np.sqrt(weights), B * np.sqrt(weights)
    squared = A @ B.T
    squared *= -2.0
    squared += np.sum(A**2, axis=1)[:, None]
    squared += np.sum(B**2, axis=1)
    return np.maximum(squared, 0.0, out=squared)
