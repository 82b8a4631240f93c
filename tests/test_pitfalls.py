"""What goes wrong in a search, case by case, and what is expected then.

Cases, in the order of the tests below; a test of another file is not repeated here.

Cholesky fails: test_broken_factorizations,
    test_surrogate.py::test_singular_matrices_get_a_jitter, test_surrogate.py::test_no_matrix_no_posterior,
    test_samplers.py::test_a_failing_fit_is_no_failure
near-duplicate rows, repeats: test_repeats_count_with_their_mean,
    test_samplers.py::test_repeated_and_neighbouring_results, test_surrogate.py::test_gradient_of_the_objective
constant scores: test_constant_scores_go_on_with_the_design, test_constant_scores_stop_nobody,
    test_surrogate.py::test_constant_scores
constant on the good half only: test_scores_that_differ_below_the_median_only,
    test_surrogate.py::test_transforms_are_monotone
fewer than 2 finite scores: test_one_score_is_no_model
failed trials (NaN, exception, out of memory): test_failing_regions_are_left,
    test_attempts.py::test_three_invalid_scores_in_a_row_stop_a_trial, test_attempts.py::test_an_end_with_a_score,
    test_attempts.py::test_a_trial_with_invalid_scores_only_is_never_best
infinite scores: test_infinite_scores_are_warned_of, test_score.py::test_numbers_that_are_not_finite_floats
huge outliers: test_one_terrible_score_hides_no_optimum, test_huge_scores_stop_nobody,
    test_surrogate.py::test_half_rank_keeps_the_good_half,
    test_surrogate.py::test_one_absurd_score_leaves_the_others_apart, test_samplers.py::test_odd_scores
scores of other types: test_score.py::test_numbers, test_score.py::test_what_is_no_number,
    test_score.py::test_integers_that_a_float_rounds
ranges of one value: test_constants_are_no_dimensions, test_a_study_of_one_configuration,
    test_samplers.py::test_a_space_of_one_configuration, test_samplers.py::test_neighbouring_floats_do_not_end_a_study,
    test_dimension.py::TestCoordinates::test_neighbouring_floats
senseless ranges: test_search_space.py::TestConstruction::test_senseless_ranges
quantized values: test_suggested_grid_values_are_exact,
    test_dimension.py::TestValues::test_values_of_finite_ranges,
    test_dimension.py::TestValues::test_quantized_samples_are_multiples_in_range
overflow of integers: test_huge_ranges_are_searched, test_dimension.py::TestCoordinates::test_huge_integers,
    test_dimension.py::TestValues::test_size, test_space.py::TestSpace::test_size
rounding at the bounds: test_dimension.py::TestValues::test_continuous_samples_are_floats_in_range
options that cannot be hashed, or look alike: test_options_are_known_by_their_place,
    test_search_space.py::TestContains::test_options_that_look_alike,
    test_search_space.py::TestConstruction::test_wrong_types_in_a_range
1,000 options, 50 dimensions: test_many_options, test_samplers.py::test_large_choices
whole space exhausted: test_samplers.py::test_a_finite_space_is_exhausted_exactly,
    test_samplers.py::test_a_large_finite_space_is_exhausted_exactly, test_handout.py::test_a_finite_space_is_used_up,
    test_handout.py::test_done
few trials: test_the_only_trial_is_the_users_own, test_samplers.py::test_the_first_trial_is_the_centre,
    test_handout.py::test_more_initial_trials_than_trials, test_handout.py::test_as_many_as_there_are_workers
kappa: test_samplers.py::test_kappa_decays_after_the_delay, test_samplers.py::test_kappa_of_the_user_is_taken_literally,
    test_samplers.py::test_kappa_explores, test_spec.py::test_accepted, test_spec.py::test_wrong_values
reduction_factor, min_iterations: test_schedulers.py::test_rungs, test_schedulers.py::test_as_many_brackets_as_rungs,
    test_study.py::test_min_iterations_beyond_the_last, test_spec.py::test_wrong_types
rungs that coincide: test_schedulers.py::test_rungs_rise
late, repeated and excessive reports: test_attempts.py::test_reports_after_the_end,
    test_attempts.py::test_a_step_beyond_the_last_is_the_last, test_attempts.py::test_the_same_step_twice,
    test_attempts.py::test_a_lower_step_is_a_repeat,
    test_lives.py::test_the_second_attempt_is_judged_by_new_steps_only
lost worker: test_a_lost_worker_leaves_a_doubtful_result, test_lives.py::test_a_lost_trial_is_tried_once_more
mode="min": test_minimizing_mirrors_maximizing_to_the_last_stop, test_samplers.py::test_minimizing_mirrors_maximizing,
    test_benchmark_peers.py::test_minimizing_mirrors_maximizing
resume: test_a_restart_changes_no_suggestion, test_another_process_suggests_the_same,
    test_study.py::test_resume_with_other_arguments, test_spec.py::test_the_space_names_what_differs,
    test_prepared_suggestions.py::test_another_acquisition_makes_other_suggestions
clock of the coordinator: test_the_event_loop_goes_on_during_a_fit, test_a_fit_that_dies_or_hangs,
    test_a_fit_that_nobody_waits_for
seeds: test_threads_do_not_share_a_sequence, test_global_random_numbers_are_left_alone,
    test_samplers.py::test_the_same_request_has_the_same_answer,
    test_samplers.py::test_the_design_is_addressed_by_ordinal
too many BLAS threads: test_a_fit_has_one_thread, test_imports.py::test_imports_follow_the_layers
"""

