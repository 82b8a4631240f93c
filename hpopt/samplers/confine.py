"""How candidates stay in the part of the search space that is allowed: with batches that fit into memory."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hpopt.core.batch_size import is_size
from hpopt.core.space import SearchSpace
from hpopt.samplers.axis import Axis

Array = NDArray[np.float64]


def mover(dimension: SearchSpace, allowed: SearchSpace, its: Axis) -> Callable[[Array], Array]:
    """Moves the coordinates (m,) of batch sizes that are not allowed to the largest that is.

    `its`: the axis of the dimension. Coordinates of its values become coordinates of its values.
    """
    if not dimension.is_choice:
        ceiling = its.snap(np.array([dimension.to_unit(allowed.from_unit(1.0))]))
        return lambda u: np.minimum(u, ceiling)
    centres = its.centres()
    largest = dimension.index_of(max(filter(is_size, allowed.range)))
    places = [i if allowed.contains(dimension.value_at(i)) else largest for i in range(len(centres))]
    moved = centres[places]
    return lambda u: moved[np.clip(u * len(moved), 0, len(moved) - 1).astype(np.intp)]
