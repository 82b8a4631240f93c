"""What every early-stopping rule is: it hears each score once and says why a trial should stop, if it should."""

from collections.abc import Iterable
from typing import Protocol

from hpopt.core.spec import StudySpec
from hpopt.core.trial import Trial


class Scheduler(Protocol):
    """A rule that decides from the scores of all trials, as they come, which of them stop.

    It sees "goodness": the score times `spec.sign`, so that larger is always better; an invalid score is -inf.
    What it answers follows from the scores it has seen, not from their order over trials: so it can be rebuilt after a
    restart, trial by trial.
    """

    def observe(self, trial: Trial, step: int, goodness: float) -> str | None:
        """Take in the trial's next step; the reason to stop it, or None. Steps of one trial arrive in rising order."""

    def recall(self, trial: Trial, scores: Iterable[tuple[int, float]]) -> None:
        """Take in (step, goodness) of a trial again, as `observe` did before a restart, without deciding anything."""

    def forget(self, trial: Trial) -> None:
        """Drop all that was observed of a trial, whose next attempt begins anew with other params."""


class NoStopping:
    """Every trial goes on to its last step."""

    def observe(self, trial: Trial, step: int, goodness: float) -> str | None:
        """No reason, ever."""

    def recall(self, trial: Trial, scores: Iterable[tuple[int, float]]) -> None:
        """Nothing is kept."""

    def forget(self, trial: Trial) -> None:
        """Nothing is kept, so nothing is dropped."""


def make_scheduler(spec: StudySpec) -> Scheduler:
    """The rule that a resolved spec asks for."""
    from hpopt.core.schedulers.asha import Asha  # both import this module
    from hpopt.core.schedulers.median import MedianStop

    if spec.search_alg == "asha":
        return Asha.of(spec)
    if spec.early_stop == "median_stop":
        return MedianStop.of(spec)
    return NoStopping()
