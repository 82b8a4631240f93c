"""Ranks without torch: who speaks, who waits, and what is said of it."""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hpopt
from hpopt import client, contacts, distributed, outage
from hpopt.core.messages import Verdict
from hpopt.launchers import LIFE, RANK_VARIABLES
from hpopt.role import Role
from tests.conftest import Create, InBackground
from tests.fake_torch import load_torch
from tests.server import ROOT, Program, until
from tests.studies import curve, forget_heartbeats, sample, states, train

RUNNING, STOP = hpopt.Status.RUNNING, hpopt.Status.STOP
Config = dict[str, Any]
Start = Callable[..., Program]
RANK = """
import json, sys
import hpopt
from hpopt import client, contacts, distributed, outage

client.RESEND = client.ASK_WHO_IS_THERE = outage.BLOCK = 0.1
distributed.INDEPENDENT_AFTER = 0.5
config, calls = map(json.loads, sys.argv[1:])
for _ in range(calls):
    status = hpopt.report(config, 0.5)
    print(contacts.contact(config).step, status.name, flush=True)
    if status == hpopt.status.STOP:
        break
"""
"""Says at which step it was answered what."""
SLURM = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_JOB_ID": "2", "SLURM_STEP_ID": "0"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher has said anything yet, and nobody is waited for long."""
    monkeypatch.setenv(outage.DEADLINE, "20")
    for name in (*RANK_VARIABLES, LIFE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(client, "RESEND", 0.1)
    monkeypatch.setattr(client, "ASK_WHO_IS_THERE", 0.1)
    monkeypatch.setattr(outage, "BLOCK", 0.1)
    monkeypatch.setattr(distributed, "INDEPENDENT_AFTER", 0.5)


@pytest.fixture
def start_rank() -> Iterator[Start]:
    """Starts a process that reports so many times, with the variables of a launcher; it is not left running."""
    started: list[Program] = []

    def begin(config: Config, calls: int = 9, **variables: object) -> Program:
        environment = {"PYTHONPATH": str(ROOT), **{name: str(value) for name, value in variables.items()}}
        words = [sys.executable, "-c", RANK, json.dumps(config), str(calls)]
        started.append(Program(words, environment=environment))
        return started[-1]

    yield begin
    for program in started:
        program.kill()


def asked(hpo: hpopt.HpOpt, config: Config) -> None:
    """Wait until a rank has asked how the trial stands, and was answered."""
    stream = hpo._keys.verdicts(hpo.uid, config["trial_id"])
    until(lambda: hpo._server.client.get("EXISTS", stream) == 1, "a question")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a rank has told of its role."""
    return [record.message for record in caplog.records if record.module == "role"]


# --- tasks that may be independent


def test_unrelated_task_speaks_for_itself(
    create: Create, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that a scheduler has numbered, and that hears of no rank 0, is one of its own, and says so."""
    hpo = create(num_trials=1)
    config = sample(hpo)
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert train(config, lambda _, step: step)[-1] is STOP
    assert [point.score for point in curve(hpo, 0)] == [1, 2, 3, 4]
    assert contacts.contact(config).role.speaks
    first, second = said(caplog)
    assert first.startswith("hpopt: rank 3 waits up to 0.5 s for a rank 0 of trial 0, then trains it by itself (")
    assert "set RANK=0 and WORLD_SIZE=1" in first
    assert second == "hpopt: no rank 0 has come: rank 3 trains trial 0 by itself"


def test_eight_tasks_of_one_srun(create: Create, start_rank: Start) -> None:
    """Independent tasks with a config each complete all their trials; the one that is told so at once, too."""
    hpo = create(num_trials=8, num_workers=8)
    configs = [sample(hpo) for _ in range(8)]
    told = {7: {"RANK": 0, "WORLD_SIZE": 1}}
    tasks = [start_rank(config, **SLURM, SLURM_PROCID=i, **told.get(i, {})) for i, config in enumerate(configs)]
    assert [task.wait() for task in tasks] == [0] * 8, tasks[-1].output
    for i, task in enumerate(tasks):
        assert task.lines[-4:] == ["1 RUNNING", "2 RUNNING", "3 RUNNING", "4 STOP"]
        assert ("no rank 0 has come" in task.output) is (i not in {0, 7})
        assert [point.step for point in curve(hpo, i)] == [1, 2, 3, 4]
    assert states(hpo) == ["completed"] * 8
    assert hpo.get_next_sample() is None


def test_a_task_that_is_started_again_speaks_for_itself_again(create: Create, start_rank: Start) -> None:
    """An independent task of a job that Slurm has queued again is no rank of the job before."""
    hpo = create(num_trials=1)
    config = sample(hpo)
    before = start_rank(config, 2, **SLURM, SLURM_PROCID=3)
    assert before.wait() == 0
    forget_heartbeats(hpo)
    again = start_rank(config, **SLURM, SLURM_PROCID=3, SLURM_RESTART_COUNT=1)
    assert again.wait() == 0
    assert again.lines[-2:] == ["3 RUNNING", "4 STOP"]


# --- ranks of one job


@pytest.mark.parametrize(
    ("variables", "life", "more", "begun"),
    [
        ({"RANK": "1"}, "", {}, None),
        ({"RANK": "1"}, "any", {}, True),
        ({"RANK": "1"}, "any", {"stop_step": 3}, True),
        ({"RANK": "1"}, "", {"stop_step": 1}, False),
        ({"RANK": "1", "HPOPT_LIFE": "mine"}, "mine", {}, True),
        ({"RANK": "1", "HPOPT_LIFE": "mine"}, "another", {}, None),
        ({"RANK": "1", "HPOPT_LIFE": "mine"}, "another", {"stop_step": 3}, False),
        ({"RANK": "1", "HPOPT_LIFE": "mine"}, "another", {"refused": ("mine",)}, False),
        ({"RANK": "1", "HPOPT_LIFE": "mine", "TORCHELASTIC_RESTART_COUNT": "1"}, "mine:1", {}, True),
        ({"RANK": "1", "HPOPT_LIFE": "mine", "TORCHELASTIC_RESTART_COUNT": "1"}, "mine:10", {}, None),
        ({"RANK": "1", "HPOPT_LIFE": "mine", "TORCHELASTIC_RESTART_COUNT": "1"}, "mine", {}, None),
        ({"SLURM_PROCID": "1", **SLURM}, "{launch}first", {}, True),
        ({"SLURM_PROCID": "1", **SLURM}, "{launch}second", {"refused": ("{launch}first",)}, True),
        ({"SLURM_PROCID": "1", **SLURM}, "another:first", {}, None),
        ({"SLURM_PROCID": "1", **SLURM}, "another:first", {"refused": ("{launch}first",)}, False),
        ({"RANK": "0", "HPOPT_LIFE": "mine"}, "mine", {}, True),
        ({"RANK": "0", "HPOPT_LIFE": "mine"}, "mine", {"stop_step": 3}, False),
        ({"RANK": "0", "HPOPT_LIFE": "mine"}, "another", {}, None),
        ({"RANK": "0", "HPOPT_LIFE": "mine"}, "another", {"refused": ("mine",)}, False),
    ],
)
def test_what_a_verdict_means_to_a_rank_that_begins(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], life: str, more: Config, *, begun: bool | None
) -> None:
    """It begins with its own life, late or not; it does not when that was refused, or the trial ended under another."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    launch = distributed.job()[0]
    refused = tuple(text.format(launch=launch) for text in more.get("refused", ()))
    verdict = Verdict(1, life.format(launch=launch), 0, 2, more.get("stop_step"), "", refused)
    assert Role().begun(verdict) is begun


def test_rank_waits_for_rank_0(
    create: Create, start_rank: Start, monkeypatch: pytest.MonkeyPatch, in_background: InBackground
) -> None:
    """A rank of a training job never speaks. It may ask long before rank 0 does; without one it fails, and says why."""
    hpo = create(num_trials=1)
    config = sample(hpo)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(outage.DEADLINE, "1")
    expected = r"within 1 s \(HPOPT_REPORT_DEADLINE=1 s\): this is rank 1, and rank 0 has not reported .* rank 0 has to"
    with pytest.raises(hpopt.HpoptUnavailable, match=expected):
        hpopt.report(config, 0.5)
    assert states(hpo) == ["issued"]
    asked(hpo, config)
    monkeypatch.setenv(outage.DEADLINE, "20")
    heard: list[hpopt.Status] = []
    in_background(lambda: heard.extend(train(config)))
    first = start_rank(config, RANK=0, WORLD_SIZE=2)
    assert first.wait() == 0
    until(lambda: len(heard) == 4, "the answers of rank 1")
    assert heard == [RUNNING, RUNNING, RUNNING, STOP]
    assert [point.step for point in curve(hpo, 0)] == [1, 2, 3, 4]


def test_waiting_for_rank_0_is_said_once(
    create: Create, start_rank: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A rank that has waited for some time tells for whom, and not every time."""
    monkeypatch.setattr("hpopt.role.REMIND", 0.2)
    config = sample(create(num_trials=1))
    monkeypatch.setenv("RANK", "2")
    assert start_rank(config, 1, RANK=0).wait() == 0
    assert hpopt.report(config, 0.5) is RUNNING
    monkeypatch.setenv(outage.DEADLINE, "0.6")
    for _ in range(2):
        with pytest.raises(hpopt.HpoptUnavailable, match="rank 0 has not reported this iteration"):
            hpopt.report(config, 0.5)
    assert said(caplog) == ["hpopt: rank 2 waits for rank 0 to report the next iteration of trial 0"]


