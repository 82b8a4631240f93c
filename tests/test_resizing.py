"""What a study does about memory that runs out: which trials are tried again, and with which batch size."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from hpopt.core.messages import Nothing, Sample, Suggested
from hpopt.core.schedulers.asha import Asha
from hpopt.core.space import SearchSpace, Space
from hpopt.core.trial import Trial, TrialState
from hpopt.samplers.base import suggest
from hpopt.status import Status
from tests.committed import snapshot
from tests.simulation import Simulation, created

S = TrialState
SIZES = Space({"lr": SearchSpace("uniform", [0, 1]), "bs": SearchSpace("choice", [8, 16, 32, 64])})
LARGEST = {"lr": 0.5, "bs": 64}
FINITE = Space({"bs": SearchSpace("choice", [64, 8, 16, 32]), "act": SearchSpace("choice", ["a", "b"])})


def state(sim: Simulation, to: Sample) -> TrialState:
    """The trial's state."""
    return trial_of(sim, to).state


def trial_of(sim: Simulation, to: Sample) -> Trial:
    """The trial's record."""
    return sim.study.trials.since(to.trial)[0]


def begun(*defaults: dict[str, Any], **spec: Any) -> tuple[Simulation, list[Sample]]:
    """A study that begins with these configurations, all of them handed out."""
    sim, count = Simulation(), len(defaults)
    spec = {"search_space": SIZES, "num_workers": count, "num_init_trials": count, **spec}
    sim.create(batch_size_name="bs", default_hyper_parameters=defaults, **spec)
    return sim, [sim.sample() for _ in defaults]


def largest(**spec: Any) -> tuple[Simulation, Sample]:
    """A study whose first trial, handed out, has the largest batch."""
    sim, (to,) = begun(LARGEST, **spec)
    return sim, to


def out_of_memory_until(sim: Simulation, to: Sample, fits: float) -> list[Any]:
    """The batch sizes that are tried for a trial, until one fits."""
    tried = [to.params["bs"]]
    while tried[-1] > fits:
        sim.report(to, 0.5)
        sim.out_of_memory(to)
        to = sim.sample()
        tried.append(to.params["bs"])
    return tried


def limited(limit: float, name: str = "bs") -> Any:
    """A training that runs out of memory with a batch larger than this."""

    def train(to: Sample) -> Iterator[float | None]:
        for _ in range(4):
            if not isinstance(to.params[name], str) and to.params[name] > limit:
                raise MemoryError
            yield 0.5

    return train


def configs(handed: Iterable[Sample | Trial]) -> list[tuple[Any, ...]]:
    """The values of the hyper-parameters."""
    return [tuple(each.params.values()) for each in handed]


# --- one trial


def test_the_batch_becomes_smaller() -> None:
    """The same trial is handed out again with a smaller batch of the space; its earlier scores no longer count."""
    sim, to = largest()
    assert out_of_memory_until(sim, to, 16) == [64, 32, 16]
    trial = trial_of(sim, to)
    assert (trial.id, trial.attempt, trial.first_attempt, trial.ooms) == (0, 3, 3, 2)
    assert (trial.best_score, trial.seen_step, trial.params["lr"]) == (None, 0, 0.5)
    assert trial.too_large == (64, 32)
    assert sim.report(Sample(0, 0, 3, 0, {}), 0.25) is Status.RUNNING
    assert trial_of(sim, to).best_score == 0.25


def test_a_trial_under_way_keeps_its_batch() -> None:
    """The bound changes nothing for trials that were handed out before; one that comes to its end lifts it."""
    sim, (first, second) = begun(LARGEST, {**LARGEST, "lr": 0.25})
    sim.out_of_memory(first)
    assert trial_of(sim, second).params["bs"] == 64
    assert sim.report(second, 0.5) is Status.RUNNING
    assert sim.study.attempts.resizing.bound.fails == 64  # it may run out of memory yet
    sim.complete(second)
    sim.crash()
    assert sim.study.attempts.resizing.bound.fails is None


@pytest.mark.parametrize("crashed", [False, True])
def test_a_trial_that_ends_early_shows_that_its_batch_fits(crashed: bool) -> None:
    """If it ended in good order, that is; a crash may have been anything."""
    sim, (first, second) = begun(LARGEST, {**LARGEST, "lr": 0.25})
    sim.out_of_memory(first)
    sim.report(second, 0.5)
    sim.finalize(second, crashed=crashed)
    assert sim.study.attempts.resizing.bound.fails == (64 if crashed else None)


