"""What a study costs: its expected time, in epochs of the full training.

Notation
    n     num_trials                  m   max_iterations
    s     subset_ratio                p   non_pure_train_ratio
    W     num_workers, trials at a time
    c     (1 - p) s + p, cost of an epoch: only pure training shrinks with the dataset
    eta   reduction_factor of ASHA

The unit is an epoch of the full training, on the full dataset, of a typical configuration. Costs are times, not work:
what W workers do side by side counts once.
"""

import math
from dataclasses import dataclass

from hpopt.core.rungs import levels_of, max_brackets
from hpopt.core.schedulers.median import grace_steps
from hpopt.core.spec import StudySpec

MEDIAN_SAVES = 0.5
"""What median stopping saves after its grace: on 28 tasks trials ran 57 % (1 worker) to 43 % (8) of their epochs."""
LATE = 0.4
"""Beyond the first rung, 1 + r^-0.4 times as many of r trials pass as of r trials that come in any order: a fit.

The first to come to a rung pass whatever they are, and so those who come to the next one later are the better ones.
"""
MODELLED = 0.3
"""A model proposes better and better trials, so that eta^0.3 times as many of them pass as of random ones.

Over the four rungs of (1, 81, 3), where that was measured, they run 2.3 times as long.
"""
TAIL = 0.3
"""When the last of the trials has been handed out, the study lasts 1 - W^-0.3 times the longest trial: a fit."""
EULER_GAMMA = 0.5772156649015329


@dataclass(frozen=True, slots=True)
class Pace:
    """How trials run. The defaults are what a plan assumes before any has run."""

    seconds: float | None = None
    """Of an epoch of the typical trial, on the study's subset: the median over trials; None if it is not known."""
    spread: float = 1.0
    """An epoch of the mean trial over one of the typical trial: costs may depend on the hyper-parameters."""
    overhead: float = 0.0
    """Time of a trial besides its epochs, in epochs: waiting to be launched, starting, loading data."""
    busy: float = 1.0
    """Share of the W workers that had a trial, while there were trials to be had."""
    length: float = 1.0
    """Epochs of a trial that may end early, over what was assumed."""

    def __str__(self) -> str:
        """The same in words."""
        told = [f"{self.busy:.0%} of the workers busy", f"trials {self.length:.2f} times as long as assumed"]
        if self.seconds is not None:
            told += [f"{self.seconds:.3g} s for an epoch", f"{self.spread:.2f} times that on average"]
            told += [f"{self.overhead:.2f} epochs' time for launching and loading"]
        return ", ".join(told)


AS_ASSUMED = Pace()


@dataclass(frozen=True, slots=True)
class Stage:
    """What ASHA's trials do between two rungs."""

    bracket: int
    level: int
    """The step at its end."""
    epochs: int
    trials: float
    """How many are expected to run them."""


def expected_ratio(spec: StudySpec, pace: Pace = AS_ASSUMED) -> float:
    """Expected time of a resolved spec, in full trainings."""
    return cost(spec, pace) / spec.num_full_iterations


def cost(spec: StudySpec, pace: Pace = AS_ASSUMED) -> float:
    """Expected time of a resolved spec, in epochs of the full training; it falls with none of n, m and s."""
    stops = spec.search_alg == "asha" or spec.early_stop is not None
    judged = stops and spec.trials > spared_trials(spec)
    return epoch_cost(spec) * (_shared_out(spec, pace) if judged else _in_waves(spec, pace))


def epoch_cost(spec: StudySpec) -> float:
    """c, the cost of an epoch on the study's subset, in epochs on the full dataset."""
    p, s = spec.non_pure_train_ratio, spec.subset_ratio or 1.0
    return (1 - p) * s + p


def trial_epochs(spec: StudySpec, pace: Pace = AS_ASSUMED) -> float:
    """Epochs that a trial of a resolved spec is expected to run, on average."""
    spared = min(spec.trials, spared_trials(spec))
    judged = spec.trials - spared
    return (spared * spec.iterations + judged * pace.length * assumed_length(spec, max(1, judged))) / spec.trials


