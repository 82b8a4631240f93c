"""Training functions for the tests of the local runner, which imports them in processes of their own."""

# ruff: noqa: S607, T201 - trainers print, and start what the machine has

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import hpopt

WAITED_IN = "HPOPT_TEST_FOLDER"
"""Environment variable: the folder in which waiting trainers put a file named after their process."""


def train(config: dict[str, Any]) -> None:
    """A training that goes well: the score of every step is the hyper-parameter "x"."""
    print(f"trial {config['trial_id']} says so in Python", flush=True)
    subprocess.run(["echo", f"trial {config['trial_id']} says so in a child"], check=True)
    _report_all(config)


def train_in_a_child(config: dict[str, Any]) -> None:
    """A training that takes place in a process of its own, as with a launcher of many ranks."""
    code = "import json, sys, tests.trainers; tests.trainers.train(json.loads(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, json.dumps(config)], check=True)


def fail_second(config: dict[str, Any]) -> None:
    """Trial 1 never works."""
    if config["trial_id"] == 1:
        print("about to fail")
        raise ValueError("this is the error")
    _report_all(config)


def fail_after_a_score(config: dict[str, Any]) -> None:
    """Every trial has a score, and then crashes."""
    hpopt.report(config, config["x"])
    raise ValueError("after a score")


def fail_always(config: dict[str, Any]) -> NoReturn:
    """No trial works."""
    raise ValueError(f"never trial {config['trial_id']}")


def end_process(config: dict[str, Any]) -> None:
    """The first attempt of trial 0 takes its process along, in the way that its study's name says."""
    if (config["trial_id"], config["attempt"]) == (0, 1):
        print("last words")
        match config["hpopt"]["study"]:
            case "exit":
                os._exit(3)
            case "sys-exit":
                sys.exit("not today")
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                ctypes.string_at(0)
    _report_all(config)


def run_out_of_memory(config: dict[str, Any]) -> None:
    """Batches above 16 do not fit."""
    print(f"pid {os.getpid()}")
    if config["batch"] > 16:
        raise MemoryError(f"a batch of {config['batch']}")
    _report_all(config)


def report_out_of_memory(config: dict[str, Any]) -> None:
    """The same, seen by the trainer itself, which returns in good order."""
    print(f"pid {os.getpid()}")
    if config["batch"] > 16:
        hpopt.reportOOM(config)
    else:
        _report_all(config)


def report_nothing(config: dict[str, Any]) -> None:
    """Trial 0 forgets to report."""
    if config["trial_id"] != 0:
        _report_all(config)


def wait(config: dict[str, Any]) -> None:
    """Say who it is, with a child that waits as well, then wait to be interrupted."""
    print(f"trial {config['trial_id']} waits")
    child = subprocess.Popen(["sleep", "600"])
    for pid in (os.getpid(), child.pid):
        Path(os.environ[WAITED_IN], str(pid)).touch()
    threading.Event().wait()


def wait_stubbornly(config: dict[str, Any]) -> None:
    """The same, deaf to interruptions."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait(config)


def swallow(config: dict[str, Any]) -> None:
    """The same, but return in good order when interrupted."""
    try:
        wait(config)
    except KeyboardInterrupt:
        print("swallowed")


def _report_all(config: dict[str, Any]) -> None:
    for _ in range(config["iterations"]):
        if hpopt.report(config, config["x"]) == hpopt.Status.STOP:
            break
