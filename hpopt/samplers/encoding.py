"""Configurations as arrays.

A unit row u (d,) has one number of [0, 1] for each hyper-parameter that has more than one value; those with one value
are left out here and put back by `config`. A feature row x (p,) is what the kernel sees: u itself for numbers, and one
column per option, 1 / sqrt2 at the chosen one, for choices, so that two different options are at distance 1.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpopt.core.space import SearchSpace, Space

Array = NDArray[np.float64]

SMOOTH_CELLS = 64
"""A grid of more cells than this is climbed like a continuous dimension, and snapped at the end."""
MAX_FEATURES = 2048
"""Beyond it, choices of hundreds of options share columns: some options look alike to the model."""
MAX_NEIGHBOURS = 64
LOG_RATIO = 10.0
"""Rising positive numbers that span this much are compared by their logarithms."""
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
        values: Array = np.array(levels, dtype=float)
        if values[0] > 0.0 and values[-1] / values[0] >= LOG_RATIO:
            values = np.log(values)
        self._places: Array = (values - values[0]) / (values[-1] - values[0])

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


class Encoding:
    """Between the configurations of a space of more than one, and their unit and feature rows; U is (m, d)."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._free = [i for i, dimension in enumerate(space.values()) if dimension.size != 1]
        width = MAX_FEATURES // len(self._free)
        self.axes = [axis(dimension, width) for dimension in space.values() if dimension.size != 1]
        widths = [each.width for each in self.axes]
        self.groups = np.repeat(np.arange(len(widths)), widths)
        """(p,) the hyper-parameter of each feature; those of one hyper-parameter share a lengthscale."""
        self.smooth = np.flatnonzero([each.smooth for each in self.axes])
        """Columns of U that have a gradient, ..."""
        self.smooth_features = np.flatnonzero(np.isin(self.groups, self.smooth))
        """... and their features: one each, with the same gradient."""

    def units(self, configs: Sequence[dict[str, Any]]) -> Array:
        """The unit rows (m, d) of configurations."""
        rows = np.array([self._space.to_unit(params) for params in configs]).reshape(len(configs), len(self._space))
        return self.snap(rows[:, self._free])

    def config(self, u: Array) -> dict[str, Any]:
        """The configuration of one unit row (d,)."""
        unit = np.full(len(self._space), 0.5)
        unit[self._free] = u
        return self._space.from_unit(unit.tolist())

    def snap(self, U: Array) -> Array:
        """The unit rows of the configurations that U stands for."""
        return np.column_stack([each.snap(column) for each, column in zip(self.axes, U.T, strict=True)])

    def features(self, U: Array) -> Array:
        """The feature rows (m, p) of snapped unit rows."""
        return np.column_stack([each.features(column) for each, column in zip(self.axes, U.T, strict=True)])

    def everything(self, limit: int) -> Array | None:
        """All unit rows of a space of at most `limit` configurations, else None."""
        if math.prod(each.cells for each in self.axes) > limit:
            return None
        grids = np.meshgrid(*(each.centres() for each in self.axes), indexing="ij")
        return np.column_stack([grid.ravel() for grid in grids])
