"""Optuna: its TPE sampler and its Gaussian process sampler, https://optuna.readthedocs.io."""

from collections.abc import Mapping
from typing import Any

import optuna

from benchmarks.search.peers.parameter import Parameter, parameters
from hpopt.core.search_space import SearchSpace


class _Study:
    """A study in memory that is asked and told; trials that were not told yet are in the state RUNNING."""

    def __init__(self, spaces: Mapping[str, SearchSpace], sampler: Any) -> None:
        self._distributions = {name: distribution(each) for name, each in parameters(spaces).items()}
        self._study = optuna.create_study(direction="maximize", sampler=sampler)

    def ask(self) -> tuple[Any, Mapping[str, Any]]:
        """A trial with all its parameters."""
        trial = self._study.ask(self._distributions)
        return trial, trial.params

    def tell(self, handle: Any, score: float) -> None:
        """The trial is complete."""
        self._study.tell(handle, score)


class Tpe(_Study):
    """TPESampler with its defaults; since Optuna 5 they take running trials into account ("constant liar")."""

    def __init__(self, spaces: Mapping[str, SearchSpace], seed: int, trials: int) -> None:
        del trials
        super().__init__(spaces, optuna.samplers.TPESampler(seed=seed))


class Gp(_Study):
    """GPSampler with its defaults: 10 random trials, noise is estimated, running trials are taken into account."""

    def __init__(self, spaces: Mapping[str, SearchSpace], seed: int, trials: int) -> None:
        import torch

        del trials
        torch.set_num_threads(1)
        super().__init__(spaces, optuna.samplers.GPSampler(seed=seed))


def distribution(parameter: Parameter) -> Any:
    """What Optuna calls the parameter."""
    if parameter.kind == "label":
        return optuna.distributions.CategoricalDistribution(parameter.labels)
    if parameter.kind == "int":
        return optuna.distributions.IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return optuna.distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.log)
