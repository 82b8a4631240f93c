r"""Tables of stored runs, as markdown, and their curves as a picture.

    python -m benchmarks.multifidelity.report --peers hpopt-asha,optuna-tpe,random --tasks report --workers 8,64 \
        --subject hpopt-asha --curves curves.png

The incumbent is the trial that a tuner would call its best; its regret is judged by the true score after the last
epoch: (best - truth) / (best - typical), 0 for the best known configuration, 1 for the median of random ones and before
the first report, never below 0. Time is in full trainings of the median configuration, per worker. Intervals are 95 %
bootstrap intervals: tasks are drawn with replacement, then seeds within each.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.multifidelity.fleet import INSTANT, Timing
from benchmarks.multifidelity.peers.registry import timing_of
from benchmarks.multifidelity.references import STORED
from benchmarks.multifidelity.results import RESULTS, read
from benchmarks.multifidelity.tasks import select
from benchmarks.search import report as search
from benchmarks.search.references import Reference, references
from benchmarks.search.report import ALL, bootstrap, by_problem, mean, ranks, ratios, regrets, table

Array = NDArray[np.float64]
Keys = list[tuple[str, int]]
AT = (1, 2, 5, 10)
FINE = 40  # points of a curve per full training
BEFORE = 1.0  # the regret of no incumbent
WITHOUT, WITH = "hpopt-bayes", "hpopt-bayes-median"
PARTS = (0.25, 0.5, 0.75, 1.0)  # of a run's epochs, after which its regret is the one to reach


class Steps(NamedTuple):
    """The regret of the incumbents of a run, since when they were it, and how many epochs had been trained by then."""

    times: Array
    regrets: Array
    epochs: Array

    def at(self, places: Array, *, epochs: bool = False) -> Array:
        """The regret at these times, or after so many epochs."""
        index = np.searchsorted(self.epochs if epochs else self.times, places, side="right")
        return np.concatenate([[BEFORE], self.regrets])[index]


def steps(run: dict[str, Any], reference: Reference) -> Steps:
    """Those of a stored run."""
    times, truths, epochs = np.array(run["incumbents"], dtype=float).reshape(-1, 3).T
    return Steps(times, np.array([max(0.0, reference.regret(truth)) for truth in truths]), epochs)


class Results(search.Results):
    """The runs of some peers on some tasks, with one number of workers."""

    def __init__(
        self,
        folder: Path,
        peers: list[str],
        tasks: Iterable[str],
        workers: int,
        horizon: float,
        *,
        timing: Timing = INSTANT,
    ) -> None:
        """Those of at least this horizon; hpopt's of this timing."""
        names, known = set(tasks), references(STORED)
        self.steps: dict[str, dict[tuple[str, int], Steps]] = {peer: {} for peer in peers}
        self.stored: dict[str, dict[tuple[str, int], dict[str, Any]]] = {peer: {} for peer in peers}
        self.runs = {peer: {} for peer in peers}
        """Regret after 1, 2, ... full trainings."""
        self.horizon = horizon
        for key, stored in read(folder):
            fits = key.peer in peers and key.task in names and key.workers == workers
            if fits and key.timing == str(timing_of(key.peer, timing)) and stored["horizon"] >= horizon:
                where = key.task, key.seed
                self.steps[key.peer][where] = steps(stored, known[key.task])
                self.stored[key.peer][where] = stored
                whole = np.arange(1.0, math.floor(horizon) + 1)
                self.runs[key.peer][where] = self.steps[key.peer][where].at(whole)
        versions = {peer: {run["version"] for run in runs.values()} for peer, runs in self.stored.items()}
        self.versions = {peer: " and ".join(sorted(each)) for peer, each in versions.items()}
        self.peers = [peer for peer in peers if self.runs[peer]]

    def curves(self, peer: str, keys: Keys) -> tuple[Array, Array]:
        """Times (n,), and the regret (len(keys), n) at these."""
        grid = np.arange(1, math.floor(self.horizon * FINE) + 1) / FINE
        return grid, np.array([self.steps[peer][key].at(grid) for key in keys])

    def by_epochs(self, peer: str, keys: Keys, totals: Array) -> tuple[Array, Array]:
        """Shares (n,) of `totals` epochs, which differ from run to run, and the regret (len(keys), n) after these."""
        grid = np.arange(1, 401) / 400
        pairs = zip(keys, totals, strict=True)
        return grid, np.array([self.steps[peer][key].at(grid * total, epochs=True) for key, total in pairs])


