"""The axes of a search space: what one hyper-parameter is to the sampler."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hpopt.core.space import SearchSpace

Array = NDArray[np.float64]

SMOOTH_CELLS = 64
"""A grid of more cells than this is climbed like a continuous dimension, and snapped at the end."""
MAX_NEIGHBOURS = 64
UNEVEN = 10.0
"""Numbers that span this much are compared by their logarithms; if gaps still differ so much, by their ranks."""
_STRIDES = np.array([-4.0, -2.0, -1.0, 1.0, 2.0, 4.0])


class Axis(Protocol):
    """One hyper-parameter; `u` are its coordinates (m,)."""

    smooth: bool
    width: int  # how many features
    cells: float  # how many values

    def snap(self, u: Array) -> Array:
        """The coordinates (m,) of the values that `u` stands for."""

    def features(self, u: Array) -> Array:
        """Snapped coordinates to features (m, width)."""

    def perturb(self, u: Array, sigma: Array, rng: np.random.Generator) -> Array:
        """Coordinates near `u`, by about sigma (m,)."""

    def neighbours(self, u: float) -> Array:
        """Coordinates of the values beside `u`, without `u`."""

    def centres(self) -> Array:
        """The coordinates of all values, for the enumeration of small spaces."""


class Continuous:
    """uniform, loguniform: a coordinate is its own value."""

    smooth = True
    width = 1
    cells = math.inf

    def snap(self, u: Array) -> Array:
        """The coordinates themselves, within [0, 1]."""
        return np.clip(u, 0.0, 1.0)

    def features(self, u: Array) -> Array:
        """One column."""
        return u[:, None]

    def perturb(self, u: Array, sigma: Array, rng: np.random.Generator) -> Array:
        """Gaussian; what leaves [0, 1] stays on its edge, where optima often are."""
        return np.clip(u + sigma * rng.standard_normal(len(u)), 0.0, 1.0)

    def neighbours(self, u: float) -> Array:  # noqa: ARG002 - as the other axes have it
        """None: the gradient goes there."""
        return np.empty(0)

    def centres(self) -> Array:
        """Not to be enumerated."""
        return np.empty(0)


class Grid:
    """quniform, qloguniform: equidistant values, whose coordinates are linear in the value or its logarithm."""

    width = 1

    def __init__(self, dimension: SearchSpace, size: int) -> None:
        self.cells, self.smooth = float(size), size > SMOOTH_CELLS
        first, last = dimension.value_at(0), dimension.value_at(size - 1)
        self._first, self._step = float(first), (float(last) - float(first)) / (size - 1)
        self._log = dimension.type == "qloguniform"
        self._low = dimension.to_unit(first)
        ends = self._scale(np.array([0.0, self.cells - 1.0]))
        self._origin, self._slope = float(ends[0]), (dimension.to_unit(last) - self._low) / float(ends[1] - ends[0])

    def _scale(self, index: Array) -> Array:
        values = self._first + index * self._step
        return np.log(values) if self._log else values

    def _centre(self, index: Array) -> Array:
        return self._low + self._slope * (self._scale(index) - self._origin)

    def _index(self, u: Array) -> Array:
        values = self._origin + (np.clip(u, 0.0, 1.0) - self._low) / self._slope
        values = np.exp(values) if self._log else values
        return np.clip(np.rint((values - self._first) / self._step), 0.0, self.cells - 1.0)

    def snap(self, u: Array) -> Array:
        """To the centre of the cell."""
        return self._centre(self._index(u))

    def features(self, u: Array) -> Array:
        """One column."""
        return u[:, None]

    def perturb(self, u: Array, sigma: Array, rng: np.random.Generator) -> Array:
        """Gaussian, and by one cell at least."""
        index, move = self._index(u), sigma * rng.standard_normal(len(u))
        moved = self._index(u + move)
        moved = np.where(moved == index, index + np.copysign(1.0, move), moved)
        return self._centre(np.clip(moved, 0.0, self.cells - 1.0))

    def neighbours(self, u: float) -> Array:
        """One, two and four cells away."""
        index = self._index(np.array([u])) + _STRIDES
        return self._centre(index[(index >= 0.0) & (index < self.cells)])

    def centres(self) -> Array:
        """Of every cell."""
        return self._centre(np.arange(self.cells))


class Levels:
    """choice among rising numbers, such as [16, 32, 64]: one feature, by which near numbers are alike."""

    smooth = False
    width = 1

    def __init__(self, levels: Sequence[float]) -> None:
        self._size, self.cells = len(levels), float(len(levels))
        self._places = places(levels)

    def _index(self, u: Array) -> NDArray[np.intp]:
        return np.clip(u * self._size, 0, self._size - 1).astype(np.intp)

    def _centre(self, index: Array | NDArray[np.intp]) -> Array:
        moved_inside: Array = np.clip(np.asarray(index, dtype=float), 0.0, self._size - 1.0)
        return (moved_inside + 0.5) / self._size

    def snap(self, u: Array) -> Array:
        """To the centre of the option's share of [0, 1]."""
        return self._centre(self._index(u))

    def features(self, u: Array) -> Array:
        """Where the number stands between the smallest and the largest."""
        return self._places[self._index(u)][:, None]

    def perturb(self, u: Array, sigma: Array, rng: np.random.Generator) -> Array:
        """Gaussian, and by one option at least."""
        index, move = self._index(u), sigma * self._size * rng.standard_normal(len(u))
        return self._centre(index + np.copysign(np.maximum(1.0, np.rint(np.abs(move))), move))

    def neighbours(self, u: float) -> Array:
        """One, two and four options away."""
        index = self._index(np.array([u])) + _STRIDES
        return self._centre(index[(index >= 0.0) & (index < self._size)])

    def centres(self) -> Array:
        """Of every option."""
        return self._centre(np.arange(self._size))


