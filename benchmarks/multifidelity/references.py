"""What is good and what is usual on each task: `python -m benchmarks.multifidelity.references [name ...]`.

Best and typical truth are found as in benchmarks/search/references.py, on the score after the last epoch. The first of
the same random configurations give the median time of an epoch.
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.multifidelity.task import Task
from benchmarks.multifidelity.tasks import MEDIANS, medians, tasks
from benchmarks.search.problem import Params
from benchmarks.search.references import TYPICAL, Effort, reference, references
from hpopt.core.space import Space

STORED = Path(__file__).parent / "references.json"
EFFORT = Effort(20_000, 30, 1_000)


def samples(task: Task, count: int) -> list[Params]:
    """The random configurations that the typical truth is the median of."""
    space, rng = Space(task.space), np.random.Generator(np.random.PCG64(0))
    return [space.from_unit(rng.random(len(space)).tolist()) for _ in range(count)]


def main() -> None:
    """Read the command line; compute and store one reference after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="tasks; all if none is named")
    parser.add_argument("--seed", type=int, default=0, help="of the climbs: another one may find a better best")
    arguments = parser.parse_args()
    known = {task.name: task for task in tasks()}
    if unknown := set(arguments.names) - set(known):
        parser.error(f"no task is called {', '.join(sorted(unknown))}")
    for task in (known[name] for name in arguments.names or known):
        median = statistics.median(task.train(params).seconds for params in samples(task, TYPICAL))
        _store(MEDIANS, medians() | {task.name: float(f"{median:.7g}")})
        medians.cache_clear()
        found = reference(task.problem, references(STORED).get(task.name), EFFORT, arguments.seed)
        _store(STORED, {name: asdict(each) for name, each in (references(STORED) | {task.name: found}).items()})
        print(f"{task.name}: best {found.best:.6g}, typical {found.typical:.6g}, {median:.4g} s an epoch", flush=True)


def _store(path: Path, entries: Mapping[str, object]) -> None:
    path.write_text(json.dumps({name: entries[name] for name in sorted(entries)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