import asyncio
import contextlib
import logging
import math
import multiprocessing
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from coordinator import suggest as fitting
from coordinator.suggest import THREADS, Suggester
from hpopt.core.incumbent import incumbent
from hpopt.core.messages import Nothing, Sample
from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import StudySpec
from hpopt.core.suggest_request import Observation, SuggestRequest
from hpopt.core.trial import TrialState
from hpopt.samplers.base import suggest
from hpopt.score import to_score
from tests.named import named_in
from tests.server import until
from tests.simulation import Simulation
from tests.space_helpers import typed

Config = dict[str, Any]

LINE = Space({"a": SearchSpace("uniform", [0, 1])})
SQUARE = Space({**LINE, "b": SearchSpace("uniform", [0, 1])})
GREEDY: dict[str, Any] = {"acquisition": "ucb", "kappa": 0}
"""Suggest what the model takes for the best."""
TURNS = pytest.mark.parametrize("turn", range(4))
"""A model may see the scores differently for each of a few ordinals; what is promised holds for all of them."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def suggester() -> Iterator[Suggester]:
    """A fitting process, started where more threads are asked for than it should have."""
    with pytest.MonkeyPatch.context() as environment:
        for name in THREADS:
            environment.setenv(name, "4")
        its = Suggester()
        yield its
        its.close()


def spec_of(space: Space = SQUARE, **changes: Any) -> StudySpec:
    """The spec of a study of up to 50 trials."""
    return Simulation(seed=7).spec(search_space=space, **{"num_trials": 50, "max_iterations": 10, **changes})


def observed(params: Config, score: float | None) -> Observation:
    """A trial that has ended."""
    return Observation(params, score, 10, complete=score is not None)


def designed(spec: StudySpec, scores: list[float | None]) -> SuggestRequest:
    """The request for two more trials when the first of the design had these scores."""
    points = suggest(SuggestRequest(spec, 0, len(scores)), model=False)
    return SuggestRequest(spec, len(scores), 2, tuple(map(observed, points, scores)))


def modelled(count: int = 20, **changes: Any) -> SuggestRequest:
    """A request that the model answers."""
    spec = spec_of(**changes)
    points = suggest(SuggestRequest(spec, 0, count), model=False)
    return SuggestRequest(spec, count, 2, tuple(observed(params, bowl(params)) for params in points))


def bowl(params: Config) -> float:
    """A score with its best at (0.4, 0.7)."""
    return -((float(params["a"]) - 0.4) ** 2) - (float(params["b"]) - 0.7) ** 2


def created(sampler: Any = suggest, **spec: Any) -> Simulation:
    """A study with the real sampler."""
    sim = Simulation(seed=spec.pop("seed", 7), sampler=sampler)
    sim.create(**spec)
    return sim


def story(sim: Simulation) -> list[Any]:
    """What became of every trial."""
    return [(typed(each.params), each.state, each.best_step, each.last_step) for each in sim.study.trials]


# --- scores that a model cannot be made of


@pytest.mark.parametrize("every", [1, 2, 3], ids=lambda every: f"every {every}.")
def test_broken_factorizations(every: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """However many matrices have no Cholesky factor, there are suggestions; a line in the log if all have none."""
    request, calls, broken = modelled(), 0, 0
    expected = suggest(request, model=False)
    for module in [module for name, module in sys.modules.items() if name.startswith("hpopt.samplers.")]:
        factorize = getattr(module, "dpotrf", None)
        if factorize is None:
            continue
        broken += 1

        def failing(*arguments: Any, factorize: Any = factorize, **options: Any) -> tuple[Any, int]:
            nonlocal calls
            calls += 1
            factor, failed = factorize(*arguments, **options)
            return factor, failed if calls % every else 1

        monkeypatch.setattr(module, "dpotrf", failing)
    assert broken
    suggestions = suggest(request)
    assert calls > every
    assert (suggestions == expected) is (every == 1)
    assert len({SQUARE.key(params) for params in suggestions}) == 2
    assert [record.name for record in caplog.records] == ["hpopt.samplers"] * (every == 1)


@pytest.mark.parametrize("dust", [0.0, 1e-12], ids=["exact", "near"])
@pytest.mark.parametrize("order", [1, -1], ids=["luck first", "luck last"])
@TURNS
def test_repeats_count_with_their_mean(dust: float, order: int, turn: int) -> None:
    """Of two configurations the one with the better mean is the best, not the one with the luckiest score."""
    lucky, solid = [1.0, 0.1, 0.1, 0.1][::order], [0.6] * 4
    others = [(a, 0.0) for a in (0.0, 0.1, 0.5, 0.9, 1.0)]
    repeats = [(at + i * dust, score) for at, run in ((0.3, lucky), (0.7, solid)) for i, score in enumerate(run)]
    seen = tuple(observed({"a": a}, score) for a, score in others + repeats)
    (best,) = suggest(SuggestRequest(spec_of(LINE, **GREEDY), len(seen) + turn, 1, seen))
    assert abs(best["a"] - 0.7) < 0.15


@pytest.mark.parametrize("score", [0.0, 0.1, -1e30, 5e-324])
@pytest.mark.parametrize("dust", [0.0, 1e-15])
def test_constant_scores_go_on_with_the_design(score: float, dust: float) -> None:
    """Scores that are all the same, but for rounding errors, teach nothing: the next points are those of the design."""
    request = designed(spec_of(), [score * (1.0 + i % 2 * dust) for i in range(8)])
    assert suggest(request) == suggest(request, model=False)


@pytest.mark.parametrize("score", [0.1, 0.0, -0.7, 1e-300])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_constant_scores_stop_nobody(score: float, mode: str) -> None:
    """Under median_stop nobody is worse than the others, not even by the rounding of a mean."""
    sim = created(num_trials=7, max_iterations=12, early_stop="median_stop", mode=mode)
    sim.run(lambda _: [score] * 12)
    assert {trial.state for trial in sim.study.trials} == {TrialState.COMPLETED}


@TURNS
def test_scores_that_differ_below_the_median_only(turn: int) -> None:
    """When most are equally good, the others still tell where not to go."""
    spec = spec_of(LINE, **GREEDY)
    seen = tuple(observed({"a": a}, min(1.0, 1.6 - a)) for a in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0))
    assert all(params["a"] < 0.65 for params in suggest(SuggestRequest(spec, 10 + turn, 5, seen)))


@pytest.mark.parametrize("scored", [None, 0, 3, 7])
def test_one_score_is_no_model(scored: int | None) -> None:
    """With fewer than two scores the next points are those of the design, whatever failed besides."""
    request = designed(spec_of(), [0.5 if i == scored else None for i in range(8)])
    assert suggest(request) == suggest(request, model=False)


def not_a_number() -> float | None:
    """A trainer that reports NaN."""
    return to_score(math.nan)


def crash() -> None:
    """A trainer that raises."""
    raise RuntimeError


def run_out_of_memory() -> None:
    """A trainer that needs too much memory."""
    raise MemoryError


@pytest.mark.parametrize("fail", [not_a_number, crash, run_out_of_memory])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_failing_regions_are_left(fail: Callable[[], float | None], mode: str) -> None:
    """Where trials fail, however they do, few later ones go; the best one is never among the failed."""
    sign = 1.0 if mode == "max" else -1.0

    def train(to: Sample) -> Iterator[float | None]:
        for _ in range(4):
            yield sign * to.params["a"] if to.params["a"] < 0.7 else fail()

    sim = created(search_space=SQUARE, num_trials=24, num_init_trials=6, mode=mode)
    sim.run(train)
    failed = [trial.params["a"] >= 0.7 for trial in sim.study.trials]
    assert any(failed[:6])
    assert sum(failed[12:]) < 6
    assert [trial.best_score is None for trial in sim.study.trials] == failed
    best = incumbent(sim.study.trials, sim.study.spec)
    assert best is not None
    assert 0.5 < best.params["a"] < 0.7


@pytest.mark.parametrize("score", [math.inf, -math.inf, math.nan, np.float32("inf"), 10**400])
def test_infinite_scores_are_warned_of(score: float, caplog: pytest.LogCaptureFixture) -> None:
    """A score that is not finite is no score, on whichever side, and the log says so."""
    assert to_score(score) is None
    assert [(record.name, record.levelname) for record in caplog.records] == [("hpopt", "WARNING")]
    assert "not a finite number" in caplog.text


@pytest.mark.parametrize("terrible", [-1e3, -1e30, -1.7e308, None])
@pytest.mark.parametrize("mode", ["max", "min"])
@TURNS
def test_one_terrible_score_hides_no_optimum(terrible: float | None, mode: str, turn: int) -> None:
    """One score that is worse than all others by any factor leaves the model's optimum where it is."""
    spec = spec_of(mode=mode, **GREEDY)
    scores = [(params, spec.sign * bowl(params)) for params in suggest(SuggestRequest(spec, 0, 20), model=False)]
    worst = None if terrible is None else spec.sign * terrible
    seen = tuple(observed(*each) for each in [*scores, ({"a": 1.0, "b": 0.1}, worst)])
    (best,) = suggest(SuggestRequest(spec, len(seen) + turn, 1, seen))
    assert math.dist((best["a"], best["b"]), (0.4, 0.7)) < 0.1


