"""Trainers that do not do what they should: the study ends, exactly, or says why it does not go on."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

import hpopt
from hpopt.embedded import EmbeddedServer
from tests.conftest import Create
from tests.server import DEADLINE, until
from tests.studies import SMALL, TRAINER, accuracy, curve, forget_heartbeats, run_python, states, train

STOP, RUNNING = hpopt.status.STOP, hpopt.status.RUNNING
Config = dict[str, Any]

REPORT_SOME = """
import json, sys
import hpopt

config, count = map(json.loads, sys.argv[1:])
for iteration in range(count):
    print(hpopt.report(config, iteration).name, flush=True)
"""
LEAVE = """
import json, sys
import hpopt
from tests.studies import SMALL

hpo = hpopt.create(**SMALL, **json.loads(sys.argv[1]))
print(hpopt.report(hpo.get_next_sample(), 0.5).name)
"""


def loop(hpo: hpopt.HpOpt, trainer: Callable[[Config], object]) -> list[tuple[int, int]]:
    """The sequential loop of somebody who goes on after an error; (trial, attempt) of each config. Never hangs."""
    handed = []
    while (config := hpo.get_next_sample(timeout=DEADLINE)) is not None:
        handed.append((config["trial_id"], config["attempt"]))
        with suppress(ArithmeticError, KeyboardInterrupt):
            trainer(config)
    return handed


# --- a sequential loop whose train function ends too soon


def returns(config: Config, reports: int) -> None:
    """Reports a few times and returns."""
    for step in range(1, reports + 1):
        hpopt.report(config, accuracy(config, step))


def raises(config: Config, reports: int) -> None:
    """Reports a few times and raises."""
    returns(config, reports)
    _ = 1 / 0


def is_interrupted(config: Config, reports: int) -> None:
    """Reports a few times, when somebody presses Ctrl-C."""
    returns(config, reports)
    raise KeyboardInterrupt


@pytest.mark.parametrize("ends", [returns, raises, is_interrupted])
@pytest.mark.parametrize("soon", [{0, 1, 2, 3, 4, 5, 6, 7}, {0}, {1, 3}, {6}, {7}], ids=str)
def test_a_trial_that_ends_too_soon_does_not_block_the_loop(
    create: Create, ends: Callable[[Config, int], None], soon: set[int]
) -> None:
    """Trials that report once and end, however they do, are finalized with their score when the loop goes on."""
    hpo = create(num_trials=8)
    handed = loop(hpo, lambda config: ends(config, 1) if config["trial_id"] in soon else train(config))
    assert handed == [(trial, 1) for trial in range(8)]
    assert states(hpo) == ["stopped" if trial in soon else "completed" for trial in range(8)]
    assert all(trial.score == accuracy({"params": trial.params}, trial.step) for trial in hpo.trials())


@pytest.mark.parametrize("silent", [{0}, {1, 2}, {5}, {0, 4, 7}], ids=str)
def test_a_trial_without_any_report_is_tried_once_more(create: Create, silent: set[int]) -> None:
    """A train function that reports nothing has failed: its trial comes again, then it has failed for good."""
    hpo = create(num_trials=8)
    handed = loop(hpo, lambda config: None if config["trial_id"] in silent else train(config))
    assert sorted(handed) == sorted([(trial, 1) for trial in range(8)] + [(trial, 2) for trial in silent])
    assert states(hpo) == ["failed" if trial in silent else "completed" for trial in range(8)]


def test_three_silent_trials_in_a_row_pause_the_study(create: Create) -> None:
    """A trainer that is broken does not use up the study: it is paused with the reason, and goes on with resume."""
    hpo = create(num_trials=8)
    with pytest.raises(hpopt.StudyPaused, match=r"3 trials in a row failed before their first report.*resume=True"):
        loop(hpo, lambda config: None if config["trial_id"] > 0 else train(config))
    with pytest.raises(hpopt.StudyPaused):
        hpo.get_next_sample()
    assert states(hpo).count("failed") == 3
    with create(num_trials=8, resume=True) as again:
        loop(again, train)
        assert again.get_progress() == 1
        assert sorted(states(again)) == ["completed"] * 5 + ["failed"] * 3


def test_a_session_that_met_the_pause_goes_on_when_another_one_resumes(create: Create) -> None:
    """A refusal answers one request: the next one hears how the study stands by then."""
    hpo = create(num_trials=4)
    with pytest.raises(hpopt.StudyPaused):
        loop(hpo, lambda config: hpopt.finalize_trial(config, crashed=True))
    with create(num_trials=4, resume=True):
        loop(hpo, train)
    assert sorted(states(hpo)) == ["completed"] + ["failed"] * 3


def test_a_loop_that_never_trains_is_paused(create: Create) -> None:
    """If no trial ever starts, launch_timeout ends the wait, and the reason says so."""
    hpo = create(launch_timeout=0.4, num_init_trials=1)
    with pytest.raises(hpopt.StudyPaused, match=r"not started within 0\.4 s"):
        loop(hpo, lambda _: None)
    assert states(hpo) == ["failed"] * 3


def test_failures_are_counted_anew_after_a_report(create: Create) -> None:
    """Only failures in a row pause a study: a trial that reports in between starts the count again."""
    hpo = create(num_trials=8, num_init_trials=1)
    loop(hpo, lambda config: None if config["trial_id"] % 3 else train(config))
    assert states(hpo) == ["completed", "failed", "failed"] * 2 + ["completed", "failed"]


def test_waiting_for_the_best_ends_what_was_left_behind(create: Create) -> None:
    """get_best_config(wait=True) does not wait for a trial that only its own thread could end."""
    hpo = create(num_trials=1)
    config = hpo.get_next_sample() or {}
    hpopt.report(config, 0.5)
    assert hpo.get_best_config(wait=True, timeout=DEADLINE) == config["params"]
    assert states(hpo) == ["stopped"]


def test_what_was_left_behind_between_two_tries_of_a_request_is_ended(create: Create) -> None:
    """A request that ran into its timeout ends, when it is repeated, what its thread has left behind since."""
    hpo = create(num_trials=2, num_init_trials=1)
    config = hpo.get_next_sample() or {}
    with pytest.raises(TimeoutError):
        hpo.get_next_sample(timeout=0.2)
    hpopt.report(config, 0.5)
    assert loop(hpo, train) == [(1, 1)]
    assert states(hpo) == ["stopped", "completed"]


def test_a_thread_may_train_several_trials_in_turn(create: Create) -> None:
    """As long as a worker is free and a trial is left, asking for it ends none of the trials under way."""
    hpo = create(num_trials=9, num_workers=3, num_init_trials=3)
    active = hpo.get_next_samples()
    while active:
        for config in list(active):
            if hpopt.report(config, accuracy(config, 1)) == STOP:
                active.remove(config)
                active += hpo.get_next_samples() if len(hpo.trials()) < 9 else []
    assert states(hpo) == ["completed"] * 9


@pytest.mark.parametrize(("name", "attempts"), [(None, 2), ("bs", 6)])
def test_a_trial_that_never_fits_into_memory_ends(create: Create, name: str | None, attempts: int) -> None:
    """Out of memory again and again: the batch is halved until there is no smaller one, and the study still ends."""
    hpo = create(num_trials=4, batch_size_name=name, default_hyper_parameters={"lr": 0.01, "bs": 256})
    handed = loop(hpo, hpopt.reportOOM)
    assert [trial for trial, _ in handed].count(0) == attempts
    assert len(handed) <= 4 * attempts
    assert states(hpo) == ["failed"] * 4
    assert hpo.trials()[0].params["bs"] == (256 if name is None else 8)


# --- operators that do not train


def test_a_pure_operator_ends_nothing_by_waiting(create: Create) -> None:
    """What an operator launched elsewhere is not finalized by its waiting, not even after it has ended one itself."""
    hpo = create(num_trials=3, num_workers=2, num_init_trials=1)
    one, two = hpo.get_next_sample() or {}, hpo.get_next_sample() or {}
    hpopt.finalize_trial(one, crashed=True)  # its job crashed before it began
    again = hpo.get_next_sample() or {}
    assert (again["trial_id"], again["attempt"]) == (0, 2)
    with pytest.raises(TimeoutError, match=r"0 \(issued\), 1 \(issued\)"):
        hpo.get_next_sample(timeout=0.5)
    assert [run_python(TRAINER, config)[-1] for config in (again, two)] == ["STOP"] * 2
    assert run_python(TRAINER, hpo.get_next_sample(timeout=DEADLINE))[-1] == "STOP"
    assert hpo.get_next_sample() is None
    assert [(trial.state, trial.attempt) for trial in hpo.trials()] == [("completed", n) for n in (2, 1, 1)]


def test_a_trial_that_is_not_launched_in_time_goes_to_somebody_else(create: Create) -> None:
    """After launch_timeout a trial is handed out again; the launch that comes too late is told to stop."""
    hpo = create(num_trials=1, launch_timeout=1)
    late = hpo.get_next_sample() or {}
    again = hpo.get_next_sample(timeout=DEADLINE) or {}
    assert hpopt.report(again, 0.5) == RUNNING
    assert (again["trial_id"], again["attempt"], again["params"]) == (0, 2, late["params"])
    assert run_python(TRAINER, late) == ["STOP"]
    assert train(again)[-1] == STOP
    assert [point.attempt for point in curve(hpo, 0)] == [2] * 4


# --- processes that end, or are too many


@pytest.mark.parametrize("launcher", ["torchrun", "kubelet"])
def test_a_restarted_process_goes_on_where_the_last_one_stopped(create: Create, launcher: str) -> None:
    """A process that ends after 3 reports and is started again in the same attempt counts on from step 3."""
    environments: list[dict[str, str]] = [{}, {}]
    if launcher == "torchrun":
        environments = [{"RANK": "0", "TORCHELASTIC_RESTART_COUNT": str(count)} for count in (0, 1)]
    hpo = create(num_trials=1, max_iterations=6)
    config = hpo.get_next_sample() or {}
    assert run_python(REPORT_SOME, config, 3, environment=environments[0]) == ["RUNNING"] * 3
    if launcher == "kubelet":
        forget_heartbeats(hpo)
    assert run_python(TRAINER, config, environment=environments[1]) == ["RUNNING", "RUNNING", "STOP"]
    assert [(point.attempt, point.step, point.score) for point in curve(hpo, 0)] == [
        (1, 1, 0), (1, 2, 1), (1, 3, 2), (1, 4, 0), (1, 5, 1), (1, 6, 2),
    ]  # fmt: skip
    assert hpo.get_next_sample() is None


def test_of_two_processes_with_one_config_the_first_goes_on(create: Create) -> None:
    """A config that was launched twice by mistake is trained once: the second process hears STOP."""
    hpo = create(num_trials=1)
    config = hpo.get_next_sample() or {}
    assert hpopt.report(config, 0.5) == RUNNING
    assert run_python(TRAINER, config) == ["STOP"]
    assert [hpopt.report(config, 0.5) for _ in range(3)] == [RUNNING, RUNNING, STOP]
    assert len(curve(hpo, 0)) == 4


def test_an_operator_that_leaves_gives_back_what_it_trained(create: Create, embedded: EmbeddedServer) -> None:
    """When a process with an operator ends in the middle of a trial, the next one gets that trial at once."""
    name = {"study": "left", "url": embedded.url, "save_path": "left"}
    with create(study="left") as hpo:
        assert hpo.trials() == []
        assert run_python(LEAVE, {**name, "save_path": str(hpo.save_path), "resume": True}) == ["RUNNING"]
        config = hpo.get_next_sample(timeout=DEADLINE) or {}
        assert (config["trial_id"], config["attempt"]) == (0, 2)
        train(config)
        assert [(point.attempt, point.step) for point in curve(hpo, 0)] == [(1, 1), (2, 1), (2, 2), (2, 3), (2, 4)]


# --- interruptions


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Ctrl-C comes after so many seconds."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_interrupted_request_is_repeated_by_the_next_one(create: Create) -> None:
    """Ctrl-C in a waiting get_next_sample() loses no trial: the next call is answered with what that one was to get."""
    hpo = create(num_trials=2, num_init_trials=1)
    config = hpo.get_next_sample() or {}
    with interrupted_after(0.3):
        hpo.get_next_sample()
    assert run_python(TRAINER, config)[-1] == "STOP"
    second = hpo.get_next_sample(timeout=DEADLINE) or {}
    assert second["trial_id"] == 1
    train(second)
    assert hpo.get_next_sample() is None


@pytest.mark.parametrize(("code", "state"), [(143, "waiting"), (0, "waiting"), (1, "failed"), ("no data", "failed")])
def test_an_exit_from_a_with_block_is_what_its_status_says(create: Create, code: int | str, state: str) -> None:
    """A handler of SIGTERM that exits gives the trial back; an exit with an error has failed."""
    hpo = create(num_trials=1)
    config = hpo.get_next_sample() or {}
    hpopt.report(config, 0.5)
    with pytest.raises(SystemExit), hpopt.trial(config):
        sys.exit(code)
    assert states(hpo) == [state]


def test_an_interrupted_with_block_gives_its_trial_back(create: Create) -> None:
    """In `with hpopt.trial(config)` Ctrl-C releases the trial, and an exception fails it with the score it has."""
    hpo = create(num_trials=2)
    config = hpo.get_next_sample() or {}

    def interrupt(status: hpopt.Status) -> None:
        raise KeyboardInterrupt(status)

    with pytest.raises(KeyboardInterrupt), hpopt.trial(config) as trial:
        interrupt(trial.report(0.5))
    again = hpo.get_next_sample() or {}
    assert (again["trial_id"], again["attempt"]) == (0, 2)
    with pytest.raises(ZeroDivisionError), hpopt.trial(again) as trial:
        _ = trial.report(0.25) / 0
    with hpopt.trial(hpo.get_next_sample() or {}) as trial:
        while trial.report(0.75) == RUNNING:
            pass
    assert [(trial.state, trial.score) for trial in hpo.trials()] == [("failed", 0.5), ("completed", 0.75)]


# --- calls that should not be


def test_reports_after_stop_change_nothing(create: Create) -> None:
    """Who goes on after STOP hears STOP, and neither score nor end is taken from him."""
    hpo = create(num_trials=1)
    config = hpo.get_next_sample() or {}
    assert train(config) == [RUNNING, RUNNING, RUNNING, STOP]
    before = hpo.trials(), curve(hpo, 0)
    assert [hpopt.report(config, 99.0) for _ in range(3)] == [STOP] * 3
    assert run_python(TRAINER, config) == ["STOP"]
    hpopt.finalize_trial(config, crashed=True)
    hpopt.reportOOM(config)
    assert (hpo.trials(), curve(hpo, 0)) == before


@pytest.mark.parametrize("score", [None, "0.5", True, np.bool_(1), [0.5], np.array([0.1, 0.2]), {}, 1j, torch.zeros(2)])
def test_what_is_no_score_is_refused_at_once(create: Create, score: Any) -> None:
    """Anything but one number is a TypeError in the trainer, and no iteration is lost by it."""
    hpo = create()
    config = hpo.get_next_sample() or {}
    with pytest.raises(TypeError, match="score="):
        hpopt.report(config, score)
    assert hpopt.report(config, 0.5) == RUNNING
    assert [point.step for point in curve(hpo, 0)] == [1]


def test_every_kind_of_number_is_a_score(create: Create) -> None:
    """ints, Decimals, numpy's and torch's scalars are numbers; one that no float can hold is not finite."""
    hpo = create(max_iterations=10)
    config = hpo.get_next_sample() or {}
    scores = [
        1,
        Decimal("0.25"),
        np.float32(0.5),
        np.int64(2),
        np.array(3.0),
        torch.tensor(4.0, requires_grad=True),
        10**400,
    ]
    assert {hpopt.report(config, score) for score in scores} == {RUNNING}
    assert [point.score for point in curve(hpo, 0)] == [1, 0.25, 0.5, 2, 3, 4, None]


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda config: config.pop("hpopt"), ValueError, r'config\["hpopt"\] is missing'),
        (lambda config: config["hpopt"].pop("uid"), ValueError, r'config\["hpopt"\]\["uid"\]=None'),
        (lambda config: config["hpopt"].update(trial="x"), ValueError, r'config\["hpopt"\]\["trial"\]=\'x\''),
        (lambda config: config["hpopt"].update(attempt=1.5), ValueError, r'config\["hpopt"\]\["attempt"\]=1.5'),
        (lambda config: config["hpopt"].update(version=99), hpopt.VersionSkew, "protocol 99"),
        (lambda config: config["hpopt"].update(study="nowhere"), hpopt.UnknownStudy, "'default/nowhere'"),
        (lambda config: config["hpopt"].update(url=None), ValueError, "HPOPT_URL"),
    ],
    ids=["identity", "uid", "trial", "attempt", "version", "study", "url"],
)
def test_a_damaged_config_says_what_is_wrong(
    create: Create,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Config], object],
    error: type[Exception],
    message: str,
) -> None:
    """A config that lost what it has to carry is refused, by the name of what is missing."""
    monkeypatch.delenv("HPOPT_URL", raising=False)
    config = create().get_next_sample() or {}
    damage(config)
    with pytest.raises(error, match=message):
        hpopt.report(config, 0.5)


def test_trainers_may_change_everything_but_the_identity(create: Create) -> None:
    """A trainer that schedules its learning rate in the config, or takes things out of it, is still the same trial."""
    hpo = create()
    config = hpo.get_next_sample() or {}
    hpopt.report(config, 0.1)
    only = {"hpopt": config["hpopt"]}
    config["lr"] /= 10
    config.pop("params")
    assert hpopt.report(config, 0.2) == hpopt.report(only, 0.3) == RUNNING
    assert [point.score for point in curve(hpo, 0)] == [0.1, 0.2, 0.3]


def test_other_studies_are_not_disturbed(create: Create, tmp_path: Path) -> None:
    """A study that is paused, and one whose trainers are gone, leave those beside them alone."""
    paused = create(study="paused", launch_timeout=0.4, num_init_trials=3)
    abandoned = create(study="abandoned", save_path=tmp_path / "abandoned")
    abandoned.get_next_samples()
    waiting = [paused.get_next_sample() for _ in range(3)]
    assert len(loop(create(num_trials=6), train)) == len(waiting) * 2 == SMALL["num_trials"]
    until(lambda: "waiting" in states(paused), "the launches have timed out")
