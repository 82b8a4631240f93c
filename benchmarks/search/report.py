"""Tables of stored runs, as markdown, and their curves as a picture.

    python -m benchmarks.search.report --problems report --peers hpopt,ax,optuna-tpe,random --curves curves.png

The incumbent after n trials is the trial with the best *score* so far; its regret is judged by the noise-free *truth*:
(best - truth) / (best - typical), 0 for the best known configuration, 1 for the median of random ones, never below 0.
Intervals are 95 % bootstrap intervals: problems are drawn with replacement, then seeds within each.
"""

import argparse
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.references import Reference, references
from benchmarks.search.results import RESULTS, read
from benchmarks.search.run import select

Array = NDArray[np.float64]
Runs = dict[tuple[str, int], Array]
"""Regret of the incumbent after 1, 2, ... trials, of each (problem, seed)."""

AT = (10, 20, 50, 100)
RESAMPLES = 2000


def regret(run: dict[str, Any], reference: Reference) -> Array:
    """The regret (n,) of the incumbent after each trial of a stored run."""
    scores = np.array(run["scores"])
    incumbents = [int(np.argmax(scores[: n + 1])) for n in range(len(scores))]
    return np.array([max(0.0, reference.regret(run["truths"][i])) for i in incumbents])


class Results:
    """The runs of some peers on some problems, with one number of pending trials."""

    def __init__(self, folder: Path, peers: list[str], problems: Iterable[str], workers: int, trials: int) -> None:
        names, known = set(problems), references()
        self.runs: dict[str, Runs] = {peer: {} for peer in peers}
        self.cpu: dict[str, dict[tuple[str, int], Array]] = {peer: {} for peer in peers}
        versions: dict[str, dict[tuple[str, int], str]] = {peer: {} for peer in peers}
        for key, stored in read(folder):
            if (
                key.peer in peers
                and key.problem in names
                and key.workers == workers
                and len(stored["scores"]) >= trials
            ):
                self.runs[key.peer][key.problem, key.seed] = regret(stored, known[key.problem])[:trials]
                self.cpu[key.peer][key.problem, key.seed] = np.array(stored["cpu"])[:trials]
                versions[key.peer][key.problem, key.seed] = stored["version"]
        self.versions = {peer: " and ".join(sorted(set(each.values()))) for peer, each in versions.items()}
        """Those that a peer's runs are of: one, unless making them again was interrupted."""
        self.peers = [peer for peer in peers if self.runs[peer]]

    def common(self, peers: Iterable[str]) -> list[tuple[str, int]]:
        """The (problem, seed) that all of these have run; SystemExit that says so if there are none."""
        shared = [set(self.runs.get(peer, ())) for peer in peers]
        keys = sorted(set.intersection(*shared)) if shared else []
        if not keys:
            raise SystemExit(f"no stored run is common to {', '.join(peers) or 'the peers'}: run them first")
        return keys

    def at(self, peer: str, n: int, keys: list[tuple[str, int]]) -> Array:
        """Regret (len(keys),) after n trials."""
        return np.array([self.runs[peer][key][n - 1] for key in keys])


def bootstrap(keys: list[tuple[str, int]], statistic: Callable[[NDArray[np.intp]], float]) -> tuple[float, float]:
    """The 95 % interval of `statistic`, a function of indices into keys."""
    rng = np.random.default_rng(0)
    groups = [[i for i, key in enumerate(keys) if key[0] == name] for name in sorted({key[0] for key in keys})]
    members, sizes = np.concatenate(groups), np.array([len(group) for group in groups])
    starts = np.cumsum(sizes) - sizes
    values = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(groups), size=len(groups))
        problem = np.repeat(drawn, sizes[drawn])
        seed = (rng.random(len(problem)) * sizes[problem]).astype(np.intp)
        values.append(statistic(members[starts[problem] + seed]))
    low, high = np.quantile(values, [0.025, 0.975], method="nearest")  # a ratio may be infinite
    return float(low), float(high)


def mean(values: Array, keys: list[tuple[str, int]]) -> Callable[[NDArray[np.intp] | slice], float]:
    """The mean over problems of the mean over seeds, as a function of indices.

    A problem with more seeds than others has no more weight.
    """
    counts = {name: sum(key[0] == name for key in keys) for name, _ in keys}
    weights = np.array([1.0 / counts[name] for name, _ in keys])
    return lambda i: float(np.average(values[i], weights=weights[i]))


ALL = slice(None)


def regrets(results: Results, at: list[int]) -> list[list[str]]:
    """Mean regret of each peer, over the runs that all of them have."""
    keys = results.common(results.peers)
    rows = []
    for peer in results.peers:
        row = [f"{peer} {results.versions[peer]}"]
        for n in at:
            average = mean(results.at(peer, n, keys), keys)
            low, high = bootstrap(keys, average)
            row.append(f"{average(ALL):.3f} [{low:.3f}, {high:.3f}]")
        rows.append(row)
    return rows


def ratios(results: Results, subject: str, at: list[int]) -> list[list[str]]:
    """Mean regret of the subject over that of each peer, over the runs that the two have."""
    rows = []
    for peer in results.peers:
        if peer == subject:
            continue
        keys = results.common([subject, peer])
        row = [peer, f"{len({name for name, _ in keys})} x {len(keys) / len({name for name, _ in keys}):.3g}"]
        row += [_ratio(results.at(subject, n, keys), results.at(peer, n, keys), keys) for n in at]
        rows.append(row)
    return rows


def _ratio(ours: Array, theirs: Array, keys: list[tuple[str, int]]) -> str:
    above, below = mean(ours, keys), mean(theirs, keys)
    low, high = bootstrap(keys, lambda i: _over(above(i), below(i)))
    return f"{_over(above(ALL), below(ALL)):.2f} [{low:.2f}, {high:.2f}]"