def places(levels: Sequence[float]) -> Array:
    """Where rising numbers stand in [0, 1]: by their logarithms if they span a lot, by their ranks if that is no help.

    Of [0, 1e-6, 1e-3, 1] the small ones must not be all the same to the model.
    """
    values: Array = np.array(levels, dtype=float)
    wide = values[0] > 0.0 and values[0] <= values[-1] / UNEVEN
    values = np.log(values) if wide else values / np.max(np.abs(values))  # so that no difference overflows
    gaps = np.diff(values)
    if np.max(gaps) >= UNEVEN * np.min(gaps):
        values = np.arange(len(levels), dtype=float)
    return np.asarray((values - values[0]) / (values[-1] - values[0]))


class Options:
    """choice: the options have no order."""

    smooth = False

    def __init__(self, size: int, width: int) -> None:
        self._size, self.cells, self.width = size, float(size), min(size, width)

    def _index(self, u: Array) -> NDArray[np.intp]:
        return np.clip(u * self._size, 0, self._size - 1).astype(np.intp)

    def snap(self, u: Array) -> Array:
        """To the centre of the option's share of [0, 1]."""
        return (self._index(u) + 0.5) / self._size

    def features(self, u: Array) -> Array:
        """One-hot, divided by sqrt2."""
        X = np.zeros((len(u), self.width))
        X[np.arange(len(u)), self._index(u) % self.width] = math.sqrt(0.5)
        return X

    def perturb(self, u: Array, sigma: Array, rng: np.random.Generator) -> Array:  # noqa: ARG002 - no distances here
        """Another option half of the time."""
        drawn = self.snap(rng.random(len(u)))
        return np.where(rng.random(len(u)) < 0.5, drawn, u)

    def neighbours(self, u: float) -> Array:
        """All other options, or 64 of them."""
        stride = math.ceil((self._size - 1) / MAX_NEIGHBOURS)
        steps = np.arange(1, self._size, stride)
        return ((self._index(np.array([u])) + steps) % self._size + 0.5) / self._size

    def centres(self) -> Array:
        """Of every option."""
        return (np.arange(self._size) + 0.5) / self._size


def axis(dimension: SearchSpace, width: int) -> Axis:
    """The axis of a hyper-parameter with more than one value; it has at most `width` features."""
    if dimension.size is None:
        return Continuous()
    if not dimension.is_choice:
        return Grid(dimension, dimension.size)
    return Levels(dimension.range) if is_ordered(dimension) else Options(dimension.size, width)


def is_ordered(dimension: SearchSpace) -> bool:
    """Whether it is a choice among three or more numbers that rise: then their order means something."""
    options = dimension.range if dimension.is_choice else []
    numbers = all(type(each) in {int, float} for each in options)
    return numbers and len(options) > 2 and all(a < b for a, b in pairwise(options))
