"""Run peers on problems, several runs side by side; what is in the results already is not run again.

    python -m benchmarks.search.run --peers hpopt,optuna-tpe,random --problems report --seeds 5 --jobs 2

Each run is a process of its own with one thread. Ctrl-C ends them all; only unfinished runs are lost.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from benchmarks.search.peers.registry import version
from benchmarks.search.problems import HALVES, problems
from benchmarks.search.results import RESULTS, Key, done

ROOT = Path(__file__).parents[2]
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Settings:
    """What all runs of one command share."""

    trials: int
    results: Path
    pythons: dict[str, str]

    def python(self, peer: str) -> str:
        """The interpreter of a peer whose packages do not go together with the others'."""
        return self.pythons.get(peer, sys.executable)


def run(key: Key, settings: Settings) -> str:
    """Make one run and append it to the results; returns a line that says how it went: "FAILED ..." if it did."""
    peer, problem, seed, workers = key
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": os.fspath(ROOT), "PYTHONHASHSEED": "0"}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run.json")
        command = [settings.python(peer), "-m", "benchmarks.search.simulate", peer, problem, f"--seed={seed}"]
        command += [f"--trials={settings.trials}", f"--workers={workers}", f"--out={out}"]
        # a peer may write files of its own: they go where the run's result is
        process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        name = f"{peer} {problem} seed {seed} workers {workers}"
        if process.returncode:
            return f"FAILED {name}: {process.stderr.strip()[-2000:]}"
        line = out.read_text()
    settings.results.mkdir(parents=True, exist_ok=True)
    with Path(settings.results, f"{peer}.jsonl").open("a") as file:
        file.write(line + "\n")  # one write of one line: runs that end together do not mix
    cpu = sum(json.loads(line)["cpu"])
    return f"{name}: {time.monotonic() - began:.0f} s, {cpu:.1f} s of CPU in the peer"


def missing(peers: list[str], names: list[str], seeds: int, workers: list[int], settings: Settings) -> Iterator[Key]:
    """What is still to be run: all peers and problems with the first seed, then with the second, ...

    Runs of an hpopt with another sampler than this one's count as not run.
    """
    found = done(settings.results, settings.trials)
    for seed in range(seeds):
        for name in names:
            for count in workers:
                for peer in peers:
                    key = Key(peer, name, seed, count)
                    if key not in found or (peer.startswith("hpopt") and found[key] != version(peer)):
                        yield key


def select(text: str) -> list[str]:
    """Names of problems from what is separated by commas: halves ("tune", "report", "seen"), "all", or names."""
    groups = {half: problems(half) for half in HALVES} | {"all": problems()}
    parts = [[each.name for each in groups[part]] if part in groups else [part] for part in text.split(",")]
    return list(dict.fromkeys(chain.from_iterable(parts)))


def side_by_side(runs: list[Callable[[], str]], jobs: int) -> None:
    """Make the runs, `jobs` at a time, and print what each says; exits with status 1 when one says FAILED first."""
    failed = 0
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(each) for each in runs]
        try:
            for count, future in enumerate(as_completed(futures), 1):
                print(f"[{count}/{len(runs)}] {future.result()}", flush=True)
                failed += future.result().startswith("FAILED")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if failed:
        sys.exit(f"{failed} of {len(runs)} runs failed; the same command tries them again")


def main() -> None:
    """Read the command line and run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="hpopt,random", help="names separated by commas")
    parser.add_argument("--problems", default="tune", help="tune, report, seen, all or names, separated by commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", default="1", help="trials pending at once; several numbers: 1,8,16")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="its own interpreter")
    arguments = parser.parse_args()
    pythons = dict(each.split("=", 1) for each in arguments.python)
    settings = Settings(arguments.trials, arguments.results.resolve(), pythons)
    workers = [int(each) for each in arguments.workers.split(",")]
    keys = list(missing(arguments.peers.split(","), select(arguments.problems), arguments.seeds, workers, settings))
    side_by_side([partial(run, key, settings) for key in keys], arguments.jobs)


if __name__ == "__main__":
    main()
