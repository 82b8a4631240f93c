r"""Run peers on tasks, several runs side by side; what is in the results already is not run again.

    python -m benchmarks.multifidelity.run --peers hpopt-asha,optuna-tpe,random --tasks report --seeds 10 \
        --workers 1,8,64,512 --horizon 10 --jobs 2

Each run is a process of its own with one thread. Ctrl-C ends them all; only unfinished runs are lost.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.multifidelity.fleet import Timing
from benchmarks.multifidelity.peers.registry import timing_of, version
from benchmarks.multifidelity.results import RESULTS, Key, done
from benchmarks.multifidelity.tasks import select
from benchmarks.search.run import ROOT, THREADS, side_by_side


@dataclass(frozen=True)
class Settings:
    """What all runs of one command share."""

    horizon: float
    results: Path
    pythons: dict[str, str]
    """The interpreters of peers that do not go together with the others, by the beginnings of their names."""
    timeout: float | None = None

    def python(self, peer: str) -> str:
        """The interpreter for a peer: that of the longest beginning that fits."""
        fitting = [name for name in self.pythons if peer.startswith(name)]
        return self.pythons[max(fitting, key=len)] if fitting else sys.executable


def run(key: Key, settings: Settings) -> str:
    """Make one run and append it to the results; returns a line that says how it went: "FAILED ..." if it did."""
    name = f"{key.peer} {key.task} seed {key.seed} workers {key.workers}"
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": os.fspath(ROOT), "PYTHONHASHSEED": "0"}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = [settings.python(key.peer), "-m", "benchmarks.multifidelity.simulate", key.peer, key.task]
        options = {"seed": key.seed, "workers": key.workers, "horizon": settings.horizon, "timing": key.timing}
        command += [f"--{option}={value}" for option, value in options.items()] + ["--out=run.json"]
        try:
            subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=True,
                timeout=settings.timeout,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"FAILED {name}: not done after {settings.timeout:g} s"
        except subprocess.CalledProcessError as error:
            return f"FAILED {name}: {error.stderr.strip()[-2000:]}"
        line = Path(folder, "run.json").read_text()
    settings.results.mkdir(parents=True, exist_ok=True)
    with Path(settings.results, f"{key.peer}.jsonl").open("a") as file:
        file.write(line + "\n")  # one write of one line: runs that end together do not mix
    seen = json.loads(line)
    took = f"{time.monotonic() - began:.0f} s, {seen['cpu']:.1f} s of CPU in the peer"
    return f"{name}: {took}, {seen['trials']} trials, {seen['epochs']} epochs"


def missing(keys: Iterator[Key], settings: Settings) -> Iterator[Key]:
    """What is still to be run; runs of an hpopt with another core or sampler than this one's count as not run."""
    found = done(settings.results, settings.horizon)
    for key in keys:
        if key not in found or (key.peer.startswith("hpopt") and found[key] != version(key.peer)):
            yield key


def wanted(peers: list[str], names: list[str], seeds: int, workers: list[int], timing: Timing) -> Iterator[Key]:
    """All peers on all tasks with the first seed, then with the second, ..."""
    for seed in range(seeds):
        for name in names:
            for count in workers:
                for peer in peers:
                    yield Key(peer, name, seed, count, str(timing_of(peer, timing)))


def main() -> None:
    """Read the command line and run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="hpopt-asha,random", help="names separated by commas")
    parser.add_argument("--tasks", default="tune", help="tune, report, crossing, all, or names separated by commas")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", default="8", help="several numbers: 1,8,64,512")
    parser.add_argument("--horizon", type=float, default=10.0, help="full trainings of the median configuration")
    timing = "of hpopt's suggestions: instant, measured:SECONDS OF AN EPOCH, fixed:EPOCHS"
    parser.add_argument("--timing", type=Timing.of, default="instant", help=timing)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--timeout", type=float, help="seconds after which a run is given up")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="its own interpreter")
    arguments = parser.parse_args()
    pythons = dict(each.split("=", 1) for each in arguments.python)
    settings = Settings(arguments.horizon, arguments.results.resolve(), pythons, arguments.timeout)
    workers = [int(each) for each in arguments.workers.split(",")]
    peers, names = arguments.peers.split(","), select(arguments.tasks)
    keys = list(missing(wanted(peers, names, arguments.seeds, workers, arguments.timing), settings))
    side_by_side([partial(run, key, settings) for key in keys], arguments.jobs)


if __name__ == "__main__":
    main()
