"""The tuners that need nothing but hpopt: hpopt in several ways, and random search.

hpopt's best trial is what its results show (hpopt.core.incumbent): for asha among those that came to one rung, by the
best score of any epoch. That of random search is the trial with the best score of any epoch.
"""

from typing import Any

from benchmarks.multifidelity.fleet import Coordinated, Timing
from benchmarks.multifidelity.peers.peer import Best
from benchmarks.multifidelity.task import Task
from benchmarks.search.peers.native import RandomSearch
from benchmarks.search.problem import Params
from hpopt.core.rungs import rung_levels
from hpopt.core.space import Space
from hpopt.core.spec import StudySpec
from hpopt.core.validation import MAX_TRIALS, validated
from hpopt.samplers.base import suggest

ASHA = {"search_alg": "asha", "min_iterations": 1, "reduction_factor": 3}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "hpopt-asha": ASHA,
    "hpopt-asha-random": ASHA | {"acquisition": "random"},
    "hpopt-bayes": {},
    "hpopt-bayes-median": {"early_stop": "median_stop"},
    "hpopt-bayes-median-guarded": {"early_stop": "median_stop", "min_peers": 3, "grace_trials": 5},
    "hpopt-bayes-median-strict": {"early_stop": "median_stop", "lenient_every": 0},
    "hpopt-bayes-median-eager": {"early_stop": "median_stop", "grace_period": 0},
}
"""The arguments of each study, besides those that say what is trained for how long by how many workers."""


def specification(name: str, task: Task, seed: int, workers: int) -> StudySpec:
    """The study of this name."""
    return validated(
        StudySpec(
            full_dataset_size=0,
            num_full_iterations=task.epochs,
            max_iterations=task.epochs,
            search_space=Space(task.space),
            subset_ratio=1.0,
            num_trials=MAX_TRIALS,  # it is the horizon that ends a run
            num_workers=workers,
            seed=seed,
            **ARGUMENTS[name],
        )
    )


def coordinated(name: str, task: Task, seed: int, workers: int, timing: Timing) -> Coordinated:
    """A study of hpopt's with its coordinator, operators and trainers."""
    spec = specification(name, task, seed, workers)
    levels: tuple[int, ...] = ()
    if spec.search_alg == "asha":
        levels = rung_levels(spec.min_iterations or 1, task.epochs, spec.reduction_factor)
    return Coordinated(spec, suggest, levels, timing)


class Random:
    """Random search: every trial is trained to its end."""

    def __init__(self, task: Task, seed: int) -> None:
        self._search = RandomSearch(task.space, seed, 0)
        self._best = Best()

    def ask(self) -> Params:
        """A random configuration."""
        return self._search.ask()

    def report(self, trial: int, epoch: int, score: float) -> bool:
        """Go on."""
        del epoch
        self._best.offer(trial, score)
        return False

    def done(self, trial: int, score: float, *, stopped: bool) -> None:
        """Nothing is learnt."""

    def best(self) -> int | None:
        """The trial with the best score of any epoch."""
        return self._best.trial
