"""Problem: a function of hyper-parameters that a search is measured on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpopt.core.search_space import SearchSpace

Params = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """What is searched, and what the search is told.

    `truth` is the value without noise, and larger is better; `noise` is the standard deviation of what `score` adds to
    it. A search is told scores and judged by the truth. `half` is "tune" for the problems that hpopt's own constants
    were chosen on, "report" for those that only the published tables look at, "seen" for those that were reported
    first, and had been looked at when the constants were chosen again. `optimum` are the best params of a
    function whose best value is known exactly, else None.
    """

    name: str
    half: str
    space: dict[str, SearchSpace]
    truth: Callable[[Params], float]
    noise: float = 0.0
    optimum: Params | None = None

    def score(self, truth: float, rng: np.random.Generator) -> float:
        """What a trial of this truth reports: the truth plus normal noise drawn from `rng`."""
        return truth + self.noise * float(rng.standard_normal())
