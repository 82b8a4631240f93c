"""SMAC: its facade for the optimization of hyper-parameters, https://automl.github.io/SMAC3."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer
from smac import HyperparameterOptimizationFacade, Scenario
from smac.runhistory.dataclasses import TrialValue

from benchmarks.search.peers.parameter import Parameter, parameters
from hpopt.core.search_space import SearchSpace


class Smac:
    """A Sobol design of at most a quarter of the trials, then a random forest.

    `deterministic=True`: every configuration is evaluated once, as by the other peers. With False, which is SMAC's
    default and what its documentation has for noisy functions, the intensifier evaluates a promising configuration up
    to three times with other seeds; the model is the same. Trials not yet told count as running.
    """

    def __init__(self, spaces: Mapping[str, SearchSpace], seed: int, trials: int) -> None:
        # Its forest takes as many threads as there are processors, and has no option for it: one, as for every peer.
        os.environ["LOKY_MAX_CPU_COUNT"] = "1"
        space = ConfigurationSpace(seed=seed)
        space.add([_hyperparameter(name, each) for name, each in parameters(spaces).items()])
        folder = tempfile.mkdtemp()  # SMAC keeps its history in files
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        scenario = Scenario(space, output_directory=Path(folder), deterministic=True, n_trials=trials, seed=seed)
        self._facade = HyperparameterOptimizationFacade(scenario, logging_level=False, overwrite=True)

    def ask(self) -> tuple[Any, Mapping[str, Any]]:
        """A trial, and its parameters."""
        trial = self._facade.ask()
        return trial, dict(trial.config)

    def tell(self, handle: Any, score: float) -> None:
        """The cost of the trial is minus its score."""
        self._facade.tell(handle, TrialValue(cost=-score), save=False)


def _hyperparameter(name: str, parameter: Parameter) -> Any:
    if parameter.kind == "label":
        return Categorical(name, list(parameter.labels))
    if parameter.kind == "int":
        return Integer(name, (int(parameter.low), int(parameter.high)), log=parameter.log)
    return Float(name, (parameter.low, parameter.high), log=parameter.log)
