"""The trainer of the tests of commands: `python command_trainers.py WHAT [WORD ...]`; its config is in HPOPT_CONFIG."""

# ruff: noqa: T201 - trainers print

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import hpopt


def train(config: dict[str, Any]) -> None:
    """Report the hyper-parameter lr at every step, and say how the config has come."""
    print("words", *sys.argv[2:])
    print("same", json.loads(Path(os.environ["HPOPT_CONFIG_FILE"]).read_text()) == config)
    for _ in range(config["iterations"]):
        if hpopt.report(config, config["lr"]) == hpopt.status.STOP:
            break


def wait(config: dict[str, Any]) -> None:
    """Report once, then wait; when told to end, save what was done. The next attempt goes on from there."""
    saved = hpopt.checkpoint_dir(config) / "epoch"
    print("folder", saved.parent == Path(os.environ["HPOPT_CHECKPOINT_DIR"]) == Path(config["checkpoint_dir"]))
    if saved.exists():
        for epoch in range(int(saved.read_text()) + 1, config["iterations"] + 1):
            hpopt.report(config, 0.5, current_iters=epoch)
        return
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    hpopt.report(config, 0.25)
    print("waiting", flush=True)
    told.wait()
    saved.write_text("1")


def wait_stubbornly(config: dict[str, Any]) -> None:
    """Wait with a child, deaf to anything that could be ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hpopt.report(config, 0.25)
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    Path("pids").write_text(f"{os.getpid()} {child.pid}")
    print("waiting", flush=True)
    signal.pause()


def run_out_of_memory(config: dict[str, Any]) -> None:
    """Batches of more than 200 do not fit; what fits is saved."""
    (hpopt.checkpoint_dir(config) / "saved").touch()
    if config["bs"] > 200:
        raise MemoryError(f"a batch of {config['bs']}")
    train(config)


if __name__ == "__main__":
    globals()[sys.argv[1]](json.loads(os.environ["HPOPT_CONFIG"]))
