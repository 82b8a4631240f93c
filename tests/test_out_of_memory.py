"""Memory that runs out in a training: what is reported, what goes on, and whole studies whose batches do not fit."""

import json
import logging
import os
import re
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hpopt
import workers
from hpopt import trainer
from tests import hungry_trainers
from tests.conftest import Create
from tests.hungry_trainers import DEVICE, FITS, SIZES
from tests.server import ROOT, Program
from tests.studies import sample, start_python, states

RUNNING, STOP = hpopt.Status.RUNNING, hpopt.Status.STOP
PATIENCE = 240.0
LARGE = {"lr": 0.01, "bs": 256}
HUNGRY: dict[str, Any] = {
    "search_space": {
        "x": hpopt.search_space("uniform", [0, 1]),
        "bs": hpopt.search_space("choice", [64, 1024, 16, 256]),
    },
    "batch_size_name": "bs",
    "default_hyper_parameters": {"x": 0.5, "bs": 1024},
    "num_trials": 4,
    "max_iterations": 2,
}
"""A study of trainings that run out of memory in earnest."""


class Tensor:
    """Something that a weak reference can be made to."""


def train(config: dict[str, Any], fits: float, kept: list["weakref.ref[Tensor]"] | None = None) -> None:
    """Report to the end, unless the batch is larger than what fits."""
    activations = Tensor()
    if kept is not None:
        kept.append(weakref.ref(activations))
    if config["bs"] > fits:
        raise MemoryError(f"a batch of {config['bs']}")
    for _ in range(config["iterations"]):
        hpopt.report(config, config["lr"])


def configs(hpo: hpopt.HpOpt) -> Iterator[dict[str, Any]]:
    """What is handed out until the study has ended."""
    while (config := hpo.get_next_sample(timeout=PATIENCE)) is not None:
        yield config


# --- the block


def test_a_loop_goes_on_after_memory_ran_out(create: Create, caplog: pytest.LogCaptureFixture) -> None:
    """The block ends the error, the same trial comes again with a smaller batch, and the log says so."""
    hpo = create(num_trials=3, batch_size_name="bs", default_hyper_parameters=LARGE)
    handed, ran_out = [], []
    for config in configs(hpo):
        with hpopt.trial(config) as block:
            train(config, fits=64)
        handed.append((config["trial_id"], config["attempt"], config["bs"]))
        ran_out.append(block.out_of_memory)
    assert handed[:3] == [(0, 1, 256), (0, 2, 128), (0, 3, 64)]
    assert ran_out == [size > 64 for _, _, size in handed]
    assert states(hpo) == ["completed"] * 3
    assert hpo.trials()[0].too_large == (256, 128)
    first, *_ = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert first == "hpopt: trial 0: out of memory, next batch size 128 (MemoryError: a batch of 256)"


