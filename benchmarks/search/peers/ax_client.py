"""Ax: its Client with the default generation strategy, https://ax.dev."""

from collections.abc import Mapping
from typing import Any

import torch
from ax.api.client import Client
from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

from benchmarks.search.peers.parameter import Parameter, parameters
from hpopt.core.search_space import SearchSpace


class Ax:
    """The centre of the space, Sobol points, then a Gaussian process; the noise is inferred, as no SEM is given.

    Trials that are not complete are in the state RUNNING, and the generation strategy takes them as pending. While too
    few are complete for a model it goes on with Sobol points: by default it would refuse, and a worker would wait.
    """

    def __init__(self, spaces: Mapping[str, SearchSpace], seed: int, trials: int) -> None:
        del trials
        torch.set_num_threads(1)
        self._client = Client(random_seed=seed)
        self._client.configure_experiment([_config(name, each) for name, each in parameters(spaces).items()])
        self._client.configure_optimization(objective="score")
        self._client.configure_generation_strategy(allow_exceeding_initialization_budget=True)

    def ask(self) -> tuple[Any, Mapping[str, Any]]:
        """A trial's index, and its parameters."""
        ((index, raw),) = self._client.get_next_trials(max_trials=1).items()
        return index, raw

    def tell(self, handle: Any, score: float) -> None:
        """The trial is complete."""
        self._client.complete_trial(handle, raw_data={"score": score})


def _config(name: str, parameter: Parameter) -> Any:
    if parameter.kind == "label":
        return ChoiceParameterConfig(name=name, values=list(parameter.labels), parameter_type="str", is_ordered=False)
    bounds, scaling = (parameter.low, parameter.high), "log" if parameter.log else "linear"
    return RangeParameterConfig(name=name, bounds=bounds, parameter_type=parameter.kind, scaling=scaling)