def test_huge_scores_stop_nobody() -> None:
    """Sums of scores that no float holds make nobody worse than the others."""
    sim = created(num_trials=8, max_iterations=12, early_stop="median_stop")
    sim.run(lambda _: [1.5e308] * 12)
    assert {trial.state for trial in sim.study.trials} == {TrialState.COMPLETED}


# --- search spaces


CONSTANTS = {
    "fixed": (SearchSpace("uniform", [3, 3]), 3.0),
    "logarithm": (SearchSpace("loguniform", [0.1, 0.1]), 0.1),
    "grid": (SearchSpace("qloguniform", [5, 9, 4]), 8),
    "option": (SearchSpace("choice", [[64, 64]]), [64, 64]),
}


def test_constants_are_no_dimensions() -> None:
    """Hyper-parameters of one value are suggested as they are, and change nothing for the others."""
    request = modelled()
    values = {name: value for name, (_, value) in CONSTANTS.items()}
    space = Space({**{name: one for name, (one, _) in CONSTANTS.items()}, **SQUARE})
    seen = tuple(replace(each, params={**values, **each.params}) for each in request.observations)
    wider = suggest(replace(request, spec=replace(request.spec, search_space=space), observations=seen))
    assert [typed(params) for params in wider] == [typed({**values, **params}) for params in suggest(request)]


