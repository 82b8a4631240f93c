"""The mean of a trial's scores over the later half of its steps."""

import math
from array import array
from dataclasses import dataclass, field
from itertools import accumulate


def _doubles() -> "array[float]":
    return array("d")


@dataclass(slots=True)
class LaterHalf:
    """All steps and scores of one trial, as they come, and the mean of the valid ones (finite) in the later half.

    At step 10 that is over steps 6 to 10, at step 11 over 6 to 11: those above half of the step, as far as they came.

    A step takes constant time on average. Nothing is ever subtracted from a sum: a huge loss at the first steps would
    leave its rounding error there for good. So the half is summed in two parts: a fixed one that only loses steps, with
    the sum from each of these on, and a growing one. When the fixed part is empty, which is so when the steps have
    doubled, all that there is becomes the fixed part.
    """

    steps: "array[int]" = field(default_factory=lambda: array("I"))
    scores: "array[float]" = field(default_factory=_doubles)
    _start: int = 0
    """Where the half begins in `steps`."""
    _valid: int = 0
    """How many valid scores the half has."""
    _fixed: "array[float]" = field(default_factory=_doubles)
    """The sum from each step of the fixed part to its end; that of the whole part is the last one."""
    _growing: float = 0.0

    def add(self, step: int, score: float) -> None:
        """Take in the next step; -inf is a score that is not valid."""
        self.steps.append(step)
        self.scores.append(score)
        self._growing += _summand(score)
        self._valid += score > -math.inf
        while self.steps[self._start] <= step // 2:
            self._valid -= self.scores[self._start] > -math.inf
            self._start += 1
            del self._fixed[-1:]
        if not self._fixed:
            newest_first = map(_summand, reversed(self.scores[self._start :]))
            self._fixed = array("d", accumulate(newest_first))
            self._growing = 0.0

    def mean(self) -> float:
        """Of the valid scores in the half; -inf without any. Infinite too where their sum overflows."""
        return (self._fixed[-1] + self._growing) / self._valid if self._valid else -math.inf


def _summand(score: float) -> float:
    return score if score > -math.inf else 0.0
