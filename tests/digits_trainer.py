"""A trainer that notes what it does: a network for 1,797 images of handwritten digits, saved after every iteration.

    hpopt-worker --study NAME tests/digits_trainer.py:train
    hpopt-worker --study NAME -- python tests/digits_trainer.py

Its journal, in the folder that HPOPT_TEST_JOURNALS names, is of the kind that tests/check_history.py reads: what it
got, and every report before and after the call, with the iteration that it had begun with, its host and its process.
A test that sets HPOPT_TEST_GATE to a folder has each attempt wait there after its second report.
"""

import gzip
import importlib.util
import json
import os
import socket
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import hpopt
from tests.journal import Journal

JOURNALS, GATE = "HPOPT_TEST_JOURNALS", "HPOPT_TEST_GATE"
HELD_AFTER = 2
"""Reports of an attempt after which it stops at the gate, if there is one."""
SPACE = {
    "lr": hpopt.search_space("loguniform", [1e-4, 1.0]),
    "width": hpopt.search_space("qloguniform", [16, 128, 8]),
    "dropout": hpopt.search_space("uniform", [0.0, 0.6]),
    "optimizer": hpopt.search_space("choice", ["sgd", "adam"]),
}
PASSES = 3
"""Epochs in an iteration."""
BATCH = 32
TRAINED = 900
"""So many images to train with; the others judge."""

torch.set_num_threads(1)  # several of these share a machine


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The images and their labels, from scikit-learn's file: importing scikit-learn takes longer than a short trial."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return torch.from_numpy(rows[:, :-1] / 16), torch.from_numpy(rows[:, -1].astype(np.int64))


class Training:
    """A network, its optimizer, and how far it is. What is saved can be loaded by the next attempt."""

    def __init__(self, config: dict[str, Any]) -> None:
        """It goes on from the checkpoint of an earlier attempt, if there is one."""
        params = config["params"]
        torch.manual_seed(config["trial_id"])
        self.network = nn.Sequential(
            nn.Linear(64, params["width"]), nn.ReLU(), nn.Dropout(params["dropout"]), nn.Linear(params["width"], 10)
        )
        optimizer = torch.optim.Adam if params["optimizer"] == "adam" else torch.optim.SGD
        self.optimizer = optimizer(self.network.parameters(), lr=params["lr"])
        self.iteration = 0
        self._file = hpopt.checkpoint_dir(config) / "last.pt"
        if self._file.exists():
            saved = torch.load(self._file)
            self.network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.iteration = saved["iteration"]

    def go_on(self) -> float:
        """Train one iteration; the share of the other images that is recognised then."""
        images, labels = digits()
        self.network.train()
        for _ in range(PASSES):
            for rows in torch.randperm(TRAINED).split(BATCH):
                self.optimizer.zero_grad()
                nn.functional.cross_entropy(self.network(images[rows]), labels[rows]).backward()
                self.optimizer.step()
        self.network.eval()
        with torch.no_grad():
            right = self.network(images[TRAINED:]).argmax(dim=1) == labels[TRAINED:]
        self.iteration += 1
        return float(right.double().mean())

    def save(self) -> None:
        """Whole or not at all."""
        part = self._file.with_suffix(".part")
        state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "iteration": self.iteration}, part)
        part.replace(self._file)


def wait_at_gate(config: dict[str, Any]) -> None:
    """Wait in the middle of an attempt until a test lets it go on: there is a file of its name then, or one for all."""
    gate = os.environ.get(GATE)
    if gate:
        names = (f"{config['trial_id']}-{config['attempt']}", "all")
        while not any(Path(gate, name).exists() for name in names):
            time.sleep(0.02)


def train(config: dict[str, Any]) -> None:
    """One attempt of a trial."""
    host = socket.gethostname()
    journal = Journal(Path(os.environ[JOURNALS]) / f"{host}.jsonl")
    form = "command" if os.environ.get("HPOPT_RUNNER") == "command" else "function"
    who = {"trial": config["trial_id"], "attempt": config["attempt"], "host": host, "session": f"{host}-{os.getpid()}"}
    training = Training(config)
    begins = training.iteration + 1
    journal.write(op="ask", phase="done", begins=begins, form=form, **who)
    while training.iteration < config["iterations"]:
        score = training.go_on()
        entry = {"op": "report", "step": training.iteration, "score": score, **who}
        journal.write(phase="call", **entry)
        try:
            status = hpopt.report(config, score, current_iters=training.iteration)
        except Exception as error:
            journal.write(phase="raised", error=repr(error), **entry)
            raise
        journal.write(phase="done", status=status.name, **entry)
        if status is hpopt.Status.STOP:
            break
        training.save()
        if training.iteration - begins + 1 == HELD_AFTER:
            wait_at_gate(config)


if __name__ == "__main__":
    train(json.loads(os.environ["HPOPT_CONFIG"]))
