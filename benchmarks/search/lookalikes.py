"""Functions that look like tuning a model: mixed types, choices that change what is best, dimensions without effect.

They are made of losses that are zero at one known configuration, so that their best value is exact. The shapes are
those of experience: a learning rate that fits optimizer and batch size and diverges above, a trade of step size against
number of steps, plateaus far from the optimum.
"""

import math
from typing import Any

from benchmarks.search.problem import Params, Problem
from hpopt.core.search_space import SearchSpace

NETWORK = {
    "learning_rate": SearchSpace("loguniform", [1e-5, 1.0]),
    "batch": SearchSpace("qloguniform", [8, 512, 8]),
    "dropout": SearchSpace("uniform", [0.0, 0.8]),
    "optimizer": SearchSpace("choice", ["sgd", "adam", "rmsprop"]),
    "layers": SearchSpace("quniform", [1, 8, 1]),
    "weight_decay": SearchSpace("loguniform", [1e-6, 0.1]),
}
TREES = {
    "learning_rate": SearchSpace("loguniform", [0.005, 0.5]),
    "rounds": SearchSpace("qloguniform", [20, 1000, 10]),
    "depth": SearchSpace("quniform", [1, 12, 1]),
    "min_leaf": SearchSpace("qloguniform", [1, 200, 1]),
    "subsample": SearchSpace("uniform", [0.3, 1.0]),
    "columns": SearchSpace("uniform", [0.3, 1.0]),
    "growth": SearchSpace("choice", ["depth", "loss"]),
    "booster": SearchSpace("choice", ["plain", "dropping", "sampling"]),
}
SPARSE = {
    "learning_rate": SearchSpace("loguniform", [1e-5, 0.1]),
    "width": SearchSpace("qloguniform", [16, 1024, 16]),
    "momentum": SearchSpace("uniform", [0.0, 0.99]),
    "depth": SearchSpace("quniform", [1, 10, 1]),
    "activation": SearchSpace("choice", ["relu", "tanh", "gelu", "swish"]),
    **{f"uniform{i}": SearchSpace("uniform", [0, 1]) for i in range(5)},
    **{f"log{i}": SearchSpace("loguniform", [1e-6, 1]) for i in range(4)},
    **{f"integer{i}": SearchSpace("quniform", [0, 10, 1]) for i in range(3)},
    **{f"option{i}": SearchSpace("choice", ["a", "b", "c"]) for i in range(3)},
}
FINETUNE = {
    "learning_rate": SearchSpace("loguniform", [1e-6, 1e-2]),
    "epochs": SearchSpace("quniform", [1, 10, 1]),
    "batch": SearchSpace("qloguniform", [4, 256, 4]),
    "warmup": SearchSpace("uniform", [0.0, 0.5]),
    "weight_decay": SearchSpace("loguniform", [1e-4, 1.0]),
    "frozen": SearchSpace("quniform", [0, 12, 1]),
    "dropout": SearchSpace("uniform", [0.0, 0.5]),
    "method": SearchSpace("choice", ["all weights", "low rank", "prompt"]),
    "schedule": SearchSpace("choice", ["constant", "linear", "cosine"]),
}
CATEGORICAL = {
    "scaling": SearchSpace("choice", ["none", "standard", "quantile"]),
    "model": SearchSpace("choice", ["linear", "kernel", "forest", "network", "neighbours"]),
    "features": SearchSpace("choice", ["raw", "pca", "random", "squares", "selected", "bins"]),
    "complexity": SearchSpace("uniform", [0, 1]),
    "penalty": SearchSpace("loguniform", [1e-5, 10]),
    "share": SearchSpace("uniform", [0.1, 1.0]),
}


def functions() -> list[Problem]:
    """All of them. Their noise is some 3 % of the way from a typical configuration to the best."""
    return [
        Problem("network6", "tune", NETWORK, network6, 0.04, NETWORK_BEST),
        Problem("trees8", "tune", TREES, trees8, 0.02, TREES_BEST),
        Problem("sparse20", "tune", SPARSE, sparse20, 0.02, SPARSE_BEST),
        Problem("finetune9", "report", FINETUNE, finetune9, 0.02, FINETUNE_BEST),
        Problem("categorical6", "seen", CATEGORICAL, categorical6, 0.02, CATEGORICAL_BEST),
    ]


