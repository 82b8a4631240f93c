"""What does a subset of 20 % cost, and does it rank configurations as the full data does?

The same configurations are trained with all data and with a fifth of it, for as many epochs: plain, and stratified
by class. Each draw of a subset is that of `createHpoDataset` from the data in another order. A configuration's true
score is its mean over the full trainings; "all, again" is one full training against the mean of the others, the
best that can be hoped for. Intervals: 95 %, bootstrap over configurations.

    python -m benchmarks.subset
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from benchmarks.subset_trainings import DATA, Result, configurations, load, shuffled, train

Scores = NDArray[np.float64]
KINDS: dict[str, tuple[float | None, bool | None]] = {
    "all, again": (None, None),
    "subset": (0.0, None),
    "stratified subset": (0.0, True),
}
"""Share of the data (0: the one asked for), and stratify."""
HEADER = ("data", "trained with", "time", "Kendall tau", "Spearman rho", "regret", "regret of a random pick")


def measure(name: str, arguments: argparse.Namespace) -> dict[str, list[list[Result]]]:
    """Results by kind, draw and configuration."""
    task = load(name)
    drawn = configurations(arguments.configs)
    results: dict[str, list[list[Result]]] = {kind: [] for kind in KINDS}
    train(task, drawn[0], arguments.ratio, stratify=None, epochs=1, seed=0)  # what is loaded once is nobody's cost
    for draw in range(arguments.draws):
        data = shuffled(task, draw)
        for rank, (kind, (whole, stratify)) in enumerate(KINDS.items()):
            ratio = 1.0 if whole is None else arguments.ratio
            seeds = range(1000 * (len(KINDS) * draw + rank), 10**9)  # no two trainings begin with the same weights
            row = [
                train(data, params, ratio, stratify=stratify, epochs=arguments.epochs, seed=seed)
                for params, seed in zip(drawn, seeds, strict=False)
            ]
            results[kind].append(row)
            seconds = sum(each.seconds for each in row)
            print(f"{name}, draw {draw}, {kind}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return results


# --- statistics; scores are arrays (draws, configurations)


def truths(full: Scores, kind: str) -> Scores:
    """For each draw, the scores (draws, configurations) to rank by: without the training that is itself compared."""
    if kind != "all, again" or len(full) == 1:
        return np.broadcast_to(full.mean(axis=0), full.shape)
    others: Scores = (full.sum(axis=0) - full) / (len(full) - 1)
    return others


def tau(scores: Scores, true: Scores) -> float:
    """Kendall's tau-b, mean over draws."""
    return _mean(kendalltau, scores, true)


def rho(scores: Scores, true: Scores) -> float:
    """Spearman's rank correlation, mean over draws."""
    return _mean(spearmanr, scores, true)


def _mean(correlation: Callable[..., Any], scores: Scores, true: Scores) -> float:
    """Over the draws in which not all configurations are equal; NaN if there is none."""
    pairs = [pair for pair in zip(scores, true, strict=True) if min(np.ptp(pair, axis=1)) > 0]
    return float(np.mean([correlation(*pair).statistic for pair in pairs])) if pairs else float("nan")


def regret(scores: Scores, true: Scores) -> float:
    """True score lost by training the configuration that scores best, in points of 100, mean over draws."""
    picked = np.take_along_axis(true, scores.argmax(axis=1)[:, None], axis=1)[:, 0]
    return float(100 * np.mean(true.max(axis=1) - picked))


def interval(statistic: Callable[[NDArray[np.int64]], float], configs: int, rounds: int) -> tuple[float, float]:
    """95 % of a statistic of configurations' positions, over samples of them with replacement."""
    random = np.random.default_rng(0)
    values = [statistic(random.integers(configs, size=configs)) for _ in range(rounds)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def shown(statistic: Callable[[Scores, Scores], float], scores: Scores, true: Scores, rounds: int) -> str:
    """A statistic with its interval."""
    low, high = interval(lambda at: statistic(scores[:, at], true[:, at]), scores.shape[1], rounds)
    return f"{statistic(scores, true):.2f} [{low:.2f}, {high:.2f}]"


def rows(name: str, results: dict[str, list[list[Result]]], rounds: int) -> list[tuple[str, ...]]:
    """The lines of the table for one data set."""
    full = _array(results["all, again"], "score")
    cost = _array(results["all, again"], "seconds").sum()
    lines = []
    for kind, drawn in results.items():
        scores, true = _array(drawn, "score"), truths(full, kind)
        random = float(100 * np.mean(true.max(axis=1) - true.mean(axis=1)))
        statistics = (shown(statistic, scores, true, rounds) for statistic in (tau, rho, regret))
        time = _array(drawn, "seconds").sum() / cost
        lines.append((name, kind, f"{time:.2f}", *statistics, f"{random:.1f}"))
    return lines


def difference(name: str, results: dict[str, list[list[Result]]], rounds: int) -> str:
    """What stratifying adds, paired."""
    full = _array(results["all, again"], "score")
    true = truths(full, "subset")
    plain, even = (_array(results[kind], "score") for kind in ("subset", "stratified subset"))

    def gain(at: NDArray[np.int64]) -> float:
        return tau(even[:, at], true[:, at]) - tau(plain[:, at], true[:, at])

    low, high = interval(gain, full.shape[1], rounds)
    better = 100 * (even.mean() - plain.mean())
    return (
        f"{name}: stratified less plain, Kendall tau {gain(np.arange(full.shape[1])):+.2f} [{low:+.2f}, {high:+.2f}], "
        f"balanced accuracy {better:+.2f} points"
    )


def _array(drawn: list[list[Result]], field: str) -> Scores:
    return np.array([[getattr(each, field) for each in row] for row in drawn])


def main() -> None:
    """Train, and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    usual = [name for name in DATA if name != "digits"]
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=usual, help=f"of {', '.join(DATA)}")
    parser.add_argument("--configs", type=int, default=24, help="configurations (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=3, help="subsets, and full trainings (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="of each training (default: %(default)s)")
    parser.add_argument("--ratio", type=float, default=0.2, help="of the subset (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1000, help="of the bootstrap (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write every score and time there, as JSON")
    arguments = parser.parse_args()
    if unknown := set(arguments.tasks) - set(DATA):
        parser.error(f"--tasks: unknown {', '.join(sorted(unknown))}; known are {', '.join(DATA)}")
    if (
        min(arguments.configs - 1, arguments.draws, arguments.epochs, arguments.rounds) < 1
        or not 0 < arguments.ratio < 1
    ):
        parser.error(
            "use two configurations or more, one or more draws, epochs and rounds, and a ratio between 0 and 1"
        )
    torch.set_num_threads(1)
    results: dict[str, Any] = {name: measure(name, arguments) for name in arguments.tasks}
    table = [
        HEADER,
        ("---",) * len(HEADER),
        *(line for name in results for line in rows(name, results[name], arguments.rounds)),
    ]
    print("\n".join(f"| {' | '.join(line)} |" for line in table), end="\n\n")
    print("\n".join(difference(name, results[name], arguments.rounds) for name in results))
    if arguments.output:
        arguments.output.write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
