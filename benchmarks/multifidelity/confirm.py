r"""Keep stored runs of hpopt after a change of its code that changes no decision.

    python -m benchmarks.multifidelity.confirm --peers hpopt-asha,hpopt-bayes-median --runs 3 --horizon 2

Runs of another core or sampler count as not run. This makes some of them again, for each peer and number of workers, up
to a horizon; if every incumbent is the same as in what is stored, all those runs are stored as runs of this version.
What differs is printed, and stays as it was.
"""

import argparse
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.multifidelity.peers.native import ARGUMENTS
from benchmarks.multifidelity.peers.registry import version
from benchmarks.multifidelity.results import RESULTS, Key, read
from benchmarks.multifidelity.run import Settings, run
from benchmarks.search.run import side_by_side

Group = tuple[str, int, str]
"""Peer, number of workers, version."""


def outdated(folder: Path, peers: Iterable[str]) -> dict[Group, dict[Key, dict[str, Any]]]:
    """The newest run of each key, of those that are of another version."""
    newest = {key: stored for key, stored in read(folder) if key.peer in set(peers)}
    groups: dict[Group, dict[Key, dict[str, Any]]] = defaultdict(dict)
    for key, stored in newest.items():
        if stored["version"] != version(key.peer):
            groups[key.peer, key.workers, stored["version"]][key] = stored
    return groups


def some(runs: dict[Key, dict[str, Any]], count: int) -> list[Key]:
    """So many of the keys, at even distances."""
    keys = sorted(runs)
    return [keys[i * len(keys) // count] for i in range(count)] if count < len(keys) else keys


def differing(stored: dict[Key, dict[str, Any]], again: Path, horizon: float) -> list[Key]:
    """The runs that are not among those that were made again, or have other incumbents up to the horizon."""
    made = dict(read(again))
    return [key for key, old in stored.items() if _until(made.get(key), horizon) != _until(old, horizon)]


def _until(stored: dict[str, Any] | None, horizon: float) -> list[Any] | None:
    return None if stored is None else [each for each in stored["incumbents"] if each[0] <= horizon]


def relabel(folder: Path, confirmed: Iterable[Group]) -> int:
    """Store the runs of these groups as runs of this version; how many there were."""
    groups, changed = set(confirmed), 0
    for peer in sorted({peer for peer, _, _ in groups}):
        path, lines = folder / f"{peer}.jsonl", []
        for line in path.read_text().splitlines():
            stored = json.loads(line)
            if (peer, stored["workers"], stored["version"]) in groups:
                stored["version"] = version(peer)
                changed += 1
            lines.append(json.dumps(stored) + "\n")
        new = path.with_suffix(".new")
        new.write_text("".join(lines))
        new.replace(path)
    return changed


def main() -> None:
    """Read the command line, make the runs, compare, and store what is confirmed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(ARGUMENTS), help="names separated by commas")
    parser.add_argument("--runs", type=int, default=3, help="to make again, of each peer and number of workers")
    parser.add_argument("--horizon", type=float, default=2.0, help="full trainings of the median configuration")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    confirmed = []
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(arguments.horizon, Path(folder), {})
        groups = outdated(arguments.results, arguments.peers.split(","))
        chosen = {group: {key: runs[key] for key in some(runs, arguments.runs)} for group, runs in groups.items()}
        side_by_side([partial(run, key, settings) for keys in chosen.values() for key in keys], arguments.jobs)
        for (peer, workers, old), stored in chosen.items():
            others = differing(stored, Path(folder), arguments.horizon)
            verdict = f"differ: {', '.join(f'{key.task} seed {key.seed}' for key in others)}" if others else "the same"
            print(f"{peer}, {workers} workers, {old}: of {len(stored)} runs made again, {verdict}")
            confirmed += [] if others else [(peer, workers, old)]
    print(f"{relabel(arguments.results, confirmed)} runs are of this version now")
    if len(confirmed) < len(chosen):
        sys.exit(1)


if __name__ == "__main__":
    main()
