"""HEBO, https://github.com/huawei-noah/HEBO: a warped Gaussian process and the MACE ensemble of acquisitions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from hebo.design_space.design_space import DesignSpace
from hebo.optimizers.hebo import HEBO

from benchmarks.search.peers.parameter import Parameter, parameters
from hpopt.core.search_space import SearchSpace


class Hebo:
    """One Sobol point more than there are parameters, then the model. It minimizes, so that it sees minus the score.

    It knows nothing of pending trials. Asked again before it was told, it draws another of the configurations that its
    acquisitions find equally good.
    """

    def __init__(self, spaces: Mapping[str, SearchSpace], seed: int, trials: int) -> None:
        del trials
        torch.set_num_threads(1)
        # Only its Sobol points have a seed of their own; the rest is drawn from the global generators.
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        space = DesignSpace().parse([_declaration(name, each) for name, each in parameters(spaces).items()])
        self._optimizer = HEBO(space, scramble_seed=seed)

    def ask(self) -> tuple[Any, Mapping[str, Any]]:
        """A table of one row is the handle."""
        table = self._optimizer.suggest(n_suggestions=1)
        return table, table.iloc[0].to_dict()

    def tell(self, handle: Any, score: float) -> None:
        """Observe the row."""
        self._optimizer.observe(handle, np.array([[-score]]))


def _declaration(name: str, parameter: Parameter) -> dict[str, Any]:
    if parameter.kind == "label":
        return {"name": name, "type": "cat", "categories": list(parameter.labels)}
    scales = {"int": ("int", "pow_int"), "float": ("num", "pow")}
    return {"name": name, "type": scales[parameter.kind][parameter.log], "lb": parameter.low, "ub": parameter.high}