def test_memory_is_free_before_others_are_told(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the failed training had in its variables is gone when the trial is handed out again."""
    hpo = create(num_trials=1, batch_size_name="bs", default_hyper_parameters=LARGE)
    kept: list[weakref.ref[Tensor]] = []
    told = []
    report_oom = trainer.reportOOM

    def tell(config: dict[str, Any]) -> None:
        told.append([each() for each in kept])
        report_oom(config)

    monkeypatch.setattr(trainer, "reportOOM", tell)
    for config in configs(hpo):
        with hpopt.trial(config):
            train(config, 128, kept)
    assert told == [[None]]


def test_a_trial_that_never_fits_ends_the_loop(create: Create) -> None:
    """Without batch_size_name it is tried once more and has failed, and so for all; the loop comes to its end."""
    hpo = create(num_trials=2)
    attempts = []
    for config in configs(hpo):
        with hpopt.trial(config) as block:
            train(config, fits=0)
        assert block.out_of_memory
        attempts.append((config["trial_id"], config["attempt"]))
    assert sorted(attempts) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [(row.state, row.reason) for row in hpo.trials()] == [
        ("failed", "out of memory, and batch_size_name is not set")
    ] * 2


def attempt(config: dict[str, Any], work: Callable[[], object]) -> hpopt.trial:
    """Do this in the block of the trial."""
    with hpopt.trial(config) as block:
        work()
    return block


def test_other_errors_are_crashes_and_interruptions_interruptions(create: Create) -> None:
    """An error that is none of memory passes; so does Ctrl-C while memory that ran out is being dealt with."""
    hpo = create(num_trials=1, batch_size_name="bs", default_hyper_parameters=LARGE)
    config = sample(hpo)
    with pytest.raises(KeyError):
        attempt(config, lambda: config["no such key"])
    assert not hpopt.trial(config).out_of_memory

    def interrupted(config: dict[str, Any]) -> None:
        try:
            train(config, fits=0)
        except MemoryError as error:
            raise KeyboardInterrupt from error

    with pytest.raises(KeyboardInterrupt):
        attempt(again := sample(hpo), lambda: interrupted(again))
    assert [(row.state, row.reason, row.attempt) for row in hpo.trials()] == [("waiting", "released by its trainer", 2)]


def test_a_program_that_ends_itself_over_it_has_run_out_of_memory(create: Create) -> None:
    """A trainer that says sys.exit() when memory ran out ends, and its trial goes on with a smaller batch."""
    hpo = create(num_trials=1, batch_size_name="bs", default_hyper_parameters=LARGE)
    config = sample(hpo)

    def give_up() -> None:
        try:
            train(config, fits=0)
        except MemoryError:
            sys.exit("no memory")

    with pytest.raises(SystemExit):
        attempt(config, give_up)
    assert hpopt.trial(config).out_of_memory
    assert sample(hpo)["bs"] == 128


def test_a_trainer_may_report_it_by_itself(create: Create) -> None:
    """The block says nothing more then, and lets pass what it is given."""
    hpo = create(num_trials=1, batch_size_name="bs", default_hyper_parameters=LARGE)
    config = sample(hpo)

    def report_and_raise() -> None:
        try:
            train(config, fits=0)
        except MemoryError:
            hpopt.reportOOM(config)
            raise

    with pytest.raises(MemoryError):
        attempt(config, report_and_raise)
    assert hpopt.trial(config).out_of_memory
    again = sample(hpo)
    assert again["bs"] == 128
    assert not attempt(again, lambda: train(again, fits=128)).out_of_memory


def test_memory_that_runs_out_after_the_end_changes_nothing(create: Create) -> None:
    """After STOP the trial has its score, and the error is the program's own affair."""
    hpo = create(num_trials=1, batch_size_name="bs", default_hyper_parameters=LARGE)
    config = sample(hpo)

    def train_and_save() -> None:
        train(config, fits=256)
        bytearray(10**18)

    with pytest.raises(MemoryError):
        attempt(config, train_and_save)
    assert not hpopt.trial(config).out_of_memory
    assert [(row.state, row.attempt, row.too_large) for row in hpo.trials()] == [("completed", 1, ())]


def test_a_process_that_the_kernel_has_killed(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the word of both: the training's that somebody was killed, and the kernel's that it was for memory."""
    hpo = create(num_trials=1, batch_size_name="bs", default_hyper_parameters=LARGE)

    def killed() -> None:
        raise RuntimeError("DataLoader worker (pid 28841) is killed by signal: Killed. ")

    counts = iter([4, 4, 4, 5])
    monkeypatch.setattr(trainer, "kernel_kills", lambda: next(counts))
    with pytest.raises(RuntimeError, match="is killed by signal"):
        attempt(sample(hpo), killed)
    assert states(hpo) == ["waiting"]
    assert attempt(sample(hpo), killed).out_of_memory
    assert states(hpo) == ["out_of_memory"]


RANK_3 = """
import json, sys
import hpopt

config = json.loads(sys.argv[1])
with hpopt.trial(config) as block:
    print("in", flush=True)
    bytearray(10**18)
"""


def test_one_of_several_ranks(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 3 reports it and ends with the error, for its launcher to end the others; rank 0 hears STOP."""
    hpo = create(num_trials=1, batch_size_name="bs", default_hyper_parameters=LARGE)
    config = sample(hpo)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert hpopt.report(config, 0.5) is RUNNING
    program = start_python(RANK_3, config, environment={"RANK": "3", "WORLD_SIZE": "4"})
    assert program.wait() == 1
    assert program.lines[0] == "in"
    assert program.lines[-1] == "MemoryError"
    assert hpopt.report(config, 0.6) is STOP
    assert sample(hpo)["bs"] == 128


# --- whole studies


def test_a_finite_space_ends(create: Create) -> None:
    """All that fits is trained once, all else is recorded, and who asks for what is free now hears that nothing is."""
    space = {"lr": hpopt.search_space("choice", [0.1, 0.2]), "bs": hpopt.search_space("quniform", [8, 40, 8])}
    hpo = create(search_space=space, num_trials=99, num_workers=3, batch_size_name="bs")
    handed = []
    while samples := hpo.get_next_samples():
        for config in samples:
            handed.append(tuple(config["params"].values()))
            with hpopt.trial(config):
                train(config, fits=16)
    rows = hpo.trials()
    assert len(rows) == len({tuple(row.params.values()) for row in rows}) == 10
    assert len(set(handed)) == len(handed)
    assert [row.params["bs"] <= 16 for row in rows] == [row.state == "completed" for row in rows]
    assert {row.reason for row in rows if not row.issued_at} == {
        "not trained: its batch does not fit into memory, and all that fits has been tried"
    }
    assert hpo.get_progress() == 1


def expect(hpo: hpopt.HpOpt, *too_large: int) -> None:
    """As many trials as asked for, all of them trained: the first one fits after these sizes, the others at once."""
    first, *others = rows = hpo.trials()
    assert len(rows) == hpo.spec.trials
    assert [(row.state, row.score) for row in rows] == [("completed", row.params["x"]) for row in rows]
    assert (first.attempt, first.params["bs"], first.too_large) == (len(too_large) + 1, FITS, too_large)
    assert all(row.params["bs"] <= FITS and row.attempt == 1 for row in others)


needs_limits = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU: torch.cuda.is_available()")
devices = pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=needs_limits), pytest.param("cuda", marks=needs_gpu)]
)