def spared_trials(spec: StudySpec) -> int:
    """How many trials, the first ones, are taken not to be stopped: those to be spared, or the others' first peers."""
    median = spec.search_alg == "bayes_opt" and spec.early_stop == "median_stop"
    return max(spec.grace_trials, spec.min_peers) if median else 0


def assumed_length(spec: StudySpec, trials: int) -> float:
    """Epochs that a trial which may be stopped is assumed to run, on average over the study's first `trials` such."""
    if spec.search_alg == "asha":
        return math.fsum(stage.trials * stage.epochs for stage in stages(spec, trials)) / trials
    return spec.iterations * _stopped_share(spec)


def stages(spec: StudySpec, trials: float) -> list[Stage]:
    """The stages of ASHA with so many trials, of all brackets, each from its lowest rung to its end."""
    eta = spec.reduction_factor
    modelled = 1 + max(0.0, 1 - spec.first_modelled / trials) * (math.pow(eta, MODELLED) - 1)
    found = []
    for bracket, share in enumerate(_bracket_shares(spec)):
        reached, below = trials * share, 0
        for level in levels_of(spec, bracket):
            found.append(Stage(bracket, level, level - below, reached))
            late = 1 + math.pow(reached, -LATE) if below else 1.0
            reached, below = min(reached, modelled * late * _passing(reached, eta)), level
    return found


def _in_waves(spec: StudySpec, pace: Pace) -> float:
    """Waves of W trials that nobody stops."""
    waves = math.ceil(spec.trials / spec.num_workers)
    return waves * (trial_epochs(spec, pace) * pace.spread + pace.overhead) / pace.busy


def _stopped_share(spec: StudySpec) -> float:
    """The share of its epochs that a trial of bayes_opt is assumed to run, unless it is spared."""
    if spec.early_stop != "median_stop":
        return 1.0
    return 1 - MEDIAN_SAVES * (1 - grace_steps(spec) / spec.iterations)


def _shared_out(spec: StudySpec, pace: Pace) -> float:
    """All epochs of trials that may be stopped shared out to W workers, plus what the last of them take.

    Others have nothing left to do then. That would be at most (1 - 1/W) m (R. L. Graham, "Bounds on Multiprocessing
    Timing Anomalies", 1969), but few of the last trials are among the longest.
    """
    n, workers = spec.trials, spec.num_workers
    longest = spec.iterations * pace.spread + pace.overhead
    least = max(1, math.ceil(min(n, spared_trials(spec)) / workers)) * longest / pace.busy
    if n <= workers:
        return least
    work = n * (trial_epochs(spec, pace) * pace.spread + pace.overhead)
    return max(least, work / (workers * pace.busy) + longest * (1 - math.pow(workers, -TAIL)))


def _bracket_shares(spec: StudySpec) -> list[float]:
    """Share of the trials that each bracket s gets: eta^(K-s) (K+1) / (K-s+1), K + 1 the number of levels."""
    eta = spec.reduction_factor
    levels = max_brackets(spec.min_iterations or 1, spec.iterations, eta)
    weights = [eta**-s * levels / (levels - s) for s in range(spec.num_brackets or 1)]
    return [weight / sum(weights) for weight in weights]


def _passing(trials: float, eta: int) -> float:
    """How many of so many random trials pass a rung: the sum over i = 1 .. trials of max(1, floor(i / eta)) / i.

    The i-th to arrive passes if it is among the max(1, floor(i / eta)) best of i. Up to i = 2 eta the terms are 1/i
    and sum to a harmonic number, H(n) = ln n + gamma + 1/(2n) - 1/(12 n^2). Beyond, floor takes (eta - 1) / 2 off i
    on average.
    """
    if trials <= 1:
        return trials
    first = min(trials, 2.0 * eta - 1)
    harmonic = math.log(first) + EULER_GAMMA + 1 / (2 * first) - 1 / (12 * first**2)
    return harmonic + (trials - first) / eta - (eta - 1) / (2 * eta) * math.log(trials / first)
