"""The peers that need nothing but hpopt: hpopt itself, and random search."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import StudySpec
from hpopt.core.suggest_request import Observation, SuggestRequest
from hpopt.samplers.base import suggest


class RandomSearch:
    """Independent configurations, each drawn as the types of its hyper-parameters say."""

    def __init__(self, spaces: Mapping[str, SearchSpace], seed: int, trials: int) -> None:
        del trials
        self._space = Space(spaces)
        self._generator = np.random.default_rng(seed)

    def ask(self) -> dict[str, Any]:
        """A random configuration."""
        return self._space.from_unit(self._generator.random(len(self._space)).tolist())

    def tell(self, params: dict[str, Any], score: float) -> None:
        """Nothing is learnt."""


class Hpopt:
    """hpopt's bayes_opt as a coordinator runs it: what is running is in the request, and there is no other state."""

    _ITERATIONS = 10  # all trials are trained to the end, so that the number makes no difference

    def __init__(self, spaces: Mapping[str, SearchSpace], seed: int, trials: int) -> None:
        self._spec = StudySpec(
            full_dataset_size=0,
            num_full_iterations=self._ITERATIONS,
            search_space=Space(spaces),
            num_trials=trials,
            max_iterations=self._ITERATIONS,
            seed=seed,
        )
        self._ordinal = 0
        self._pending: list[dict[str, Any]] = []
        self._observations: list[Observation] = []

    def ask(self) -> dict[str, Any]:
        """The next suggestion; LookupError when a finite space has no configuration left."""
        request = SuggestRequest(self._spec, self._ordinal, 1, tuple(self._observations), self.pending())
        suggested = suggest(request)
        if not suggested:
            raise LookupError("every configuration of the search space has been suggested")
        self._ordinal += 1
        self._pending += suggested
        return suggested[0]

    def pending(self) -> tuple[dict[str, Any], ...]:
        """What was asked for and not told."""
        return tuple(self._pending)

    def tell(self, params: dict[str, Any], score: float) -> None:
        """One trial has ended."""
        self._pending.remove(params)
        self._observations.append(Observation(params, score, self._ITERATIONS, complete=True))
