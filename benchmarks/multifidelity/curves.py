"""The picture of stored runs: regret over time, one panel for each number of workers. Needs matplotlib."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.multifidelity.report import Results

mpl.use("Agg")  # a file, never a window


def curves(by_workers: Mapping[int, Results], subject: str, path: Path) -> None:
    """Draw the mean regret of each peer against time, with a standard error over the runs."""
    figure, panels = plt.subplots(
        1, len(by_workers), figsize=(5 * len(by_workers), 5), layout="constrained", sharey=True, squeeze=False
    )
    everybody = list(dict.fromkeys(peer for results in by_workers.values() for peer in results.peers))
    lines = {}
    for axes, (workers, results) in zip(panels[0], by_workers.items(), strict=True):
        keys = results.common(results.peers)
        for peer in results.peers:
            number = everybody.index(peer)  # a peer looks the same in all panels, though not all may be in each
            times, values = results.curves(peer, keys)
            mean, error = values.mean(axis=0), values.std(axis=0) / np.sqrt(len(values))
            look = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
            (lines[peer],) = axes.plot(times, mean, linewidth=2.5 if peer == subject else 1.2, **look)
            axes.fill_between(times, mean - error, mean + error, color=look["color"], alpha=0.12, linewidth=0)
        tasks = len({name for name, _ in keys})
        axes.set(xlabel="full trainings per worker", xscale="log", yscale="log")
        axes.set_title(f"{workers} worker{'s' * (workers > 1)}: {tasks} tasks, {len(keys)} runs")
        axes.grid(which="both", alpha=0.25)
    panels[0, 0].set_ylabel("mean normalised regret of the incumbent")
    figure.legend([lines[peer] for peer in everybody], everybody, loc="outside lower center", ncols=5, fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
