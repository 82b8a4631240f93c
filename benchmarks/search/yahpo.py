"""Surrogates of real tuning runs, from YAHPO Gym (Pfisterer et al., 2022, arXiv:2109.03670), for onnxruntime.

A surrogate is a network that learned from many thousand trainings what a training with these hyper-parameters scores.
`lcbench` are multi-layer perceptrons on tabular data (Zimmer et al., 2021, arXiv:2006.13799): the validation accuracy
in percent after 52 epochs. `rpart` are decision trees (Binder et al., 2020): the accuracy of ten-fold cross-validation.
The number in a problem's name is the OpenML task.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.problem import Params, Problem
from hpopt.core.search_space import SearchSpace

TUNE = (
    "lcbench-126025",
    "lcbench-126029",
    "lcbench-146212",
    "lcbench-167149",
    "lcbench-167161",
    "rpart-1040",
    "rpart-1053",
    "rpart-1111",
    "rpart-1461",
)
SEEN = ("lcbench-167104", "lcbench-34539", "lcbench-7593", "rpart-1067")
REPORT = (
    "lcbench-167083",
    "lcbench-167181",
    "lcbench-167190",
    "lcbench-168910",
    "lcbench-189354",
    "rpart-32",
    "rpart-377",
)
HALVES = (("tune", TUNE), ("seen", SEEN), ("report", REPORT))

EPOCHS = 52  # where the learning curves of lcbench end
LCBENCH = {
    "batch_size": SearchSpace("qloguniform", [16, 512, 1]),
    "learning_rate": SearchSpace("loguniform", [1e-4, 0.1]),
    "momentum": SearchSpace("uniform", [0.1, 0.99]),
    "weight_decay": SearchSpace("uniform", [1e-5, 0.1]),
    "num_layers": SearchSpace("quniform", [1, 5, 1]),
    "max_units": SearchSpace("qloguniform", [64, 1024, 1]),
    "max_dropout": SearchSpace("uniform", [0.0, 1.0]),
}
RPART = {
    "cp": SearchSpace("loguniform", [0.0009118819655545162, 1.0]),
    "maxdepth": SearchSpace("quniform", [1, 30, 1]),
    "minbucket": SearchSpace("quniform", [1, 100, 1]),
    "minsplit": SearchSpace("quniform", [1, 100, 1]),
    "impute": SearchSpace("choice", ["impute.mean", "impute.median", "impute.hist"]),
}


def surrogates(data: Path) -> list[Problem]:
    """All of them; `data` holds the folders lcbench and rbv2_rpart. No file is read before a truth is asked for."""
    return [_surrogate(name, half, data) for half, names in HALVES for name in names]


def _surrogate(name: str, half: str, data: Path) -> Problem:
    kind, task = name.split("-")
    if kind == "lcbench":
        return Problem(name, half, LCBENCH, _lcbench(data / "lcbench", task))
    return Problem(name, half, RPART, _rpart(data / "rbv2_rpart", task))


def _lcbench(folder: Path, task: str) -> Callable[[Params], float]:
    def truth(params: Params) -> float:
        codes = encoding(folder)["OpenML_task_id"]
        return _ask(folder, [EPOCHS, *(params[name] for name in LCBENCH)], [codes[task]])[1]

    return truth


def _rpart(folder: Path, task: str) -> Callable[[Params], float]:
    def truth(params: Params) -> float:
        codes = encoding(folder)
        numbers = [params["cp"], params["maxdepth"], params["minbucket"], params["minsplit"]]
        trainsize, repl = 1.0, 10  # all the data, ten folds
        options = [codes["task_id"][task], codes["num.impute.selected.cpo"][params["impute"]]]
        return _ask(folder, [*numbers, trainsize, repl], options)[0]

    return truth


def _ask(folder: Path, numbers: list[float], options: list[int]) -> list[float]:
    inputs = {"x_cont": np.array([numbers], dtype=np.float32), "x_cat": np.array([options], dtype=np.int32)}
    outputs: list[float] = session(folder).run(None, inputs)[0][0].tolist()
    return outputs


@cache
def encoding(folder: Path) -> dict[str, dict[str, int]]:
    """The number that the surrogate knows each option by, by the name of its input."""
    codes: dict[str, dict[str, int]] = json.loads((folder / "encoding.json").read_text())
    return codes


@cache
def session(folder: Path) -> Any:
    """The surrogate in this folder, ready to be asked, in one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