def test_memory_that_leaks_costs_one_series_of_attempts() -> None:
    """Every size gets through a step, then fails: after the first trial others have one attempt, with the smallest."""
    sim = created(search_space=SIZES, batch_size_name="bs", default_hyper_parameters=(LARGEST,), num_workers=1)
    handed = []
    while isinstance(to := sim.ask(), Sample):
        handed.append(to)
        sim.report(to, 0.5)
        sim.out_of_memory(to)
    tried = [(to.trial, to.params["bs"]) for to in handed]
    assert tried[:4] == [(0, 64), (0, 32), (0, 16), (0, 8)]
    assert tried[4:] == [(trial, 8) for trial in range(1, 6)]


@pytest.mark.parametrize(
    ("bs", "value", "tried"),
    [
        (SearchSpace("quniform", [8, 256, 8]), 256, [256, 128, 64, 32]),
        (SearchSpace("qloguniform", [8, 256, 8]), 200, [200, 96, 48]),
        (SearchSpace("quniform", [8.0, 96.0, 8.0]), 96.0, [96.0, 48.0]),
        (SearchSpace("uniform", [8, 256]), 200.0, [200.0, 100.0, 50.0]),
        (SearchSpace("loguniform", [8, 256]), 256.0, [256.0, 128.0, 64.0, 32.0]),
        (SearchSpace("choice", ["auto", 192, 8, 64, "none", 24]), 192, [192, 64, 24]),
    ],
)
def test_every_kind_of_batch_size_becomes_smaller(bs: SearchSpace, value: Any, tried: list[Any]) -> None:
    """Ints, multiples, options among others, and floats are halved to the next value that there is."""
    sim, (to,) = begun({"lr": 0.5, "bs": value}, search_space=Space({**SIZES, "bs": bs}))
    assert out_of_memory_until(sim, to, 50) == tried
    assert [type(each) for each in tried] == [type(value)] * len(tried)


def test_between_what_fits_and_what_does_not() -> None:
    """Once a size is known to fit, the first try is midway and the second one is that size."""
    grid = Space({**SIZES, "bs": SearchSpace("quniform", [8, 256, 8])})
    sim, (fits, to) = begun({"lr": 0.1, "bs": 32}, {"lr": 0.2, "bs": 256}, search_space=grid)
    sim.report(fits, 0.5)
    sim.out_of_memory(to)
    midway = sim.sample()
    sim.out_of_memory(midway)
    assert (midway.params["bs"], sim.sample().params["bs"]) == (88, 32)


def test_at_the_smallest_batch() -> None:
    """There is nothing left to try: the trial has failed, with the scores it had."""
    sim, to = largest()
    assert out_of_memory_until(sim, to, 8) == [64, 32, 16, 8]
    smallest = Sample(0, 0, 4, 0, {})
    sim.report(smallest, 0.25)
    sim.out_of_memory(smallest)
    trial = trial_of(sim, to)
    assert (trial.state, trial.best_score) == (S.FAILED, 0.25)
    assert trial.reason == "out of memory, and no smaller batch is left to try"
    assert sim.sample().trial == 1


@pytest.mark.parametrize(
    ("spec", "first", "why"),
    [
        ({}, {"bs": "auto"}, "bs='auto' is no number that could be smaller"),
        ({"batch_size_name": None}, {"bs": 64}, "batch_size_name is not set"),
    ],
)
def test_without_a_batch_size(spec: dict[str, Any], first: dict[str, Any], why: str) -> None:
    """The same params are tried once more, with their scores kept; then the trial has failed."""
    space = Space({**SIZES, "bs": SearchSpace("choice", ["auto", 8, 64])})
    sim = Simulation()
    first = {"lr": 0.5, **first}
    sim.create(**{"batch_size_name": "bs", "search_space": space, "default_hyper_parameters": (first,), **spec})
    to = sim.sample()
    sim.report(to, 0.5)
    sim.out_of_memory(to)
    again = sim.sample()
    assert (again.attempt, again.params, trial_of(sim, to).best_score) == (2, first, 0.5)
    sim.out_of_memory(again)
    assert (state(sim, to), trial_of(sim, to).reason) == (S.FAILED, f"out of memory, and {why}")


def test_reported_twice() -> None:
    """One attempt shrinks the batch once, however often it says so."""
    sim, to = largest()
    sim.out_of_memory(to)
    before = snapshot(sim.study)
    sim.out_of_memory(to)
    assert snapshot(sim.study) == before
    again = sim.sample()
    sim.out_of_memory(to)
    assert trial_of(sim, to).params["bs"] == again.params["bs"] == 32


