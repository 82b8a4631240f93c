import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hpopt
from tests.conftest import Create
from tests.server import ROOT, Program, until
from tests.site import Site
from tests.studies import SMALL
from workers.__main__ import main
from workers.backoff import Backoff
from workers.crew import Crew
from workers.process import Launch
from workers.settings import Settings

Worker = Callable[..., Program]
TRAINER = str(ROOT / "tests" / "command_trainers.py")
TRAIN = f"{sys.executable} {TRAINER} train"
PATIENCE = 90.0
"""Seconds for a whole study: each of its trials starts two processes of Python."""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """Starts `hpopt-worker` in a folder of the test's own, for a study; it and its trainers are not left running."""
    started: list[Program] = []

    def begin(hpo: hpopt.HpOpt, *words: str, trainer: str = "") -> Program:
        command = ("--", sys.executable, TRAINER, trainer) if trainer else ()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        started.append(
            Program(
                [sys.executable, "-P", "-m", "workers", "--study", hpo.study, *words, *command],
                environment={"HPOPT_URL": hpo.url, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
                folder=tmp_path,
            )
        )
        return started[-1]

    yield begin
    for program in started:
        program.kill()


def log_of(hpo: hpopt.HpOpt, trial: int, attempt: int = 1) -> Path:
    """The file that the results name for an attempt; it is on this host."""
    host, _, path = hpo.trials()[trial].logs[attempt].partition(":")
    assert host == socket.gethostname()
    return Path(path)


def waiting(hpo: hpopt.HpOpt) -> Path:
    """The log of the first trial, once its trainer waits."""
    until(lambda: any(row.logs for row in hpo.trials()), "a trial begins")
    log = log_of(hpo, 0)
    until(lambda: log.exists() and "waiting" in log.read_text(), "the trainer waits")
    return log


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


# --- pauses after crashes


def test_pauses_grow_until_a_training_does_not_crash() -> None:
    """1, 2, 4 seconds and so on up to the longest; a success, or a crash after a long time, begins anew."""
    backoff = Backoff(longest=5)
    assert [backoff.after(0, crashed=True) for _ in range(5)] == [1, 2, 4, 5, 5]
    assert [backoff.after(60, crashed=True), backoff.after(0, crashed=True)] == [0, 1]
    assert [backoff.after(0, crashed=False), backoff.after(0, crashed=True)] == [0, 1]
    assert Backoff(longest=0).after(0.1, crashed=True) == 0


# --- commands that are run


def test_the_config_comes_in_every_way(create: Create, worker: Worker) -> None:
    """As words, as a file, in the environment; every trial is trained, and the results name its log."""
    hpo = create(num_trials=2, num_workers=2)
    program = worker(hpo, "--jobs", "2", "--", sys.executable, TRAINER, "train", "{lr}", "{config}", "{config_file}")
    assert program.wait(PATIENCE) == 0, program.output
    for row in hpo.trials():
        assert (row.state, row.attempt, row.step, row.score) == ("completed", 1, 4, row.params["lr"])
        log = log_of(hpo, row.id)
        words, same = log.read_text().splitlines()
        assert words.startswith(f"words {json.dumps(row.params['lr'])} {{")
        assert words.endswith(str(log.with_suffix(".json")))
        assert same == "same True"
        program.wait_for(rf"trial {row.id} \(attempt 1\) begins: lr=")
        program.wait_for(rf"trial {row.id} completed after 4 of 4 steps")
    program.wait_for("2 of 2 trials of the study have ended; trained here: 2; best: mAP")


def test_a_failing_command_is_a_crash_and_the_next_one_waits(create: Create, worker: Worker) -> None:
    """Its last words and its log are shown, its trial is tried once more, and crashes in a row make pauses."""
    hpo = create(num_trials=2)
    program = worker(hpo, "--", "sh", "-c", f"echo no data here; test $0 != 0 && exec {TRAIN}", "{trial_id}")
    assert program.wait(PATIENCE) == 0, program.output
    assert [(row.state, row.attempt) for row in hpo.trials()] == [("failed", 2), ("completed", 1)]
    program.wait_for(r"trial 0 \(attempt 2\) failed: the command ended with exit status 1")
    program.wait_for("    no data here")
    program.wait_for(rf"log: {log_of(hpo, 0, 2)}")
    assert log_of(hpo, 0).read_text() == "no data here\nhpopt-worker: the command ended with exit status 1\n"
    program.wait_for("the training crashed, 2 times in a row: the next one begins in 2 s")


def test_commands_without_a_report_pause_the_study(create: Create, worker: Worker) -> None:
    """A command that ends well but never reports is an error that the worker names, with a log, and ends with."""
    hpo = create()
    assert not hpo.paused
    program = worker(hpo, "--", "true")
    assert program.wait(PATIENCE) == 1
    assert hpo.paused.startswith("3 trials in a row failed before their first report")
    program.wait_for(r"^hpopt-worker: .* was hpopt.report called\?.*\. The log of the last trial here: \S+-2\.log$")


def test_nobody_sits_out_a_pause_of_a_study_that_is_paused(tmp_path: Path) -> None:
    """After a crash a worker waits, unless nothing is handed out any more: that is what it has to say then."""
    said: list[str] = []
    states = iter(["", "", "three trials failed"])
    study: Any = type("Study", (), {"paused": property(lambda _: next(states, "three trials failed"))})()
    crew = Crew(study, Launch(), Settings(1, tmp_path, longest_pause=1000), said.append, said.append)
    backoff = Backoff(longest=1000)
    for _ in range(9):
        backoff.after(0, crashed=True)
    for _ in range(2):
        crew._pause(backoff, 0.0, crashed=True)
    assert said == ["the training crashed, 10 times in a row: the next one begins in 512 s"]


def test_a_worker_can_wait_while_the_study_is_paused(create: Create, worker: Worker, tmp_path: Path) -> None:
    """With --when-paused wait it goes on by itself when the study was resumed."""
    hpo = create(num_trials=4)
    words = ("--when-paused", "wait", "--longest-pause", "0")
    program = worker(hpo, *words, "--", "sh", "-c", f"test -e mended && exec {TRAIN}")
    for count in range(1, 7):  # two attempts of three trials, each of them with time of its own on a busy machine
        program.wait_for(r"failed: the command", count)
    program.wait_for("Waiting until that is done")
    (tmp_path / "mended").touch()
    again = create(num_trials=4, resume=True)
    assert program.wait(PATIENCE) == 0, program.output
    assert [row.state for row in again.trials()] == ["failed"] * 3 + ["completed"]


def test_memory_that_ran_out_is_known_by_the_last_words(create: Create, worker: Worker, tmp_path: Path) -> None:
    """The trial is tried again with a smaller batch, and another folder of checkpoints; the best trial's are kept."""
    first = [{"lr": 0.01, "bs": 256}, {"lr": 0.001, "bs": 64}]
    hpo = create(num_trials=2, batch_size_name="bs", default_hyper_parameters=first)
    keep = ("--checkpoints", "saved", "--keep-checkpoints", "best")
    program = worker(hpo, *keep, trainer="run_out_of_memory")
    assert program.wait(PATIENCE) == 0, program.output
    program.wait_for(r"trial 0 \(attempt 1\) out of memory: the command ended with exit status 1")
    assert [(row.state, row.attempt) for row in hpo.trials()] == [("completed", 2), ("completed", 1)]
    left = [path.parent.name[:8] for path in (tmp_path / "saved").rglob("saved") if path.is_file()]
    assert left == ["trial-0-"] * 2


def test_a_command_that_creates_a_study_is_told_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script for operators makes no study inside of another one's trial."""
    monkeypatch.setenv("HPOPT_RUNNER", "command")
    with pytest.raises(RuntimeError, match="by a command that hpopt-worker runs for a trial"):
        hpopt.create(**SMALL)


# --- being told to end


def test_a_preempted_trial_goes_on_elsewhere(create: Create, worker: Worker) -> None:
    """SIGTERM reaches the trainer, which saves; the next attempt, of another worker, finds that and goes on."""
    hpo = create(num_trials=1)
    first = worker(hpo, "--checkpoints", "saved", trainer="wait")
    log = waiting(hpo)
    first.signal(signal.SIGTERM)
    assert first.wait() == 128 + signal.SIGTERM, first.output
    first.wait_for("interrupted: 1 under way, to be given back within 10 s")
    assert [(row.state, row.reason) for row in hpo.trials()] == [("waiting", "released by its trainer")]
    second = worker(hpo, "--checkpoints", "saved", "--logs", "other", trainer="wait")
    assert second.wait(PATIENCE) == 0, second.output
    (row,) = hpo.trials()
    assert (row.state, row.attempt, row.score) == ("completed", 2, 0.5)
    assert log.read_text().splitlines()[0] == "folder True"
    assert log_of(hpo, 0, 2) == log.parents[2] / "other" / "trial-0-2.log"


@pytest.mark.parametrize(("grace", "signals"), [("0.5", 1), ("1000", 2)])
def test_a_stubborn_trainer_is_killed(grace: str, signals: int, create: Create, worker: Worker, tmp_path: Path) -> None:
    """After the grace period, or at once when told again; what it has started goes too, and its trial is given back."""
    hpo = create(num_trials=1)
    program = worker(hpo, "--grace", grace, trainer="wait_stubbornly")
    waiting(hpo)
    started = time.monotonic()
    program.signal(signal.SIGTERM)
    program.wait_for("interrupted: 1 under way")
    for _ in range(signals - 1):
        program.signal(signal.SIGTERM)
    assert program.wait(PATIENCE) == 128 + signal.SIGTERM
    assert time.monotonic() - started < 10
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        until(lambda pid=pid: gone(pid), "it is killed")  # type: ignore[misc]
    assert [row.state for row in hpo.trials()] == ["waiting"], program.output


def test_nothing_outlives_a_worker_that_is_killed(create: Create, worker: Worker, tmp_path: Path) -> None:
    """Kill -9 of the worker ends the command and what it has started; the trial is given back at once."""
    hpo = create(num_trials=1)
    program = worker(hpo, "--grace", "0.5", trainer="wait_stubbornly")
    waiting(hpo)
    program.kill()
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        until(lambda pid=pid: gone(pid), "it is killed")  # type: ignore[misc]


# --- a server that goes away, or is not there yet


def test_a_worker_outlasts_the_server(site: Site, worker: Worker, tmp_path: Path) -> None:
    """A server that is killed and comes back costs no trial, and the worker needs no help."""
    with hpopt.create(**{**SMALL, "num_trials": 2, "url": site.url, "save_path": tmp_path, "study": "away"}) as hpo:
        program = worker(hpo, trainer="train")
        until(lambda: bool(hpo.trials()), "a trial is handed out")
        site.kill_server()
        program.wait_for("waiting for up to HPOPT_REPORT_DEADLINE|does not serve us|is unreachable")
        site.start()
        assert program.wait(PATIENCE) == 0, program.output
        assert [(row.state, row.attempt) for row in hpo.trials()] == [("completed", 1)] * 2


def test_a_worker_may_come_before_its_study(create: Create, worker: Worker) -> None:
    """With --wait it begins when the study is made."""
    first = create()
    soon: Any = SimpleNamespace(study=f"{first.study}-soon", url=first.url)
    program = worker(soon, "--wait", "30", trainer="train")
    program.wait_for("there is no study .*; waiting for up to 30 s")
    create(study=soon.study, num_trials=1)
    assert program.wait(PATIENCE) == 0, program.output


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        (("train.py", "x"), (2, r"what is x\? \(a command goes after --")),
        ((), (2, "say what trains: file.py:function, or a command after --")),
        (("a.py:f", "--", "true"), (2, "'a.py:f' and a command after --: give one of them")),
        (("--", "true", "{x}"), (1, r"^hpopt-worker: \{x\} stands for nothing in this study: there are config")),
        (("a.py:f",), (1, r"there is no file \S+a\.py")),
        (
            (f"{TRAINER}:tarin",),
            (1, r"^hpopt-worker: train='\S+:tarin': there is no tarin in it; did you mean train\?$"),
        ),
        ((f"{TRAINER}:x",), (1, r"there is no x in it; it has train, wait, wait_stubbornly, run_out_of_memory$")),
        ((f"{TRAINER}:os",), (1, r"os is no function, but <module 'os'")),
        (("no_such.module:train",), (1, r"there is no module 'no_such' in this folder .*; pass \"file\.py:function\"")),
        (("--grace", "-1", "--", "true"), (1, r"grace=-1.0: pass a number of seconds")),
        (("--longest-pause", "nan", "--", "true"), (1, r"--longest-pause nan: pass a number of seconds")),
        (("--jobs", "0", "--", "true"), (1, "jobs=0: pass at least 1")),
        (
            ("--study", "unheard-of", "--", "true"),
            (1, "there is no study 'default/unheard-of' .* check the study's name"),
        ),
        (("--study", "test_mistakes_are_told_x", "--", "true"), (1, r"did you mean 'test_mistakes_are_told\w+'\?$")),
        (("--namespace", "ours", "--", "true"), (1, "in namespace 'ours' there is none; check the study's name")),
        (("--logs", "/dev/null/x", "--", "true"), (1, r"--logs /dev/null/x: no such folder can be made here \(Not")),
        (
            ("--checkpoints", "/dev/null", "--", "true"),
            (1, r"--checkpoints /dev/null: no such folder can be made here"),
        ),
        (("--url", "redis://127.0.0.1:1", "--", "true"), (1, "redis://127.0.0.1:1 is unreachable")),
        (("--url", "", "--", "true"), (1, r"where is the server\? Pass --url")),
    ],
)
def test_mistakes_are_told(
    words: tuple[str, ...],
    outcome: tuple[int, str],
    create: Create,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What cannot work ends with one line and a status, and costs no trial."""
    hpo = create()
    monkeypatch.setattr("hpopt.api.UNREACHABLE_AFTER", 0.2)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delenv("HPOPT_URL", raising=False)
    try:
        found = main(["--url", hpo.url, "--study", hpo.study, *words])
    except SystemExit as error:
        found = error.code if isinstance(error.code, int) else 0
    assert found == outcome[0]
    said = capsys.readouterr()
    assert re.search(outcome[1], said.err, re.MULTILINE)
    assert "Traceback" not in said.err
    assert not said.out
    assert hpo.trials() == []