def test_ranks_of_a_job_that_is_queued_again_start_from_the_same_step(create: Create, start_rank: Start) -> None:
    """The second launch of a Slurm job in one attempt goes on, on every rank, from the last step of the first.

    Rank 1 may come long before rank 0, which waits for the silence of the first launch, and is not misled by what that
    has left behind.
    """
    hpo = create(num_trials=1)
    config = sample(hpo)
    before = [start_rank(config, 2, **SLURM, SLURM_PROCID=rank, MASTER_ADDR="node") for rank in range(2)]
    assert [rank.wait() for rank in before] == [0, 0]
    assert [rank.lines for rank in before] == [["1 RUNNING", "2 RUNNING"]] * 2
    forget_heartbeats(hpo)
    again = {**SLURM, "SLURM_RESTART_COUNT": 1, "MASTER_ADDR": "node"}
    one = start_rank(config, **again, SLURM_PROCID=1)
    newest = hpo._keys.verdicts(hpo.uid, 0)
    known = hpo._server.client.get("XINFO", "STREAM", newest)
    until(lambda: hpo._server.client.get("XINFO", "STREAM", newest) != known, "a question of rank 1")
    zero = start_rank(config, **again, SLURM_PROCID=0)
    assert [zero.wait(), one.wait()] == [0, 0]
    assert zero.lines == one.lines == ["3 RUNNING", "4 STOP"]


