"""What every early-stopping rule is: it hears each score once and says why a trial should stop, if it should."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from hpopt.core.spec import StudySpec
from hpopt.core.trial import Trial

INVALID_SCORES = "invalid_scores"
"""What stands for a rule where a trial was stopped because its scores were not finite."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A decision to stop a trial, with everything that it followed from."""

    rule: str
    """"asha" or "median_stop"."""
    step: int
    """The step whose report was answered with STOP; for asha the rung that was judged may lie before it."""
    score: float | None
    """What was judged: the trial's best by then, as it was reported; None without a valid score."""
    threshold: float | None
    """What it was worse than, as reported; None when those it was compared with had no valid score either."""
    reason: str
    """The same in words."""


def shown(goodness: float, sign: float) -> float | None:
    """A goodness as the user reported it; None when it stands for an invalid score."""
    return sign * goodness if math.isfinite(goodness) else None


def in_words(goodness: float, other: float, sign: float) -> str:
    """A goodness as the user reported it, with as many digits as it takes to tell it from another one."""
    if not math.isfinite(goodness):
        return "no valid score"
    texts = ((f"{sign * goodness:.{digits}g}", f"{sign * other:.{digits}g}") for digits in range(6, 18))
    return next((text for text, others in texts if text != others), f"{sign * goodness:.6g}")


class Scheduler(Protocol):
    """A rule that decides from the scores of all trials, as they come, which of them stop.

    It sees "goodness": the score times `spec.sign`, so that larger is always better; an invalid score is -inf.
    What it answers follows from the scores it has seen, not from their order over trials: so it can be rebuilt after a
    restart, trial by trial.
    """

    def observe(self, trial: Trial, step: int, goodness: float) -> Stop | None:
        """Take in a step's score; why the trial has to stop, or None.

        The steps of one attempt arrive in rising order. A later attempt goes over steps again: what it scores there
        may be the trial's best from then on, but nothing is judged there twice.
        """

    def recall(self, trial: Trial, scores: Iterable[tuple[int, float]]) -> None:
        """Take in (step, goodness) of a trial again, as `observe` did before a restart, without deciding anything.

        One that had failed by then counts as after `dismiss`.
        """

    def marks(self, trial: Trial, /) -> tuple[tuple[int, float], ...]:
        """(step, best goodness by then) at the steps of `trial` where trials are compared; valid ones only."""

    def forget(self, trial: Trial) -> None:
        """Drop all that was observed of a trial: its scores do not count, for nothing."""

    def dismiss(self, trial: Trial) -> None:
        """The trial has failed, with the scores that it has: what a model may learn from them stays."""


class NoStopping:
    """Every trial goes on to its last step."""

    def observe(self, trial: Trial, step: int, goodness: float) -> Stop | None:
        """No reason, ever."""

    def recall(self, trial: Trial, scores: Iterable[tuple[int, float]]) -> None:
        """Nothing is kept."""

    def marks(self, _trial: Trial) -> tuple[tuple[int, float], ...]:
        """Trials are compared at their ends only."""
        return ()

    def forget(self, trial: Trial) -> None:
        """Nothing is kept, so nothing is dropped."""

    def dismiss(self, trial: Trial) -> None:
        """It judged nobody."""


def make_scheduler(spec: StudySpec) -> Scheduler:
    """The rule that a resolved spec asks for."""
    from hpopt.core.schedulers.asha import Asha  # both import this module
    from hpopt.core.schedulers.median import MedianStop

    if spec.search_alg == "asha":
        return Asha.of(spec)
    if spec.early_stop == "median_stop":
        return MedianStop.of(spec)
    return NoStopping()
