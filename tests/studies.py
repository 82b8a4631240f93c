"""Whole studies on a real server: small ones, trained in this process or in others."""

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import hpopt
from hpopt.core.curve import Point, unpack
from tests.server import ROOT, Program

SPACE = {
    "lr": hpopt.search_space("loguniform", [0.0001, 0.1]),
    "bs": hpopt.search_space("qloguniform", [8, 256, 8]),
}
SMALL: dict[str, Any] = {
    "full_dataset_size": 1000, "num_full_iterations": 10, "search_space": SPACE, "num_trials": 6, "max_iterations": 4,
    "subset_ratio": 1.0, "seed": 1,
}  # fmt: skip
"""Arguments of a study that takes no time."""

TRAINER = """
import json, sys
import hpopt

config = json.loads(sys.argv[1])
for iteration in range(int(config["iterations"])):
    status = hpopt.report(config, 10 * config["trial_id"] + iteration)
    print(status.name, flush=True)
    if status == hpopt.status.STOP:
        break
"""
"""A trainer in a process of its own; all it gets is the config."""

Score = Callable[[dict[str, Any], int], Any]


def accuracy(config: dict[str, Any], step: int) -> float:
    """What training brings: rises with every step, best at lr = 0.01."""
    return step / (step + 1) - 0.1 * abs(math.log10(config["params"]["lr"]) + 2)


def sample(hpo: hpopt.HpOpt) -> dict[str, Any]:
    """The next config, which there must be."""
    config = hpo.get_next_sample()
    assert config is not None
    return config


def train(config: dict[str, Any], score: Score = accuracy) -> list[hpopt.Status]:
    """Report until it is enough, as trainers do; what was answered."""
    answers = []
    for step in range(1, config["iterations"] + 1):
        answers.append(hpopt.report(config, score(config, step)))
        if answers[-1] == hpopt.status.STOP:
            break
    return answers


def run_all(hpo: hpopt.HpOpt, score: Score = accuracy) -> list[dict[str, Any]]:
    """The sequential loop: every config that it came by."""
    configs = []
    while (config := hpo.get_next_sample()) is not None:
        configs.append(config)
        train(config, score)
    return configs


def start_python(code: str, *arguments: Any, environment: Mapping[str, str] | None = None) -> Program:
    """A Python process that runs `code`; the arguments go to it as JSON."""
    command = [sys.executable, "-c", code, *(json.dumps(each) for each in arguments)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return Program(command, environment={"PYTHONPATH": path, **(environment or {})})


def run_python(code: str, *arguments: Any, environment: Mapping[str, str] | None = None) -> list[str]:
    """What such a process said until it ended, well."""
    program = start_python(code, *arguments, environment=environment)
    assert program.wait() == 0, program.output
    return program.lines


def curve(hpo: hpopt.HpOpt, trial: int) -> list[Point]:
    """The points that are committed of a trial."""
    packed = hpo._server.client.get("GET", hpo._keys.curve(hpo.uid, trial))
    return list(unpack(packed or b""))


def states(hpo: hpopt.HpOpt) -> list[str]:
    """The states of all trials, by id."""
    return [trial.state for trial in hpo.trials()]


def forget_heartbeats(hpo: hpopt.HpOpt) -> None:
    """What time does to the heartbeats of trainers that have ended; one that ended at once may have had none."""
    client = hpo._server.client
    keys = client.get("KEYS", f"{hpo._keys.prefix.replace('{', '[{]')}:alive:*")
    if keys:
        client.get("UNLINK", *keys)
