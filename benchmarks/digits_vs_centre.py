"""Does tuning pay? Best hyper-parameters of examples/digits.py against the centre of its search space.

The centre is what one would write down without tuning: Adam with a learning rate of 0.001, and the middle of every
range. Each study seed is one study through the embedded server; then both are trained from scratch several times,
with the same training seeds, and judged on images that neither tuning nor training has seen.

    python benchmarks/digits_vs_centre.py --output docs/digits_vs_centre.md
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

from examples import digits

COLUMNS = ("study seed", "tuned", "centre", "ratio", "tuned wins", "seconds")


class Comparison(NamedTuple):
    """Mean held-out log-loss of both, for one study."""

    seed: int
    tuned: float
    centre: float
    seconds: float  # what the study took
    params: dict[str, Any]

    @property
    def ratio(self) -> float:
        """Below 1: tuning paid."""
        return self.tuned / self.centre


def compare(seed: int, trials: int, trainings: int) -> Comparison:
    """One study, and `trainings` trainings with its result and with the centre."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        params = digits.tune(Path(folder) / "digits", seed, trials, progress=False)
    seconds = time.monotonic() - began
    seeds = range(1000 * (seed + 1), 1000 * (seed + 1) + trainings)  # no seed is shared with another study or a trial
    return Comparison(seed, digits.evaluate(params, seeds), digits.evaluate(digits.centre(), seeds), seconds, params)


def cells(row: Comparison) -> tuple[str, ...]:
    """One line of the table."""
    win = "yes" if row.ratio < 1 else "no"
    return (str(row.seed), f"{row.tuned:.4f}", f"{row.centre:.4f}", f"{row.ratio:.2f}", win, f"{row.seconds:.0f}")


def summary(rows: list[Comparison]) -> str:
    """The result in one sentence."""
    wins = sum(row.ratio < 1 for row in rows)
    ratio = geometric_mean(row.ratio for row in rows)
    return f"The tuned network wins in {wins} of {len(rows)} studies; geometric mean of the ratios: {ratio:.2f}."


def markdown(rows: list[Comparison], trials: int, trainings: int) -> str:
    """The page for the documentation."""
    table = [COLUMNS, ("---:",) * len(COLUMNS), *map(cells, rows)]
    return "\n".join([
        "# Tuned digits against the centre of the search space",
        "",
        f"`python benchmarks/digits_vs_centre.py --seeds {len(rows)} --trials {trials} --training-seeds {trainings}`",
        "",
        f"Mean log-loss on held-out images over {trainings} trainings from scratch; lower is better. Each study ran",
        f"{trials} trials, {digits.JOBS} at a time, through the embedded server. Trials and trainings alike may take",
        f"{digits.EPOCHS} epochs.",
        f"The centre: {digits.describe(digits.centre())}.",
        "",
        *(f"| {' | '.join(line)} |" for line in table),
        "",
        summary(rows),
        "",
        "What the studies found:",
        "",
        *(f"- {row.seed}: {digits.describe(row.params)}" for row in rows),
        "",
    ])  # fmt: skip


def main() -> None:
    """Run the studies, print each result as it comes, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many studies (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=digits.TRIALS, help="trials of each (default: %(default)s)")
    parser.add_argument("--training-seeds", type=int, default=5, help="trainings to judge by (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write the table there, as Markdown")
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.seeds):
        rows.append(compare(seed, arguments.trials, arguments.training_seeds))
        print(", ".join(f"{name}: {cell}" for name, cell in zip(COLUMNS, cells(rows[-1]), strict=True)), flush=True)
    print(summary(rows))
    if arguments.output:
        arguments.output.write_text(markdown(rows, arguments.trials, arguments.training_seeds), encoding="utf-8")


if __name__ == "__main__":
    main()