@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
def test_a_study_of_one_configuration(search_alg: str) -> None:
    """When every hyper-parameter has one value there is exactly one trial, and then none."""
    space = Space({name: one for name, (one, _) in CONSTANTS.items()})
    sim = created(search_space=space, search_alg=search_alg, num_workers=3)
    sim.complete(sim.sample())
    assert sim.ask() == Nothing(1, done=True)


def test_suggested_grid_values_are_exact() -> None:
    """The sampler suggests the multiples of q in the range as they are written: from edge to edge, ints if q is one."""
    space = Space({"p": SearchSpace("quniform", [0.05, 0.75, 0.1]), "n": SearchSpace("qloguniform", [5, 21, 4])})
    spec = spec_of(space, num_init_trials=3)
    seen: list[Observation] = []
    while samples := suggest(SuggestRequest(spec, len(seen), 1, tuple(seen))):
        seen += [observed(params, -abs(params["p"] - 0.3)) for params in samples]
    expected = [(k / 10, n) for k in range(1, 8) for n in (8, 12, 16, 20)]
    assert typed(sorted((each.params["p"], each.params["n"]) for each in seen)) == typed(expected)


HUGE = Space(
    {
        "u": SearchSpace("uniform", [-8e307, 8e307]),
        "lr": SearchSpace("loguniform", [1, 1e300]),
        "n": SearchSpace("quniform", [-(2**53), 2**53, 1]),
        "fine": SearchSpace("quniform", [0, 1e9, 1e-6]),
        "coarse": SearchSpace("quniform", [0, 2e300, 1e285]),
        "log": SearchSpace("qloguniform", [1, 2**53, 1]),
    }
)