NETWORK_BEST: Params = {
    "learning_rate": 10**-2.9,
    "batch": 96,
    "dropout": 0.25,
    "optimizer": "adam",
    "layers": 3,
    "weight_decay": 10**-3.1,
}


def network6(params: Params) -> float:
    """Minus a validation loss in six dimensions: 0.3 at the best, 2.3 for a network that guesses, 2.8 when it diverges.

    The best learning rate depends on optimizer, batch and depth, and ten times it is too much; the best weight decay
    goes down as the learning rate goes up, the best dropout goes up with the depth.
    """
    offset, penalty = {"sgd": (1.2, 0.12), "adam": (0.0, 0.0), "rmsprop": (-0.3, 0.06)}[params["optimizer"]]
    batch, layers = math.log10(params["batch"] / 96), params["layers"] - 3
    rate = math.log10(params["learning_rate"]) + 2.9 - offset - 0.5 * batch + 0.12 * layers
    if rate > 1:
        return -2.8
    decay = math.log10(params["weight_decay"]) + 3.1 + 0.5 * rate
    dropout = params["dropout"] - 0.25 - 0.05 * layers
    excess = penalty + 0.4 * rate**2 + 0.25 * batch**2 + 1.5 * dropout**2 + 0.025 * layers**2 + 0.04 * decay**2
    return -(0.3 + 2 * (1 - math.exp(-excess)))


TREES_BEST: Params = {
    "learning_rate": 0.03,
    "rounds": 300,
    "depth": 5,
    "min_leaf": 6,
    "subsample": 0.8,
    "columns": 0.5,
    "growth": "loss",
    "booster": "plain",
}


def trees8(params: Params) -> float:
    """Minus an excess loss in eight dimensions: 0 at the best, 1 far away.

    Learning rate and rounds trade against each other, a dropping booster wants a higher rate; deep trees want larger
    leaves, and growth by depth wants deeper trees; a sampling booster takes no notice of `subsample`.
    """
    rate, rounds = math.log(params["learning_rate"] / 0.03), math.log(params["rounds"] / 300)
    leaf, depth = math.log(params["min_leaf"] / 6), params["depth"] - 5 - 2 * (params["growth"] == "depth")
    steps = rate + rounds - {"plain": 0.0, "dropping": 0.7, "sampling": 0.2}[params["booster"]]
    shrink = max(rate, 0.0)  # a smaller rate costs only rounds, a larger one accuracy
    sampled = 0.0 if params["booster"] == "sampling" else params["subsample"] - 0.8
    choices = (
        0.06 * (params["growth"] == "depth") + {"plain": 0.0, "dropping": 0.09, "sampling": 0.12}[params["booster"]]
    )
    excess = choices + 0.25 * steps**2 + 0.1 * shrink**2 + 0.03 * rounds**2 + 0.05 * (leaf - 0.3 * depth) ** 2
    excess += 0.02 * depth**2 + 0.8 * sampled**2 + 0.6 * (params["columns"] - 0.5 + 0.3 * sampled) ** 2
    return -(1 - math.exp(-excess))


SPARSE_BEST: Params = {
    "learning_rate": 4e-3,
    "width": 192,
    "momentum": 0.8,
    "depth": 4,
    "activation": "gelu",
    **{f"uniform{i}": 0.5 for i in range(5)},
    **{f"log{i}": 1e-3 for i in range(4)},
    **{f"integer{i}": 5 for i in range(3)},
    **{f"option{i}": "b" for i in range(3)},
}


def sparse20(params: Params) -> float:
    """Minus an excess loss in twenty dimensions, of which the first five matter: 0 at the best, 1 far away."""
    penalty, offset = {"relu": (0.1, 0.3), "tanh": (0.25, -0.4), "gelu": (0.0, 0.0), "swish": (0.04, 0.1)}[
        params["activation"]
    ]
    width, depth = math.log2(params["width"] / 192), params["depth"] - 4
    momentum = params["momentum"] - 0.8
    rate = math.log10(params["learning_rate"] / 4e-3) - offset + 0.15 * width + 1.5 * momentum
    excess = penalty + 0.35 * rate**2 + 0.06 * width**2 + 0.03 * (depth + width / 2) ** 2 + 0.9 * momentum**2
    return -(1 - math.exp(-excess))


