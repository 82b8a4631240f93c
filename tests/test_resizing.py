"""What a study does about memory that runs out: which trials are tried again, and with which batch size."""

from typing import Any

import pytest

from hpopt.core.messages import Nothing, Sample
from hpopt.core.schedulers.asha import Asha
from hpopt.core.space import SearchSpace, Space
from hpopt.samplers.base import suggest
from hpopt.status import Status
from tests.committed import snapshot
from tests.resizing_helpers import (
    FINITE,
    LARGEST,
    SIZES,
    S,
    begun,
    configs,
    largest,
    out_of_memory_until,
    state,
    trial_of,
)
from tests.simulation import Simulation, created

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
    """There is nothing left to try: the trial has failed, and what cannot be trained has no score."""
    sim, to = largest()
    assert out_of_memory_until(sim, to, 8) == [64, 32, 16, 8]
    smallest = Sample(0, 0, 4, 0, {})
    sim.report(smallest, 0.25)
    sim.out_of_memory(smallest)
    trial = trial_of(sim, to)
    assert (trial.state, trial.best_score) == (S.FAILED, None)
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
