"""What a sampler is asked, and what it gets to know; it stays on the coordinator's machine."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from hpopt.core.batch_size import NO_BOUND, BatchSizeBound, allowed
from hpopt.core.space import Space
from hpopt.core.spec import StudySpec


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of one trial: its best score (as reported; None without a valid one) after `steps` steps.

    `marks`: (step, best score by then) at the steps where the stopping rule compares, as far as the trial got.
    """

    params: dict[str, Any]
    score: float | None
    steps: int
    complete: bool
    marks: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class SuggestRequest:
    """`count` suggestions for the trials from `ordinal` on, given what has ended and what is pending.

    `running`: those of the pending trials that have marks. `basis`: how many trials had ended; in a large study of
    early-stopped trials not all of them are among the observations. `bound`: the batch sizes that fit into memory.
    `left_behind`: other configurations that are not to be suggested again: they did not fit, and their trials have
    gone on with smaller batches, or they were tried and are not among the observations. `epoch`: how often the spec, or
    what fits, has changed.
    """

    spec: StudySpec
    ordinal: int
    count: int
    observations: tuple[Observation, ...] = ()
    pending: tuple[dict[str, Any], ...] = ()
    running: tuple[Observation, ...] = ()
    basis: int = 0
    bound: BatchSizeBound = NO_BOUND
    left_behind: tuple[dict[str, Any], ...] = ()
    epoch: int = 0

    @property
    def allowed(self) -> Space:
        """The part of the search space that the suggestions have to lie in."""
        return allowed(self.spec.search_space, self.spec.batch_size_name, self.bound)

    def taken(self) -> set[tuple[Hashable, ...]]:
        """The keys of the configurations that are not to be suggested again."""
        configs = (*(each.params for each in self.observations), *self.pending, *self.left_behind)
        return {self.spec.search_space.key(params) for params in configs}
