"""Workers that train, in virtual time: a discrete-event simulation that decides nothing.

Whoever asks for trials and judges them is a Tuner. The unit of time is an epoch of the median configuration. A worker
asks, trains epoch by epoch, reports after each, and asks again when it is told that its trial is over.
"""

import heapq
import math
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from benchmarks.multifidelity.task import Task, Training
from benchmarks.search.problem import Params


class Assignment(NamedTuple):
    """A worker gets a trial."""

    worker: int
    trial: int
    params: Params


class Tuner(Protocol):
    """What the loop asks and tells. `now` is the virtual time."""

    def ask(self, worker: int, now: float) -> None:
        """The worker is free. It waits, for ever if need be, until it is among those of `assigned`."""

    def assigned(self) -> list[Assignment]:
        """The workers that got a trial since the last call."""

    def report(self, trial: int, epoch: int, score: float, now: float) -> bool:
        """The score after an epoch; whether the trial is over now, as it always is after its last epoch."""

    def best(self) -> int | None:
        """The trial whose configuration would be chosen now; None before there is one."""

    def due(self) -> float:
        """When something is going to happen that no worker causes; inf if nothing is."""

    def wake(self, now: float) -> None:
        """It is due."""


class Incumbent(NamedTuple):
    """From this time on (in full trainings of the median configuration) the best one had this true value."""

    time: float
    truth: float
    epochs: int
    """So many epochs had been trained by all workers together."""


@dataclass
class Run:
    """What a simulation saw."""

    incumbents: list[Incumbent] = field(default_factory=list)
    """Whenever another trial became the best."""
    trials: int = 0
    epochs: int = 0
    idle: float = 0.0
    """Share of the workers' time that they spent waiting for a trial."""


@dataclass(slots=True)
class _Job:
    trial: int
    training: Training
    pace: float
    epoch: int = 0


class Fleet:
    """`workers` workers that train configurations of a task for `horizon` full trainings of the median one."""

    def __init__(self, tuner: Tuner, task: Task, workers: int, horizon: float) -> None:
        self.tuner, self.task = tuner, task
        self.end = horizon * task.epochs
        self.run = Run()
        self._free: dict[int, float] = dict.fromkeys(range(workers), 0.0)  # since when
        self._jobs: list[_Job | None] = [None] * workers
        self._events: list[tuple[float, int]] = []  # a heap of (when a worker ends an epoch, the worker)
        self._truths: list[float] = []
        self._best: int | None = None

    def simulate(self) -> Run:
        """From the first trial to the horizon."""
        for worker in range(len(self._jobs)):
            self.tuner.ask(worker, 0.0)
            self._begin(0.0)
        while True:
            next_epoch, due = self._events[0][0] if self._events else math.inf, self.tuner.due()
            now = min(next_epoch, due)
            if now > self.end or now == math.inf:
                break
            if due <= next_epoch:
                self.tuner.wake(now)
            else:
                self._epoch(heapq.heappop(self._events)[1], now)
            self._begin(now)
        self.run.idle += sum(self.end - since for since in self._free.values())
        self.run.idle /= self.end * len(self._jobs)
        return self.run

    def _begin(self, now: float) -> None:
        for worker, trial, params in self.tuner.assigned():
            training = self.task.train(params)
            job = self._jobs[worker] = _Job(trial, training, training.seconds / self.task.median)
            self.run.idle += now - self._free.pop(worker)
            if trial != len(self._truths):
                raise RuntimeError(f"trial {trial} follows {len(self._truths) - 1}: number them 0, 1, 2, ...")
            self._truths.append(training.truth)
            self.run.trials += 1
            heapq.heappush(self._events, (now + job.pace, worker))

    def _epoch(self, worker: int, now: float) -> None:
        job = self._jobs[worker]
        assert job is not None
        job.epoch += 1
        self.run.epochs += 1
        over = self.tuner.report(job.trial, job.epoch, job.training.score(job.epoch), now)
        self._note(now)
        if not over:
            if job.epoch == self.task.epochs:
                raise RuntimeError(f"trial {job.trial} is not over after its last epoch, {job.epoch}")
            heapq.heappush(self._events, (now + job.pace, worker))
            return
        self._jobs[worker], self._free[worker] = None, now
        self.tuner.ask(worker, now)

    def _note(self, now: float) -> None:
        best = self.tuner.best()
        if best is not None and best != self._best:
            self._best = best
            incumbent = Incumbent(now / self.task.epochs, self._truths[best], self.run.epochs)
            self.run.incumbents.append(incumbent)