LOOP = """
import hpopt
from tests.hungry_trainers import train

hpo = hpopt.join("{study}")
while (config := hpo.get_next_sample()) is not None:
    with hpopt.trial(config):
        train(config)
"""


@devices
def test_a_process_that_goes_on_in_the_memory_it_has(create: Create, device: str) -> None:
    """One process trains all, under one limit: what did not fit is gone before the next attempt."""
    hpo = create(**HUNGRY)
    program = start_python(LOOP.format(study=hpo.study), environment={"HPOPT_URL": hpo.url, DEVICE: device})
    assert program.wait(PATIENCE) == 0, program.output
    expect(hpo, 1024, 256)
    tried = re.findall(r"^pid (\d+), batch (\d+)$", program.output, re.MULTILINE)
    assert [int(size) for _, size in tried][:3] == [1024, 256, 64]
    assert len(tried) == 6
    assert len({pid for pid, _ in tried}) == 1
    assert "trial 0: out of memory, next batch size 256 (" in program.output


@devices
def test_workers_that_train_a_function(
    create: Create, device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process in which memory ran out is replaced; the trainer knows nothing of it."""
    monkeypatch.setenv(DEVICE, device)
    hpo = create(**{**HUNGRY, "default_hyper_parameters": {"x": 0.5, "bs": 256}})
    best = workers.run(hungry_trainers.train, hpo)
    expect(hpo, 256)
    assert best == max((row.params for row in hpo.trials()), key=lambda params: params["x"])
    shown = capsys.readouterr().out
    assert re.search(r"trial 0 \(attempt 1\) out of memory: \w+Error: .*memory", shown)
    assert hpo.save_path is not None
    failed, fitted, *_ = [(hpo.save_path / "logs" / f"trial-{name}.log").read_text() for name in ("0-1", "0-2")]
    assert re.findall(r"^pid (\d+)", failed) != re.findall(r"^pid (\d+)", fitted)
    assert "hungry_trainers.py" in failed
    assert "runner.py" not in failed
    assert "hpopt: trial 0: out of memory, next batch size 64 (" in failed
    assert fitted.splitlines()[1:] == []


@devices
def test_workers_that_run_a_command(create: Create, device: str, tmp_path: Path) -> None:
    """A command that knows nothing of it either is known by its last words."""
    hpo = create(**{**HUNGRY, "num_trials": 1, "default_hyper_parameters": {"x": 0.5, "bs": 256}})
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    program = Program(
        [sys.executable, "-P", "-m", "workers", "--study", hpo.study, "--", sys.executable, hungry_trainers.__file__],
        environment={"HPOPT_URL": hpo.url, "PYTHONPATH": path, DEVICE: device},
        folder=tmp_path,
    )
    try:
        assert program.wait(PATIENCE) == 0, program.output
    finally:
        program.kill()
    expect(hpo, 256)
    program.wait_for(r"trial 0 \(attempt 1\) out of memory: the command ended with exit status 1")


@needs_limits
def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    """docs/out-of-memory.md has a script to try it with; it says what does not fit."""
    text = (ROOT / "docs" / "out-of-memory.md").read_text(encoding="utf-8")
    (code,) = (each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "__main__" in each)
    (tmp_path / "try_it.py").write_text(code)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    program = Program([sys.executable, "try_it.py"], environment={"PYTHONPATH": path}, folder=tmp_path)
    assert program.wait(PATIENCE) == 0, program.output
    assert program.lines[-6] == "trial 0 fits with 256, not with (1024, 512)"
    assert all(line.endswith("not with ()") for line in program.lines[-5:])


def test_results_say_what_did_not_fit(create: Create, tmp_path: Path) -> None:
    """The files that a study keeps name the batch sizes that each trial had before."""
    hpo = create(num_trials=2, batch_size_name="bs", default_hyper_parameters=LARGE)
    for config in configs(hpo):
        with hpopt.trial(config):
            train(config, fits=64)
    hpo.close()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["trials"][0]["too_large"] == [256, 128]
    head, first, _ = (tmp_path / "trials.csv").read_text().splitlines()
    assert head.split(",").count("too_large") == 1
    assert '"[256, 128]"' in first
    assert sorted(SIZES) == [16, 64, 256, 1024]