@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
def test_huge_ranges_are_searched(search_alg: str) -> None:
    """Ranges near the limits of floats and grids of 2**54 values are searched as others are, without any overflow."""
    spec = spec_of(HUGE, search_alg=search_alg)
    seen: list[Observation] = []
    for ordinal in range(0, 24, 2):
        samples = suggest(SuggestRequest(spec, ordinal, 2, tuple(seen)))
        assert typed([HUGE.check(params) for params in samples]) == typed(samples)
        seen += [observed(params, -abs(math.log10(params["lr"]) - 100.0)) for params in samples]
    assert len({HUGE.key(each.params) for each in seen}) == 24
    assert len({each.params["n"] for each in seen}) > 4


LOOK_ALIKE: list[Any] = [1, True, 1.0, "1", [1], [True], {"n": 1}, {"n": 1.0}, None, 0, False]


def test_options_are_known_by_their_place() -> None:
    """Options that look alike, or cannot be hashed, are tried once each, also when the coordinator dies in between."""
    sim = created(search_space=Space({"option": SearchSpace("choice", LOOK_ALIKE)}), num_trials=99)
    sim.run(lambda to: [float(to.params["option"] is True)] * 4, crashes=0.3)
    tried = [typed(trial.params["option"]) for trial in sim.study.trials]
    assert sorted(tried) == sorted(map(typed, LOOK_ALIKE))
    best = incumbent(sim.study.trials, sim.study.spec)
    assert best is not None
    assert best.params["option"] is True


def test_many_options() -> None:
    """Fifty choices among a thousand names each are searched, without listing all, and near what was good."""
    names = [f"option {i}" for i in range(1000)]
    space = Space({f"choice {i}": SearchSpace("choice", names) for i in range(50)})
    spec = spec_of(space, **GREEDY)
    points = suggest(SuggestRequest(spec, 0, 20), model=False)
    seen = tuple(observed(params, float(i == 13)) for i, params in enumerate(points))
    (params,) = suggest(SuggestRequest(spec, 20, 1, seen))
    assert space.key(params) not in {space.key(each) for each in points}
    assert sum(params[name] == points[13][name] for name in space) > 25


# --- studies


def test_the_only_trial_is_the_users_own() -> None:
    """With one trial and default hyper-parameters those are tried."""
    own = {"lr": 0.003, "bs": 24}
    sim = created(num_trials=1, num_workers=4, default_hyper_parameters=(own,))
    assert sim.sample().params == own
    assert sim.ask(mode="now") == Nothing(1, done=False)


def test_a_lost_worker_leaves_a_doubtful_result() -> None:
    """A trial whose workers are lost for good is no longer pending, and counts as one that did not get to its end."""
    sim = created(num_trials=4, num_init_trials=2)
    lost, other = sim.sample(), sim.sample()
    sim.report(lost, 0.5)
    sim.lose(lost)
    sim.complete(other)
    again = sim.sample()
    assert (again.trial, again.params) == (lost.trial, lost.params)
    sim.start(again)
    sim.lose(again)
    following = sim.sample()
    assert following.trial == 2
    assert [trial.id for trial in sim.study.trials.pending_trials()] == [2]
    assert Observation(lost.params, 0.5, 1, complete=False) in sim.study.trials.observations()


@pytest.mark.parametrize(
    "rule",
    [{"early_stop": "median_stop"}, {"search_alg": "asha", "num_brackets": 2}],
    ids=["median", "asha"],
)
def test_minimizing_mirrors_maximizing_to_the_last_stop(rule: dict[str, Any]) -> None:
    """Whole studies of f and, minimized, of -f have the same trials, which end at the same steps."""

    def outcome(mode: str, sign: float) -> list[Any]:
        def train(to: Sample) -> Iterator[float | None]:
            for step in range(9):
                yield None if (to.trial + step) % 5 == 4 else sign * (bowl(to.params) - 1.0 / (step + 1))

        sim = created(search_space=SQUARE, num_trials=12, max_iterations=9, num_workers=2, mode=mode, **rule)
        sim.run(train)
        return story(sim)

    up = outcome("max", 1.0)
    assert up == outcome("min", -1.0)
    assert any(state is TrialState.STOPPED for _, state, *_ in up)


def test_a_restart_changes_no_suggestion() -> None:
    """With a coordinator that dies after half of all turns a study has the same trials."""

    def outcome(crashes: float) -> list[Any]:
        sim = created(search_space=SQUARE, num_trials=11, num_workers=2, early_stop="median_stop")
        sim.run(lambda to: [bowl(to.params) * step for step in (4, 3, 2, 1)], crashes=crashes)
        return story(sim)

    assert outcome(1e-9) == outcome(0.5)  # the crashes are drawn either way


