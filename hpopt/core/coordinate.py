"""The internal coordinate of `SearchSpace.space_to_real`: x, log_base(x) for the log types, the place of an option.

Only programs written for that interface use it; the search itself works on the unit interval. A coordinate beyond
`lower` or `upper` means the nearer of the two, so that no value is out of range.
"""

import math
from typing import Any

from hpopt.core.dimension import Choice, LogUniform, QLogUniform, QUniform, Uniform
from hpopt.core.value import number


class Linear:
    """A number is its own coordinate."""

    def __init__(self, dimension: Uniform | QUniform) -> None:
        self._dimension = dimension
        self.lower, self.upper = float(dimension.range[0]), float(dimension.range[1])

    def value(self, x: float) -> Any:
        """The value nearest to x."""
        return self._dimension.nearest(x)

    def of(self, value: Any) -> float:
        """The nearest value."""
        return float(self._dimension.nearest(value))


class Logarithm:
    """The coordinate of a number is its logarithm to the base of the dimension."""

    def __init__(self, dimension: LogUniform | QLogUniform) -> None:
        self._dimension = dimension
        self._scale, self._end = math.log(dimension.base), math.log(dimension.range[1])
        self.lower, self.upper = math.log(dimension.range[0]) / self._scale, self._end / self._scale

    def value(self, x: float) -> Any:
        """The value nearest to base^x."""
        return self._dimension.nearest(math.exp(min(number(x) * self._scale, self._end)))

    def of(self, value: Any) -> float:
        """Log_base of the nearest value."""
        return math.log(self._dimension.nearest(value)) / self._scale


class Place:
    """The coordinates of option i are [i, i + 1); it stands at i + 1/2."""

    def __init__(self, dimension: Choice) -> None:
        self._dimension = dimension
        self.lower, self.upper = 0.0, float(dimension.count)

    def value(self, x: float) -> Any:
        """The option of number floor(x)."""
        return self._dimension.at(int(min(max(number(x), 0), self.upper - 1)))

    def of(self, value: Any) -> float:
        """The middle of the option's unit."""
        return self._dimension.index(value) + 0.5
