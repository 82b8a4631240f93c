"""Configurations as arrays.

A unit row u (d,) has one number of [0, 1] for each hyper-parameter that has more than one value; those with one value
are left out here and put back by `config`. A feature row x (p,) is what the kernel sees: u itself for numbers, and one
column per option, 1 / sqrt2 at the chosen one, for choices, so that two different options are at distance 1.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpopt.core.space import Space
from hpopt.samplers.axis import axis
from hpopt.samplers.confine import mover

Array = NDArray[np.float64]

MAX_FEATURES = 2048
"""Beyond it, choices of hundreds of options share columns: some options look alike to the model."""


class Encoding:
    """Between the configurations of a space of more than one, and their unit and feature rows; U is (m, d)."""

    def __init__(self, space: Space, allowed: Space | None = None) -> None:
        """`allowed`: the part of the space in which candidates have to stay, if not all of it."""
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
        narrowed = {name: part for name, part in (allowed or space).items() if part != space[name]}
        self._continua = {name: part for name, part in narrowed.items() if space[name].size is None}
        names = [name for name, dimension in space.items() if dimension.size != 1]
        self._movers = {
            k: mover(space[name], narrowed[name], self.axes[k]) for k, name in enumerate(names) if name in narrowed
        }

    def units(self, configs: Sequence[dict[str, Any]]) -> Array:
        """The unit rows (m, d) of configurations."""
        rows = np.array([self._space.to_unit(params) for params in configs]).reshape(len(configs), len(self._space))
        return self.snap(rows[:, self._free])

    def config(self, u: Array) -> dict[str, Any]:
        """The configuration of one unit row (d,)."""
        unit = np.full(len(self._space), 0.5)
        unit[self._free] = u
        params = self._space.from_unit(unit.tolist())
        # what is on the bound in the unit cube may be beyond it by a rounding error
        return {**params, **{name: part.nearest(params[name]) for name, part in self._continua.items()}}

    def confine(self, U: Array) -> Array:
        """Unit rows that all lie in the allowed part: those of U, moved as far as need be."""
        U = U.copy()
        for column, move in self._movers.items():
            U[:, column] = move(U[:, column])
        return U

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
