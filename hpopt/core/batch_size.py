"""What is learned from running out of memory: a bound on the batch size, and the sizes to try below it."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from hpopt.core.space import SearchSpace, Space

Size = int | float


@dataclass(frozen=True, slots=True)
class BatchSizeBound:
    """`fits` is the largest size that is known to fit, `fails` the smallest that ran out of memory."""

    fits: Size | None = None
    fails: Size | None = None

    def scored(self, size: Any) -> Self:
        """The bound after a trial of this size got through a step; that is no proof where the size has failed."""
        if not is_size(size) or size <= (self.fits or 0) or (self.fails is not None and size >= self.fails):
            return self
        return type(self)(size, self.fails)

    def fitted(self, size: Any) -> Self:
        """The bound after a trial of this size came to a good end, though the size may have failed elsewhere.

        It may have had a lighter configuration, or a larger machine.
        """
        proves = is_size(size) and self.fails is not None and size >= self.fails
        return type(self)(size) if proves else self.scored(size)

    def failed(self, size: Size) -> Self:
        """The bound after a trial of this size ran out of memory."""
        fails = size if self.fails is None else min(self.fails, size)
        return type(self)(None if self.fits is not None and self.fits >= fails else self.fits, fails)

    def allows(self, space: SearchSpace, size: Any) -> bool:
        """Whether a trial may begin with this value: it has not been shown to fail, or there is no smaller size."""
        return self.fails is None or not is_size(size) or size < self.fails or size <= _smallest(space)

    def smaller(self, space: SearchSpace, *, again: bool = False) -> Iterator[Size]:
        """The sizes of the space below the bound, in the order in which to try them.

        First half of what fails, or midway (in log scale) to what fits; `again`: what fits, as midway was not enough.
        """
        if self.fails is None:
            return
        target = self.fails / 2 if self.fits is None else self.fits if again else _midway(self.fits, self.fails)
        if space.size is None:
            lowest = space.range[0]
            tries = dict.fromkeys(space.nearest(size) for size in (target, lowest))
            yield from (size for size in tries if 0 < size < self.fails)
            return
        sizes = _Sizes(space)
        below = sizes.below(self.fails)
        first = min(sizes.up_to(target), below)
        yield from map(sizes.at, reversed(range(first)))
        yield from map(sizes.at, range(first, below))

    def instead(self, space: SearchSpace) -> Iterator[Size]:
        """The sizes for a configuration whose own is not allowed: smaller ones, then the smallest, though it failed."""
        yield from self.smaller(space)
        smallest = _smallest(space)
        if self.fails is not None and 0 < smallest < math.inf:
            yield smallest

    def within(self, space: SearchSpace) -> SearchSpace:
        """The hyper-parameter without the values that are not allowed."""
        if self.fails is None:
            return space
        if space.is_choice:
            return SearchSpace(space.type, [option for option in space.range if self.allows(space, option)])
        lo, hi, *rest = space.range
        if space.size is None:
            largest: Size = math.nextafter(self.fails, -math.inf)
        else:
            sizes = _Sizes(space)
            largest = sizes.at(sizes.below(self.fails) - 1) if sizes.below(self.fails) else lo
        return SearchSpace(space.type, [lo, min(hi, max(largest, _smallest(space))), *rest])


NO_BOUND = BatchSizeBound()
"""Nothing is known yet."""


def allowed(space: Space, name: str | None, bound: BatchSizeBound) -> Space:
    """The part of the search space with batch sizes (the hyper-parameter `name`) that the bound allows."""
    if name is None or bound.fails is None:
        return space
    return Space({**space, name: bound.within(space[name])})


def has_sizes(space: SearchSpace) -> bool:
    """Whether any value of the hyper-parameter can be a batch size."""
    return _Sizes(space).count > 0 if space.size is not None else space.range[1] > 0


def is_size(value: Any) -> bool:
    """Whether the value is a number that can be a batch size."""
    return type(value) in (int, float) and value > 0


class _Sizes:
    """The sizes that a finite hyper-parameter can take, rising, without listing a large grid."""

    def __init__(self, space: SearchSpace) -> None:
        size = space.size or 0
        if space.is_choice:
            options = sorted(filter(is_size, space.range))
            self.at: Callable[[int], Size] = options.__getitem__
            self.count = len(options)
        else:
            skipped = bisect_right(range(size), 0, key=space.value_at)  # 0 and less are no sizes
            self.at = lambda i: space.value_at(skipped + i)
            self.count = size - skipped

    def below(self, limit: float) -> int:
        """How many sizes are smaller than the limit."""
        return bisect_left(range(self.count), limit, key=self.at)

    def up_to(self, limit: float) -> int:
        """How many sizes are at most the limit."""
        return bisect_right(range(self.count), limit, key=self.at)


def _midway(a: Size, b: Size) -> float:
    """The geometric mean; that of two whole numbers is exact where it is whole."""
    return math.sqrt(a * b) if math.isfinite(a * b) else math.sqrt(a) * math.sqrt(b)


def _smallest(space: SearchSpace) -> Size:
    """The smallest size of the space; infinity if it has none."""
    if space.size is None:
        return max(0.0, float(space.range[0]))
    sizes = _Sizes(space)
    return sizes.at(0) if sizes.count else math.inf
