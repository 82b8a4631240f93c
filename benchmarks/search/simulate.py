"""One run of one peer on one problem, with a fixed number of trials pending: `python -m benchmarks.search.simulate`.

Prints nothing; writes one JSON object. CPU seconds are those of this process, all threads, in `ask` and in the `tell`
before it: a peer may do its work in either.
"""

import argparse
import json
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.peers.peer import Peer
from benchmarks.search.peers.registry import ABLATIONS, PEERS, version
from benchmarks.search.problem import Problem
from benchmarks.search.problems import problem

DIGITS = 7
"""Significant digits kept: enough for a regret of 1e-4 of any problem's range, and a third of the space."""


def simulate(peer: Peer, where: Problem, *, seed: int, trials: int, workers: int) -> dict[str, list[float]]:
    """Scores (as told), truths (noise-free), both in the order of telling, and CPU seconds per suggestion.

    `workers` trials are pending whenever the peer is asked, the first ones apart; they end in the order they began.
    The noise of a trial depends on the seed and on how many were told before, so that peers meet the same noise.
    """
    noise = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1])))
    run: dict[str, list[float]] = {"scores": [], "truths": [], "cpu": []}
    pending: deque[dict[str, Any]] = deque()
    asked, spent = 0, 0.0
    while len(run["scores"]) < trials:
        while asked < trials and len(pending) < workers:
            began = time.process_time()
            pending.append(peer.ask())
            run["cpu"].append(_short(spent + time.process_time() - began))
            asked, spent = asked + 1, 0.0
        params = pending.popleft()
        truth = where.truth(params)
        score = where.score(truth, noise)
        began = time.process_time()
        peer.tell(params, score)
        spent += time.process_time() - began
        run["scores"].append(_short(score))
        run["truths"].append(_short(truth))
    return run


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def main() -> None:
    """Read the command line, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS | ABLATIONS)
    parser.add_argument("problem")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1, help="trials pending at once")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    arguments = parser.parse_args()
    named = {name: getattr(arguments, name) for name in ("seed", "trials", "workers")}
    where = problem(arguments.problem)
    peer = (PEERS | ABLATIONS)[arguments.peer](where.space, arguments.seed, arguments.trials)
    head = {"peer": arguments.peer, "version": version(arguments.peer), "problem": where.name, **named}
    arguments.out.write_text(json.dumps(head | simulate(peer, where, **named)))


if __name__ == "__main__":
    main()
