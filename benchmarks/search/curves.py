"""The picture of stored runs: regret against the number of trials. Needs matplotlib."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.search.report import Results

mpl.use("Agg")  # a file, never a window


def curves(results: Results, path: Path) -> None:
    """Draw the mean regret of each peer against the number of trials, with a standard error over the runs."""
    keys = results.common(results.peers)
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for peer in results.peers:
        values = np.array([results.runs[peer][key] for key in keys])
        mean, error = values.mean(axis=0), values.std(axis=0) / np.sqrt(len(values))
        trials = np.arange(1, values.shape[1] + 1)
        (line,) = axes.plot(trials, mean, label=peer, linewidth=2.5 if peer == "hpopt" else 1.2)
        axes.fill_between(trials, mean - error, mean + error, color=line.get_color(), alpha=0.15, linewidth=0)
    problems = len({name for name, _ in keys})
    axes.set(xlabel="trials", ylabel="mean normalised regret of the incumbent", yscale="log")
    axes.set_title(f"{problems} problems, {len(keys) // problems} seeds; band: one standard error")
    axes.grid(which="both", alpha=0.25)
    axes.legend()
    figure.savefig(path, dpi=120)
