from collections.abc import Callable
from typing import Any

import pytest

from hpopt.core.messages import Ask, Nothing, Refusal, Sample
from hpopt.core.space import SearchSpace, Space
from hpopt.core.trial import TrialState
from tests.committed import snapshot
from tests.simulation import Simulation, created

FINITE = Space({"bs": SearchSpace("choice", [8, 16]), "act": SearchSpace("choice", ["relu", "tanh"])})


# --- when there is a sample


def test_initial_trials_come_at_once_then_one_by_one() -> None:
    """num_init_trials samples without waiting, whatever num_workers; then one for each that ends."""
    sim = created(num_init_trials=3, num_workers=1)
    first = [sim.sample() for _ in range(3)]
    assert sim.ask() is None
    sim.complete(first[0])
    sim.complete(first[1])
    assert sim.answer("op", 3) is None  # one is still under way, which is as many as there are workers
    sim.complete(first[2])
    answer = sim.answer("op", 3)
    assert isinstance(answer, Sample)
    assert answer.trial == 3


@pytest.mark.parametrize(("workers", "at_once"), [(1, 2), (2, 2), (4, 4), (9, 6)])
def test_as_many_as_there_are_workers(workers: int, at_once: int) -> None:
    """Up to num_workers trials are under way, and no fewer than the initial ones."""
    sim = created(num_init_trials=2, num_workers=workers)
    assert [type(sim.ask()) for _ in range(at_once + 1)] == [Sample] * at_once + [type(None)]


def test_asha_has_no_initial_trials() -> None:
    """num_init_trials is ignored, num_workers is not."""
    sim = created(search_alg="asha", num_init_trials=5, num_workers=2)
    assert [type(sim.ask()) for _ in range(3)] == [Sample, Sample, type(None)]


def test_more_initial_trials_than_trials() -> None:
    """They are as many as there are trials."""
    sim = created(num_init_trials=9, num_trials=3)
    samples = [sim.sample() for _ in range(3)]
    assert sim.ask() is None
    for to in samples:
        sim.complete(to)
    assert sim.answer("op", 3) == Nothing(3, done=True)


def test_requests_are_answered_in_the_order_they_came() -> None:
    """Whoever waits longest is served first, whichever session it is, also after a restart."""
    sim = created(num_init_trials=1, num_workers=2)
    first, second = sim.sample("A"), sim.sample("B")
    assert [sim.ask("B"), sim.ask("A"), sim.ask("B")] == [None] * 3
    sim.crash()
    sim.complete(second)
    answer = sim.answer("B", 1)
    assert isinstance(answer, Sample)
    sim.complete(first)
    assert isinstance(sim.answer("A", 1), Sample)
    assert sim.answer("B", 2) is None


def test_now_does_not_wait_for_a_trial() -> None:
    """Mode "now" gets a sample while there is room, and else hears that there is none."""
    sim = created(num_init_trials=1, num_workers=2)
    assert [type(sim.ask(mode="now")) for _ in range(2)] == [Sample, Sample]
    assert sim.ask(mode="now") == Nothing(2, done=False)


def test_now_does_not_wait_when_all_trials_are_handed_out() -> None:
    """Also when workers are free, but no trial is left."""
    sim = created(num_trials=3, num_workers=4)
    assert [type(sim.ask(mode="now")) for _ in range(3)] == [Sample] * 3
    assert sim.ask(mode="now") == Nothing(3, done=False)


def test_now_waits_for_the_sampler() -> None:
    """A sample that only has to be computed is waited for."""
    sim = Simulation(prompt=False)
    sim.create()
    assert sim.ask(mode="now") is None
    sim.suggest()
    assert isinstance(sim.answer("op", 0), Sample)


@pytest.mark.parametrize("mode", ["next", "now", "end"])
def test_done(mode: str) -> None:
    """When every trial has ended, every request is answered so, again and again."""
    sim = created(num_trials=1)
    sim.complete(sim.sample())
    assert [sim.ask(mode=mode) for _ in range(2)] == [Nothing(1, done=True), Nothing(2, done=True)]


def test_the_end_is_waited_for() -> None:
    """Mode "end" is answered when the last trial has ended, not before."""
    sim = created(num_trials=2)
    samples = [sim.sample(), sim.sample()]
    assert sim.ask("waits", "end") is None
    sim.complete(samples[0])
    assert sim.answer("waits", 0) is None
    sim.crash()
    sim.complete(samples[1])
    assert sim.answer("waits", 0) == Nothing(0, done=True)


def test_nobody_waits_for_trials_that_nobody_takes() -> None:
    """Mode "end" is answered too when nothing is under way and no operator asks for more."""
    sim = created(num_trials=2)
    to = sim.sample()
    assert sim.ask("waits", "end") is None
    sim.report(to, 0.5)
    sim.lose(to)
    assert sim.answer("waits", 0) == Nothing(0, done=True)


