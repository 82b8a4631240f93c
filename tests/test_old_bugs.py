"""What the file-based hpopt 0.2 got wrong, and its users met, where no other test shows that it is right here."""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import hpopt
from hpopt import client, outage
from hpopt.core.search_space import SearchSpace
from hpopt.core.space import Space
from hpopt.core.suggest_request import Observation
from hpopt.core.trial import TrialState
from tests.conftest import Create
from tests.server import DEADLINE
from tests.simulation import Simulation
from tests.studies import run_all, sample, states, train

Config = dict[str, Any]


# --- studies that are resumed


def test_default_hyper_parameters_are_tried_once(create: Create) -> None:
    """However often a study is resumed, the user's own configurations are tried once, and no id comes twice."""
    defaults = [{"lr": 0.01, "bs": 8}, {"lr": 0.02, "bs": 16}]
    ids, params = [], []
    for number in range(3):
        with create(default_hyper_parameters=defaults, resume=number > 0, num_trials=8) as hpo:
            for _ in range(2):
                config = sample(hpo)
                ids.append(config["trial_id"])
                params.append(config["params"])
                train(config)
    assert ids == list(range(6))
    assert [each for each in params if each in defaults] == defaults


def test_a_study_that_goes_on_is_not_finished(create: Create) -> None:
    """The best config of a finished study is not kept as its result when more trials follow."""
    with create(num_trials=2) as hpo:
        run_all(hpo)
        assert hpo.get_best_config(wait=True) is not None
    with create(num_trials=3, resume=True) as hpo:
        assert hpo.get_progress() == 2 / 3
        (config,) = run_all(hpo, lambda _, step: 100 + step)
        assert hpo.get_best_config() == config["params"]


# --- small spaces


@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
def test_a_space_of_few_configurations_comes_to_an_end(create: Create, search_alg: str) -> None:
    """Each of them is tried once, whatever num_trials and num_init_trials say; then there is [] and None."""
    few = {"bs": hpopt.search_space("choice", [8, 16, 32])}
    hpo = create(search_space=few, search_alg=search_alg, num_trials=20, num_init_trials=5, num_workers=5)
    assert hpo.spec.trials == 3
    configs = hpo.get_next_samples()
    assert sorted(config["bs"] for config in configs) == [8, 16, 32]
    for config in configs:
        train(config, lambda config, step: config["bs"] + step)
    assert hpo.get_next_sample(timeout=DEADLINE) is None
    assert hpo.get_next_samples() == []
    assert hpo.get_best_config() == {"bs": 32}


# --- scores on the other side of 0, and both directions


@pytest.mark.parametrize(("mode", "sign", "best"), [("max", -1, 2), ("min", 1, 2), ("max", 1, 0), ("min", -1, 0)])
def test_the_best_score_may_be_on_either_side_of_zero(create: Create, mode: str, sign: int, best: int) -> None:
    """The largest of negative scores, the smallest of positive ones: nothing is compared with an initial 0."""
    hpo = create(mode=mode, num_trials=3)
    run_all(hpo, lambda config, _: sign * (3 - config["trial_id"]))
    assert hpo.get_best_config() == hpo.trials()[best].params
    assert [trial.score for trial in hpo.trials()] == [3 * sign, 2 * sign, sign]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_running_out_of_memory_turns_no_score_around(mode: str) -> None:
    """What the search learns after a batch was made smaller are the scores as they were reported."""
    sim = Simulation()
    sim.create(mode=mode, batch_size_name="bs", num_init_trials=3, default_hyper_parameters=({"lr": 0.01, "bs": 64},))
    first, second = sim.sample(), sim.sample()
    sim.report(second, 0.25)
    sim.finalize(second)
    sim.out_of_memory(first)
    sim.complete(sim.sample())
    learned = {each.params["bs"]: each for each in sim.study.trials.observations()}
    assert isinstance(learned[32], Observation)
    assert sorted(each.score or 0 for each in learned.values()) == [0.25, 0.5]


def test_scores_of_a_batch_that_did_not_fit_judge_nobody() -> None:
    """What a trial scored before it ran out of memory is in no median: the others are compared with those that fit."""
    sim = Simulation()
    sim.create(
        batch_size_name="bs", early_stop="median_stop", num_init_trials=3, num_trials=5, num_workers=4, min_peers=3,
        grace_period=0, max_iterations=10,
    )  # fmt: skip
    too_large, *others = (sim.sample() for _ in range(3))
    for to in others:
        sim.report(to, 0.1)
    assert sim.report(too_large, 0.9) is hpopt.Status.RUNNING
    sim.out_of_memory(too_large)
    again, late = sim.sample(), sim.sample()
    assert (again.trial, again.attempt) == (too_large.trial, 2)
    assert sim.report(late, 0.05) is hpopt.Status.RUNNING  # two others have a score at this step
    assert sim.report(again, 0.2) is hpopt.Status.RUNNING