def test_in_the_last_trial() -> None:
    """It is tried again although every trial has been handed out."""
    sim, to = largest(num_trials=1)
    sim.out_of_memory(to)
    again = sim.sample()
    assert (again.trial, again.attempt) == (0, 2)
    for _ in range(4):
        sim.report(again, 0.5)
    assert sim.ask() == Nothing(2, done=True)


def test_there_is_a_budget() -> None:
    """After the eighth time the trial has failed, even if there were smaller batches still."""
    grid = Space({**SIZES, "bs": SearchSpace("quniform", [1, 2**20, 1])})
    sim, (to,) = begun({"lr": 0.5, "bs": 2**20}, search_space=grid)
    for _ in range(8):
        sim.out_of_memory(to)
        to = sim.sample()
    assert to.params["bs"] == 2**12
    sim.out_of_memory(to)
    assert (state(sim, to), trial_of(sim, to).reason) == (S.FAILED, "out of memory, and that 9 times")


def test_readers_behind_still_get_their_answers() -> None:
    """After running out of memory, and a restart, a slow rank still hears RUNNING for the steps that were accepted."""
    sim, to = largest()
    sim.report(to, 0.5)
    sim.report(to, 0.5)
    sim.out_of_memory(to)
    before = sim.verdict(0)
    sim.crash()
    assert sim.query(to) == before
    assert before is not None
    assert (before.last_step, before.stop_step) == (2, 3)


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("crash", [False, True])
def test_nothing_is_left_of_the_failed_attempt_in_the_rungs(mode: str, crash: bool) -> None:
    """ASHA judges others as if the attempt that ran out of memory had never been; with what fits it starts anew."""
    sign = 1.0 if mode == "max" else -1.0
    sim, (to, other) = begun(
        LARGEST, {"lr": 0.1, "bs": 8}, search_alg="asha", min_iterations=1, mode=mode, num_workers=2
    )
    for _ in range(2):
        sim.report(to, sign * 0.9)
    sim.out_of_memory(to)
    if crash:
        sim.crash()
    rule = sim.study.attempts.scheduler
    assert isinstance(rule, Asha)
    assert [list(rung) for rung in rule.rungs[0]] == [[], []]
    again = sim.sample()
    assert sim.report(other, sign * 0.5) is Status.RUNNING  # the best there is, now that 0.9 does not count
    assert sim.report(again, sign * 0.1) is Status.STOP
    assert [list(rung) for rung in rule.rungs[0]] == [[0.1, 0.5], []]


# --- several trials


def test_the_bound_applies_to_later_trials() -> None:
    """What did not fit is not tried again, also not after a restart."""
    sim, to = largest()
    out_of_memory_until(sim, to, 16)
    sim.report(Sample(0, 0, 3, 0, {}), 0.25)
    sim.finalize(Sample(0, 0, 3, 0, {}))
    sim.crash()
    while len(sim.study.trials) < 6:
        to = sim.sample()
        assert to.params["bs"] <= 16
        sim.report(to, 0.5)
        sim.finalize(to)


def test_several_run_out_of_memory_at_once() -> None:
    """Each goes on below the smallest that has failed by then, whatever it had itself; none is lost or made twice."""
    grid = Space({**SIZES, "bs": SearchSpace("quniform", [8, 256, 8])})
    sizes = [256, 200, 64, 128]
    sim, samples = begun(*({"lr": 0.1 * i, "bs": size} for i, size in enumerate(sizes)), search_space=grid)
    for to in samples:
        sim.report(to, 0.5)
    for to in samples:
        sim.out_of_memory(to)
    sim.crash()
    again = [sim.sample() for _ in samples]
    assert [(to.trial, to.attempt, to.params["bs"]) for to in again] == [(0, 2, 32), (1, 2, 32), (2, 2, 32), (3, 2, 32)]
    assert [trial.too_large for trial in sim.study.trials] == [(256, 128), (200, 96), (64,), (128,)]
    for to in again:
        sim.complete(to)
    assert [trial.state for trial in sim.study.trials] == [S.COMPLETED] * 4


def test_a_trial_that_waits_begins_below_the_bound() -> None:
    """What was released without a score comes back smaller; what has scores keeps what it has shown to fit."""
    sim, (crashed, released, failed) = begun(*({"lr": lr, "bs": 64} for lr in (0.1, 0.2, 0.3)))
    sim.finalize(crashed, crashed=True)
    sim.report(released, 0.5)
    sim.release(released)
    sim.start(failed)
    sim.out_of_memory(failed)
    again = [sim.sample() for _ in range(3)]
    assert [(to.trial, to.params["bs"]) for to in again] == [(0, 32), (1, 64), (2, 32)]


