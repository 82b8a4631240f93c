"""Four real processes with a process group of torch.distributed, and what becomes of them and of their trials."""

import contextlib
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hpopt
from examples import ddp
from tests.conftest import Create, InBackground, Quick
from tests.journal import Entry, read
from tests.server import ROOT, Program
from tests.studies import curve, sample, states, train

Config = dict[str, Any]
Launch = Callable[..., Program]
Work = Callable[..., Program]
PATIENCE = 120.0
"""Seconds for a launch: torch is imported, and four ranks start."""
TORCH = {"GLOO_SOCKET_IFNAME": "lo", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""With one store for all of its starts, torch 2.13 looks for the ranks of the group before."""
ITERATIONS = 9
STOPS = ["complete"] * 10 + ["low"] * 30 + ["invalid"] * 30 + ["finalized"] * 30
"""What ends a hundred trials."""
REASONS = {
    "complete": "all iterations done", "low": "median_stop: ", "invalid": "3 scores in a row were not finite",
    "finalized": "finalized", "out_of_memory": "out of memory",
}  # fmt: skip


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts `python -m tests.gloo WHAT` for some jobs in a folder of the test's own; what runs on is killed."""
    started: list[Program] = []

    def begin(what: str, *jobs: tuple[str, Config]) -> Program:
        (tmp_path / "jobs.json").write_text(json.dumps(jobs))
        environment = {"PYTHONPATH": str(ROOT), "HPOPT_REPORT_DEADLINE": "60", **TORCH}
        command = [sys.executable, "-P", "-m", "tests.gloo", what, str(tmp_path)]
        started.append(Program(command, environment=environment))
        return started[-1]

    yield begin
    for program in started:
        with contextlib.suppress(ProcessLookupError):  # all of them have ended
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    """Starts `hpopt-worker -- COMMAND` in a folder of the test's own."""
    started: list[Program] = []

    def begin(hpo: hpopt.HpOpt, *command: str) -> Program:
        environment = {"HPOPT_URL": hpo.url, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **TORCH}
        words = ["--study", hpo.study, "--checkpoints", "checkpoints", "--", *command]
        started.append(
            Program([sys.executable, "-P", "-m", "workers", *words], environment=environment, folder=tmp_path)
        )
        return started[-1]

    yield begin
    for program in started:
        program.kill()


def journals(folder: Path) -> list[list[Entry]]:
    """What each rank has written down."""
    return [read([folder / f"rank{rank}"]) for rank in range(4)]


def answers(entries: list[Entry]) -> dict[int, list[str]]:
    """What a rank was answered in each trial, one answer after the other."""
    found: dict[int, list[str]] = {}
    for entry in entries:
        found.setdefault(entry["trial"], []).append(entry["status"])
    return found


def test_a_hundred_stops(
    study: Create, quick: Quick, launch: Launch, in_background: InBackground, tmp_path: Path
) -> None:
    """Whatever ends a trial, and whenever: all four ranks stop at the same step, and each step is counted once.

    They need not go at one pace, have a process group all the time, or all report; one may come when the others have
    long ended, and the last verdict with them.
    """
    quick("--expiry", "1000")
    others = ("some_steps", "at_their_pace", "rank_0_alone", "late", "out_of_memory", "after_the_group")
    kinds = ["before_the_group", *STOPS, *others]
    assert len(STOPS) == 100
    hpo = study(
        num_trials=len(kinds), num_workers=len(kinds), max_iterations=ITERATIONS, early_stop="median_stop",
        batch_size_name="bs", min_peers=3, grace_trials=5, lenient_every=0,
    )  # fmt: skip
    configs = [sample(hpo) for _ in kinds]
    ranks = launch("hundred", *zip(kinds, configs, strict=True))

    def finalize() -> None:
        for config in (config for kind, config in zip(kinds, configs, strict=True) if kind == "finalized"):
            ranks.wait_for(rf"^finalize {config['trial_id']}$", seconds=PATIENCE)
            hpopt.finalize_trial(config)
            (tmp_path / f"finalized{config['trial_id']}").touch()

    in_background(finalize)
    assert ranks.wait(PATIENCE) == 0, ranks.output
    first, *rest = map(answers, journals(tmp_path))
    assert rest == [first] * 3
    for trial, (kind, row) in enumerate(zip(kinds, hpo.trials(), strict=True)):
        assert row.reason.startswith(REASONS.get(kind, ""))
        *running, last = first[trial]
        assert (set(running), last) == ({"RUNNING"}, "STOP")
        counted = len(running) + (kind not in {"finalized", "out_of_memory"})
        every = 3 if kind == "some_steps" else 1
        assert [point.step for point in curve(hpo, trial)] == [every * (step + 1) for step in range(counted)]
        assert {point.score for point in curve(hpo, trial)} <= scores_of_rank_0(kind, trial)
    assert len({(kind, len(first[trial])) for trial, kind in enumerate(kinds)}) > 20
    retried(hpo, kinds.index("out_of_memory"), configs)


def scores_of_rank_0(kind: str, trial: int) -> set[float | None]:
    """What rank 0 reports; the scores of other ranks are a little higher."""
    if kind == "complete":
        return set(map(float, range(1, ITERATIONS + 1)))
    return {1 + trial / 12} if kind == "low" else {100.0, None}


def retried(hpo: hpopt.HpOpt, trial: int, configs: list[Config]) -> None:
    """The trial that ran out of memory is handed out once more, smaller, and nothing else is."""
    again = sample(hpo)
    assert (again["trial_id"], again["attempt"]) == (trial, 2)
    assert again["bs"] < configs[trial]["bs"]
    train(again, lambda _, step: 100.0 + step)
    assert [point.step for point in curve(hpo, trial) if point.attempt == 2] == list(range(1, ITERATIONS + 1))
    assert hpo.get_next_sample() is None
    assert len(hpo.trials()) == len(configs)


def test_ranks_that_are_killed(study: Create, quick: Quick, launch: Launch, tmp_path: Path) -> None:
    """Without a launcher that starts them again, ranks end with the one that was killed; with one, they go on at once.

    Rank 0 is missed: the trial is handed out once more, and ranks that wait for an answer hear STOP. Another rank is
    missed by the training itself, and the exception ends the trial.
    """
    quick("--takeover", "60")
    hpo = study(num_trials=3, num_workers=3, max_iterations=6)
    kinds = ("restarted", "rank_0_killed", "rank_3_killed")
    _, zero, _ = configs = [sample(hpo) for _ in kinds]
    ranks = launch("killed", *list(zip(kinds, configs, strict=True))[::-1])
    again = sample(hpo)
    assert (again["trial_id"], again["attempt"], again["params"]) == (1, 2, zero["params"])
    assert ranks.wait(PATIENCE) == 0
    assert ranks.lines[-1] == "exit 1 1 1 -9 -9 0 0 0", ranks.output
    went_on(hpo, journals(tmp_path / "restarted"))
    first, *rest = map(answers, journals(tmp_path / "rank_0_killed"))
    assert first == {1: ["RUNNING"] * 2}
    assert rest == [{1: ["RUNNING", "RUNNING", "STOP"]}] * 3
    assert list(map(answers, journals(tmp_path / "rank_3_killed"))) == [{2: ["RUNNING"] * 2}] * 4
    row = hpo.trials()[2]
    assert (row.state, row.reason, row.step, row.score) == ("failed", "its training crashed", 2, 2)
    train(again)
    assert [(point.attempt, point.step) for point in curve(hpo, 1)] == [
        (1, 1), (1, 2), *((2, step) for step in range(1, 7)),
    ]  # fmt: skip
    assert hpo.get_next_sample() is None
    assert states(hpo) == ["completed", "completed", "failed"]


def went_on(hpo: hpopt.HpOpt, ranks: list[list[Entry]]) -> None:
    """Trial 0 was trained by three lives, each of them from where the last had come to, on all ranks."""
    for entries in ranks:
        mine = [entry for entry in entries if entry["trial"] == 0]
        steps = [[entry["step"] for entry in mine if entry["count"] == count] for count in range(3)]
        assert steps == [[1, 2, 3], [4], [5, 6]]
        assert mine[-1]["status"] == "STOP"
    assert [(point.attempt, point.step) for point in curve(hpo, 0)] == [(1, step) for step in range(1, 7)]


def test_ranks_in_a_worker(study: Create, quick: Quick, work: Work, tmp_path: Path) -> None:
    """A launcher inside a runner starts its ranks again as one outside does.

    When rank 3 runs out of memory, so does the trial: the others are ended, hear STOP when they are started again, and
    the next attempt has a smaller batch.
    """
    quick("--takeover", "60")
    hpo = study(num_trials=1, max_iterations=6, batch_size_name="bs")
    worker = work(hpo, sys.executable, "-P", "-m", "tests.gloo", "in_a_worker")
    assert worker.wait(PATIENCE) == 0, worker.output
    for entries in journals(tmp_path):
        assert [(e["attempt"], e["count"], e["step"], e["status"]) for e in entries] == [
            (1, 0, 1, "RUNNING"), (1, 0, 2, "RUNNING"), (1, 1, 3, "RUNNING"), (1, 2, 0, "STOP"),
            *((2, 0, step, "RUNNING") for step in range(1, 6)), (2, 0, 6, "STOP"),
        ]  # fmt: skip
        sizes = {entry["attempt"]: entry["bs"] for entry in entries}
        assert sizes[2] < sizes[1]
    assert [(point.attempt, point.step) for point in curve(hpo, 0)] == [
        (1, 1), (1, 2), (1, 3), *((2, step) for step in range(1, 7)),
    ]  # fmt: skip
    assert [(row.state, row.attempt, row.reason) for row in hpo.trials()] == [("completed", 2, "all iterations done")]


def test_the_example_of_the_docs(study: Create, quick: Quick, work: Work, tmp_path: Path) -> None:
    """The training of examples/ddp.py works under the real torchrun, as a worker's command."""
    quick()
    hpo = study(search_space=ddp.SPACE, num_trials=1, max_iterations=3)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    worker = work(hpo, *torchrun, str(ROOT / "examples" / "ddp.py"))
    assert worker.wait(PATIENCE) == 0, worker.output
    (row,) = hpo.trials()
    assert (row.state, row.attempt, row.step) == ("completed", 1, 3), worker.output
    assert [point.step for point in curve(hpo, 0)] == [1, 2, 3]
    assert 0 < (row.score or 0) <= 1
    assert list(tmp_path.glob("checkpoints/**/last.pt"))


def test_the_page_shows_the_example() -> None:
    """What docs/distributed.md says to write is what runs here."""
    assert inspect.getsource(ddp.train) in (ROOT / "docs" / "distributed.md").read_text()
