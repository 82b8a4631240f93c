"""ASHA, the stopping variant: at each rung only the best 1/reduction_factor of the trials that got there go on.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (arXiv 1810.05934). Instead of pausing
and promoting, a trial that is not among the best of its rung when it arrives is stopped: no checkpoint is needed.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from sortedcontainers import SortedList

from hpopt.core.rungs import levels_of
from hpopt.core.schedulers.base import Stop, in_words, shown
from hpopt.core.spec import StudySpec
from hpopt.core.trial import Trial


@dataclass(slots=True)
class _Progress:
    best: float | None = None  # None before the first report
    recorded: list[float | None] = field(default_factory=list)  # value at rung 0, 1, ...; None where there was none


class Asha:
    """The rule. `rungs[bracket][k]` holds, sorted, the best score so far of every trial that passed rung k.

    Sorted lists find a value's place, and the one of a rank, in O(log n): a rung may have 100,000 trials.
    """

    def __init__(self, brackets: list[tuple[int, ...]], reduction_factor: int, sign: float = 1.0) -> None:
        """One tuple of levels per bracket; nothing is decided at the last level, where a trial is complete."""
        self.levels = [levels[:-1] for levels in brackets]
        self.rungs = [[SortedList() for _ in levels] for levels in self.levels]
        self.reduction_factor = reduction_factor
        self.sign = sign
        self.progress: dict[int, _Progress] = {}

    @classmethod
    def of(cls, spec: StudySpec) -> Self:
        """The rule for a resolved spec."""
        return cls([levels_of(spec, s) for s in range(spec.num_brackets or 1)], spec.reduction_factor, spec.sign)

    def observe(self, trial: Trial, step: int, goodness: float) -> Stop | None:
        """See Scheduler. A report that jumps over rungs stands in each of them and is judged at the highest.

        At a rung that it has passed a trial stands with what it had then.
        """
        progress = self.progress.setdefault(trial.id, _Progress())
        levels, rungs = self.levels[trial.bracket], self.rungs[trial.bracket]
        before = progress.best
        progress.best = goodness if before is None else max(before, goodness)
        passed = range(len(progress.recorded), bisect_right(levels, step))
        for rung in passed:
            value = progress.best if levels[rung] == step else before
            progress.recorded.append(value)
            if value is not None:
                rungs[rung].add(value)
        return self._judge(rungs[passed[-1]], levels[passed[-1]], progress.recorded[-1], step) if passed else None

    def recall(self, trial: Trial, scores: Iterable[tuple[int, float]]) -> None:
        """See Scheduler."""
        for step, goodness in scores:
            self.observe(trial, step, goodness)

    def marks(self, trial: Trial) -> tuple[tuple[int, float], ...]:
        """See Scheduler: the rungs."""
        recorded = self.progress.get(trial.id, _Progress()).recorded
        pairs = zip(self.levels[trial.bracket], recorded, strict=False)
        return tuple((level, value) for level, value in pairs if value is not None and value > -math.inf)

    def forget(self, trial: Trial) -> None:
        """See Scheduler."""
        progress = self.progress.pop(trial.id, _Progress())
        for rung, value in zip(self.rungs[trial.bracket], progress.recorded, strict=False):
            if value is not None:
                rung.remove(value)

    def dismiss(self, trial: Trial) -> None:
        """See Scheduler. What it had at the rungs it had come to is as true as that of any other."""

    def _judge(self, rung: "SortedList[float]", level: int, value: float | None, step: int) -> Stop | None:
        keep = max(1, len(rung) // self.reduction_factor)
        if value is None or value >= rung[-keep]:
            return None
        worst = rung[-keep]
        reason = (
            f"asha: {in_words(value, worst, self.sign)} at rung {level} is not among the best {keep} of {len(rung)} "
            f"(worst kept: {in_words(worst, value, self.sign)})"
        )
        return Stop("asha", step, shown(value, self.sign), shown(worst, self.sign), reason)