# --- the process that fits


def test_another_process_suggests_the_same(suggester: Suggester) -> None:
    """A fitting process that was just started answers as any other: nothing depends on what it was asked before."""
    request = modelled()
    assert asyncio.run(suggester.suggest(request)) == suggest(request) != suggest(request, model=False)


def test_the_event_loop_goes_on_during_a_fit(suggester: Suggester) -> None:
    """Reports are answered while a suggestion is computed, by another process than theirs."""
    request = modelled(300)

    asyncio.run(suggester.suggest(modelled()))  # the process is there

    async def turns() -> int:
        task, count = asyncio.create_task(suggester.suggest(request)), 0
        while not task.done():
            await asyncio.sleep(0.005)
            count += 1
        return count

    before = time.process_time()
    assert asyncio.run(turns()) > 3
    between = time.process_time()
    suggest(request)
    assert between - before < 0.5 * (time.process_time() - between)


@pytest.mark.parametrize("dies", [True, False], ids=["dies", "hangs"])
def test_a_fit_that_dies_or_hangs(
    suggester: Suggester, dies: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs a warning and a suggestion without a model; the next one has a model again."""
    request = modelled()

    async def disturbed() -> list[Config]:
        (process,) = multiprocessing.active_children()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        with monkeypatch.context() as patience:
            patience.setattr(fitting, "TIMEOUT", 60.0 if dies else 0.2)
            task = asyncio.create_task(suggester.suggest(request))
            await asyncio.sleep(0.05)
        if dies:
            os.kill(process.pid, signal.SIGKILL)
        return await task

    assert asyncio.run(disturbed()) == suggest(request, model=False)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [(record.name, record.levelname) for record in warnings] == [("hpopt.coordinator", "WARNING")]
    assert asyncio.run(suggester.suggest(request)) == suggest(request)


def test_a_fit_that_nobody_waits_for(suggester: Suggester, caplog: pytest.LogCaptureFixture) -> None:
    """A study is given up while its fit hangs: the next study is answered at once, with its model."""
    request = modelled()

    def works() -> bool:
        return suggester._work is not None and suggester._work.running()

    async def given_up() -> list[Config]:
        (process,) = multiprocessing.active_children()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        task = asyncio.create_task(suggester.suggest(request))
        await asyncio.to_thread(until, works, "the fit has begun")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return await suggester.suggest(request)

    asyncio.run(suggester.suggest(request))  # the process is there
    assert asyncio.run(given_up()) == suggest(request)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_threads_do_not_share_a_sequence(suggester: Suggester) -> None:
    """Threads that ask at the same time get the points that each would get alone."""
    requests = [modelled(seed=seed, num_init_trials=12) for seed in (101, 102)]
    requests += [replace(each, ordinal=ordinal, count=1, observations=()) for each in requests for ordinal in range(9)]
    alone = [asyncio.run(suggester.suggest(request)) for request in requests]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(suggest, requests)) == alone


def test_global_random_numbers_are_left_alone() -> None:
    """Suggestions neither depend on the global generators nor draw from them."""
    request = modelled()
    found = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global generator is what is tested
        before = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002
        found += [suggest(request), suggest(request, model=False)]
        after = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002
        assert repr(after) == repr(before)
    assert found[:2] == found[2:]


def test_a_fit_has_one_thread(suggester: Suggester) -> None:
    """BLAS and OpenMP have one thread in the fitting process, also where the environment asks for more."""
    asyncio.run(suggester.suggest(modelled()))
    pools = suggester._pool.submit(threadpool_info).result()
    assert pools
    assert {pool["num_threads"] for pool in pools} == {1}


# --- the list above


def test_the_cases_are_covered_by_these_tests() -> None:
    """Every test that the list at the top names exists, and every test here but this one is in the list."""
    here = Path(__file__)
    named = re.findall(r"(test_\w+\.py)::([\w:]+)", __doc__ or "")
    assert len(named) > 40
    missing = [f"{file}::{name}" for file, name in named if name not in named_in(here.with_name(file))]
    assert missing == []
    own = re.findall(r"(?<![:\w])(test_\w+)(?!\.py|\w)", __doc__ or "")
    assert own == [name for name in named_in(here) if name != "test_the_cases_are_covered_by_these_tests"]
