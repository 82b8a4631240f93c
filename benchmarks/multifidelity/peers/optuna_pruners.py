"""Optuna: its samplers together with its pruners, https://optuna.readthedocs.io.

Its best trial is the completed one with the best score in the end (`study.best_trial` knows no others); while none is
complete, the one with the best score of any epoch. A pruned trial counts with its last score for the sampler.
"""

from collections.abc import Callable
from typing import Any

import optuna

from benchmarks.multifidelity.peers.peer import Best
from benchmarks.multifidelity.task import Task
from benchmarks.search.peers.optuna_samplers import distribution
from benchmarks.search.peers.parameter import configuration, parameters
from benchmarks.search.problem import Params

REDUCTION = 3  # of successive halving and of Hyperband, as for everybody here; Optuna's own are 4 and 3


class Study:
    """A study in memory, all of whose epochs are reported."""

    def __init__(self, task: Task, sampler: Any, pruner: Any) -> None:
        self._spaces = task.space
        self._distributions = {name: distribution(each) for name, each in parameters(task.space).items()}
        self._study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        self._prunes = not isinstance(pruner, optuna.pruners.NopPruner)
        self._running: dict[int, Any] = {}
        self._complete, self._reported = Best(), Best()

    def ask(self) -> Params:
        """A trial with all its parameters."""
        trial = self._study.ask(self._distributions)
        self._running[trial.number] = trial
        return configuration(self._spaces, trial.params)

    def report(self, trial: int, epoch: int, score: float) -> bool:
        """An intermediate value, and whether the trial is to be pruned."""
        self._reported.offer(trial, score)
        running = self._running[trial]
        running.report(score, epoch)
        return self._prunes and bool(running.should_prune())

    def done(self, trial: int, score: float, *, stopped: bool) -> None:
        """The trial is pruned or complete."""
        running = self._running.pop(trial)
        if stopped:
            self._study.tell(running, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(running, score)
            self._complete.offer(trial, score)

    def best(self) -> int | None:
        """The best complete trial, if there is one."""
        return self._reported.trial if self._complete.trial is None else self._complete.trial


def _hyperband(task: Task) -> Any:
    return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=task.epochs, reduction_factor=REDUCTION)


def _halving(_: Task) -> Any:
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)


def _none(_: Task) -> Any:
    return optuna.pruners.NopPruner()


def _median(_: Task) -> Any:
    return optuna.pruners.MedianPruner()


_TPE, _RANDOM = optuna.samplers.TPESampler, optuna.samplers.RandomSampler
PARTS: dict[str, tuple[Any, Callable[[Task], Any]]] = {
    "optuna-tpe": (_TPE, _none),
    "optuna-tpe-hyperband": (_TPE, _hyperband),
    "optuna-tpe-sha": (_TPE, _halving),
    "optuna-tpe-median": (_TPE, _median),
    "optuna-random-sha": (_RANDOM, _halving),
}
"""Sampler and pruner of each, with their defaults but for what is said here."""


def make(name: str, task: Task, seed: int) -> Study:
    """The study of this name."""
    sampler, pruner = PARTS[name]
    return Study(task, sampler(seed=seed), pruner(task))
