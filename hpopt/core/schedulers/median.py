"""Median stopping: a trial stops when its best is worse than the median of what the others averaged lately.

Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017, section 3.2.2, but that the means of
the others are over the later half of the steps, not over all: how a training began says little about how it goes on.
And some trials are given twice the time, so that what learns slowly and ends well is found.
"""

import math
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from hpopt.core.schedulers.base import Stop, in_words, shown
from hpopt.core.schedulers.later_half import LaterHalf
from hpopt.core.spec import StudySpec
from hpopt.core.trial import Trial, TrialState

GAP = 1_000
"""A trial that leaves out more steps counts at the last so many of these only, so that no report takes long."""


def grace_steps(spec: StudySpec) -> int:
    """How many steps of a resolved spec's trials are out of the rule's reach."""
    return math.ceil(spec.grace_period * spec.iterations - 1e-9)  # 0.07 * 100 is 7.000000000000001


@dataclass(slots=True)
class _Curve:
    """One trial's scores, as goodness, and what they come to."""

    top: float = -math.inf
    repeated: float = -math.inf
    """The best of the steps as they came first, and of those that a later attempt went over again."""
    later: LaterHalf = field(default_factory=LaterHalf)
    means: "array[float]" = field(default_factory=lambda: array("d"))
    """Over the later half of the steps, at each step that was reported; never above `top`."""
    marks: list[tuple[int, float]] = field(default_factory=list)

    @property
    def best(self) -> float:
        """Of all scores so far."""
        return max(self.top, self.repeated)

    def add(self, step: int, goodness: float) -> list[tuple[int, float]]:
        """Take in a step; (step, mean) of each one that was left out since the last report, then of this one.

        Nothing of a step that does not lie beyond the last one.
        """
        before = self.later.steps[-1] if self.later.steps else 0
        if step <= before:
            self.repeated = max(self.repeated, goodness)
            return []
        passed = [(each, self.means[-1]) for each in _left_out(before, step)]
        self.top = max(self.top, goodness)
        if step.bit_length() > before.bit_length() and self.best > -math.inf:  # about where the steps have doubled
            self.marks.append((step, self.best))
        self.later.add(step, goodness)
        # rounding, and the overflow of a sum, could lift a mean above the best: then equal scores would be worse
        self.means.append(min(self.top, self.later.mean()))
        return [*passed, (step, self.means[-1])]

    def mean(self, step: int) -> float | None:
        """At a step, as `add` returned it; None at one where the trial does not count."""
        steps = self.later.steps
        place = bisect_right(steps, step)  # of the next report
        if place == 0 or (steps[place - 1] != step and (place == len(steps) or step < steps[place] - GAP)):
            return None
        return self.means[place - 1]


def _left_out(before: int, step: int) -> range:
    """The steps between a report and the next one at which the trial counts with what it had before."""
    return range(max(before + 1, step - GAP), step) if before else range(0)


class MedianStop:
    """The rule. `by_step[t]` holds, sorted, the mean at step t of every trial that got there.

    Arrays, because a large study has millions of points: about 30 bytes for each.
    """

    def __init__(
        self, first_trial: int, grace: int, min_peers: int = 1, lenient_every: int = 0, sign: float = 1.0
    ) -> None:
        """Stop no trial numbered below `first_trial`, none in its first `grace` steps.

        And none at a step that fewer than `min_peers` others have reached. Every `lenient_every`-th trial is
        stopped only if it is also worse than the others were at half its step; 0: none is lenient.
        """
        self.sign = sign
        self.lenient_every = lenient_every
        self.first_trial = first_trial
        self.grace = grace
        self.min_peers = min_peers
        self.curves: dict[int, _Curve] = {}
        self.by_step: dict[int, array[float]] = {}
        self._sorted = True

    @classmethod
    def of(cls, spec: StudySpec) -> Self:
        """The rule for a resolved spec."""
        return cls(spec.grace_trials, grace_steps(spec), spec.min_peers, spec.lenient_every, spec.sign)

    def observe(self, trial: Trial, step: int, goodness: float) -> Stop | None:
        """See Scheduler."""
        self._sort()
        curve = self.curves.setdefault(trial.id, _Curve())
        added = curve.add(step, goodness)
        for passed, mean in added:
            insort(self._peers(passed), mean)
        spared = not added or trial.id < self.first_trial or step <= self.grace
        bar = None if spared else self._bar(trial, step)
        if bar is None or not curve.best < bar[0]:
            return None
        median, until = bar
        best, cutoff = in_words(curve.best, median, self.sign), in_words(median, curve.best, self.sign)
        best = f"best {best}" if math.isfinite(curve.best) else best
        peers = f"the median of others' means over the later half of {until} steps"
        why = f" (1 trial in {self.lenient_every} is given twice the time)" if until < step else ""
        reason = f"median_stop: {best} by step {step} is worse than {cutoff}, {peers}{why}"
        return Stop("median_stop", step, shown(curve.best, self.sign), self.sign * median, reason)

    def _bar(self, trial: Trial, step: int) -> tuple[float, int] | None:
        """What a trial's best is compared with, and the step that it is of; None with too few peers."""
        lenient = self.lenient_every > 0 and trial.id % self.lenient_every == self.lenient_every - 1
        steps = (step, (step + 1) // 2) if lenient else (step,)
        bars = [(median, each) for each in steps if (median := self._median(each, trial)) is not None]
        return min(bars, key=lambda bar: bar[0]) if len(bars) == len(steps) else None

    def recall(self, trial: Trial, scores: Iterable[tuple[int, float]]) -> None:
        """See Scheduler. Sorting once, before the next decision, is far quicker than keeping in order."""
        curve = self.curves.setdefault(trial.id, _Curve())
        for step, goodness in scores:
            for passed, mean in curve.add(step, goodness):
                if trial.state is not TrialState.FAILED:
                    self._peers(passed).append(mean)
        self._sorted = False

    def marks(self, trial: Trial) -> tuple[tuple[int, float], ...]:
        """See Scheduler: the first step reported from 1, 2, 4, ... on; a curve has its shape in those."""
        return tuple(self.curves[trial.id].marks) if trial.id in self.curves else ()

    def forget(self, trial: Trial) -> None:
        """See Scheduler."""
        self.dismiss(trial)
        self.curves.pop(trial.id, None)

    def dismiss(self, trial: Trial) -> None:
        """See Scheduler. It is nobody's peer any more."""
        self._sort()
        curve, again = self.curves.get(trial.id, _Curve()), _Curve()
        for step, goodness in zip(curve.later.steps, curve.later.scores, strict=True):
            for passed, mean in again.add(step, goodness):  # the very means that it came to before
                peers = self.by_step[passed]
                del peers[bisect_left(peers, mean)]

    def _peers(self, step: int) -> "array[float]":
        return self.by_step.setdefault(step, array("d"))

    def _sort(self) -> None:
        if not self._sorted:
            self.by_step = {step: array("d", sorted(peers)) for step, peers in self.by_step.items()}
            self._sorted = True

    def _median(self, step: int, trial: Trial) -> float | None:
        """Of the others' means at a step; None with too few of them."""
        means, own = self.by_step.get(step, array("d")), self.curves[trial.id].mean(step)
        place = bisect_left(means, own) if own is not None else len(means)
        others = len(means) - (own is not None)
        if others < self.min_peers:
            return None
        low, high = (means[k + (k >= place)] for k in ((others - 1) // 2, others // 2))
        return low if low == high else low / 2 + high / 2  # halves of the smallest floats are 0
