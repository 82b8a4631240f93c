"""The initial design, whose points can be asked for in any order: the centre of the space, then a Sobol sequence.

People write ranges around what they think is sane, so the centre is the best single guess that there is.
"""

from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from hpopt.core.space import Space
from hpopt.samplers.axis import is_ordered

_BLOCK = 256  # a power of two keeps each block balanced
_RETRIES = 64


def design(
    space: Space, seed: int, k: int, taken: Collection[tuple[Any, ...]], allowed: Space | None = None
) -> dict[str, Any] | None:
    """The k-th configuration of the design, or another one if its key is `taken`. `allowed`: the part to stay in.

    None when all configurations of a finite space are taken. (If 64 random ones of a continuous space are taken, its
    bounds are neighbouring floats: then a configuration is given twice, for a study may not wait for ever.)
    """
    params: dict[str, Any] | None = None
    for params in _candidates(space if allowed is None else allowed, seed, k, len(taken)):
        if space.key(params) not in taken:
            return params
    return params if space.size is None else None


def centre(space: Space) -> dict[str, Any]:
    """The middle of each range, by its own scale, and the first of options that have no order."""
    return space.from_unit([0.0 if each.is_choice and not is_ordered(each) else 0.5 for each in space.values()])


def generator(seed: int, ordinal: int) -> np.random.Generator:
    """The random numbers of one suggestion."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, ordinal])))


def _candidates(space: Space, seed: int, k: int, taken: int) -> Iterator[dict[str, Any]]:
    """The k-th point, then as many others as are needed to find one that is not among the `taken` ones."""
    if k == 0:
        yield centre(space)
    else:
        block, i = divmod(k - 1, _BLOCK)
        yield space.from_unit(_points(len(space), seed, block)[i].tolist())
    rng = generator(seed, k)
    if space.size is None:
        for _ in range(_RETRIES):
            yield space.from_unit(rng.random(len(space)).tolist())
        return
    start = int(rng.random() * space.size)
    for step in range(min(space.size, taken + 1)):
        yield space.config_at((start + step) % space.size)


@lru_cache(maxsize=32)
def _points(dimensions: int, seed: int, block: int) -> NDArray[np.float64]:
    """Points block * 256 ... block * 256 + 255 of the sequence; a cache only, the points do not depend on it."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    sequence = qmc.Sobol(dimensions, scramble=True, rng=rng)
    if block:  # scipy's fast_forward(0) overflows
        sequence.fast_forward(block * _BLOCK)
    points = sequence.random(_BLOCK)
    points.setflags(write=False)
    return np.asarray(points)


@lru_cache(maxsize=8)
def lattice(dimensions: int, count: int) -> NDArray[np.float64]:
    """The first `count` (a power of two) points of the unscrambled sequence, to be shifted by whoever uses them."""
    points = qmc.Sobol(dimensions, scramble=False).random(count)
    points.setflags(write=False)
    return np.asarray(points)
