"""bayesian-optimization (bayes_opt), https://bayesian-optimization.github.io/BayesianOptimization."""

import math
from collections.abc import Mapping
from typing import Any

from bayes_opt import BayesianOptimization
from bayes_opt.acquisition import ConstantLiar, UpperConfidenceBound

from benchmarks.search.peers.parameter import Parameter, parameters
from hpopt.core.search_space import SearchSpace

_INIT_POINTS = 5
"""How many random points `maximize` of the package begins with."""


class BayesOpt:
    """A Gaussian process and an upper confidence bound with kappa 2.576, after five random points as in `maximize`.

    Integers and labels are parameters of those types. There is no logarithmic type: as in the package's own examples, a
    float or an integer on a logarithmic scale is searched by its exponent of 10, and the integer rounded by us.
    Equal configurations are allowed, as its documentation advises for noise; without that the second is an error.

    What is pending is heeded by its ConstantLiar, but only in spaces of floats: bayes_opt 3.4 drops the types of the
    parameters there. With integers or labels the package has nothing for pending trials.
    """

    def __init__(self, spaces: Mapping[str, SearchSpace], seed: int, trials: int) -> None:
        del trials
        self._parameters = parameters(spaces)
        bounds = {name: _bounds(each) for name, each in self._parameters.items()}
        acquisition: Any = UpperConfidenceBound(kappa=2.576)
        if all(len(each) == 2 and not isinstance(each[0], str) for each in bounds.values()):
            acquisition = ConstantLiar(acquisition)
        self._optimizer = BayesianOptimization(
            None, bounds, acquisition, random_state=seed, verbose=0, allow_duplicate_points=True
        )
        self._random = _INIT_POINTS

    def ask(self) -> tuple[Any, Mapping[str, Any]]:
        """The point itself is the handle."""
        if self._random:
            self._random -= 1
            (point,) = self._optimizer.random_sample()
        else:
            point = self._optimizer.suggest()
        return point, {name: _raw(each, point[name]) for name, each in self._parameters.items()}

    def tell(self, handle: Any, score: float) -> None:
        """Register the point."""
        self._optimizer.register(handle, score)


def _bounds(parameter: Parameter) -> tuple[Any, ...]:
    if parameter.kind == "label":
        return parameter.labels
    if parameter.log:
        return math.log10(parameter.low), math.log10(parameter.high)
    if parameter.kind == "int":
        return parameter.low, parameter.high, int
    return parameter.low, parameter.high


def _raw(parameter: Parameter, value: Any) -> Any:
    if not parameter.log:
        return value
    return 10**value if parameter.kind == "float" else round(10**value)
