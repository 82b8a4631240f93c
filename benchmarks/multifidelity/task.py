"""Task: learning curves as a function of hyper-parameters, which a fleet of workers is simulated on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from benchmarks.search.problem import Params, Problem
from hpopt.core.search_space import SearchSpace


class Training(Protocol):
    """What training one configuration gives: trained twice, it gives the same."""

    @property
    def seconds(self) -> float:
        """How long each of its epochs takes, in the task's own unit."""

    @property
    def truth(self) -> float:
        """Its score after the last epoch, without noise."""

    def score(self, epoch: int) -> float:
        """What its trainer reports after epoch 1, 2, ...; larger is better."""


@dataclass(frozen=True)
class Task:
    """What is searched, and how long it takes.

    A search hears `curve` point by point and is judged by `truth`. `half` is "tune" or "crossing" for the tasks that
    hpopt's own constants were chosen on, "report" for those that the published tables look at. `median` are the
    seconds of an epoch of the median configuration: the unit of virtual time is the time of such an epoch.
    """

    name: str
    half: str
    space: dict[str, SearchSpace]
    epochs: int
    train: Callable[[Params], Training]
    median: float = 1.0

    def curve(self, params: Params) -> list[float]:
        """The scores after epoch 1, 2, ..., `epochs`."""
        training = self.train(params)
        return [training.score(epoch) for epoch in range(1, self.epochs + 1)]

    def seconds_per_epoch(self, params: Params) -> float:
        """How long an epoch takes, relative to the median configuration's."""
        return self.train(params).seconds / self.median

    def truth(self, params: Params) -> float:
        """The score after the last epoch, without noise."""
        return self.train(params).truth

    @property
    def problem(self) -> Problem:
        """The task without its curves, as benchmarks.search knows problems."""
        return Problem(self.name, self.half, self.space, self.truth)
