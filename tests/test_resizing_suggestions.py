"""What is suggested, and handed out, when memory runs out: what becomes impossible, and what is all that is left."""

from collections import Counter
from dataclasses import replace

import pytest

from hpopt.core.internal import Suggested
from hpopt.core.messages import Nothing, Sample
from hpopt.core.space import SearchSpace, Space
from hpopt.samplers.base import suggest
from tests.committed import snapshot
from tests.resizing_helpers import (
    FINITE,
    SIZES,
    S,
    begun,
    configs,
    limited,
)
from tests.simulation import Simulation, created

# --- suggestions


def test_suggestions_are_made_again_when_the_bound_changes() -> None:
    """What was prepared before memory ran out is not handed out, possible or not: after a restart it would not be."""
    sim = Simulation(prompt=False)
    sim.create(search_space=FINITE, batch_size_name="bs", num_trials=8, num_init_trials=8)
    prepared = [{"bs": bs, "act": act} for bs, act in ((64, "a"), (32, "a"), (64, "b"), (8, "a"))]
    sim.send(Suggested("u1", 0, 0, tuple(prepared)))
    to = sim.sample()
    sim.out_of_memory(to)
    assert sim.study.desk.ready == []
    assert sim.sample().params == {"bs": 32, "act": "a"}
    assert sim.ask() is None
    request = sim.study.wanted()
    assert request is not None
    assert (request.bound.fails, request.left_behind) == (64, ({"bs": 64, "act": "a"},))


def test_suggestions_are_dropped_when_a_trial_that_waited_becomes_one_of_them() -> None:
    """A trial that comes back with a smaller batch stands for what was to be handed out as a new one."""
    sim = Simulation(prompt=False)
    sim.create(search_space=FINITE, batch_size_name="bs", num_trials=8, num_init_trials=8)
    prepared = [{"bs": 64, "act": act} for act in "ab"]
    sim.send(Suggested("u1", 0, 0, tuple(prepared)))
    waits, fails = sim.sample(), sim.sample()
    sim.start(waits)
    sim.release(waits)
    sim.out_of_memory(fails)
    sim.send(Suggested("u1", 0, 2, ({"bs": 32, "act": "a"}, {"bs": 8, "act": "a"}), epoch=1))
    again = [sim.sample(), sim.sample(), sim.sample()]
    assert [(to.trial, *to.params.values()) for to in again] == [(0, 32, "a"), (1, 32, "b"), (2, 8, "a")]


def test_suggestions_on_their_way_are_dropped_too() -> None:
    """Memory ran out while the sampler was at work: what it did not know of is asked of it again."""
    sim = Simulation(prompt=False)
    sim.create(search_space=FINITE, batch_size_name="bs", num_trials=8, num_init_trials=2)
    sim.send(Suggested("u1", 0, 0, ({"bs": 64, "act": "a"},)))
    to = sim.sample()
    asked = sim.study.wanted()
    sim.out_of_memory(to)
    assert asked is not None
    late = ({"bs": 64, "act": "b"}, {"bs": 32, "act": "a"})
    sim.send(Suggested("u1", asked.basis, asked.ordinal, late))
    assert sim.study.desk.ready == []
    again = sim.study.wanted()
    assert again == replace(asked, count=again.count if again else 0, pending=({"bs": 32, "act": "a"},),
                            bound=sim.study.attempts.resizing.bound, left_behind=({"bs": 64, "act": "a"},),
                            epoch=asked.epoch + 1)  # fmt: skip


def test_none_of_the_users_configurations_is_passed_over() -> None:
    """Where one cannot come as it is, it comes with a smaller batch, and before the next."""
    own = [{"lr": lr, "bs": bs} for lr, bs in ((0.1, 64), (0.2, 64), (0.3, 8), (0.4, 8))]
    sim = Simulation(sampler=suggest, prompt=False)
    sim.create(search_space=SIZES, batch_size_name="bs", default_hyper_parameters=tuple(own), num_init_trials=4)
    sim.suggest()
    first = sim.sample()
    sim.out_of_memory(first)
    sim.ask("A")  # these two come before the sampler has answered
    sim.ask("B")
    sim.suggest()
    for session in "CD":
        sim.ask(session)
    assert configs(sim.study.trials) == [(0.1, 32), (0.2, 32), (0.3, 8), (0.4, 8)]


def test_the_users_own_configurations_come_with_the_smallest_batch_though_it_has_failed() -> None:
    """There is nothing else to try them with, and they may need less memory."""
    own = [{"lr": lr, "bs": bs} for lr, bs in ((0.1, 8), (0.2, 16), (0.3, 64))]
    sim = Simulation(sampler=suggest)
    sim.create(search_space=SIZES, batch_size_name="bs", default_hyper_parameters=tuple(own), num_init_trials=1,
               num_workers=3)  # fmt: skip
    sim.out_of_memory(sim.sample())
    for _ in own:
        sim.sample()
    assert configs(sim.study.trials)[:3] == [(0.1, 8), (0.2, 8), (0.3, 8)]


