"""Space: all the hyper-parameters of a study."""

import math
import operator
import reprlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Self

from hpopt.core.search_space import SearchSpace, hint, row
from hpopt.core.value import text

__all__ = ["SearchSpace", "Space"]

MAX_DIMENSIONS = 64
MAX_NAME = 64


class Space(Mapping[str, SearchSpace]):
    """The hyper-parameters of a study by name, in the order given; 1 to 64 of them, with names of 1 to 64 characters.

    Raises TypeError or ValueError that names the hyper-parameter.
    """

    def __init__(self, spaces: Mapping[str, SearchSpace]) -> None:
        if not isinstance(spaces, Mapping):
            raise TypeError(f"the search space is a {type(spaces).__name__}; pass a dict of name -> SearchSpace")
        if not 0 < len(spaces) <= MAX_DIMENSIONS:
            raise ValueError(f"{len(spaces)} hyper-parameters in the search space; give 1 to {MAX_DIMENSIONS}")
        for name, space in spaces.items():
            if not isinstance(space, SearchSpace):
                raise TypeError(f"{name}={reprlib.repr(space)}: pass an hpopt.search_space(type, range)")
        self._spaces = {_name(name): space for name, space in spaces.items()}

    def __getitem__(self, name: str) -> SearchSpace:
        return self._spaces[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._spaces)

    def __len__(self) -> int:
        return len(self._spaces)

    def __repr__(self) -> str:
        return f"Space({self._spaces!r})"

    @property
    def size(self) -> int | None:
        """How many distinct configurations there are; None when they are a continuum."""
        sizes = [space.size for space in self.values()]
        return None if None in sizes else math.prod(size for size in sizes if size)

    def from_unit(self, point: Sequence[float]) -> dict[str, Any]:
        """The configuration at a point of the unit cube, one coordinate per hyper-parameter."""
        if len(point) != len(self):
            raise ValueError(f"a point with {len(point)} coordinates; give {len(self)}: {', '.join(self)}")
        return {name: space.from_unit(u) for (name, space), u in zip(self._spaces.items(), point, strict=True)}

    def to_unit(self, params: Mapping[str, Any]) -> list[float]:
        """Where a configuration stands in the unit cube; params as `check` accepts them."""
        return [space.to_unit(params[name]) for name, space in self._spaces.items()]

    def key(self, params: Mapping[str, Any]) -> tuple[Hashable, ...]:
        """The identity of a configuration: equal for configurations that are the same; params as for `to_unit`."""
        return tuple(space.key(params[name]) for name, space in self._spaces.items())

    def config_at(self, index: int) -> dict[str, Any]:
        """Configuration number `index` of a finite space; the last hyper-parameter changes fastest."""
        index, size = operator.index(index), self.size
        if size is None or not 0 <= index < size:
            raise ValueError(f"there is no configuration number {index}: the space has {size or 'infinitely many'}")
        indices: dict[str, int] = {}
        for name, space in reversed(self._spaces.items()):
            index, indices[name] = divmod(index, space.size or 1)
        return {name: space.value_at(indices[name]) for name, space in self._spaces.items()}

    def check(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration as the search itself would have made it: complete, rounded, in the order of the space.

        Raises TypeError if it is no mapping, ValueError that names what is unknown, missing or outside.
        """
        if not isinstance(params, Mapping):
            raise TypeError(f"{reprlib.repr(params)} is a {type(params).__name__}; pass a dict of hyper-parameters")
        for name in params:
            if name not in self:
                raise ValueError(f"{name!r} is no hyper-parameter of this study{hint(name, self)}")
        for name, space in self.items():
            if name not in params:
                raise ValueError(f"{name!r} is missing in {reprlib.repr(dict(params))}: give a value of {space!r}")
            if not space.contains(params[name]):
                raise ValueError(f"{name}={reprlib.repr(params[name])} is outside {space!r}: give one of its values")
        return {name: space.nearest(params[name]) for name, space in self.items()}

    def to_wire(self) -> list[list[Any]]:
        """[[name, type, range], ...], of values that JSON and msgpack know."""
        return [[name, *space.to_wire()] for name, space in self._spaces.items()]

    @classmethod
    def from_wire(cls, wire: Sequence[Any]) -> Self:
        """The Space that `to_wire` was called on; raises ValueError or TypeError for anything else."""
        rows = [row(item, 3) for item in row(wire)]
        spaces = {_name(name): SearchSpace(kind, values) for name, kind, values in rows}
        if len(spaces) != len(rows):
            raise ValueError(f"{len(rows)} hyper-parameters with {len(spaces)} names; give each its own")
        return cls(spaces)


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name {name!r} of a hyper-parameter is a {type(name).__name__}; use a str")
    if not 0 < len(name) <= MAX_NAME:
        raise ValueError(f"the name {reprlib.repr(name)} has {len(name)} characters; use 1 to {MAX_NAME}")
    return text(name)
