"""ASHA, the stopping variant: at each rung only the best 1/reduction_factor of the trials that got there go on.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (arXiv 1810.05934). Instead of pausing
and promoting, a trial that is not among the best of its rung when it arrives is stopped: no checkpoint is needed.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Self

from hpopt.core.spec import StudySpec
from hpopt.core.trial import Trial


def rung_levels(min_iterations: int, max_iterations: int, reduction_factor: int, bracket: int = 0) -> tuple[int, ...]:
    """min(R, r * eta^(bracket + k)) for k = 0, 1, ...: strictly rising integers, the last one is max_iterations."""
    level = min_iterations * reduction_factor**bracket
    levels = []
    while level < max_iterations:
        levels.append(level)
        level *= reduction_factor
    return (*levels, max_iterations)


def max_brackets(min_iterations: int, max_iterations: int, reduction_factor: int) -> int:
    """How many brackets differ: the last of them has max_iterations as its only rung."""
    return len(rung_levels(min_iterations, max_iterations, reduction_factor))


def bracket_of(spec: StudySpec, trial_id: int) -> int:
    """The bracket of a trial, drawn with the shares that asynchronous Hyperband gives: eta^(K-s) (K+1)/(K-s+1)."""
    brackets, eta = spec.num_brackets or 1, spec.reduction_factor
    if brackets == 1:
        return 0
    top = max_brackets(spec.min_iterations or 1, spec.iterations, eta) - 1
    shares = [eta ** (top - s) * (top + 1) / (top - s + 1) for s in range(brackets)]
    return Random(f"{spec.seed}/{trial_id}").choices(range(brackets), shares)[0]


@dataclass(slots=True)
class _Progress:
    best: float | None = None  # None before the first report
    recorded: list[float | None] = field(default_factory=list)  # value at rung 0, 1, ...; None where there was none


class Asha:
    """The rule. `rungs[bracket][k]` holds, sorted, the best score so far of every trial that passed rung k."""

    def __init__(self, brackets: list[tuple[int, ...]], reduction_factor: int, sign: float = 1.0) -> None:
        """One tuple of levels per bracket; nothing is decided at the last level, where a trial is complete."""
        self.levels = [levels[:-1] for levels in brackets]
        self.rungs: list[list[list[float]]] = [[[] for _ in levels] for levels in self.levels]
        self.reduction_factor = reduction_factor
        self.sign = sign
        self.progress: dict[int, _Progress] = {}

    @classmethod
    def of(cls, spec: StudySpec) -> Self:
        """The rule for a resolved spec."""
        low, high, eta = spec.min_iterations or 1, spec.iterations, spec.reduction_factor
        return cls([rung_levels(low, high, eta, s) for s in range(spec.num_brackets or 1)], eta, spec.sign)

    def observe(self, trial: Trial, step: int, goodness: float) -> str | None:
        """See Scheduler. A report that jumps over rungs stands in each of them and is judged at the highest."""
        progress = self.progress.setdefault(trial.id, _Progress())
        levels, rungs = self.levels[trial.bracket], self.rungs[trial.bracket]
        before = progress.best
        progress.best = goodness if before is None else max(before, goodness)
        passed = range(len(progress.recorded), bisect_right(levels, step))
        for rung in passed:
            value = progress.best if levels[rung] == step else before
            progress.recorded.append(value)
            if value is not None:
                insort(rungs[rung], value)
        return self._judge(rungs[passed[-1]], levels[passed[-1]], progress.recorded[-1]) if passed else None

    def recall(self, trial: Trial, scores: Iterable[tuple[int, float]]) -> None:
        """See Scheduler."""
        for step, goodness in scores:
            self.observe(trial, step, goodness)

    def forget(self, trial: Trial) -> None:
        """See Scheduler."""
        progress = self.progress.pop(trial.id, _Progress())
        for rung, value in zip(self.rungs[trial.bracket], progress.recorded, strict=False):
            if value is not None:
                del rung[bisect_left(rung, value)]

    def _judge(self, rung: list[float], level: int, value: float | None) -> str | None:
        keep = max(1, len(rung) // self.reduction_factor)
        if value is None or value >= rung[-keep]:
            return None
        best, worst = self.sign * value, self.sign * rung[-keep]
        return f"asha: {best:.6g} at rung {level} is not among the best {keep} of {len(rung)} (worst kept: {worst:.6g})"
