"""One trial's learning curve: packed points (attempt, step, score), as they stand in Redis."""

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

_POINT = struct.Struct("<HId")  # 14 bytes: attempt, step, score; NaN marks an invalid score


class Point(NamedTuple):
    """The score of one step; `score` is None when it was not a finite number."""

    attempt: int
    step: int
    score: float | None


def pack(point: Point) -> bytes:
    """A point as it is appended to the curve."""
    return _POINT.pack(point.attempt, point.step, math.nan if point.score is None else point.score)


def unpack(curve: bytes) -> Iterator[Point]:
    """All points of a curve, in the order they were committed."""
    for attempt, step, score in _POINT.iter_unpack(curve):
        yield Point(attempt, step, None if math.isnan(score) else score)
