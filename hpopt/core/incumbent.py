"""The incumbent: the trial that is the best so far, chosen among trials that can be compared."""

from collections.abc import Iterable

from hpopt.core.spec import StudySpec
from hpopt.core.trial import ENDED, Trial

COMPARED = 8
"""So many trials have to have come to a rung before the incumbent is chosen there, while the study goes on."""


class Incumbent:
    """The best trial, kept up to date.

    Scores after different numbers of steps cannot be compared, so the incumbent is the best of those that came to one
    rung, by score, then by lowest id. Which rung: the highest one that COMPARED trials have come to, for the first to
    get anywhere are the first, not the best. Before there is one, and once every trial has ended, it is the highest
    rung that any has come to. Without rungs all trials are compared, and below the first one too.
    """

    def __init__(self, spec: StudySpec, levels: Iterable[int] = ()) -> None:
        """`levels`: the rungs, rising."""
        self._spec = spec
        self._levels = (0, *levels)
        self._rungs: dict[int, int] = {}  # trial -> how many rungs it has come to
        self._reached = [0] * len(self._levels)
        self._best: list[Trial | None] = [None] * len(self._levels)
        self._ended: set[int] = set()

    def observe(self, trial: Trial) -> None:
        """Look at a trial again: it has scored, or ended."""
        if trial.state in ENDED:
            self._ended.add(trial.id)
        if trial.best_score is None:
            return
        before = self._rungs.get(trial.id, 0)
        rungs = sum(trial.seen_step >= level for level in self._levels)
        self._rungs[trial.id] = rungs
        for k in range(before, rungs):
            self._reached[k] += 1
        for k in range(rungs):
            best = self._best[k]
            if best is None or self._worth(trial) > self._worth(best):
                self._best[k] = trial

    @property
    def trial(self) -> Trial | None:
        """The incumbent; None as long as no trial has a valid score."""
        enough = 1 if len(self._ended) >= self._spec.trials else COMPARED
        rungs = range(len(self._levels) - 1, -1, -1)
        compared = next((k for k in rungs if self._reached[k] >= enough), None)
        highest = next((k for k in rungs if self._reached[k]), None)
        rung = highest if compared is None else compared
        return None if rung is None else self._best[rung]

    def _worth(self, trial: Trial) -> tuple[float, int]:
        score = trial.best_score
        return float("-inf") if score is None else self._spec.sign * score, -trial.id


def incumbent(trials: Iterable[Trial], spec: StudySpec, levels: Iterable[int] = ()) -> Trial | None:
    """The best of the trials of a resolved spec; see Incumbent."""
    best = Incumbent(spec, levels)
    for trial in trials:
        best.observe(trial)
    return best.trial