# --- how long until a level is reached


def catch_up(grid: Array, ours: Array, theirs: Array, keys: Keys) -> tuple[float, float, float, tuple[float, float]]:
    """When they first have the mean regret that they have at the end, when we do, the ratio, and its interval.

    `ours` (len(keys), len(grid)); `theirs` the same, or cut off earlier. Infinite if we never get there.
    """
    counts = {name: sum(key[0] == name for key in keys) for name, _ in keys}
    weights = np.array([1.0 / counts[name] for name, _ in keys])

    def when(i: NDArray[np.intp] | slice) -> tuple[float, float]:
        them, us = (np.average(each[i], axis=0, weights=weights[i]) for each in (theirs, ours))
        reached = np.flatnonzero(us <= them[-1])
        return grid[np.flatnonzero(them <= them[-1])[0]], grid[reached[0]] if len(reached) else math.inf

    def share(i: NDArray[np.intp] | slice) -> float:
        them, us = when(i)
        return float(us / them)

    return *when(ALL), share(ALL), bootstrap(keys, share)


def leads(results: Results, subject: str) -> list[list[str]]:
    """How soon the subject has each peer's final regret, over the runs that the two have."""
    rows = []
    for peer in results.peers:
        if peer == subject:
            continue
        keys = results.common([subject, peer])
        grid, theirs = results.curves(peer, keys)
        them, us, share, interval = catch_up(grid, results.curves(subject, keys)[1], theirs, keys)
        final = mean(theirs[:, -1], keys)(ALL)
        rows.append([peer, f"{final:.3f}", f"{them:.2f}", f"{us:.2f}", _interval(share, interval)])
    return rows


def savings(results: Results, stopping: str = WITH, full: str = WITHOUT) -> list[list[str]]:
    """What share of the epochs `stopping` uses until it has the regret of `full` after a part of its; a row each."""
    keys = results.common([stopping, full])
    totals = np.array([results.stored[full][key]["epochs"] for key in keys], dtype=float)
    grid, theirs = results.by_epochs(full, keys, totals)
    ours = results.by_epochs(stopping, keys, totals)[1]
    rows = []
    for part in PARTS:
        so_far = theirs[:, : round(part * len(grid))]
        them, us, share, interval = catch_up(grid, ours, so_far, keys)
        level = mean(so_far[:, -1], keys)(ALL)
        rows.append([f"{part:.2f}", f"{level:.3f}", f"{them:.2f}", f"{us:.2f}", _interval(share, interval)])
    return rows


def _interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


# --- what it takes


def efforts(results: Results) -> list[list[str]]:
    """Means over all runs of each peer: idle share (and the largest), trials, epochs, CPU seconds."""
    rows = []
    for peer in results.peers:
        runs = list(results.stored[peer].values())
        average = _averages(runs)
        idle = f"{100 * average['idle']:.2f} % ({100 * max(run['idle'] for run in runs):.2f} %)"
        rows.append([peer, idle, f"{average['trials']:.0f}", f"{average['epochs']:.0f}", f"{average['cpu']:.3g}"])
    return rows


