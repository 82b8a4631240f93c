"""The five kinds of hyper-parameter: which values each has, and where they lie on the unit interval.

A value of a finite dimension owns a cell of the unit interval, so that a uniform u gives every value its due: equal
shares for quniform and choice, for qloguniform the share of the logarithm that rounds to the value. What a model sees
of such a dimension is one point of each cell (Garrido-Merchan and Hernandez-Lobato, arXiv:1805.03463).
"""

import copy
import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Hashable
from fractions import Fraction
from typing import Any, ClassVar

from hpopt.core.value import MAX_INT, identity, json_value, number, numbers

DEFAULT_BASE = 10
MAX_OPTIONS = 1000
LEAST_STEP = 2.0**-1022
"""Floats below it have fewer digits than others."""


class Dimension(ABC):
    """One hyper-parameter. Its constructor takes the range, and says by TypeError or ValueError what is wrong with it.

    `range` has plain Python values; `size` is the number of distinct values, None for a continuum; `canonical` is equal
    for dimensions of one kind that mean the same.
    """

    range: list[Any]
    size: int | None
    canonical: Hashable
    _tolerance: float = 0.0

    @abstractmethod
    def nearest(self, value: Any) -> Any:
        """The value of the dimension closest to a number, or equal to an option; raises if there is none."""

    @abstractmethod
    def from_unit(self, u: float) -> Any:
        """The value at u in [0, 1]."""

    @abstractmethod
    def to_unit(self, value: Any) -> float:
        """Where the nearest value stands in [0, 1]."""

    @abstractmethod
    def index(self, value: Any) -> int:
        """The number of the nearest value, if the dimension is finite."""

    @abstractmethod
    def at(self, index: int) -> Any:
        """The value of a number in [0, size)."""

    def contains(self, value: Any) -> bool:
        """Whether it is a value of the dimension, give or take rounding errors; 8.0 may stand for 8."""
        try:
            x = number(value)
        except (TypeError, ValueError):
            return False
        return math.isclose(x, self.nearest(x), rel_tol=1e-15, abs_tol=self._tolerance)


class Uniform(Dimension):
    """Any float in [lo, hi]."""

    layout: ClassVar[tuple[str, ...]] = ("lo", "hi")

    def __init__(self, range: list[Any]) -> None:
        self.range = numbers(range, self.layout)
        self.lo, self.hi = float(self.range[0]), float(self.range[1])
        self.size = 1 if self.lo == self.hi else None
        self.canonical = (self.lo, self.hi)
        self._width = _finite(self.hi - self.lo)

    def nearest(self, value: Any) -> float:
        """The number itself, or the nearer bound."""
        return min(max(float(number(value)), self.lo), self.hi)

    def from_unit(self, u: float) -> float:
        """Lo + u (hi - lo)."""
        return self.hi if u == 1 else min(self.lo + u * self._width, self.hi)

    def to_unit(self, value: Any) -> float:
        """(value - lo) / (hi - lo)."""
        return (self.nearest(value) - self.lo) / self._width if self._width else 0.5

    def index(self, value: Any) -> int:  # noqa: ARG002 - there is one value only
        """0, when lo is hi."""
        return 0

    def at(self, index: int) -> float:  # noqa: ARG002 - the same
        """The only value, when lo is hi."""
        return self.lo


class LogUniform(Uniform):
    """Any float in [lo, hi], every order of magnitude as likely as another, whatever the base."""

    layout = ("lo", "hi", "base")

    def __init__(self, range: list[Any]) -> None:
        super().__init__(range)
        self.base = float((*self.range, DEFAULT_BASE)[2])
        self.canonical = (self.lo, self.hi, self.base)
        self._width = math.log1p(_finite((self.hi - self.lo) / self.lo))

    def from_unit(self, u: float) -> float:
        """Lo (hi / lo)^u, exact near lo when the range is narrow."""
        return self.hi if u == 1 else min(self.lo + self.lo * math.expm1(u * self._width), self.hi)

    def to_unit(self, value: Any) -> float:
        """Log(value / lo) / log(hi / lo)."""
        return math.log1p((self.nearest(value) - self.lo) / self.lo) / self._width if self._width else 0.5


