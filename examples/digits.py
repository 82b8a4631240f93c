"""Tune a small network on scikit-learn's digits, on this machine: the whole of hpopt in one file.

Run it with `python examples/digits.py`, after `pip install 'hpopt[local,torch]'`. Nothing else has to be started.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import hpopt
import workers

EPOCHS = 20
TRIALS = 24
JOBS = 2

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, momentum=0.9),
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}
SPACE = {
    "lr": hpopt.search_space("loguniform", [1e-5, 1e-1]),
    "batch_size": hpopt.search_space("qloguniform", [16, 256, 16]),
    "width": hpopt.search_space("qloguniform", [32, 256, 32]),
    "dropout": hpopt.search_space("uniform", [0.0, 0.6]),
    "optimizer": hpopt.search_space("choice", list(OPTIMIZERS)),
}


class Digits(NamedTuple):
    """1,797 images of 8 x 8 pixels in three parts: to train with, to tune with, and to judge the result with."""

    train: TensorDataset
    validation: TensorDataset
    test: TensorDataset


@cache
def load() -> Digits:
    """Half of the images to train with, a quarter to tune with, a quarter held out: the same split every time."""
    images, labels = load_digits(return_X_y=True)
    train_x, rest_x, train_y, rest_y = train_test_split(
        images / 16, labels, test_size=0.5, stratify=labels, random_state=0
    )
    tune_x, test_x, tune_y, test_y = train_test_split(rest_x, rest_y, test_size=0.5, stratify=rest_y, random_state=0)
    return Digits(*(_tensors(x, y) for x, y in ((train_x, train_y), (tune_x, tune_y), (test_x, test_y))))


def _tensors(images: Any, labels: Any) -> TensorDataset:
    return TensorDataset(torch.tensor(images, dtype=torch.float32), torch.tensor(labels))


def build(params: Mapping[str, Any]) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network with two hidden layers, and what trains it."""
    width, dropout = params["width"], params["dropout"]
    model = nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(width, 10),
    )  # fmt: skip
    return model, OPTIMIZERS[params["optimizer"]](model.parameters(), lr=params["lr"])


def fit(params: Mapping[str, Any], dataset: Dataset[Any], epochs: int, seed: int) -> Iterator[nn.Module]:
    """Train for `epochs` epochs; yield the network after each."""
    torch.set_num_threads(1)  # the network is small: a second thread costs more than it brings
    torch.manual_seed(seed)
    model, optimizer = build(params)
    batches = DataLoader(dataset, batch_size=params["batch_size"], shuffle=True)
    for _ in range(epochs):
        model.train()
        for images, labels in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        yield model


def log_loss(model: nn.Module, dataset: TensorDataset) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    images, labels = dataset.tensors
    model.eval()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(images), labels))


def train(config: dict[str, Any]) -> None:
    """One trial: what runs in each of the processes that `workers.run` starts."""
    dataset = hpopt.createHpoDataset(load().train, config)
    for model in fit(config["params"], dataset, config["iterations"], seed=config["trial_id"]):
        if hpopt.report(config, score=log_loss(model, load().validation)) == hpopt.Status.STOP:
            break


def create(
    save_path: str | Path, seed: int | None, trials: int = TRIALS, *, jobs: int = JOBS, resume: bool = False
) -> hpopt.HpOpt:
    """The study, of which `jobs` trials are trained at once."""
    return hpopt.create(
        full_dataset_size=len(load().train),
        num_full_iterations=EPOCHS,
        search_space=SPACE,
        save_path=str(save_path),
        search_alg="bayes_opt",
        early_stop="median_stop",
        mode="min",
        metric="log_loss",
        num_trials=trials,
        max_iterations=EPOCHS,
        subset_ratio=1.0,
        num_workers=jobs,
        seed=seed,
        resume=resume,
    )


def tune(
    save_path: str | Path, seed: int | None, trials: int = TRIALS, *, progress: bool = True, resume: bool = False
) -> dict[str, Any]:
    """Run a study on this machine and return the best hyper-parameters."""
    with create(save_path, seed, trials, resume=resume) as hpo:
        return _found(workers.run(train, hpo, jobs=JOBS, progress=progress))


def wait(save_path: str | Path, seed: int | None, trials: int, *, jobs: int, resume: bool) -> dict[str, Any]:
    """Have `jobs` trials at once trained by hpopt-worker elsewhere, and return the best hyper-parameters."""
    with create(save_path, seed, trials, jobs=jobs, resume=resume) as hpo:
        print(f"Train its trials with `hpopt-worker --study {hpo.study} examples/digits.py:train`.", flush=True)
        while hpo.get_progress() < 1:  # get_best_config(wait=True) would not wait for workers that are yet to come
            time.sleep(1)
        return _found(hpo.get_best_config())


def _found(best: dict[str, Any] | None) -> dict[str, Any]:
    if best is None:
        raise RuntimeError("no trial has reported a score")
    return best


def centre() -> dict[str, Any]:
    """What one might have written down without tuning: the middle of each (logarithmic) range, the middle option."""
    return {name: space.from_unit(0.5) for name, space in SPACE.items()}


def describe(params: Mapping[str, Any]) -> str:
    """Hyper-parameters on one line."""
    return ", ".join(f"{name}={v:.3g}" if isinstance(v, float) else f"{name}={v}" for name, v in params.items())


def evaluate(params: Mapping[str, Any], seeds: Sequence[int]) -> float:
    """Log-loss on the held-out images, the mean over networks trained from scratch with these seeds.

    Of each training the epoch counts that did best on the validation images, as in a trial.
    """
    return mean(_held_out(params, seed) for seed in seeds)


def _held_out(params: Mapping[str, Any], seed: int) -> float:
    data = load()
    losses = [(log_loss(m, data.validation), log_loss(m, data.test)) for m in fit(params, data.train, EPOCHS, seed)]
    return min(losses)[1]


def main() -> None:
    """Tune, and show what it brought."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--save-path", default="hpo_digits", help="where the results go (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the search (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=TRIALS, help="how many to run (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted study")
    parser.add_argument("--workers", type=int, metavar="N", help="train nothing here: N jobs of hpopt-worker do")
    arguments = parser.parse_args()
    if arguments.workers is not None and not os.environ.get("HPOPT_URL"):
        parser.error("--workers: say in HPOPT_URL where the server is that they can reach as well")
    what = (arguments.save_path, arguments.seed, arguments.trials)
    try:
        if arguments.workers is None:
            best = tune(*what, resume=arguments.resume)
        else:
            best = wait(*what, jobs=arguments.workers, resume=arguments.resume)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. What was trained is kept: go on with --resume.")
    print("\nLog-loss on images that were held out, mean of 3 trainings:")
    for name, params in (("the best found", best), ("the centre of the space", centre())):
        loss = evaluate(params, seeds=range(3))
        print(f"  {loss:.3f} with {name}: {describe(params)}")


if __name__ == "__main__":  # the processes that run trials import this file: without the guard each would start a study
    main()