def test_ranks_that_are_started_again_after_the_end_stop_at_once(create: Create, start_rank: Start) -> None:
    """When torchrun starts ranks again although the trial has ended, none of them goes over its steps once more."""
    hpo = create(num_trials=1)
    config = sample(hpo)
    torchrun = {"WORLD_SIZE": 2, "MASTER_ADDR": "node", "TORCHELASTIC_RUN_ID": "run"}
    for count, expected in ((0, ["1 RUNNING", "2 RUNNING", "3 RUNNING", "4 STOP"]), (1, ["0 STOP"])):
        ranks = [start_rank(config, **torchrun, RANK=rank, TORCHELASTIC_RESTART_COUNT=count) for rank in range(2)]
        assert [rank.wait() for rank in ranks] == [0, 0]
        assert [rank.lines for rank in ranks] == [expected] * 2
    assert len(curve(hpo, 0)) == 4


@pytest.mark.parametrize(("first", "then"), [(None, 2), (0, 2), (2, 0)])
def test_the_process_group_decides_who_speaks(
    create: Create, start_rank: Start, monkeypatch: pytest.MonkeyPatch, first: int | None, then: int
) -> None:
    """Ranks that the environment says nothing of, or something else, are known once there is a process group."""
    monkeypatch.setenv(LIFE, "launch")
    hpo = create(num_trials=1)
    config = sample(hpo)
    if first is not None:
        monkeypatch.setenv("RANK", str(first))
    other = {"HPOPT_LIFE": "launch", "WORLD_SIZE": 3}
    assert start_rank(config, 2, **other, RANK=0).wait() == 0
    assert [hpopt.report(config, 0.7) for _ in range(2)] == [RUNNING] * 2
    load_torch(monkeypatch, rank=then)
    if then:
        assert start_rank(config, 3, **other, RANK=0).wait() == 0
    assert hpopt.report(config, 0.7) is RUNNING
    load_torch(monkeypatch, rank=None)
    assert (contacts.contact(config).role.rank, contacts.contact(config).role.speaks) == (then, then == 0)
    assert [(point.step, point.score) for point in curve(hpo, 0)] == [(1, 0.5), (2, 0.5), (3, 0.5 if then else 0.7)]


def test_an_exception_that_the_launcher_mends_ends_no_trial(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that is left by an exception ends the trial, unless torchrun is to start the ranks again."""
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    hpo = create(num_trials=1)
    config = sample(hpo)
    for count, expected in (("0", "running"), ("1", "failed")):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        contacts._contacts.clear()
        with pytest.raises(ZeroDivisionError), hpopt.trial(config) as trial:
            fail(trial.report(0.5))
        assert states(hpo) == [expected]


def fail(status: hpopt.Status) -> None:
    """What a training does with a bug in it."""
    raise ZeroDivisionError(status)
