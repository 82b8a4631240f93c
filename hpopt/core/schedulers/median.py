"""Median stopping: a trial stops when its best is worse than the median of what the others averaged by that step.

Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017, section 3.2.2.
"""

import math
from bisect import bisect_left, insort
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self

from hpopt.core.spec import StudySpec
from hpopt.core.trial import Trial

MIN_PEERS = 3
"""Fewer other trials than this say too little to stop anybody."""
GRACE = 0.1
"""Share of the iterations in which no trial is stopped."""


@dataclass(slots=True)
class _Curve:
    """One trial's valid scores in sum, and its running mean after each step it reported."""

    best: float = -math.inf
    total: float = 0.0
    valid: int = 0
    means: list[tuple[int, float]] = field(default_factory=list)  # (step, mean), steps rising

    def mean(self) -> float:
        return self.total / self.valid if self.valid else -math.inf


class MedianStop:
    """The rule. `by_step[t]` holds, sorted, the running mean at step t of every trial that got there."""

    def __init__(self, first_trial: int, iterations: int, sign: float = 1.0) -> None:
        """Never stop trials numbered below `first_trial` (the initial design)."""
        self.sign = sign
        self.first_trial = first_trial
        self.grace = max(1, math.ceil(GRACE * iterations))
        self.curves: dict[int, _Curve] = {}
        self.by_step: dict[int, list[float]] = {}

    @classmethod
    def of(cls, spec: StudySpec) -> Self:
        """The rule for a resolved spec."""
        return cls(spec.num_init_trials, spec.iterations, spec.sign)

    def observe(self, trial: Trial, step: int, goodness: float) -> str | None:
        """See Scheduler. The peers' median is taken before this trial joins them at the step."""
        curve = self.curves.setdefault(trial.id, _Curve())
        median = self._median(step)
        self._add(curve, step, goodness)
        if trial.id < self.first_trial or step <= self.grace or median is None or not curve.best < median:
            return None
        best, cutoff = self.sign * curve.best, self.sign * median
        return f"median_stop: best {best:.6g} by step {step} is worse than {cutoff:.6g}, the median of others' means"

    def forget(self, trial: Trial) -> None:
        """See Scheduler."""
        curve = self.curves.pop(trial.id, None)
        if curve is None:
            return
        for (start, _), (end, mean) in pairwise([(0, 0.0), *curve.means]):
            for step in range(start + 1, end + 1):
                peers = self.by_step[step]
                del peers[bisect_left(peers, mean)]

    def _add(self, curve: _Curve, step: int, goodness: float) -> None:
        if goodness > -math.inf:
            curve.best = max(curve.best, goodness)
            curve.total += goodness
            curve.valid += 1
        start = curve.means[-1][0] if curve.means else 0
        mean = curve.mean()
        for passed in range(start + 1, step + 1):  # steps that were not reported count as this one
            insort(self.by_step.setdefault(passed, []), mean)
        curve.means.append((step, mean))

    def _median(self, step: int) -> float | None:
        peers = self.by_step.get(step, ())
        if len(peers) < MIN_PEERS:
            return None
        middle = len(peers) // 2
        return peers[middle] if len(peers) % 2 else (peers[middle - 1] + peers[middle]) / 2