FINETUNE_BEST: Params = {
    "learning_rate": 2e-4,
    "epochs": 6,
    "batch": 24,
    "warmup": 0.1,
    "weight_decay": 0.02,
    "frozen": 2,
    "dropout": 0.1,
    "method": "low rank",
    "schedule": "cosine",
}


def finetune9(params: Params) -> float:
    """Minus an excess loss in nine dimensions: 0 at the best, 1 far away.

    All weights want a smaller learning rate, prompts a larger one; a rate that is too large diverges, sooner without
    warmup; many steps at a high rate overfit unless dropout goes up, and what is frozen overfits less.
    """
    cost, offset, most = {"all weights": (0.03, -1.0, 0.7), "low rank": (0.0, 0.0, 1.0), "prompt": (0.2, 0.8, 1.2)}[
        params["method"]
    ]
    warmup, batch = params["warmup"] - 0.1, math.log2(params["batch"] / 24)
    rate = math.log10(params["learning_rate"] / 2e-4) - offset - 0.15 * batch
    if rate > most + min(2 * warmup, 0.4):
        return -1.0
    frozen, decay = (params["frozen"] - 2) / 10, math.log10(params["weight_decay"] / 0.02)
    steps = math.log(params["epochs"] / 6) + 0.8 * rate
    dropout = params["dropout"] - 0.1 - 0.15 * max(steps, 0.0) + 0.1 * frozen
    excess = cost + {"constant": 0.08, "linear": 0.02, "cosine": 0.0}[params["schedule"]]
    excess += 0.3 * rate**2 + 0.25 * steps**2 + 0.02 * batch**2 + 0.6 * warmup**2 + 2.5 * dropout**2
    excess += (0.1 if params["method"] == "prompt" else 0.6) * frozen**2 + 0.03 * decay**2
    return -(1 - math.exp(-excess))


# What model and scaling, and model and features, cost together; a row per model.
SCALED = {
    "linear": (0.30, 0.12, 0.16),
    "kernel": (0.60, 0.04, 0.10),
    "forest": (0.15, 0.15, 0.15),
    "network": (0.70, 0.10, 0.00),
    "neighbours": (0.45, 0.20, 0.12),
}
FEATURES = {
    "linear": (0.25, 0.35, 0.15, 0.05, 0.28, 0.12),
    "kernel": (0.10, 0.04, 0.22, 0.30, 0.02, 0.35),
    "forest": (0.03, 0.30, 0.38, 0.12, 0.00, 0.08),
    "network": (0.12, 0.20, 0.25, 0.33, 0.08, 0.00),
    "neighbours": (0.30, 0.08, 0.20, 0.45, 0.10, 0.26),
}
COMPLEXITY = {"linear": 0.9, "kernel": 0.35, "forest": 0.8, "network": 0.7, "neighbours": 0.15}
CATEGORICAL_BEST: Params = {
    "scaling": "quantile",
    "model": "network",
    "features": "bins",
    "complexity": 0.7,
    "penalty": 1e-3,
    "share": 0.8,
}


def categorical6(params: Params) -> float:
    """Minus an excess loss in six dimensions: 0 at the best, 1 far away.

    Only one combination of the three choices is best, and changing any one of them alone is a clear loss; the model
    says how complex it should be, the features how much of a penalty it needs and how much it matters.
    """
    scaling, model, features = params["scaling"], params["model"], params["features"]
    place = _place("features", features)
    excess = SCALED[model][_place("scaling", scaling)] + FEATURES[model][place]
    penalty = math.log10(params["penalty"]) + 3 - 0.4 * (5 - place)
    excess += 1.5 * (params["complexity"] - COMPLEXITY[model]) ** 2 + (params["share"] - 0.8) ** 2
    excess += (0.02 + 0.01 * place) * penalty**2
    return -(1 - math.exp(-excess))


def _place(name: str, option: Any) -> int:
    return CATEGORICAL[name].index_of(option)
