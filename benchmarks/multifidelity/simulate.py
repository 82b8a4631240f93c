"""One run of one peer on one task: `python -m benchmarks.multifidelity.simulate`. Writes one JSON object.

CPU seconds are those of this process in the peer, all threads; the simulation's own are not among them.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.multifidelity.fleet import INSTANT, Coordinated, Timing
from benchmarks.multifidelity.loop import Fleet, Tuner
from benchmarks.multifidelity.peers.peer import Prompt
from benchmarks.multifidelity.peers.registry import PEERS, tuner, version
from benchmarks.multifidelity.tasks import task

DIGITS = 7
"""Significant digits kept."""


def simulate(
    peer: str, name: str, *, seed: int, workers: int, horizon: float, timing: Timing = INSTANT
) -> dict[str, Any]:
    """A run as it is stored."""
    where = task(name)
    made = tuner(peer, where, seed, workers, timing)
    run = Fleet(made, where, workers, horizon).simulate()
    head = {"peer": peer, "version": version(peer), "task": name, "seed": seed, "workers": workers}
    seen = {
        "horizon": horizon,
        "timing": str(timing),
        "incumbents": [[_short(each.time), _short(each.truth), each.epochs] for each in run.incumbents],
        "trials": run.trials,
        "epochs": run.epochs,
        "idle": _short(run.idle),
    }
    return head | seen | costs(made)


def costs(made: Tuner) -> dict[str, Any]:
    """CPU seconds in the tuner; for hpopt also how they divide, and how often it was asked."""
    if isinstance(made, Coordinated):
        handle, suggest = made.handle_seconds, made.suggest_seconds
        shares = {"handle": _short(handle), "suggest": _short(suggest)}
        return {"cpu": _short(handle + suggest), **shares, "reports": made.reports, "requests": made.requests}
    assert isinstance(made, Prompt)
    return {"cpu": _short(made.seconds)}


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def main() -> None:
    """Read the command line, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--horizon", type=float, default=10.0, help="full trainings of the median configuration")
    parser.add_argument("--timing", type=Timing.of, default=INSTANT, help="instant, measured:SECONDS or fixed:EPOCHS")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    given = vars(parser.parse_args())
    out, peer, name = given.pop("out"), given.pop("peer"), given.pop("task")
    out.write_text(json.dumps(simulate(peer, name, **given)))


if __name__ == "__main__":
    main()
