"""The trainer alone: gets a config, trains, reports a score after every iteration.

    python examples/trainer.py '{"params": ..., "hpopt": ...}'

It needs `pip install hpopt` and the server's URL, which the config carries; if the server asks for a password, the
environment has to say it: HPOPT_URL=redis://:password@host:6379.
"""

import json
import math
import sys
from typing import Any

import hpopt


def accuracy(x: int, lr: float, bs: int) -> float:
    """What a model might reach after x iterations: best near lr = 0.01, and a little better with small batches."""
    return (1 - 0.02 * bs / 256) * math.sqrt(x) / (math.sqrt(x) + 0.3 + 100 * abs(lr - 0.01))


def train(config: dict[str, Any]) -> None:
    """One trial."""
    for iteration in range(1, config["iterations"] + 1):
        score = accuracy(iteration, config["lr"], config["bs"])
        if hpopt.report(config=config, score=score) == hpopt.status.STOP:
            break
    hpopt.finalize_trial(config)  # nothing is left to say after a STOP: it does no harm


if __name__ == "__main__":
    train(json.loads(sys.argv[1]))
