"""Syne Tune: its ASHA schedulers, without its backends, https://github.com/syne-tune/syne-tune.

Its best trial is the one with the best score of any epoch, as its `Tuner.best_config` says.
"""

from datetime import UTC, datetime
from typing import Any

import numpy as np
from syne_tune import config_space
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer import baselines
from syne_tune.optimizer.scheduler import SchedulerDecision

from benchmarks.multifidelity.peers.peer import Best
from benchmarks.multifidelity.task import Task
from benchmarks.search.peers.parameter import Parameter, configuration, parameters
from benchmarks.search.problem import Params

SCORE, EPOCH = "score", "epoch"
SCHEDULERS = {
    "syne-asha": baselines.ASHA,
    "syne-asha-bore": baselines.ASHABORE,
    "syne-asha-cqr": baselines.ASHACQR,
    "syne-bohb": baselines.BOHB,
}
"""Each stops trials by the same rule, from the first epoch on with a reduction factor of 3, its own default."""


class Scheduler:
    """A scheduler that is driven as a tuner of Syne Tune's drives it."""

    def __init__(self, task: Task, scheduler: Any) -> None:
        self._spaces = task.space
        self._declared = parameters(task.space)
        self._scheduler = scheduler
        self._running: dict[int, Any] = {}
        self._asked = 0
        self._best = Best()

    def ask(self) -> Params:
        """A suggestion, which becomes a trial at once."""
        suggestion = self._scheduler.suggest()
        trial = Trial(self._asked, dict(suggestion.config), datetime.fromtimestamp(0, UTC))
        self._scheduler.on_trial_add(trial)
        self._running[self._asked] = trial
        self._asked += 1
        inside = {key: self._declared[key].inside(raw) for key, raw in suggestion.config.items()}
        return configuration(self._spaces, inside)

    def report(self, trial: int, epoch: int, score: float) -> bool:
        """A result, and whether the decision is to stop; after the last epoch it always is."""
        self._best.offer(trial, score)
        decision = self._scheduler.on_trial_result(self._running[trial], {SCORE: score, EPOCH: epoch})
        return bool(decision == SchedulerDecision.STOP)

    def done(self, trial: int, score: float, *, stopped: bool) -> None:
        """What a tuner says of a trial that it has stopped, or that has reached the last epoch of all."""
        del score, stopped
        self._scheduler.on_trial_remove(self._running.pop(trial))

    def best(self) -> int | None:
        """The trial with the best score of any epoch."""
        return self._best.trial


def make(name: str, task: Task, seed: int) -> Scheduler:
    """The scheduler of this name. The seed goes to numpy's global generator too, which the schedulers draw from."""
    np.random.seed(seed)  # noqa: NPY002 - it is the one that they use
    space = {key: _domain(each) for key, each in parameters(task.space).items()}
    scheduler = SCHEDULERS[name](
        space, metric=SCORE, time_attr=EPOCH, max_t=task.epochs, do_minimize=False, random_seed=seed
    )
    return Scheduler(task, scheduler)


def _domain(parameter: Parameter) -> Any:
    if parameter.kind == "label":
        return config_space.choice(list(parameter.labels))
    if parameter.kind == "int":
        make = config_space.lograndint if parameter.log else config_space.randint
        return make(int(parameter.low), int(parameter.high))
    make = config_space.loguniform if parameter.log else config_space.uniform
    return make(parameter.low, parameter.high)