def speeds(results: Results) -> list[list[str]]:
    """Of each hpopt: decisions per CPU second, those its workers ask for per second, and the cost of suggestions."""
    rows = []
    for peer in results.peers:
        runs = [run for run in results.stored[peer].values() if "handle" in run]
        if runs:
            average = _averages(runs)
            epoch = Timing.of(runs[0]["timing"]).epoch_seconds
            demand = float(np.mean([run["reports"] / (run["horizon"] * _epochs(run) * epoch) for run in runs]))
            decisions = average["reports"] / average["handle"]
            cost = average["suggest"] / average["requests"]
            rows.append([peer, f"{decisions:.0f}", f"{demand:.2f}", f"{average['requests']:.0f}", f"{cost:.3g}"])
    return rows


def _averages(runs: list[dict[str, Any]]) -> defaultdict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    for run in runs:
        for name, value in run.items():
            if isinstance(value, int | float):
                sums[name] += value / len(runs)
    return sums


def _epochs(run: dict[str, Any]) -> int:
    from benchmarks.multifidelity.tasks import task

    return task(run["task"]).epochs


# --- all of them


def report(results: Results, workers: int, subject: str) -> None:
    """Print the tables for one number of workers."""
    keys = results.common(results.peers)
    at = [n for n in AT if n <= results.horizon]
    heads = [f"time {n}" for n in at]
    tasks = len({name for name, _ in keys})
    print(f"\n## {workers} workers: {tasks} tasks, {len(keys)} runs common to all peers")
    table("Mean normalised regret of the incumbent", ["peer", *heads], regrets(results, at))
    if subject in results.peers:
        rows = ratios(results, subject, at)
        table(f"{subject} relative to each peer, on all runs of both", ["peer", "tasks x seeds", *heads], rows)
        head = ["peer", "its final regret", "its time", f"time of {subject}", "share"]
        table(f"How soon {subject} has the final regret of each peer", head, leads(results, subject))
    if {WITH, WITHOUT} <= set(results.peers):
        head = ["part of its run", f"regret of {WITHOUT} then", "which it has after", f"{WITH} after", "ratio"]
        table(f"Epochs for the same regret, as shares of those of {WITHOUT}'s whole runs", head, savings(results))
    table("Mean rank", ["peer", *heads], ranks(results, at))
    table("Per run", ["peer", "idle, mean (max)", "trials", "epochs", "CPU seconds in the peer"], efforts(results))
    rows = speeds(results)
    if rows:
        head = ["peer", "decisions per CPU second", "asked for per second", "requests", "CPU seconds of each"]
        table("The coordinator", head, rows)
    table(f"Mean regret at time {at[-1]}", ["task", *results.peers], by_problem(results, at[-1]))


def main() -> None:
    """Read the command line, print the tables, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, help="names separated by commas")
    parser.add_argument("--tasks", default="report", help="tune, report, crossing, all, or names separated by commas")
    parser.add_argument("--workers", default="8", help="several numbers: 1,8,64,512")
    parser.add_argument("--horizon", default="10", help="shorter runs are left out; one, or one per number of workers")
    parser.add_argument("--timing", type=Timing.of, default="instant", help="of hpopt's runs: see run")
    parser.add_argument("--subject", default="hpopt-asha", help="the peer that the ratios are of")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--curves", type=Path, help="a picture to draw")
    arguments = parser.parse_args()
    tasks, peers = select(arguments.tasks), arguments.peers.split(",")
    counts = [int(each) for each in arguments.workers.split(",")]
    horizons = [float(each) for each in arguments.horizon.split(",")]
    if len(horizons) not in {1, len(counts)}:
        parser.error(f"--horizon={arguments.horizon}: give one, or as many as --workers={arguments.workers} has")
    by_workers = {
        workers: Results(arguments.results, peers, tasks, workers, horizon, timing=arguments.timing)
        for workers, horizon in zip(counts, horizons * (len(counts) // len(horizons)), strict=True)
    }
    for workers, results in by_workers.items():
        report(results, workers, arguments.subject)
    if arguments.curves is not None:
        from benchmarks.multifidelity.curves import curves

        curves(by_workers, arguments.subject, arguments.curves)


if __name__ == "__main__":
    main()