@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
@pytest.mark.parametrize("seed", range(5))
def test_a_restart_changes_no_suggestion_after_memory_ran_out(search_alg: str, seed: int) -> None:
    """Suggestions follow from the results and from what fits; not from what was prepared before that was known."""

    def handed(*, crash: bool) -> list[Sample]:
        sim = Simulation(seed=seed, sampler=suggest)
        space = Space({"lr": SearchSpace("uniform", [0, 1]), "bs": SearchSpace("quniform", [8, 256, 8])})
        sim.create(search_space=space, batch_size_name="bs", search_alg=search_alg, num_trials=8, num_init_trials=5)
        samples, fits = [], True
        for _ in range(7):
            samples.append(sim.sample())
            if fits and samples[-1].params["bs"] >= 136:
                fits = False
                sim.out_of_memory(samples[-1])
                if crash:
                    sim.crash()
            else:
                for step in range(1, sim.study.spec.iterations + 1):
                    sim.report(samples[-1], samples[-1].params["lr"] + 0.01 * step)
        assert not fits
        return samples

    assert handed(crash=False) == handed(crash=True)


@pytest.mark.parametrize("crash", [False, True])
def test_the_users_own_configurations_get_sizes_by_what_fits_now(crash: bool) -> None:
    """Halfway to what was shown to fit since they were prepared; a restart makes no difference."""
    own = [{"lr": lr, "bs": bs} for lr, bs in ((0.1, 256), (0.2, 200), (0.3, 256))]
    space = Space({"lr": SearchSpace("uniform", [0, 1]), "bs": SearchSpace("quniform", [8, 256, 8])})
    sim = Simulation(sampler=suggest)
    sim.create(search_space=space, batch_size_name="bs", default_hyper_parameters=tuple(own), num_init_trials=3,
               num_workers=3)  # fmt: skip
    too_large, fits = sim.sample(), sim.sample()
    sim.out_of_memory(too_large)
    sim.report(fits, 0.5)
    if crash:
        sim.crash()
    assert sim.sample().trial == too_large.trial
    assert sim.sample().params == {"lr": 0.3, "bs": 224}


# --- what is given twice, because there is nothing else


def test_a_configuration_that_a_trial_had_is_not_suggested_for_ever() -> None:
    """The sampler hears of it, also where the space has no end: else a study would wait for what nobody gives it."""
    own = [{"lr": lr, "bs": bs} for lr, bs in ((0.1, 64), (0.2, 64), (0.3, 8), (0.4, 8), (0.1, 32))]
    sim = Simulation(sampler=suggest)
    sim.create(search_space=SIZES, batch_size_name="bs", default_hyper_parameters=tuple(own), num_trials=5,
               num_workers=2, num_init_trials=1, max_iterations=1)  # fmt: skip
    to, other = sim.sample("A"), sim.sample("B")
    for _ in range(2):  # 64 and 32 are too large for the first
        sim.out_of_memory(to)
        to = sim.sample("A")
    sim.complete(other)  # 64 fits after all, for others
    sim.complete(to)
    for _ in range(3):
        sim.complete(sim.sample("A"))
    assert sim.ask("A") == Nothing(6, done=True)


@pytest.mark.parametrize("crash", [False, True])
def test_a_continuum_of_batches_none_of_which_fits(crash: bool) -> None:
    """When the smallest of them is all that is left, it is tried for every trial, and the study ends."""
    sim = Simulation(sampler=suggest)
    space = Space({"bs": SearchSpace("uniform", [8, 64]), "act": SearchSpace("choice", ["a", "b"])})
    own = ({"bs": 8.0, "act": "a"}, {"bs": 30.0, "act": "b"})
    sim.create(search_space=space, batch_size_name="bs", default_hyper_parameters=own, num_trials=6, num_workers=2,
               num_init_trials=3)  # fmt: skip
    for _ in range(40):
        if not isinstance(answer := sim.ask(), Sample):
            break
        sim.start(answer, f"{answer.trial}.{answer.attempt}")
        sim.out_of_memory(answer)
        if crash:
            sim.crash()
    assert isinstance(answer, Nothing)
    assert [trial.state for trial in sim.study.trials] == [S.FAILED] * 6


# --- a space that has an end


