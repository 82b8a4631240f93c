import dataclasses
import heapq
import math
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpopt.core.budget import MARGIN, OPEN, ROUNDING, left_open, plan, within_limits
from hpopt.core.cost import _passing, expected_ratio
from hpopt.core.rungs import bracket_of, max_brackets
from hpopt.core.schedulers.asha import Asha
from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import StudySpec
from hpopt.core.subset import MIN_SAMPLES
from hpopt.core.trial import Trial
from hpopt.core.validation import validated


def reals(dimensions: int) -> Space:
    """A space of so many continuous hyper-parameters."""
    return Space({f"x{i}": SearchSpace("uniform", [0, 1]) for i in range(dimensions)})


def make_spec(**fields: Any) -> StudySpec:
    """A spec with a dataset of 10,000 samples and a full training of 50 epochs, unless the fields say otherwise."""
    return StudySpec(**{"full_dataset_size": 10_000, "num_full_iterations": 50, "search_space": reals(3), **fields})


def derived(spec: StudySpec) -> tuple[int | None, int | None, float | None]:
    """What a plan makes of the open fields."""
    planned, _ = plan(spec)
    return planned.num_trials, planned.max_iterations, planned.subset_ratio


def either(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value, or None."""
    return st.none() | values


specs = st.builds(
    make_spec,
    full_dataset_size=st.sampled_from([0, 1, 499, 500, 501, 2000, 73_257, 1_281_167]),
    num_full_iterations=st.integers(1, 300),
    search_space=st.integers(1, 8).map(reals),
    search_alg=st.sampled_from(["bayes_opt", "asha"]),
    early_stop=st.sampled_from([None, "median_stop"]),
    num_init_trials=st.integers(1, 30),
    num_trials=either(st.integers(1, 300)),
    max_iterations=either(st.integers(1, 500)),
    min_iterations=either(st.integers(1, 20)),
    reduction_factor=st.integers(2, 6),
    num_brackets=either(st.integers(1, 4)),
    subset_ratio=either(st.floats(0.001, 2)),
    expected_time_ratio=st.floats(0.01, 100),
    non_pure_train_ratio=st.floats(0.01, 0.99),
    num_workers=st.integers(1, 100),
)


# --- what every plan is


@settings(deadline=None)
@given(specs)
def test_plan_is_complete_and_valid(spec: StudySpec) -> None:
    """Everything is resolved, to values that a study accepts, and nothing else is touched."""
    planned = validated(plan(spec)[0])
    assert planned.trials >= 1
    assert 1 <= planned.iterations <= max(spec.num_full_iterations, spec.max_iterations or 0)
    changed = {f.name for f in dataclasses.fields(spec) if getattr(spec, f.name) != getattr(planned, f.name)}
    assert changed <= {*OPEN, "num_brackets"}


@settings(deadline=None)
@given(specs)
def test_given_values_stay(spec: StudySpec) -> None:
    """num_trials and max_iterations are what the user gave; so is subset_ratio, unless the subset were too small."""
    planned, _ = plan(spec)
    assert planned.num_trials == (spec.num_trials or planned.num_trials)
    assert planned.max_iterations == (spec.max_iterations or planned.max_iterations)
    if spec.subset_ratio is not None and spec.subset_ratio * spec.full_dataset_size >= MIN_SAMPLES:
        assert planned.subset_ratio == min(1.0, spec.subset_ratio)


@settings(deadline=None)
@given(specs)
def test_subset_is_never_too_small(spec: StudySpec) -> None:
    """A subset has 500 samples or is the full dataset."""
    ratio = plan(spec)[0].subset_ratio
    assert ratio is not None
    assert ratio == 1.0 or ratio * spec.full_dataset_size >= MIN_SAMPLES - 1e-6


@settings(deadline=None)
@given(specs)
def test_planning_again_changes_nothing(spec: StudySpec) -> None:
    """The plan depends on the spec alone, and the plan of a plan is the plan, without another word."""
    planned, notices = plan(spec)
    assert plan(spec) == (planned, notices)
    assert plan(planned)[0] == planned
    assert not [notice for notice in plan(planned)[1] if "becomes" in notice or "expected_time_ratio" in notice]


@settings(deadline=None)
@given(specs)
def test_plan_keeps_within_the_budget_or_says_so(spec: StudySpec) -> None:
    """The expected time keeps a margin to the budget; if nothing does, the least plan comes, with a warning."""
    planned, notices = plan(spec)
    cost, budget = expected_ratio(planned), spec.expected_time_ratio
    warned = any("is too small" in notice for notice in notices)
    if not left_open(spec):
        assert not warned
        return
    assert warned == (cost > budget * (1 + ROUNDING))
    if cost > MARGIN[spec.search_alg] * budget * (1 + 1e-9):
        starving = dataclasses.replace(spec, expected_time_ratio=1e-9)
        assert derived(starving) == (planned.num_trials, planned.max_iterations, planned.subset_ratio)


@settings(deadline=None)
@given(specs, st.floats(1, 10))
def test_more_time_never_shortens_trials(spec: StudySpec, factor: float) -> None:
    """With a larger budget, iterations and subset do not shrink; nor does the number of trials if they are given."""
    richer = dataclasses.replace(spec, expected_time_ratio=factor * spec.expected_time_ratio)
    poor, rich = plan(spec)[0], plan(richer)[0]
    assert rich.iterations >= poor.iterations
    assert (rich.subset_ratio or 1) >= (poor.subset_ratio or 1)
    if spec.max_iterations and spec.subset_ratio:
        assert rich.trials >= poor.trials


@settings(deadline=None)
@given(specs, st.sampled_from(OPEN), st.integers(1, 50))
def test_cost_rises_with_everything(spec: StudySpec, name: str, more: int) -> None:
    """More trials, more iterations, and more samples never make a study shorter."""
    planned, _ = plan(dataclasses.replace(spec, num_brackets=None))
    value = getattr(planned, name)
    bigger = min(1.0, value * (1 + more / 10)) if name == "subset_ratio" else value + more
    assert expected_ratio(dataclasses.replace(planned, **{name: bigger})) >= expected_ratio(planned) * (1 - 1e-12)


# --- worked examples


@pytest.mark.parametrize(
    ("ratio", "epochs", "samples", "dimensions", "expected"),
    [
        (4, 10, 5000, 2, (26, 2, 0.6625)),
        (4, 20, 1000, 5, (42, 3, 0.5)),
        (1, 10, 73_257, 2, (11, 2, 0.2874)),
        (4, 50, 10_000, 3, (33, 9, 0.5496)),
        (4, 10, 0, 2, (19, 2, 1.0)),
    ],
)
def test_bayes_opt(ratio: float, epochs: int, samples: int, dimensions: int, expected: tuple[Any, ...]) -> None:
    """Trials, iterations and subset grow together.

    The first by hand: at z = s = .6625 there are n = 40 z = 26 trials of m = 2 epochs, as 10 z / 3 is below 2.5. They
    cost 26 * 2 * (.8 * .6625 + .2) = 37.96 of 0.95 * 4 * 10 = 38 epochs; one trial more would cost 39.42.
    """
    spec = make_spec(
        expected_time_ratio=ratio,
        num_full_iterations=epochs,
        full_dataset_size=samples,
        search_space=reals(dimensions),
    )
    assert derived(spec) == expected


@pytest.mark.parametrize(
    ("ratio", "epochs", "samples", "workers", "expected"),
    [
        (4, 10, 5000, 1, (16, 10, 0.275)),
        (4, 50, 10_000, 1, (21, 50, 0.3583)),
        (4, 50, 10_000, 8, (106, 50, 1.0)),
    ],
)
def test_asha(ratio: float, epochs: int, samples: int, workers: int, expected: tuple[Any, ...]) -> None:
    """Every trial may run as long as the full training; most of them are stopped."""
    spec = make_spec(
        search_alg="asha",
        expected_time_ratio=ratio,
        num_full_iterations=epochs,
        full_dataset_size=samples,
        num_workers=workers,
    )
    assert derived(spec) == expected


def test_cost_of_bayes_opt() -> None:
    """7 trials on 3 workers are 3 waves; of an epoch on half the data, 20 % do not shrink."""
    spec = make_spec(num_trials=7, max_iterations=10, subset_ratio=0.5, num_workers=3)
    assert expected_ratio(spec) == pytest.approx(3 * 10 * (0.8 * 0.5 + 0.2) / 50)


def test_cost_with_median_stop() -> None:
    """After the trials that are spared, stopping saves 0.5 of what lies beyond the grace of 10 %."""
    spec = make_spec(num_trials=20, max_iterations=10, subset_ratio=1.0, early_stop="median_stop", grace_trials=5)
    assert expected_ratio(spec) == pytest.approx(10 * (5 + 15 * (1 - 0.5 * 0.9)) / 50)


@pytest.mark.parametrize("trials", [4, 9, 16, 17])
def test_cost_where_nobody_can_be_stopped(trials: int) -> None:
    """Enough spared trials, or peers asked for, and median stopping saves nothing."""
    spec = make_spec(num_trials=trials, max_iterations=10, subset_ratio=1.0, num_workers=8)
    median = dataclasses.replace(spec, early_stop="median_stop")
    for guarded in (dataclasses.replace(median, grace_trials=17), dataclasses.replace(median, min_peers=17)):
        assert expected_ratio(guarded) == pytest.approx(expected_ratio(spec))


def test_cost_of_the_first_peer() -> None:
    """One trial runs to its end before others are compared with it; no study is shorter than that one."""
    spec = make_spec(max_iterations=10, subset_ratio=1.0, num_workers=8, num_trials=8, early_stop="median_stop")
    assert expected_ratio(spec) == pytest.approx(10 / 50)
    more = dataclasses.replace(spec, num_trials=80)
    work, tail = 1 + 79 * (1 - 0.5 * 0.9), 1 - 8**-0.3
    assert expected_ratio(more) == pytest.approx(10 * (work / 8 + tail) / 50)


def test_cost_of_asha_without_rungs_is_that_of_full_trials() -> None:
    """With nothing between the first and the last epoch, every trial runs to its end."""
    spec = make_spec(search_alg="asha", num_trials=7, max_iterations=10, min_iterations=10, subset_ratio=1.0)
    assert expected_ratio(spec) == pytest.approx(7 * 10 / 50)


@pytest.mark.parametrize("eta", [2, 3, 4, 10])
def test_closed_form_of_the_trials_that_pass_a_rung(eta: int) -> None:
    """It is the sum that it stands for, within 3.5 %, and the longer the sum the closer."""
    exact = 0.0
    for i in range(1, 2001):
        exact += max(1, i // eta) / i
        assert _passing(i, eta) == pytest.approx(exact, rel=0.035 if i < 50 else 0.01)


# --- limits


@pytest.mark.parametrize(
    ("samples", "asked", "expected"),
    [
        (10_000, 0.3, 0.3),
        (10_000, 0.01, 0.05),
        (1000, 0.2, 0.5),
        (500, 0.2, 1.0),
        (20, 0.9, 1.0),
        (10_000, 1, 1.0),
        (10_000, 7.5, 1.0),
        (0, 0.2, 1.0),
    ],
)
def test_subset_ratio_that_is_given(samples: int, asked: float, expected: float) -> None:
    """The ratio that makes 500 samples is the least one, and 1 the largest; a change is announced."""
    spec, notices = within_limits(make_spec(full_dataset_size=samples, subset_ratio=asked))
    assert (spec.subset_ratio, type(spec.subset_ratio)) == (expected, float)
    assert len(notices) == (asked < expected)


def test_open_fields_stay_open_within_limits() -> None:
    """The limits alone derive nothing, so that a resumed study keeps what it has."""
    spec = make_spec()
    assert within_limits(spec) == (spec, [])


@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
def test_dataset_of_unknown_size_is_used_in_full(search_alg: str) -> None:
    """full_dataset_size=0 means that no subset can be chosen; the user is told."""
    planned, notices = plan(make_spec(full_dataset_size=0, search_alg=search_alg))
    assert planned.subset_ratio == 1.0
    assert planned.trials >= 1
    assert "full_dataset_size=0" in notices[0]


def test_a_warning_where_the_subset_alone_was_left_open() -> None:
    """It is for who gave no subset of a dataset of unknown size too: what is derived may be too much."""
    asked = make_spec(full_dataset_size=0, num_trials=100, max_iterations=50, expected_time_ratio=4)
    assert "expected_time_ratio=4 is too small" in plan(asked)[1][-1]
    assert not any("too small" in notice for notice in plan(dataclasses.replace(asked, subset_ratio=1.0))[1])


@pytest.mark.parametrize("asked", [50, 6, None])
def test_finite_space_caps_the_trials(asked: int | None) -> None:
    """There are no more trials than configurations; a given number that shrinks is announced."""
    space = Space({"a": SearchSpace("choice", ["x", "y"]), "b": SearchSpace("quniform", [1, 3, 1])})
    planned, notices = plan(make_spec(search_space=space, num_trials=asked))
    assert planned.num_trials == 6
    assert any("num_trials=50 becomes 6" in notice for notice in notices) == (asked == 50)


def test_brackets_that_do_not_differ_are_left_out() -> None:
    """From 1 to 243 by 3 there are 6 brackets: 6 is accepted, 9 becomes 6."""
    fields = {"search_alg": "asha", "max_iterations": 243, "reduction_factor": 3}
    assert plan(make_spec(num_brackets=6, **fields))[0].num_brackets == 6
    planned, notices = plan(make_spec(num_brackets=9, **fields))
    assert planned.num_brackets == max_brackets(1, 243, 3) == 6
    assert "num_brackets=9 becomes 6" in notices[0]


def test_min_iterations_beyond_the_end_are_announced() -> None:
    """Trials that end before the first rung are never stopped by one."""
    _, notices = plan(make_spec(search_alg="asha", min_iterations=70))
    assert "min_iterations=70" in notices[0]


def test_fixed_dimensions_do_not_count() -> None:
    """A hyper-parameter with a single value asks for no more trials."""
    space = Space({**reals(2), "fixed": SearchSpace("choice", ["adam"])})
    assert derived(make_spec(search_space=space)) == derived(make_spec(search_space=reals(2)))


def test_default_hyper_parameters_all_get_a_trial() -> None:
    """A derived number of trials is at least the number of configurations that the user wants tried."""
    defaults = tuple({"x0": i / 100, "x1": 0.5, "x2": 0.5} for i in range(60))
    assert plan(make_spec(default_hyper_parameters=defaults, expected_time_ratio=0.1))[0].trials == 60


def test_warning_names_a_ratio_that_is_enough() -> None:
    """Following the advice, the warning is gone."""
    spec = make_spec(expected_time_ratio=0.1)
    _, notices = plan(spec)
    advice = float(notices[-1].split("raise it to ")[1].split(",")[0])
    assert plan(dataclasses.replace(spec, expected_time_ratio=advice))[1] == []


def test_long_studies_are_planned_at_once() -> None:
    """The largest study there is, with every bracket, costs no more thought than a small one."""
    spec = make_spec(
        search_alg="asha",
        num_full_iterations=1_000_000,
        num_workers=100_000,
        num_brackets=20,
        search_space=reals(64),
        expected_time_ratio=1e6,
    )
    assert plan(spec)[0].num_trials == 100_000


# --- simulated studies


def simulated_ratio(spec: StudySpec, seed: int) -> float:
    """How long a study with random curves takes, in full trainings: workers take the next trial when they are free."""
    random = Random(seed)
    rule = Asha.of(spec)
    p, s = spec.non_pure_train_ratio, spec.subset_ratio or 1.0
    epoch = (1 - p) * s + p
    clock = 0.0
    waiting = iter(range(spec.trials))
    busy: list[tuple[float, int, int, float]] = []  # (end of the epoch, trial, step, quality)
    for _ in range(min(spec.num_workers, spec.trials)):
        heapq.heappush(busy, (epoch, next(waiting), 1, random.random()))
    trials = [Trial(id=i, params={}, bracket=bracket_of(spec, i)) for i in range(spec.trials)]
    while busy:
        clock, trial, step, quality = heapq.heappop(busy)
        score = quality + 0.3 * random.random() / step - 1 / (step + 1)
        stopped = spec.search_alg == "asha" and rule.observe(trials[trial], step, score) is not None
        if not stopped and step < spec.iterations:
            heapq.heappush(busy, (clock + epoch, trial, step + 1, quality))
        else:
            following = next(waiting, None)
            if following is not None:
                heapq.heappush(busy, (clock + epoch, following, 1, random.random()))
    return clock / spec.num_full_iterations


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_simulated_bayes_opt_takes_what_was_expected(workers: int) -> None:
    """Without early stopping the cost model is exact, so the study ends within its budget."""
    spec, _ = plan(make_spec(num_workers=workers))
    assert simulated_ratio(spec, 0) == pytest.approx(expected_ratio(spec))
    assert expected_ratio(spec) <= 0.95 * 4


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("eta", [2, 4])
@pytest.mark.parametrize("brackets", [1, 3])
def test_simulated_asha_takes_what_was_expected(workers: int, eta: int, brackets: int) -> None:
    """On average over seeds, with random configurations. Those of a model run longer, so fewer of them are planned."""
    spec = make_spec(
        search_alg="asha", num_workers=workers, reduction_factor=eta, num_brackets=brackets, expected_time_ratio=6
    )
    at_random, _ = plan(dataclasses.replace(spec, acquisition="random"))
    mean = math.fsum(simulated_ratio(at_random, seed) for seed in range(20)) / 20
    assert mean == pytest.approx(expected_ratio(at_random), rel=0.35)
    assert plan(spec)[0].trials < 0.8 * at_random.trials