def _over(a: float, b: float) -> float:
    """Their ratio, of regrets that may be 0."""
    return a / b if b > 0.0 else 1.0 if a == b else math.inf


def ranks(results: Results, at: list[int]) -> list[list[str]]:
    """Mean rank of each peer (1 is best, ties share) over the runs that all of them have."""
    keys = results.common(results.peers)
    rows = [[peer] for peer in results.peers]
    for n in at:
        values = np.array([results.at(peer, n, keys) for peer in results.peers])
        below = (values[:, None, :] > values[None, :, :]).sum(axis=1)
        equal = (values[:, None, :] == values[None, :, :]).sum(axis=1)
        rank = below + (equal + 1) / 2.0
        for row, each in zip(rows, rank, strict=True):
            average = mean(each, keys)
            low, high = bootstrap(keys, average)
            row.append(f"{average(ALL):.2f} [{low:.2f}, {high:.2f}]")
    return rows


def costs(results: Results, at: list[int]) -> list[list[str]]:
    """Median CPU seconds per suggestion around n results, over all runs of each peer."""
    rows = []
    for peer in results.peers:
        around = [[cpu[max(0, n - 6) : n] for cpu in results.cpu[peer].values()] for n in at]
        rows.append([peer, *(f"{float(np.median(np.concatenate(each))):.3g}" for each in around)])
    return rows


def by_problem(results: Results, n: int) -> list[list[str]]:
    """Mean regret after n trials on each problem; the smallest in bold."""
    keys = results.common(results.peers)
    rows = []
    for name in sorted({name for name, _ in keys}):
        own = [key for key in keys if key[0] == name]
        means = [float(results.at(peer, n, own).mean()) for peer in results.peers]
        rows.append([name, *(f"**{mean:.3f}**" if mean == min(means) else f"{mean:.3f}" for mean in means)])
    return rows


def pending(by_workers: dict[int, Results], subject: str, at: list[int]) -> list[list[str]]:
    """Mean regret of the subject with so many trials pending, and over that with the first of these numbers."""
    base, *_ = by_workers.values()
    keys = sorted(set.intersection(*(set(each.common([subject])) for each in by_workers.values())))
    rows = []
    for workers, results in by_workers.items():
        row = [str(workers)]
        for n in at:
            alone, together = base.at(subject, n, keys), results.at(subject, n, keys)
            row.append(f"{mean(together, keys)(ALL):.3f}, {_ratio(together, alone, keys)}")
        rows.append(row)
    return rows


def informed(by_workers: dict[int, Results], subject: str, at: list[int]) -> list[list[str]]:
    """Mean regret of the subject after n trials with w pending, over that of one at a time after n - w + 1 trials.

    When the last of n trials began, n - w were known: one at a time knew as many when the last of n - w + 1 began. So
    this is what pending trials cost beyond their results being late, which no peer can help; or more, for with them
    w - 1 more trials have ended.
    """
    base = by_workers[1]
    keys = sorted(set.intersection(*(set(each.common([subject])) for each in by_workers.values())))
    rows = []
    for workers, results in by_workers.items():
        if workers > 1:
            pairs = [(n, n - workers + 1) for n in at]
            cells = [
                _ratio(results.at(subject, n, keys), base.at(subject, m, keys), keys) if m > 0 else "" for n, m in pairs
            ]
            rows.append([str(workers), *cells])
    return rows


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a markdown table."""
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    """Read the command line, print the tables, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, help="names separated by commas")
    parser.add_argument("--problems", default="report", help="tune, report, seen, all or names, separated by commas")
    parser.add_argument("--workers", default="1", help="trials pending at once; 1,8,16 compares the subject's runs")
    parser.add_argument("--trials", type=int, default=100, help="runs of fewer trials are left out")
    parser.add_argument("--subject", default="hpopt", help="the peer that the ratios are of")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--curves", type=Path, help="a picture to draw")
    arguments = parser.parse_args()
    problems, peers = select(arguments.problems), arguments.peers.split(",")
    by_workers = {
        workers: Results(arguments.results, peers, problems, workers, arguments.trials)
        for workers in map(int, arguments.workers.split(","))
    }
    at = [n for n in AT if n <= arguments.trials]
    heads = [f"{n} trials" for n in at]
    if len(by_workers) > 1:
        rows = pending(by_workers, arguments.subject, at)
        table(f"{arguments.subject}: mean regret, and the ratio to the first row", ["pending", *heads], rows)
        if 1 in by_workers:
            title = f"{arguments.subject}: the ratio to one at a time with as many results known"
            table(title, ["pending", *heads], informed(by_workers, arguments.subject, at))
        return
    results = by_workers[int(arguments.workers)]
    if without := [peer for peer in peers if peer not in results.peers]:
        print(f"Without {', '.join(without)}: no run of that name is stored.\n")
    keys = results.common(results.peers)
    print(
        f"{len({name for name, _ in keys})} problems, {len(keys)} runs common to all peers, {arguments.workers} pending"
    )
    table("Mean normalised regret", ["peer", *heads], regrets(results, at))
    if arguments.subject in results.peers:
        rows = ratios(results, arguments.subject, at)
        table(
            f"{arguments.subject} relative to each peer, on all runs of both",
            ["peer", "problems x seeds", *heads],
            rows,
        )
    table("Mean rank", ["peer", *heads], ranks(results, at))
    table("CPU seconds per suggestion (median)", ["peer", *heads], costs(results, at))
    table(f"Mean regret after {at[-1]} trials", ["problem", *results.peers], by_problem(results, at[-1]))
    if arguments.curves is not None:
        from benchmarks.search.curves import curves

        curves(results, arguments.curves)


if __name__ == "__main__":
    main()
