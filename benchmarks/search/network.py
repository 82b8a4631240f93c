"""A small PyTorch training as people write it: optimizer, schedule, dropout, weight decay."""

import math
from functools import cache
from itertools import pairwise
from typing import Any

from benchmarks.search.problem import Params
from hpopt.core.search_space import SearchSpace

EPOCHS = 5
TRAINED, ROWS = 600, 1200  # the first are trained on, the others judge
MOST = 4.0  # no loss is larger; guessing loses 2.3

SPACE = {
    "learning_rate": SearchSpace("loguniform", [3e-4, 1.0]),
    "batch": SearchSpace("qloguniform", [16, 128, 8]),
    "hidden": SearchSpace("qloguniform", [8, 128, 4]),
    "layers": SearchSpace("quniform", [1, 3, 1]),
    "dropout": SearchSpace("uniform", [0.0, 0.7]),
    "weight_decay": SearchSpace("loguniform", [1e-6, 0.1]),
    "optimizer": SearchSpace("choice", ["sgd", "momentum", "adam", "rmsprop"]),
    "activation": SearchSpace("choice", ["relu", "tanh", "gelu"]),
}


def torch_digits(params: Params) -> float:
    """A multi-layer perceptron on 8 x 8 images of digits, 5 epochs: minus the log-loss on images it has not seen.

    The learning rate falls linearly to zero. Sets torch to one thread, for good.
    """
    import torch

    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _model(params)
        X, y = _digits()
        _train(model, params, X[:TRAINED], y[:TRAINED])
        model.eval()
        with torch.no_grad():
            loss = float(torch.nn.functional.cross_entropy(model(X[TRAINED:]), y[TRAINED:]))
    return -MOST if math.isnan(loss) else -min(loss, MOST)


def _model(params: Params) -> Any:
    from torch import nn

    activation = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}[params["activation"]]
    layers: list[nn.Module] = []
    for wide, narrow in pairwise([64] + [params["hidden"]] * params["layers"]):
        layers += [nn.Linear(wide, narrow), activation(), nn.Dropout(params["dropout"])]
    return nn.Sequential(*layers, nn.Linear(params["hidden"], 10))


def _train(model: Any, params: Params, X: Any, y: Any) -> None:
    import torch

    optimizer = _optimizer(model, params)
    steps = EPOCHS * -(-len(y) // params["batch"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(y)).split(params["batch"]):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(X[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()


def _optimizer(model: Any, params: Params) -> Any:
    from torch import optim

    common = {"lr": params["learning_rate"], "weight_decay": params["weight_decay"]}
    if params["optimizer"] == "adam":
        return optim.AdamW(model.parameters(), **common)
    if params["optimizer"] == "rmsprop":
        return optim.RMSprop(model.parameters(), **common)
    return optim.SGD(model.parameters(), momentum=0.9 * (params["optimizer"] == "momentum"), **common)


@cache
def _digits() -> tuple[Any, Any]:
    import torch
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return torch.tensor(X[:ROWS] / 8 - 1, dtype=torch.float32), torch.tensor(y[:ROWS])
