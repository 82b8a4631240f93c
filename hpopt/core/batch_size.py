"""What is learned from running out of memory: a bound on the batch size, and the next size to try."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hpopt.core.space import SearchSpace

Size = int | float


@dataclass(slots=True)
class BatchSizeBound:
    """`fits` is the largest size that reported a score, `fails` the smallest that ran out of memory."""

    fits: Size | None = None
    fails: Size | None = None

    def fitted(self, size: Any) -> bool:
        """A trial of this size got through a step; True if that is news."""
        if not is_size(size) or (self.fits is not None and size <= self.fits):
            return False
        self.fits = size
        if self.fails is not None and self.fails <= size:
            self.fails = None  # a lighter configuration, or a larger machine: the bound was too strict
        return True

    def failed(self, size: Size) -> None:
        """A trial of this size ran out of memory."""
        self.fails = size if self.fails is None else min(self.fails, size)
        if self.fits is not None and self.fits >= self.fails:
            self.fits = None

    def allows(self, size: Any) -> bool:
        """Whether the size has not been shown to fail."""
        return self.fails is None or not is_size(size) or size < self.fails

    def next_size(self, space: SearchSpace, failed: Size) -> Size | None:
        """The size to try after `failed`: half of it, or midway (in log scale) to a size that fits.

        None when the space has no smaller size.
        """
        target = failed / 2 if self.fits is None or self.fits >= failed else math.sqrt(self.fits * failed)
        sizes = _Sizes(space)
        below = sizes.below(failed)
        return sizes.at(max(0, min(below, sizes.up_to(target)) - 1)) if below else None

    def largest(self, space: SearchSpace) -> Size | None:
        """The largest size of the space below the bound, else its smallest; None when the space has no sizes."""
        sizes = _Sizes(space)
        if self.fails is None or not sizes.count:
            return None
        return sizes.at(max(0, sizes.below(self.fails) - 1))


def is_size(value: Any) -> bool:
    """Whether the value is a number that can be a batch size."""
    return type(value) in (int, float) and value > 0


class _Sizes:
    """The sizes a hyper-parameter can take, rising, without listing a large grid."""

    def __init__(self, space: SearchSpace) -> None:
        self.at: Callable[[int], Size] = space.value_at
        self.count = space.size or 0
        if space.is_choice:
            sizes = sorted(filter(is_size, space.range))
            self.at, self.count = sizes.__getitem__, len(sizes)

    def below(self, limit: float) -> int:
        """How many sizes are smaller than the limit."""
        return bisect_left(range(self.count), limit, key=self.at)

    def up_to(self, limit: float) -> int:
        """How many sizes are at most the limit."""
        return bisect_right(range(self.count), limit, key=self.at)
