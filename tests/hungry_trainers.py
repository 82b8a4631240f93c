"""Trainings that really run out of memory: what a step needs grows with its batch, and there is a limit.

python hungry_trainers.py        trains the config in HPOPT_CONFIG
"""

# ruff: noqa: T201 - trainers print

import ctypes
import json
import os
import resource
from pathlib import Path
from typing import Any

import torch

import hpopt

DEVICE = "HPOPT_TEST_DEVICE"
"""Environment variable: where to train, "cpu" if it is not set."""
SIZES = [16, 64, 256, 1024]
FITS = 64
"""The largest of these that fits into the limit."""
ROOM = 180 * 2**20
"""Bytes beside what the process has after its imports."""
WIDTH = 2**16
"""Numbers of a sample: a step takes about a mebibyte for each."""
M_MMAP_THRESHOLD = -3
"""Name of a limit in mallopt(3)."""

_limited = False


def train(config: dict[str, Any]) -> None:
    """Steps on random numbers; the score is the hyper-parameter x."""
    device = os.environ.get(DEVICE, "cpu")
    limit_memory(device)
    print(f"pid {os.getpid()}, batch {config['bs']}", flush=True)
    head = torch.rand(WIDTH, 2, device=device, requires_grad=True)
    for _ in range(config["iterations"]):
        step(head, config["bs"])
        if hpopt.report(config, config["x"]) == hpopt.status.STOP:
            break


def step(head: torch.Tensor, batch: int) -> None:
    """Forward, backward, update."""
    samples = torch.rand(batch, WIDTH, device=head.device, requires_grad=True)
    (torch.relu(samples * 2) @ head).square().mean().backward()
    with torch.no_grad():
        head -= 0.01 * (head.grad if head.grad is not None else 0)
        head.grad = None


def limit_memory(device: str) -> None:
    """From now on, and for good, this process has so much room and no more."""
    global _limited  # noqa: PLW0603 - of the process, as the limit is
    if _limited:
        return
    _limited = True
    if device == "cpu":
        torch.set_num_threads(1)  # each thread would take of the room
        # glibc raises this limit by itself and keeps what is freed below it, in pieces that the next step cannot use.
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)
        status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
        used = int(status["VmData"].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (used + ROOM, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    else:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(ROOM / total, device)


if __name__ == "__main__":
    train(json.loads(os.environ["HPOPT_CONFIG"]))
