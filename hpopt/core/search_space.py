"""SearchSpace: one hyper-parameter, as users write it down."""

import copy
import difflib
import math
import operator
import reprlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Self

from hpopt.core.coordinate import Linear, Logarithm, Place
from hpopt.core.dimension import Choice, Dimension, LogUniform, QLogUniform, QUniform, Uniform

_KINDS: dict[str, tuple[Callable[[list[Any]], Any], Callable[[Any], Linear | Logarithm | Place]]] = {
    "uniform": (Uniform, Linear),
    "quniform": (QUniform, Linear),
    "loguniform": (LogUniform, Logarithm),
    "qloguniform": (QLogUniform, Logarithm),
    "choice": (Choice, Place),
}


class SearchSpace:
    """One hyper-parameter: which values it may take, and how likely each is.

    | type | range | values |
    |---|---|---|
    | uniform | [lo, hi] | floats |
    | quniform | [lo, hi, q] | the multiples of q that lie in [lo, hi]; ints if q is an int |
    | loguniform | [lo, hi], [lo, hi, base] | floats, uniform in their logarithm; the base (10) changes no value |
    | qloguniform | [lo, hi, q], [lo, hi, q, base] | multiples of q, uniform in their logarithm |
    | choice | [option, ...] | 1 to 1,000 JSON values; equal ones count once |

    Both bounds belong to the range; lo == hi is one value. A SearchSpace never changes, and keeps no reference to the
    list it was made from. Two are equal when they mean the same: a tuple is as good as a list, [0, 1] as [0.0, 1.0].

    Raises TypeError for an unknown type and for a range or a member of it that is of the wrong type, ValueError for
    bounds, steps and bases that make no sense.
    """

    __slots__ = ("_coordinate", "_dimension", "_type")

    def __init__(self, type: str, range: Sequence[Any]) -> None:
        if not isinstance(type, str) or type not in _KINDS:
            raise TypeError(f"type={type!r} is none of {', '.join(_KINDS)}{hint(type, _KINDS)}")
        make_dimension, make_coordinate = _KINDS[type]
        try:
            self._dimension: Dimension = make_dimension(_listed(range))
        except (TypeError, ValueError) as error:
            problem = f"{type} {reprlib.repr(range)}: {error}"
            raise (TypeError if isinstance(error, TypeError) else ValueError)(problem) from None
        self._coordinate = make_coordinate(self._dimension)
        self._type = type

    @property
    def type(self) -> str:
        """One of uniform, quniform, loguniform, qloguniform, choice."""
        return self._type

    @property
    def range(self) -> list[Any]:
        """A copy of the range as it was given, in plain Python values."""
        return copy.deepcopy(self._dimension.range)

    @property
    def size(self) -> int | None:
        """How many distinct values there are; None when they are a continuum."""
        return self._dimension.size

    @property
    def is_choice(self) -> bool:
        """Whether the values are options, not numbers of a range."""
        return self._type == "choice"

    @property
    def is_quantized(self) -> bool:
        """Whether the values are the multiples of a step."""
        return self._type in ("quniform", "qloguniform")

    def from_unit(self, u: float) -> Any:
        """The value at u in [0, 1]: a uniform u gives values as likely as the type says. u beyond is moved inside."""
        return self._dimension.from_unit(_unit(u))

    def to_unit(self, value: Any) -> float:
        """Where the value nearest to this one stands in [0, 1]; an option has to be exact (ValueError)."""
        return self._dimension.to_unit(value)

    def value_at(self, index: int) -> Any:
        """Value number `index` of a finite space, rising or in the order of the options; ValueError if none."""
        if self.size is None:
            raise ValueError(f"the values of {self!r} are not numbered: they are a continuum")
        index = operator.index(index)
        if not 0 <= index < self.size:
            raise ValueError(f"{self!r} has no value number {index}; use 0 to {self.size - 1}")
        return self._dimension.at(index)

    def index_of(self, value: Any) -> int:
        """The number of a value of a finite space; ValueError if it is none of its values."""
        if self.size is None or not self.contains(value):
            raise ValueError(f"{reprlib.repr(value)} is no numbered value of {self!r}")
        return self._dimension.index(value)

    def contains(self, value: Any) -> bool:
        """Whether it is one of the values, give or take a rounding error; options have to be of the same type."""
        return self._dimension.contains(value)

    def key(self, value: Any) -> Hashable:
        """What tells the value nearest to this one from all others."""
        return self._dimension.index(value) if self.is_choice else self._dimension.nearest(value)

    def nearest(self, value: Any) -> Any:
        """The value nearest to this one, of the type that `from_unit` gives; an option has to be exact (ValueError)."""
        return self._dimension.nearest(value)

    def lower_space(self) -> float:
        """The lower bound of the internal coordinate: lo, log_base(lo), or 0 for a choice."""
        return self._coordinate.lower

    def upper_space(self) -> float:
        """The upper bound of the internal coordinate: hi, log_base(hi), or the number of options."""
        return self._coordinate.upper

    def space_to_real(self, x: float) -> Any:
        """The value at the internal coordinate x, which is moved inside its bounds."""
        return self._coordinate.value(x)

    def real_to_space(self, value: Any) -> float:
        """The internal coordinate of the value nearest to this one."""
        return self._coordinate.of(value)

    def to_wire(self) -> list[Any]:
        """[type, range], of values that JSON and msgpack know."""
        return [self._type, self.range]

    @classmethod
    def from_wire(cls, wire: Sequence[Any]) -> Self:
        """The SearchSpace that `to_wire` was called on; raises ValueError or TypeError for anything else."""
        kind, values = row(wire, 2)
        return cls(kind, values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SearchSpace):
            return NotImplemented
        return self._type == other._type and self._dimension.canonical == other._dimension.canonical

    def __hash__(self) -> int:
        return hash((self._type, self._dimension.canonical))

    def __repr__(self) -> str:
        return f"SearchSpace({self._type!r}, {reprlib.repr(self._dimension.range)})"


def hint(name: Any, known: Iterable[str]) -> str:
    """What the user may have meant by an unknown name, as the end of a message."""
    close = difflib.get_close_matches(name.lower(), known, n=1) if isinstance(name, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def row(wire: Any, length: int | None = None) -> list[Any]:
    """The items of a list from the wire; ValueError unless it is one of this length."""
    if not isinstance(wire, list | tuple) or length not in (None, len(wire)):
        raise ValueError(f"{reprlib.repr(wire)} is no list of {length or 'any number of'} items")
    return list(wire)


def _listed(range: Any) -> list[Any]:
    values = range.tolist() if hasattr(range, "tolist") else range  # arrays and tensors are no Sequence
    if not isinstance(values, Sequence) or isinstance(values, str | bytes | bytearray):
        raise TypeError(f"the range is a {type(range).__name__}; pass a list")
    return list(values)


def _unit(u: float) -> float:
    u = float(u)
    if 0.0 <= u <= 1.0:
        return u
    if math.isnan(u):
        raise ValueError("u is NaN; pass a number in [0, 1]")
    return 0.0 if u < 0.0 else 1.0
