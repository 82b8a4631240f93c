"""A process under load, for the tests that kill things: an operator and its trainers, which note every call they make.

    python -m tests.load --url unix://... --journal FILE --trainers 5 '{"study": "run", "num_trials": 100, ...}'

Each call is written to the journal before it is made, and again with its answer. One thread asks for samples, for one
trial more than there are trainers, so that as a rule a request is open while all of them report.
"""

import argparse
import functools
import json
import math
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hpopt
from tests.journal import Journal
from tests.server import ROOT, Program


class Operator:
    """One session with its trainers."""

    def __init__(self, hpo: hpopt.HpOpt, journal: Journal, trainers: int) -> None:
        """Nothing happens before `run`."""
        self.hpo = hpo
        self.journal = journal
        self.trainers = trainers
        self._samples: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(trainers + 1)

    def run(self) -> None:
        """Train until every trial of the study has ended; then note what is best."""
        threads = [threading.Thread(target=self._train_all) for _ in range(self.trainers)]
        for thread in threads:
            thread.start()
        while (config := self._ask()) is not None:
            self._samples.put(config)
        for _ in threads:
            self._samples.put(None)
        for thread in threads:
            thread.join()
        self._noted(self.hpo.get_best_config, lambda params: {"params": params}, op="best")

    def _ask(self) -> dict[str, Any] | None:
        self._room.acquire()
        config: dict[str, Any] | None = self._noted(self.hpo.get_next_sample, _identity, op="ask")
        return config

    def _train_all(self) -> None:
        while (config := self._samples.get()) is not None:
            self._train(config)
            self._room.release()

    def _train(self, config: dict[str, Any]) -> None:
        for step in range(1, config["iterations"] + 1):
            score = score_of(config["params"], config["trial_id"], step)
            entry = {"trial": config["trial_id"], "attempt": config["attempt"], "step": step, "score": score}
            report = functools.partial(hpopt.report, config, math.nan if score is None else score)
            if self._noted(report, lambda status: {"status": status.name}, op="report", **entry) is hpopt.Status.STOP:
                return

    def _noted(self, call: Callable[[], Any], told: Callable[[Any], Mapping[str, Any]], **entry: Any) -> Any:
        """Make a call, with an entry before and one after it."""
        entry["session"] = self.hpo.session
        self.journal.write(phase="call", **entry)
        try:
            answer = call()
        except BaseException as error:
            self.journal.write(phase="raised", error=repr(error), **entry)
            raise
        self.journal.write(phase="done", **entry, **told(answer))
        return answer


def score_of(params: Mapping[str, Any], trial: int, step: int) -> float | None:
    """What a training would reach; None, now and then, stands for a score that is not a number."""
    if (31 * trial + 7 * step) % 41 == 0:
        return None
    return float(params["x"] * (1 - 0.9**step))


def _identity(config: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"trial": config and config["trial_id"], "attempt": config and config["attempt"]}


def start_load(url: str, journal: Path, trainers: int, study: Mapping[str, Any], **environment: str) -> Program:
    """Start such a process."""
    command = [sys.executable, "-P", "-m", "tests.load", "--url", url, "--journal", str(journal)]
    journal.touch()
    arguments = ["--trainers", str(trainers), json.dumps(study)]
    return Program([*command, *arguments], environment={"PYTHONPATH": str(ROOT), **environment})


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--trainers", type=int, required=True)
    parser.add_argument("study", type=json.loads)
    options = parser.parse_args()
    hpo = hpopt.create(
        1000,
        100,
        {"x": hpopt.search_space("uniform", [0.0, 1.0])},
        save_path=options.journal.with_suffix(".out"),
        url=options.url,
        resume=True,
        subset_ratio=1,
        **options.study,
    )
    with hpo:
        Operator(hpo, Journal(options.journal), options.trainers).run()


if __name__ == "__main__":
    main()