class QUniform(Dimension):
    """The multiples of q in [lo, hi], each as likely as another: ints if q is an int, else floats.

    q is taken as the decimal that the user wrote, so that 3 * 0.1 is 0.3. Value number i is (first + i) * q.
    """

    layout: ClassVar[tuple[str, ...]] = ("lo", "hi", "q")

    def __init__(self, range: list[Any]) -> None:
        self.range = numbers(range, self.layout)
        self.canonical = (*self.range, isinstance(self.range[2], int))
        self._lo, self._hi, self._q = self.range[:3]
        q = _as_written(self._q)
        self._numerator, self._denominator = q.as_integer_ratio()
        self._first, self._last = math.ceil(_as_written(self._lo) / q), math.floor(_as_written(self._hi) / q)
        self.size = self._cells = self._last - self._first + 1
        self._tolerance = 1e-9 * self._q
        self._refuse_impossible()

    def _refuse_impossible(self) -> None:
        _finite(self._hi - self._lo)
        if self._q < LEAST_STEP:
            raise ValueError(f"q {self._q!r} is finer than floats are; use the type without q")
        largest = max(abs(self._first), abs(self._last))
        if self._cells < 1:
            raise ValueError(f"no multiple of q {self._q!r} lies between lo and hi; widen the range or change q")
        if largest > MAX_INT:
            raise ValueError(f"q {self._q!r} is finer than floats are at these bounds; use the type without q")
        if isinstance(self._q, int) and largest * self._q > MAX_INT:
            raise ValueError(f"its integers go beyond 2**53, where JSON tools lose digits; write q as {self._q}.0")

    def nearest(self, value: Any) -> int | float:
        """The multiple of q inside [lo, hi] that is closest."""
        return self.at(self.index(value))

    def from_unit(self, u: float) -> int | float:
        """The multiple whose cell, one of `size` equal ones, holds u."""
        return self.at(min(int(u * self._cells), self._cells - 1))

    def to_unit(self, value: Any) -> float:
        """The middle of the cell."""
        return (self.index(value) + 0.5) / self._cells

    def index(self, value: Any) -> int:
        """By rounding value / q."""
        multiple = round(min(max(number(value), self._lo), self._hi) / self._q)
        return min(max(multiple, self._first), self._last) - self._first

    def at(self, index: int) -> int | float:
        """(first + index) q, as an int or as the float closest to the decimal number."""
        numerator = (self._first + index) * self._numerator
        return numerator if isinstance(self._q, int) else numerator / self._denominator


class QLogUniform(QUniform):
    """The multiples of q in [lo, hi]; each as likely as what rounds to it has a share in the logarithm."""

    layout = ("lo", "hi", "q", "base")

    def __init__(self, range: list[Any]) -> None:
        super().__init__(range)
        self.base = float((*self.range, DEFAULT_BASE)[3])
        self.canonical = (*self.range[:3], isinstance(self._q, int), self.base)
        # In units of q the cells are [first - 1/2, first + 1/2], ...; first is at least 1.
        self._edge = self._first - 0.5
        self._width = math.log1p(self._cells / self._edge)

    def from_unit(self, u: float) -> int | float:
        """The multiple whose cell in log scale holds u."""
        return self.at(min(int(self._edge * math.expm1(u * self._width)), self._cells - 1))

    def to_unit(self, value: Any) -> float:
        """Where the multiple, the linear middle of its cell, stands in log scale."""
        return math.log1p((self.index(value) + 0.5) / self._edge) / self._width


class Choice(Dimension):
    """One of up to 1,000 JSON values, known by their place. An option given twice counts once.

    Options are told apart with their types: 1, 1.0, True and "1" are four.
    """

    def __init__(self, range: list[Any]) -> None:
        if not 0 < len(range) <= MAX_OPTIONS:
            raise ValueError(f"{len(range)} options; give 1 to {MAX_OPTIONS}, or use quniform for a grid of numbers")
        self.range = [json_value(option) for option in range]
        self._index: dict[Hashable, int] = {}
        self._options: list[Any] = []
        for option in self.range:
            if self._index.setdefault(identity(option), len(self._options)) == len(self._options):
                self._options.append(option)
        self.canonical = tuple(self._index)
        self.size = self.count = len(self._options)

    def nearest(self, value: Any) -> Any:
        """The option that equals the value."""
        return self.at(self.index(value))

    def from_unit(self, u: float) -> Any:
        """The option whose cell, one of `size` equal ones, holds u."""
        return self.at(min(int(u * self.count), self.count - 1))

    def to_unit(self, value: Any) -> float:
        """The middle of the cell."""
        return (self.index(value) + 0.5) / self.count

    def contains(self, value: Any) -> bool:
        """Whether the value is an option, of the same type."""
        try:
            return identity(value) in self._index
        except (TypeError, ValueError):
            return False

    def index(self, value: Any) -> int:
        """The place of the option; ValueError if it is none."""
        index = self._index.get(identity(value))
        if index is None:
            raise ValueError(f"{reprlib.repr(value)} is none of the options")
        return index

    def at(self, index: int) -> Any:
        """The option at the place; a list or a dict is a copy, as whoever gets it may change it."""
        option = self._options[index]
        return copy.deepcopy(option) if type(option) in (list, dict) else option


def _finite(width: float) -> float:
    if math.isinf(width):
        raise ValueError("the range is wider than a float can hold; narrow it")
    return width


def _as_written(x: float) -> Fraction:
    """The number the user means by a float: the simple fraction it is closest to (1/3), else its decimal digits."""
    simple = Fraction(x).limit_denominator(1000)
    return simple if float(simple) == x else Fraction(repr(x))
