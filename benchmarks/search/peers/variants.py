"""hpopt with one part of it changed, to see what that part is worth.

A run is a process of its own (benchmarks/search/run.py), so a variant may replace a constant or a function of the
sampler for good: call none of these in a process that goes on with something else.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import yeojohnson

from benchmarks.search.peers.native import Hpopt
from hpopt.core.space import SearchSpace, Space
from hpopt.samplers import bayes, optimize, surrogate
from hpopt.samplers.encoding import Encoding
from hpopt.samplers.sobol import design
from hpopt.samplers.transform import half_rank, symlog

Array = NDArray[np.float64]


def zscore(y: Array) -> Array:
    """Moved and scaled to mean 0 and variance 1, nothing else."""
    return np.asarray((y - y.mean()) / y.std())


def winsorized(y: Array) -> Array:
    """Cut five robust standard deviations below the median, then a Yeo-Johnson transform where it can be fitted."""
    median = np.median(y)
    deviation = 1.4826 * np.median(np.abs(y - median)) or y.std()
    cut = zscore(np.maximum(y, median - 5.0 * deviation))
    if len(y) < 8:
        return cut
    shaped, power = yeojohnson(cut)
    return zscore(shaped) if np.isfinite(shaped).all() and shaped.std() > 1e-3 and abs(power) <= 5.0 else cut


def near_the_best(encoding: Encoding, best: Array, rng: np.random.Generator) -> Array:
    """The candidates, without those farther than 0.2 in any numeric coordinate from all of the best rows.

    A trust region of fixed size around four incumbents; the polish that follows may leave it.
    """
    U = _candidates(encoding, best, rng)
    numeric = [i for i, axis in enumerate(encoding.axes) if axis.width == 1]
    gap = np.abs(U[:, None, numeric] - best[None, :, numeric]).max(axis=2, initial=0.0).min(axis=1)
    return np.asarray(U[gap <= 0.2])


_candidates = optimize.candidates


def _transform(transform: Callable[[Array], Array]) -> Callable[[], None]:
    return lambda: setattr(bayes, "transform_for", lambda _: transform)


def _lengthscales(centre: float, spread: float) -> Callable[[], None]:
    def change() -> None:
        surrogate.LENGTHSCALE_CENTRE, surrogate.LENGTHSCALE_SPREAD = centre, spread

    return change


CHANGES: dict[str, Callable[[], None]] = {
    "half-rank": _transform(half_rank),
    "symlog": _transform(symlog),
    "zscore": _transform(zscore),
    "winsor-yj": _transform(winsorized),
    "short-scales": _lengthscales(-1.0, 1.0),
    "wide-scales": _lengthscales(-0.5, 1.5),
    "hvarfner": _lengthscales(2.0**0.5, 3.0**0.5),
    "trust-region": lambda: setattr(bayes, "candidates", near_the_best),
}
"""Replaces a part of the sampler."""
ARGUMENTS: dict[str, dict[str, Any]] = {
    "kappa-1.8": {"acquisition": "mix", "kappa": 1.8},
    "kappa-1": {"acquisition": "mix", "kappa": 1.0},
    "log-ei": {"acquisition": "log_ei"},
    "ucb-1.8": {"acquisition": "ucb", "kappa": 1.8},
    "ucb-2.576": {"acquisition": "ucb"},
    "init-10": {"num_init_trials": 10},
}
"""Other arguments of the study."""
NO_CENTRE, NO_PENDING = "no-centre", "no-pending"
VARIANTS = (*CHANGES, *ARGUMENTS, NO_CENTRE, NO_PENDING)


class Variant(Hpopt):
    """hpopt with the change of this name."""

    def __init__(self, name: str, spaces: Mapping[str, SearchSpace], seed: int, trials: int) -> None:
        super().__init__(spaces, seed, trials)
        self._name = name
        if name in CHANGES:
            CHANGES[name]()
        self._spec = replace(self._spec, **ARGUMENTS.get(name, {}))
        if name == NO_CENTRE:  # one more point of the design, as a configuration of the user's, in its place
            first = design(Space(spaces), seed, 128, ()) or {}
            self._spec = replace(self._spec, default_hyper_parameters=(first,))

    def pending(self) -> tuple[dict[str, Any], ...]:
        """What the sampler is told of: nothing, if that is the change. It may then suggest one of them again."""
        return () if self._name == NO_PENDING else super().pending()