def test_a_trial_to_be_handed_out_again_comes_first() -> None:
    """Before a new one, and whenever a worker is free; it still counts as one trial."""
    sim = created(num_trials=3, num_workers=1)
    first, second = sim.sample(), sim.sample()
    sim.release(first)
    assert sim.ask() is None
    sim.complete(second)
    again = sim.answer("op", 2)
    assert isinstance(again, Sample)
    assert (again.trial, again.attempt) == (0, 2)


# --- exactly num_trials


@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
def test_two_operators_share_one_budget(search_alg: str) -> None:
    """However they take turns, exactly num_trials trials are handed out, each to one of them."""
    sim = created(num_trials=7, num_workers=3, search_alg=search_alg)
    samples = []
    for turn in range(40):
        answer = sim.ask("AB"[turn % 2], "now")
        if isinstance(answer, Sample):
            samples.append(answer)
        if turn % 3 == 2 and samples:
            sim.complete(samples[turn // 3 % len(samples)])
        if turn % 10 == 9:
            sim.crash()
    assert sorted(to.trial for to in samples) == list(range(7))
    assert sim.study.desk.done


@pytest.mark.parametrize("crashes", [0.0, 0.3])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
def test_whole_studies(search_alg: str, workers: int, crashes: float) -> None:
    """With trials that crash and run out of memory, and a coordinator that dies, every trial comes to its end."""

    def train(to: Sample) -> Any:
        yield to.params["lr"]
        if to.trial % 3 == 1:
            raise MemoryError
        if to.trial % 3 == 2:
            raise RuntimeError
        yield from (to.params["lr"], None, to.params["lr"])

    sim = created(search_alg=search_alg, num_trials=9, num_workers=workers, batch_size_name="bs")
    samples = sim.run(train, crashes=crashes)
    assert {to.trial for to in samples} == set(range(9))
    assert all(
        trial.state in (TrialState.COMPLETED, TrialState.STOPPED, TrialState.FAILED) for trial in sim.study.trials
    )


def test_a_crash_of_the_coordinator_changes_no_study() -> None:
    """The trials of a study are the same with a coordinator that dies at every other turn."""

    def outcome(crashes: float) -> Any:
        sim = created(num_trials=8, num_workers=2, early_stop="median_stop", max_iterations=6)
        sim.run(lambda to: (to.params["lr"] * step for step in range(6)), crashes=crashes)
        return [(trial.params, trial.state, trial.best_score, trial.last_step) for trial in sim.study.trials]

    # the same order of turns: the crashes are drawn either way
    assert outcome(1e-9) == outcome(0.5)


def test_the_real_sampler() -> None:
    """The study and the sampler that it is made for agree with each other."""
    pytest.importorskip("numpy")
    from hpopt.samplers.base import suggest

    sim = Simulation(seed=3, sampler=suggest)
    sim.create(num_trials=8, num_workers=2, num_init_trials=3)
    sim.run(lambda to: [to.params["lr"]] * 4, crashes=0.1)
    keys = {sim.study.spec.search_space.key(trial.params) for trial in sim.study.trials}
    assert len(keys) == 8


def test_a_finite_space_is_used_up() -> None:
    """num_trials is capped by the number of configurations, and each is tried once."""
    sim = created(search_space=FINITE, num_trials=99)
    assert sim.study.spec.trials == 4
    sim.run(lambda _to: [0.5] * 4)
    assert len({FINITE.key(trial.params) for trial in sim.study.trials}) == 4


# --- requests come again


def test_a_repeated_request_gets_the_same_answer() -> None:
    """As long as the trial is theirs, also when it is at its end, and after a restart."""
    sim = created()
    to = sim.sample()
    stages: list[Callable[[], Any]] = [lambda: None, lambda: sim.report(to, 0.5), lambda: sim.complete(to), sim.crash]
    for reach in stages:
        reach()
        before = snapshot(sim.study)
        sim.committed.replies.clear()
        sim.send(Ask("u1", "op", 0))
        assert sim.answer("op", 0) == to
        assert snapshot(sim.study) == before


def test_a_repeated_request_that_waits() -> None:
    """It waits once, and is answered once."""
    sim = created(num_init_trials=1)
    to = sim.sample()
    sim.ask()
    before = snapshot(sim.study)
    sim.send(Ask("u1", "op", 1))
    assert snapshot(sim.study) == before
    sim.complete(to)
    assert len(sim.committed.replies["op"]) == 3  # the create's, and two samples
    assert len(sim.study.trials) == 2


def test_requests_before_the_study_exists() -> None:
    """They are refused at once."""
    sim = Simulation()
    sim.send(Ask("u1", "op", 0))
    assert sim.answer("op", 0) == Refusal(0, "unknown", "there is no such study")
    assert sim.study.wanted() is None
    assert sim.study.watched() == ([], set())