@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_finite_space_is_tried_once(search_alg: str, num_workers: int) -> None:
    """Everything that fits is trained once, what does not is written off, and there are as many trials as promised."""
    spec = {"search_alg": search_alg, "min_iterations": 4, "num_workers": num_workers}
    sim = created(search_space=FINITE, batch_size_name="bs", num_trials=99, **spec)
    handed = sim.run(limited(16))
    trials = list(sim.study.trials)
    assert len(trials) == sim.study.spec.trials == 8
    assert sorted(configs(trials)) == sorted((bs, act) for bs in (8, 16, 32, 64) for act in "ab")
    assert {(trial.state, trial.params["bs"] <= 16) for trial in trials} == {(S.COMPLETED, True), (S.FAILED, False)}
    assert max(Counter(configs(handed)).values()) == 1
    written_off = [trial for trial in trials if trial.ooms == 0 and trial.state is S.FAILED]
    assert {trial.reason for trial in written_off} == {
        "not trained: its batch does not fit into memory, and all that fits has been tried"
    }
    assert not any(trial.issued_at or trial.started_at for trial in written_off)


def test_nothing_is_written_off_before_the_others_have_ended() -> None:
    """As long as a trial is under way with a large batch, it may show that this fits; then the others are trained."""
    sim, samples = begun(*({"bs": bs, "act": act} for bs, act in ((64, "a"), (64, "b"))), search_space=FINITE,
                         num_trials=8, num_workers=4)  # fmt: skip
    sim.out_of_memory(samples[0])
    small = [sim.sample() for _ in range(3)]
    for to in small:
        sim.complete(to)
    while isinstance(answer := sim.ask(mode="now"), Sample):
        sim.complete(answer)
    assert isinstance(answer, Nothing)
    assert not answer.done
    assert len(sim.study.trials) == 7  # all that is known to fit, and the one with 64
    sim.report(samples[1], 0.5)
    sim.complete(samples[1])
    assert sim.ask(mode="now") == Nothing(sim.requests["op"], done=True)
    assert [trial.state for trial in sim.study.trials].count(S.COMPLETED) == 7
    assert sim.study.trials.since(7)[0].params == {"bs": 64, "act": "a"}  # it did not fit itself


def test_a_request_does_not_wait_for_what_is_not_there() -> None:
    """Who asks for what is free now is told that it is nothing, though fewer trials exist than were asked for."""
    space = Space({"bs": SearchSpace("choice", [8, 64])})
    sim, (to,) = begun({"bs": 64}, search_space=space, num_workers=3)
    sim.out_of_memory(to)
    again = sim.sample(mode="now")
    assert sim.ask(mode="now") == Nothing(2, done=False)
    assert sim.ask("other") is None
    sim.complete(again)
    assert sim.answer("other", 0) == Nothing(0, done=True)
    assert [(trial.params["bs"], trial.state) for trial in sim.study.trials] == [(8, S.COMPLETED), (64, S.FAILED)]


def test_a_thread_that_has_left_a_trial_behind_does_not_wait_for_it() -> None:
    """Nothing is left but the trial of the thread itself: asking for the next one ends it, as everywhere."""
    space = Space({"bs": SearchSpace("choice", [8, 64])})
    sim, (to,) = begun({"bs": 64}, search_space=space, num_workers=3)
    sim.out_of_memory(to)
    again = sim.sample()
    sim.report(again, 0.5)
    assert sim.ask(yields=((again.trial, again.attempt, "a"),)) == Nothing(2, done=True)


def test_what_is_written_off_is_committed() -> None:
    """A coordinator that takes over knows of it; a study that grows goes on where it was."""
    sim = created(search_space=FINITE, batch_size_name="bs", num_trials=6)
    sim.run(limited(8))
    assert [trial.state for trial in sim.study.trials].count(S.FAILED) == 4
    before = snapshot(sim.study)
    sim.crash()
    assert snapshot(sim.study) == before
    sim.create(resume=True, search_space=FINITE, batch_size_name="bs", num_trials=8)
    assert sim.run(limited(8)) == []
    assert [trial.state for trial in sim.study.trials].count(S.FAILED) == 6
    assert len(set(configs(sim.study.trials))) == 8


def test_failures_that_are_written_off_pause_nothing() -> None:
    """They say nothing against the training."""
    sim = created(search_space=FINITE, batch_size_name="bs", num_trials=8)
    sim.run(limited(4))
    assert [trial.state for trial in sim.study.trials] == [S.FAILED] * 8
    assert not sim.study.attempts.paused


def test_a_batch_size_that_has_a_name_still_counts() -> None:
    """Options that are no numbers are tried whatever the numbers do."""
    space = Space({"bs": SearchSpace("choice", [64, "auto", 8, "none"])})
    sim = created(search_space=space, batch_size_name="bs", num_trials=4)
    sim.run(limited(16))
    assert {trial.params["bs"]: trial.state for trial in sim.study.trials} == {
        "auto": S.COMPLETED, "none": S.COMPLETED, 8: S.COMPLETED, 64: S.FAILED,
    }  # fmt: skip