def test_no_configuration_is_another_trials() -> None:
    """A trial goes on with the largest batch that no other trial has; without one it has failed."""
    sim, (first, *others) = begun(
        *({"bs": bs, "act": "a"} for bs in (64, 32, 8)), {"bs": 64, "act": "b"}, search_space=FINITE, num_trials=5
    )
    sim.out_of_memory(first)
    assert sim.sample().params == {"bs": 16, "act": "a"}
    sim.out_of_memory(others[0])
    assert state(sim, others[0]) is S.FAILED
    assert trial_of(sim, others[0]).reason == (
        "out of memory, and with every smaller batch it would be another trial's configuration"
    )
    sim.out_of_memory(others[2])
    assert sim.sample().params == {"bs": 16, "act": "b"}


def test_a_trial_without_a_smaller_batch_of_its_own_keeps_the_one_it_has() -> None:
    """It was interrupted, and what others have shown since is no proof for it: it has its attempt."""
    sim, (to, *others) = begun(
        *({"bs": bs, "act": "a"} for bs in (32, 16, 8)), {"bs": 32, "act": "b"}, search_space=FINITE, num_trials=5
    )
    sim.start(to)
    sim.release(to)
    sim.out_of_memory(others[2])
    again = [sim.sample(), sim.sample()]
    assert [to.params for to in again] == [{"bs": 32, "act": "a"}, {"bs": 16, "act": "b"}]
    sim.out_of_memory(again[0])
    assert state(sim, to) is S.FAILED


def test_the_users_own_configurations_are_made_to_fit() -> None:
    """What create() was given comes with a smaller batch once it is known not to fit, and all else as it was."""
    own = [{"lr": lr, "bs": bs} for lr, bs in ((0.1, 64), (0.2, 64), (0.1, 32), (0.3, 8))]
    sim = Simulation(sampler=suggest)
    sim.create(search_space=SIZES, batch_size_name="bs", default_hyper_parameters=tuple(own), num_init_trials=1)
    to = sim.sample()
    sim.out_of_memory(to)
    samples = []
    while (answer := sim.ask()) is not None and isinstance(answer, Sample):
        samples.append(answer)
        sim.complete(answer)
    assert configs(samples[:2]) == [(0.1, 32), (0.2, 32)]
    assert (0.3, 8) in configs(samples)
    assert configs(samples).count((0.1, 32)) == 1
    assert len(samples) == 6


# --- suggestions


def test_suggestions_are_dropped_when_they_become_impossible() -> None:
    """What was prepared before memory ran out is not handed out: neither larger batches nor what a trial has become."""
    sim = Simulation(prompt=False)
    sim.create(search_space=FINITE, batch_size_name="bs", num_trials=8, num_init_trials=8)
    prepared = [{"bs": bs, "act": act} for bs, act in ((64, "a"), (32, "a"), (64, "b"), (8, "a"))]
    sim.send(Suggested("u1", 0, 0, tuple(prepared)))
    to = sim.sample()
    sim.out_of_memory(to)
    assert sim.study.desk.ready == [{"bs": 8, "act": "a"}]
    assert sim.sample().params == {"bs": 32, "act": "a"}
    assert sim.sample().params == {"bs": 8, "act": "a"}
    assert sim.ask() is None
    request = sim.study.wanted()
    assert request is not None
    assert (request.bound.fails, request.left_behind) == (64, ({"bs": 64, "act": "a"},))


def test_suggestions_are_dropped_when_a_trial_that_waited_becomes_one_of_them() -> None:
    """A trial that comes back with a smaller batch stands for what was to be handed out as a new one."""
    sim = Simulation(prompt=False)
    sim.create(search_space=FINITE, batch_size_name="bs", num_trials=8, num_init_trials=8)
    prepared = [{"bs": bs, "act": act} for bs, act in ((64, "a"), (64, "b"), (32, "a"), (8, "a"))]
    sim.send(Suggested("u1", 0, 0, tuple(prepared)))
    waits, fails = sim.sample(), sim.sample()
    sim.start(waits)
    sim.release(waits)
    sim.out_of_memory(fails)
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
                            bound=sim.study.attempts.resizing.bound, left_behind=({"bs": 64, "act": "a"},))  # fmt: skip


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
    sim.create(search_space=SIZES, batch_size_name="bs", default_hyper_parameters=tuple(own), num_init_trials=1)
    sim.out_of_memory(sim.sample())
    for _ in own[1:]:
        sim.complete(sim.sample())
    assert configs(sim.study.trials)[:3] == [(0.1, 8), (0.2, 8), (0.3, 8)]


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
