"""What was derived for a study, and how num_trials was corrected since from measured times.

A plan assumes how long trials run; how they do run is seen when the first have ended. While num_trials is not the
user's, it is then set anew. Of n trials the expected time is

    bayes_opt           ceil(n / W) (m l v + o) / b
    with early stopping (K(n) v + n o) / (W b) + (1 - W^-0.3) (m v + o), if n > W

each times c. If that fits into the budget, more trials come, as far as 0.95 of it holds them; if it does not, so many
are cut that it comes as near to 0.95 of it as it can. K(n) epochs are expected of n trials, l times as many as were
planned, but for trials that are spared. The letters are those of budget.py and cost.py, and of `Pace`: l is its length,
v its spread, o its overhead and b its busy share, 1, 1, 0 and 1 as planned.

What this corrects: rules that stop more or fewer trials, and earlier or later, than was assumed; trials whose training
ends early of itself; configurations that are costlier than the typical one; time for launching, starting and loading,
which does not shrink with the number of epochs; workers that are not there, or are taken up by attempts that fail.

What it cannot correct: how fast the machines are, because the full training would run on them too, and so its length is
measured there; the share of an epoch that shrinks with the subset (non_pure_train_ratio), because every epoch of the
study has the same subset; the values of max_iterations and subset_ratio, which trials must share to be comparable; time
in which nothing ran; and trials that have been handed out.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from hpopt.core.budget import affordable, left_open
from hpopt.core.cost import AS_ASSUMED, Pace, expected_ratio
from hpopt.core.pace import measured
from hpopt.core.spec import StudySpec
from hpopt.core.trials import Trials

FIRST_CHECK = 6
"""So many trials have ended when the pace is measured for the first time, or half as many as there are workers."""
GROWTH = 1.5
"""So many times as many have ended when it is measured again: corrections are few, and the last is never far off."""
CUT = 2
"""One correction makes num_trials so many times smaller at most: what it follows from may be a passing trouble."""
DEAD_BAND = 0.1
"""A change of num_trials by a smaller share is not made."""


@dataclass(frozen=True, slots=True)
class Correction:
    """One change of num_trials, and what it followed from."""

    ended: int
    """How many trials had ended."""
    before: int
    after: int
    expected: float
    """Time of the study with `before` trials at this pace, in full trainings."""
    pace: Pace

    def __str__(self) -> str:
        """The same in one sentence."""
        return (
            f"num_trials={self.before} becomes {self.after}: as the first {self.ended} trials ran, {self.before} would "
            f"take {rounded(self.expected)} full trainings ({self.pace})"
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which arguments of a study are hpopt's, not the user's, and what became of num_trials; part of its state."""

    derived: tuple[str, ...] = ()
    checked: int = 0
    """How many trials had ended when the pace was measured last."""
    pace: Pace = AS_ASSUMED
    """What was measured then."""
    corrections: tuple[Correction, ...] = ()

    @classmethod
    def of(cls, asked: StudySpec) -> Self:
        """The schedule of a new study with these arguments."""
        return cls(left_open(asked))

    def joined(self, asked: StudySpec) -> Self:
        """The schedule after somebody resumed the study with these arguments: a num_trials that was given stays."""
        given = {"num_trials"} if asked.num_trials is not None else set()
        return replace(self, derived=tuple(name for name in self.derived if name not in given))

    def due(self, spec: StudySpec, ended: int) -> bool:
        """Whether the pace is to be measured, now that so many trials have ended."""
        first = max(FIRST_CHECK, spec.num_workers // 2)
        return "num_trials" in self.derived and ended >= max(first, GROWTH * self.checked)

    def check(self, spec: StudySpec, trials: Trials, now: float) -> tuple[StudySpec, Self]:
        """Measure the pace; the resolved spec and the schedule after that, with one more correction or none.

        Never fewer trials than have been handed out, nor than a search needs; never more than it can use.
        """
        pace = measured(spec, trials, now)
        wanted = max(affordable(spec, pace, len(trials)), math.ceil(spec.trials / CUT))
        checked = replace(self, checked=trials.ended, pace=pace)
        if abs(wanted - spec.trials) <= DEAD_BAND * spec.trials:
            return spec, checked
        correction = Correction(trials.ended, spec.trials, wanted, expected_ratio(spec, pace), pace)
        return replace(spec, num_trials=wanted), replace(checked, corrections=(*self.corrections, correction))

    def to_wire(self) -> dict[str, Any]:
        """The schedule as plain values."""
        return {
            "derived": list(self.derived),
            "checked": self.checked,
            "pace": asdict(self.pace),
            "corrections": [asdict(each) for each in self.corrections],
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any] | None) -> Self:
        """The schedule that `to_wire` was called on; None, of an earlier release, is one where all was given."""
        if wire is None:
            return cls()
        corrections = tuple(
            Correction(each["ended"], each["before"], each["after"], each["expected"], _pace(each["pace"]))
            for each in wire["corrections"]
        )
        return cls(tuple(wire["derived"]), wire["checked"], _pace(wire["pace"]), corrections)


def rounded(value: float) -> str:
    """A number that is not known well, for people."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _pace(wire: Mapping[str, Any]) -> Pace:
    """A pace as it was stored; what a later release adds to it is ignored."""
    return Pace(**{field.name: wire[field.name] for field in fields(Pace) if field.name in wire})
