"""What is good and what is usual on each problem: `python -m benchmarks.search.references [name ...]`.

The normalised regret of a configuration is (best - truth) / (best - typical): 0 for the best, 1 for what a single
random configuration gives at the median. `best` is exact where the problem knows its optimum; else it is the best of
many random configurations and of hill climbing from some of the good ones and from the best of the stored reference, so
that it can be computed again with more evaluations and never gets worse.
"""

import argparse
import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.search.problem import Params, Problem
from benchmarks.search.problems import DATA, problems
from hpopt.core.space import SearchSpace, Space

STORED = Path(__file__).parent / "references.json"
TYPICAL = 1000  # random configurations, whose median truth is typical
SLOW = {
    "forest-cancer",
    "mlp-wine",
    "boosting-digits",
    "svm-digits",
    "torch-digits",
    "linear-digits",
    "boosting-diabetes",
}  # real trainings


@dataclass(frozen=True)
class Reference:
    """The best truth and where it is, the median truth of random configurations, and how both were found."""

    best: float
    typical: float
    how: str
    params: Params

    def regret(self, truth: float) -> float:
        """Normalised; below 0 for a truth better than the best one known."""
        return (self.best - truth) / (self.best - self.typical)


class Effort(NamedTuple):
    """How many configurations are tried: at random, then in `steps` from each of `climbers` of these."""

    random: int
    climbers: int
    steps: int


CHEAP = Effort(20_000, 50, 2_000)
EXPENSIVE = Effort(1_000, 5, 200)


class Point(NamedTuple):
    """A configuration in the unit cube, and its truth."""

    unit: list[float]
    truth: float


def references(path: Path = STORED) -> dict[str, Reference]:
    """Those stored, by the name of the problem."""
    stored = json.loads(path.read_text()) if path.exists() else {}
    return {name: Reference(**entry) for name, entry in stored.items()}


def reference(problem: Problem, known: Reference | None, effort: Effort, seed: int = 0) -> Reference:
    """Compute it; `known` is the stored one. The random configurations are always the same, the seed is the climbs'."""
    space, rng = Space(problem.space), np.random.Generator(np.random.PCG64(0))
    tried = effort.random if problem.optimum is None else TYPICAL
    points = [_point(problem, space, rng.random(len(space))) for _ in range(tried)]
    typical = statistics.median(point.truth for point in points[:TYPICAL])
    if problem.optimum is not None:
        return Reference(problem.truth(problem.optimum), typical, "exact", problem.optimum)
    # The very best ones often belong to one peak, and not to the highest: climb from all over the best twentieth.
    good = sorted(points, key=lambda point: -point.truth)[: max(effort.random // 20, effort.climbers)]
    starts = good[:: len(good) // effort.climbers][: effort.climbers]
    if known is not None:
        starts[-1] = _point(problem, space, space.to_unit(known.params))
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    best = max((climb(problem, start, effort.steps, rng) for start in starts), key=lambda point: point.truth)
    how = f"best of {effort.random} random configurations and {effort.climbers} climbs of {effort.steps} steps"
    return Reference(best.truth, typical, how, space.from_unit(best.unit))


def climb(problem: Problem, start: Point, steps: int, rng: np.random.Generator) -> Point:
    """Random steps in some of the dimensions, of sizes of all magnitudes, of which the ones upwards are taken."""
    space, best = Space(problem.space), start
    for _ in range(steps):
        step = _point(problem, space, _mutated(space, best.unit, rng))
        if step.truth >= best.truth:
            best = step
    return best


def _mutated(space: Space, unit: list[float], rng: np.random.Generator) -> list[float]:
    moved = rng.random(len(unit)) < rng.choice([1 / len(unit), 2 / len(unit), 0.5])
    moved[rng.integers(len(unit))] = True
    size = 10 ** rng.uniform(-3.5, -0.5)
    return [
        _moved(space[name], u, size, rng) if chosen else u for name, u, chosen in zip(space, unit, moved, strict=True)
    ]


def _moved(dimension: SearchSpace, u: float, size: float, rng: np.random.Generator) -> float:
    """Another place near u; the next value, or an unrelated one, where values are few."""
    if dimension.is_choice:
        return float(rng.random())
    if dimension.size is not None and rng.random() < 0.5:
        index = dimension.index_of(dimension.from_unit(u)) + int(rng.choice([-1, 1]))
        return dimension.to_unit(dimension.value_at(min(max(index, 0), dimension.size - 1)))
    return float(np.clip(u + size * rng.standard_normal(), 0, 1))


def _point(problem: Problem, space: Space, unit: Iterable[float]) -> Point:
    unit = [float(u) for u in unit]
    return Point(unit, problem.truth(space.from_unit(unit)))


def main() -> None:
    """Read the command line; compute and store one reference after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="problems; all if none is named")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder that holds yahpo")
    parser.add_argument("--output", type=Path, default=STORED, help="the file that is brought up to date")
    parser.add_argument("--seed", type=int, default=0, help="of the climbs: another one may find a better best")
    arguments = parser.parse_args()
    known = {problem.name: problem for problem in problems(data=arguments.data)}
    if unknown := set(arguments.names) - set(known):
        parser.error(f"no problem is called {', '.join(sorted(unknown))}")
    for problem in (known[name] for name in arguments.names or known):
        effort = EXPENSIVE if problem.name in SLOW else CHEAP
        found = reference(problem, references(arguments.output).get(problem.name), effort, arguments.seed)
        stored = references(arguments.output) | {problem.name: found}  # another command may have written meanwhile
        entries = {name: asdict(stored[name]) for name in sorted(stored)}
        arguments.output.write_text(json.dumps(entries, indent=1) + "\n")
        print(f"{problem.name}: best {found.best:.6g}, typical {found.typical:.6g}", flush=True)


if __name__ == "__main__":
    main()
