"""What one report costs the study, as a function of how many trials there are: `python -m benchmarks.decisions`.

ASHA: the whole of `Study.handle` for a report that is judged at a rung to which so many trials have come before.
Median stopping: the rule alone, for a lenient trial, which is compared with two medians. It goes through all its steps
beside so many others of as many steps; they are given to it at once, as after a restart. CPU time of this process; no
server, no suggestions.
"""

import argparse
import statistics
import time
from collections.abc import Iterator

import numpy as np

from hpopt.core.internal import Suggested
from hpopt.core.messages import Ask, Create, Report, Start
from hpopt.core.schedulers.median import MedianStop
from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import StudySpec
from hpopt.core.study import Study
from hpopt.core.trial import Trial

SPACE = Space({"x": SearchSpace("uniform", [0, 1])})
UID = "decisions"
STEP = 5_000
"""ASHA is measured over so many trials at a time."""


def asha(sizes: list[int], seed: int) -> Iterator[tuple[int, float]]:
    """(trials in the first rung, median microseconds of a report there) for rising sizes."""
    rng = np.random.default_rng(seed)
    spec = StudySpec(
        full_dataset_size=0, num_full_iterations=81, search_space=SPACE, search_alg="asha", reduction_factor=3,
        num_trials=100_000, max_iterations=81, subset_ratio=1.0, num_workers=8, acquisition="random", seed=1,
    )  # fmt: skip
    study = Study()
    study.handle(Create(UID, "operator", spec), 0.0)
    costs: list[float] = []
    for trial, score in enumerate(rng.random(max(sizes)).tolist()):
        study.handle(Suggested(UID, len(study.trials), trial, ({"x": score},)), 0.0)
        study.handle(Ask(UID, "operator", trial), 0.0)
        study.handle(Start(UID, trial, 1, "life"), 0.0)
        costs.append(_report(study, trial, 1, score))
        step, found = 1, study.trials.get(trial)
        while found is not None and trial in study.trials.pending:
            step += 1
            _report(study, trial, step, score)
        if trial + 1 in sizes:
            yield trial + 1, statistics.median(costs[-STEP:])


def _report(study: Study, trial: int, step: int, score: float) -> float:
    """Microseconds of a report."""
    event = Report(UID, trial, 1, "life", step, score)
    began = time.perf_counter()
    study.handle(event, 0.0)
    return 1e6 * (time.perf_counter() - began)


def median_stop(trials: int, steps: int, seed: int) -> tuple[float, float]:
    """(median microseconds of a report, seconds to take in the `trials` other trials) at `steps` steps each."""
    rng = np.random.default_rng(seed)
    rule = MedianStop(first_trial=0, grace=0, lenient_every=1)
    began = time.perf_counter()
    for number in range(trials):
        scores = rng.random(steps).tolist()
        rule.recall(Trial(number, {}), list(enumerate(scores, start=1)))
    rule.observe(Trial(trials, {}), 1, 2.0)  # sorts what was taken in
    taken = time.perf_counter() - began
    costs = []
    for step in range(2, steps + 1):
        began = time.perf_counter()
        rule.observe(Trial(trials, {}), step, 2.0)
        costs.append(1e6 * (time.perf_counter() - began))
    return statistics.median(costs), taken


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rung", default="100,1000,10000,100000", help="trials in a rung of ASHA, rising")
    parser.add_argument("--trials", default="100,1000,10000", help="trials beside one that median_stop judges")
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| rule | other trials | median us of a report | times the first | taken in, s |\n|---|---|---|---|---|")
    first = 0.0
    for size, cost in asha([int(size) for size in arguments.rung.split(",")], arguments.seed):
        first = first or cost
        print(f"| asha, all of handle | {size:,} | {cost:.1f} | {cost / first:.2f} | |", flush=True)
    first = 0.0
    for size in [int(size) for size in arguments.trials.split(",")]:
        cost, taken = median_stop(size, arguments.steps, arguments.seed)
        first = first or cost
        print(
            f"| median_stop, {arguments.steps:,} steps | {size:,} | {cost:.1f} | {cost / first:.2f} | {taken:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
