"""How many samples a subset has: of the dataset, and of each class when it is stratified."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

Class = TypeVar("Class", bound=Hashable)

MIN_SAMPLES = 500
"""No study makes a subset smaller than this many samples."""
EPSILON = 1e-6
"""500 / 531 of 531 samples is 499.99999999999994 in floating point, and means 500."""


def subset_size(total: int, ratio: float) -> int:
    """Samples in the part `ratio` in (0, 1] of `total` samples: rounded down, but at least one if there are any."""
    return min(total, max(1, int(total * ratio + EPSILON)))


def class_sizes(counts: Mapping[Class, int], size: int) -> dict[Class, int]:
    """How many of `size` samples each class gets, in proportion to its count in the whole dataset.

    `counts` are positive, `size` is at most their sum. The sizes add up to `size`, and none is above its count. If
    there are as many samples as classes, each class has one at least: one whose share is below 1 gets 1, and the
    others share the rest. What rounding down leaves over goes to the largest remainders (Hamilton's method); of equal
    ones, to the class that comes first.
    """
    sizes = dict.fromkeys(counts, 0)
    open_, left, total = dict(counts), size, sum(counts.values())
    if size >= len(counts):
        for name in sorted(counts, key=counts.__getitem__):  # from the rarest on, a share of the rest only grows
            if left * counts[name] >= total:
                break
            sizes[name], left, total = 1, left - 1, total - open_.pop(name)
    shares = {name: divmod(left * count, total) for name, count in open_.items()}  # whole numbers: exact
    sizes |= {name: whole for name, (whole, _) in shares.items()}
    missing = left - sum(whole for whole, _ in shares.values())
    for name in sorted(shares, key=lambda name: shares[name][1], reverse=True)[:missing]:
        sizes[name] += 1
    return sizes
