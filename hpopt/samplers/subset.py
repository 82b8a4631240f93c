"""Which results the surrogate sees when there are too many for an exact Gaussian process."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LIMIT = 300
"""An exact fit takes about 60 ms at this number, and its cost grows with the cube."""


def informative(X: Array, y: Array, limit: int = LIMIT) -> NDArray[np.intp]:
    """Indices of at most `limit` of the feature rows X (n, p), larger y (n,) is better, in their order.

    A third each: the best; those nearest to the very best, bad ones among them; those farthest from all chosen.
    """
    if len(y) <= limit:
        return np.arange(len(y))
    best = np.argsort(-y, kind="stable")
    distance = np.sum((X - X[best[0]]) ** 2, axis=1)
    chosen = np.zeros(len(y), dtype=bool)
    chosen[best[: limit // 3]] = True
    near = np.argsort(np.where(chosen, np.inf, distance), kind="stable")
    chosen[near[: limit // 3]] = True
    gap = np.min([np.sum((X - x) ** 2, axis=1) for x in X[chosen]], axis=0)
    for _ in range(limit - int(chosen.sum())):
        far = int(np.argmax(np.where(chosen, -1.0, gap)))
        chosen[far] = True
        gap = np.minimum(gap, np.sum((X - X[far]) ** 2, axis=1))
    return np.flatnonzero(chosen)
