"""CPU time of a suggestion of hpopt against the number of results: `python -m benchmarks.search.cost`.

Eight hyper-parameters (six floats, a log integer, a choice of three), noisy results of random configurations, one
thread, nothing pending; what is timed is `hpopt.samplers.base.suggest`, from the request to the configurations.
"""

import argparse
import math
import statistics
import time

import numpy as np
from threadpoolctl import threadpool_limits

from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import StudySpec
from hpopt.core.suggest_request import Observation, SuggestRequest
from hpopt.samplers.base import suggest

SPACE = Space(
    {
        **{f"x{i}": SearchSpace("uniform", [0, 1]) for i in range(6)},
        "trees": SearchSpace("qloguniform", [1, 1000, 1]),
        "kind": SearchSpace("choice", ["a", "b", "c"]),
    }
)
CASES = ((50, 1), (100, 1), (200, 1), (200, 8), (200, 64), (500, 1), (1000, 1), (5000, 1))
"""(results, suggestions asked for at once)."""


def results(n: int, seed: int) -> tuple[Observation, ...]:
    """So many random configurations, and a bowl with a wave in it as their score."""
    rng = np.random.default_rng(seed)
    configs = [SPACE.from_unit(rng.random(len(SPACE)).tolist()) for _ in range(n)]
    found = []
    for params in configs:
        bowl = sum((1 + i) * (params[f"x{i}"] - 0.3 - 0.05 * i) ** 2 for i in range(6))
        score = 0.3 * math.sin(8 * params["x0"]) - bowl - 0.1 * (math.log10(params["trees"]) - 1) ** 2
        score -= 0.1 * (params["kind"] != "b")
        found.append(Observation(params, score + 0.05 * float(rng.standard_normal()), steps=10, complete=True))
    return tuple(found)


def seconds(n: int, count: int, repeats: int) -> list[float]:
    """CPU seconds of `repeats` requests, each with other results."""
    spec = StudySpec(full_dataset_size=0, num_full_iterations=10, search_space=SPACE, num_trials=10**5,
                     max_iterations=10, seed=1)  # fmt: skip
    spent = []
    for repeat in range(repeats):
        request = SuggestRequest(spec, n + repeat, count, results(n, repeat))
        began = time.process_time()
        suggest(request)
        spent.append(time.process_time() - began)
    return spent


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    print("| results | suggestions at once | p50 (ms of CPU) | p90 (ms of CPU) |\n|---|---|---|---|")
    with threadpool_limits(1):
        seconds(50, 1, 2)  # imports and caches
        for n, count in CASES:
            spent = sorted(1e3 * each for each in seconds(n, count, repeats))
            print(f"| {n} | {count} | {statistics.median(spent):.1f} | {spent[math.ceil(0.9 * repeats) - 1]:.1f} |")


if __name__ == "__main__":
    main()