def test_who_cannot_be_trained_is_not_the_best() -> None:
    """A trial for which there is no smaller batch has no score, in no median, for no model; after a restart neither."""
    sim = Simulation()
    sim.create(
        batch_size_name="bs", early_stop="median_stop", num_trials=3, num_workers=2, grace_period=0, max_iterations=10,
        search_space=Space({"lr": SearchSpace("uniform", [0, 1]), "bs": SearchSpace("choice", [8])}), lenient_every=0,
    )  # fmt: skip
    too_large, other = sim.sample(), sim.sample()
    for _ in range(2):
        assert sim.report(too_large, 0.9) is hpopt.Status.RUNNING
    sim.out_of_memory(too_large)
    for _ in range(2):
        trial = sim.study.trials.get(too_large.trial)
        assert trial is not None
        assert (trial.state, trial.best_score) == (TrialState.FAILED, None)
        (known,) = sim.study.trials.observations()
        assert (known.score, known.marks) == (None, ())
        assert sim.report(other, 0.1) is hpopt.Status.RUNNING
        sim.crash()


def test_scores_of_a_crashed_training_judge_nobody() -> None:
    """They count for the trial itself and for the model, but in no median; after a restart neither."""
    sim = Simulation()
    sim.create(
        early_stop="median_stop", num_trials=4, num_workers=3, grace_period=0, max_iterations=10, lenient_every=0
    )
    crashed, *others = (sim.sample() for _ in range(3))
    assert sim.report(crashed, 0.9) is hpopt.Status.RUNNING
    sim.finalize(crashed, crashed=True)
    for to in others:
        (known,) = sim.study.trials.observations()
        assert (known.score, known.marks) == (0.9, ((1, 0.9),))
        assert sim.report(to, 0.1) is hpopt.Status.RUNNING
        sim.crash()


# --- waiting


@pytest.mark.parametrize("end", [lambda config: hpopt.report(config, 1.0), hpopt.reportOOM, hpopt.finalize_trial])
def test_no_trainer_sleeps_at_its_end(create: Create, end: Callable[[Config], object]) -> None:
    """What ends a trial returns when it is committed, not a second later."""
    hpo = create(max_iterations=1, num_trials=8)
    took = []
    for _ in range(3):
        config = sample(hpo)
        began = time.monotonic()
        end(config)
        took.append(time.monotonic() - began)
    assert min(took) < 1.0


def test_ends_of_trials_return_nothing(create: Create) -> None:
    """The answer of reportOOM and finalize_trial is None."""
    hpo = create()
    ends: list[Callable[[Config], object]] = [hpopt.reportOOM, hpopt.finalize_trial]
    assert [end(sample(hpo)) for end in ends] == [None, None]


def test_a_long_wait_says_what_it_waits_for(
    create: Create, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that has to wait names the trials under way, and num_workers, now and then."""
    monkeypatch.setattr(outage, "REMIND", 0.1)
    monkeypatch.setattr(outage, "BLOCK", 0.1)
    monkeypatch.setattr(client, "ASK_WHO_IS_THERE", 0.1)
    hpo = create(num_init_trials=1)
    config = sample(hpo)
    with ThreadPoolExecutor() as operator, caplog.at_level(logging.WARNING, "hpopt"):
        waiting = operator.submit(hpo.get_next_sample, timeout=DEADLINE)
        with pytest.raises(TimeoutError):
            waiting.result(1.0)
        train(config)
        assert waiting.result() is not None
    assert "still waiting: num_workers=1, and under way are the trials 0 (issued)" in caplog.text


# --- files


@pytest.fixture
def umask() -> Iterator[int]:
    """Others of the group may read what is made."""
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def test_the_results_can_be_read_by_whom_the_umask_allows(create: Create, tmp_path: Path, umask: int) -> None:
    """Results files are as readable as any other file that the user's programs write."""
    folder = tmp_path / "shared"
    with create(save_path=folder) as hpo:
        run_all(hpo)
        assert Counter(states(hpo)) == {"completed": 6}
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == dict.fromkeys(["curves.csv", "results.json", "trials.csv"], 0o666 & ~umask)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
