"""How the trials of a study run, measured from their records: what a plan had to assume.

The budget is counted in full trainings, and how long one takes is measured from the same epochs as the trials are: a
machine that is slow altogether changes nothing. What does change a plan is what a trial costs in epochs.

Each number stands on medians, or on times that trials spent side by side: one trainer that hung, or a machine that
slept for a night, does not pass for the pace of the study. The price: time lost in that way is not made up for.
"""

import math
from collections import Counter
from collections.abc import Iterable
from statistics import fmean, median

from hpopt.core.cost import Pace, assumed_length, spared_trials
from hpopt.core.spec import StudySpec
from hpopt.core.trial import ENDED, PENDING, Trial, TrialState

TIMED = 3
"""Fewer timed trials than this say too little about seconds."""
ASSUMED_TRIALS = 4
"""What was assumed of trials counts like so many that were measured."""
OUTLIER = 10.0
"""A trial whose epochs take so many times as long as those of a typical one was held up: it is left out."""
HUNG = 3.0
"""A trial that takes so many times as long as a full one is not taken to have worked for longer than that."""


def measured(spec: StudySpec, trials: Iterable[Trial], now: float) -> Pace:
    """The pace of a resolved spec's trials up to `now`, server time in seconds."""
    known = list(trials)
    ended = [trial for trial in known if trial.state in ENDED]
    seconds = [each for each in map(epoch_seconds, ended) if each is not None]
    typical = median(seconds) if len(seconds) >= TIMED else 0.0
    busy, length = _busy(spec, known, now, typical), _length(spec, known)
    if typical <= 0:
        return Pace(busy=busy, length=length)
    spread = fmean([*(each / typical for each in seconds if each < OUTLIER * typical), *[1.0] * ASSUMED_TRIALS])
    return Pace(typical, spread, _overhead(spec, ended, typical), busy, length)


def epoch_seconds(trial: Trial) -> float | None:
    """Seconds per epoch of a trial that has ended, from its first report to its last; None if that is not known.

    It is known of a trial that ended with a report, after two or more in one life of its last attempt.
    """
    steps = trial.last_step - trial.first_step
    if trial.first_step <= trial.base_step or steps < 1 or trial.stop_step != trial.last_step:
        return None
    return max(0.0, trial.ended_at - trial.first_at) / steps


def _overhead(spec: StudySpec, ended: list[Trial], typical: float) -> float:
    """Median time of a trial besides its epochs, in typical epochs.

    The initial design is left out where more of it is handed out than there are workers: it waits for them.
    """
    first = spec.num_init_trials if spec.search_alg == "bayes_opt" and spec.num_init_trials > spec.num_workers else 0
    timed = ((trial, epoch_seconds(trial)) for trial in ended if trial.id >= first)
    besides = [_besides(trial, each) for trial, each in timed if each is not None]
    return max(0.0, median(besides) / typical) if len(besides) >= TIMED else 0.0


def _besides(trial: Trial, epoch: float) -> float:
    """Seconds from handing a trial out to its end, less its epochs."""
    return trial.ended_at - trial.issued_at - (trial.last_step - trial.base_step) * epoch


def _busy(spec: StudySpec, trials: list[Trial], now: float, typical: float) -> float:
    """Trials under way over W, on average over the times when there was one, up to the last handing out.

    After that, workers have nothing to do because there is nothing left. A trial that takes HUNG times as long as a
    full one of `typical` seconds per epoch (0: not known) counts no longer than that: it hangs. Attempts that were
    given up do not count as under way, so that what they took from others is seen here.
    """
    spans = [(each.issued_at, each.ended_at if each.state in ENDED else now) for each in trials if _counts(each)]
    longest = HUNG * spec.iterations * typical if typical else math.inf
    spans = [(begin, min(end, begin + longest)) for begin, end in spans]  # beyond that it hangs
    until = max((begin for begin, _ in spans), default=0.0)
    clipped = sorted((begin, min(end, until)) for begin, end in spans if begin < until)
    together = math.fsum(end - begin for begin, end in clipped)
    covered, reached = 0.0, -math.inf
    for begin, end in clipped:
        covered += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return min(1.0, together / covered / spec.num_workers) if covered > 0 else 1.0


def _counts(trial: Trial) -> bool:
    return trial.state in ENDED or trial.state in PENDING


def _length(spec: StudySpec, trials: list[Trial]) -> float:
    """Epochs of the trials that may end early over what was assumed of as many.

    Those still under way count as far as they are known to go: the product-limit estimate of E. L. Kaplan and
    P. Meier, "Nonparametric Estimation from Incomplete Observations", 1958.
    """
    judged = trials[spared_trials(spec) :]
    ended = Counter(each.seen_step for each in judged if each.state in ENDED and each.state is not TrialState.COMPLETED)
    reached = Counter(spec.iterations if each.state is TrialState.COMPLETED else each.seen_step for each in judged)
    count = sum(each.state in ENDED for each in judged)
    if count == 0:
        return 1.0
    survival, at_risk, epochs, before = 1.0, len(judged), 0.0, 0
    for step in sorted(reached):
        epochs += survival * (step - before)
        survival *= 1 - ended[step] / at_risk
        at_risk, before = at_risk - reached[step], step
    epochs += survival * (spec.iterations - before)
    return (ASSUMED_TRIALS + count * epochs / assumed_length(spec, len(judged))) / (ASSUMED_TRIALS + count)
