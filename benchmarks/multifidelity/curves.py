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
        1, len(by_workers), figsize=(5 * len(by_workers), 4.5), layout="constrained", sharey=True, squeeze=False
    )
    for axes, (workers, results) in zip(panels[0], by_workers.items(), strict=True):
        keys = results.common(results.peers)
        for number, peer in enumerate(results.peers):
            times, values = results.curves(peer, keys)
            mean, error = values.mean(axis=0), values.std(axis=0) / np.sqrt(len(values))
            look = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
            axes.plot(times, mean, label=peer, linewidth=2.5 if peer == subject else 1.2, **look)
            axes.fill_between(times, mean - error, mean + error, color=look["color"], alpha=0.12, linewidth=0)
        tasks = len({name for name, _ in keys})
        axes.set(xlabel="full trainings per worker", xscale="log", yscale="log")
        axes.set_title(f"{workers} workers; {tasks} tasks, {len(keys) // tasks} seeds")
        axes.grid(which="both", alpha=0.25)
    panels[0, 0].set_ylabel("mean normalised regret of the incumbent")
    panels[0, -1].legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
