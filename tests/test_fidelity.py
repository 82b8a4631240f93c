"""Trials of different lengths: what a sampler is told of them, and what it makes of it."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpopt.core.rungs import levels_of
from hpopt.core.schedulers.asha import Asha
from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import StudySpec
from hpopt.core.suggest_request import Observation, SuggestRequest
from hpopt.core.trial import Trial, TrialState
from hpopt.core.trials import Trials
from hpopt.samplers.acquisition import LogExpectedImprovement, UpperConfidenceBound
from hpopt.samplers.base import suggest
from hpopt.samplers.bayes import acquisition_for
from hpopt.samplers.encoding import Encoding
from hpopt.samplers.fidelity import FullLength, curve, length_of, longest_first
from hpopt.samplers.sobol import design
from hpopt.status import Status
from tests.simulation import created

SPACE = Space({"x": SearchSpace("uniform", [0, 1]), "kind": SearchSpace("choice", ["a", "b"])})
ITERATIONS = 27


pytestmark = pytest.mark.usefixtures("one_thread")


def spec_of(**arguments: Any) -> StudySpec:
    """A resolved spec of asha."""
    plan = {"num_trials": 500, "max_iterations": ITERATIONS, "subset_ratio": 1.0, "seed": 7, "reduction_factor": 3}
    return StudySpec(
        full_dataset_size=0, num_full_iterations=27, search_space=SPACE, **({"search_alg": "asha"} | plan | arguments)
    )


def fast_or_good(x: float, step: int) -> float:
    """Small x learns at once and ends badly; large x is worst at first, and best in the end."""
    way = math.log(step) / math.log(ITERATIONS)
    return (1.0 - x) * (1.0 - way) + x * way


def trial(x: float, rungs: int, sign: float = 1.0) -> Observation:
    """A trial that got past so many rungs; of four it is complete."""
    marks = tuple((step, sign * fast_or_good(x, step)) for step in (1, 3, 9)[:rungs])
    complete = rungs == 4
    steps = ITERATIONS if complete else marks[-1][0]
    return Observation({"x": x, "kind": "a"}, sign * fast_or_good(x, steps), steps, complete, marks)


SHORT = tuple(trial(x, 1) for x in np.linspace(0.02, 0.98, 12).tolist())
LONG = tuple(trial(x, 4) for x in (0.05, 0.3, 0.55, 0.8))


# --- what the model makes of it


def test_the_length_is_one_more_input() -> None:
    """Its column comes last, with a lengthscale of its own; a suggestion is always of full length."""
    encoding, plain = FullLength(SPACE), Encoding(SPACE)
    U = encoding.units([{"x": 0.25, "kind": "b"}, {"x": 0.5, "kind": "a"}])
    assert np.array_equal(encoding.features(U), np.column_stack([plain.features(U), [1.0, 1.0]]))
    halfway = encoding.features_at(U, length_of(np.array([1, ITERATIONS]), ITERATIONS))
    assert np.array_equal(halfway[:, -1], [0.0, 1.0])
    assert encoding.groups.tolist() == [*plain.groups, plain.groups.max() + 1]


def test_a_curve_has_its_end() -> None:
    """The marks, then the last step if that lies beyond them; larger is better whatever the mode."""
    assert curve(trial(0.5, 2), 1.0) == [(1, 0.5), (3, 0.5)]
    assert [step for step, _ in curve(trial(0.5, 4), 1.0)] == [1, 3, 9, ITERATIONS]
    assert curve(Observation({}, 2.0, 5, complete=False), -1.0) == [(5, -2.0)]
    assert curve(Observation({}, None, 5, complete=False), 1.0) == []


curves = st.lists(
    st.lists(st.tuples(st.sampled_from([1, 3, 9, 27]), st.floats(-9, 9)), unique_by=lambda point: point[0]).map(sorted),
    max_size=30,
)


@given(curves, st.integers(1, 40))
def test_long_trials_come_first(points: list[list[tuple[int, float]]], limit: int) -> None:
    """No point is left out of which shorter ones are taken; of the steps in between, the best is taken."""
    everything = [(number, *point) for number, each in enumerate(points) for point in each]
    chosen = longest_first(points, limit)
    assert len(chosen) == len(set(chosen)) == min(limit, len(everything))
    assert set(chosen) <= set(everything)
    for number, step, score in set(everything) - set(chosen):
        assert step <= min(taken for _, taken, _ in chosen), (number, step)
        assert any(taken == step and value >= score for _, taken, value in chosen) or len(chosen) == limit


def test_short_trials_alone_are_believed() -> None:
    """As long as nobody knows better, what is good early is taken to be good."""
    found = suggest(SuggestRequest(spec_of(), 20, 4, SHORT))
    assert np.mean([params["x"] for params in found]) < 0.4


def test_long_trials_tell_what_short_ones_are_worth() -> None:
    """A few trials of full length overrule many short ones, for they say how curves go on."""
    found = suggest(SuggestRequest(spec_of(), 20, 4, SHORT + LONG))
    assert np.median([params["x"] for params in found]) > 0.75  # one explores the kind that nobody has tried


def test_running_trials_count() -> None:
    """What a trial under way has shown so far is used, and its configuration is not suggested again."""
    running = tuple(replace(each, complete=False) for each in LONG)
    pending = tuple(each.params for each in running)
    request = SuggestRequest(spec_of(), 20, 4, SHORT, pending, running)
    found = suggest(request)
    assert np.median([params["x"] for params in found]) > 0.75
    assert found != suggest(replace(request, running=()))


def test_minimizing_mirrors_maximizing() -> None:
    """A study that minimizes -f is suggested what a study that maximizes f is."""
    mirrored = tuple(
        Observation(each.params, None if each.score is None else -each.score, each.steps, each.complete,
                    tuple((step, -score) for step, score in each.marks))
        for each in SHORT + LONG
    )  # fmt: skip
    up = SuggestRequest(spec_of(), 20, 6, SHORT + LONG)
    assert suggest(up) == suggest(replace(up, spec=spec_of(mode="min"), observations=mirrored))


def test_failures_do_not_count_as_good() -> None:
    """Trials without any score are taken for full trainings of the worst score: the search goes elsewhere."""
    failed = tuple(Observation({"x": x, "kind": "a"}, None, 0, complete=False) for x in (0.9, 0.93, 0.96, 0.99))
    bent = suggest(SuggestRequest(spec_of(), 20, 8, SHORT[:9] + LONG + failed))
    straight = suggest(SuggestRequest(spec_of(), 20, 8, SHORT[:9] + LONG))
    assert np.mean([each["x"] for each in bent]) < np.mean([each["x"] for each in straight])


@pytest.mark.parametrize("scores", [(), (1.0,), (1.0, 1.0, 1.0)], ids=["none", "one", "all the same"])
def test_scores_that_teach_nothing(scores: tuple[float, ...]) -> None:
    """The design goes on."""
    known = tuple(Observation({"x": 0.1 * i, "kind": "a"}, y, 1, False, ((1, y),)) for i, y in enumerate(scores))  # noqa: FBT003
    assert suggest(SuggestRequest(spec_of(), 20, 1, known)) == [design(SPACE, 7, 20, ())]


def test_trials_of_one_iteration_have_one_length() -> None:
    """With max_iterations=1 there is nothing to compare: asha is the plain search."""
    observations = tuple(Observation({"x": x, "kind": "a"}, -((x - 0.7) ** 2), 1, True) for x in (0.1, 0.4, 0.6, 0.9))  # noqa: FBT003
    greedy = partial(spec_of, max_iterations=1, acquisition="log_ei")
    request = SuggestRequest(greedy(), 20, 2, observations)
    assert suggest(request) == suggest(replace(request, spec=greedy(search_alg="bayes_opt")))


def test_the_kappas_of_asha_are_drawn() -> None:
    """Every other suggestion has a kappa of its own, the same whenever it is asked for; kappa= is for bayes_opt."""
    of = partial(acquisition_for, finished=9, threshold=0.5)
    kappas = [of(spec_of(kappa=9.0), ordinal) for ordinal in range(1, 401, 2)]
    assert all(isinstance(each, UpperConfidenceBound) for each in kappas)
    drawn = [each.kappa for each in kappas if isinstance(each, UpperConfidenceBound)]
    assert len(set(drawn)) == 200
    assert 0.7 < np.mean(drawn) < 1.3
    assert of(spec_of(), 7) == of(spec_of(), 7) != of(spec_of(seed=8), 7)
    assert of(spec_of(), 8) == of(spec_of(acquisition="log_ei"), 7) == LogExpectedImprovement(0.5)
    assert isinstance(of(spec_of(acquisition="ucb"), 8), UpperConfidenceBound)


def test_many_workers() -> None:
    """With hundreds of trials under way the answer still comes, and differs from all of them."""
    pending = tuple({"x": x, "kind": "b"} for x in np.linspace(0, 1, 500).tolist())
    found = suggest(SuggestRequest(spec_of(), 600, 8, SHORT + LONG, pending))
    keys = {SPACE.key(params) for params in (*found, *pending)}
    assert len(keys) == 508


# --- what the study tells


def test_marks_are_the_rungs() -> None:
    """A trial that ended says what it had scored by each rung it came to."""
    sim = created(search_alg="asha", max_iterations=9, reduction_factor=3, num_workers=4)
    first = sim.sample()
    for score in (0.1, 0.3, 0.2):
        sim.report(first, score)
    request = sim.study.wanted()
    assert request is None or request.running
    (running,) = sim.study.trials.running()
    assert (running.marks, running.score, running.steps, running.complete) == (((1, 0.1), (3, 0.3)), 0.3, 3, False)
    for _ in range(6):
        sim.report(first, 0.4)
    (ended,) = sim.study.trials.observations()
    assert (ended.marks, ended.steps, ended.complete) == (((1, 0.1), (3, 0.3)), 9, True)
    assert sim.study.trials.running() == ()


def test_marks_of_median_stop() -> None:
    """They are where the steps have doubled, as the trial reported them."""
    sim = created(early_stop="median_stop", max_iterations=20, mode="min", num_init_trials=1)
    trial = sim.sample()
    for step in range(20):
        sim.report(trial, 20.0 - step)
    (ended,) = sim.study.trials.observations()
    assert ended.marks == ((1, 20.0), (2, 19.0), (4, 17.0), (8, 13.0), (16, 5.0))


def test_marks_come_back_after_a_restart() -> None:
    """A study loaded from what is committed asks its sampler the same question."""
    sim = created(search_alg="asha", max_iterations=9, reduction_factor=3, num_workers=3, num_trials=20)
    for quality in (0.3, 0.9, 0.1, 0.5, 0.7):
        trial = sim.sample()
        for step in range(1, 10):
            if sim.report(trial, quality * step) is Status.STOP:
                break
    running = sim.sample()
    sim.report(running, 5.0)
    before = (sim.study.trials.observations(), sim.study.trials.running())
    assert before[1]
    sim.crash()
    assert (sim.study.trials.observations(), sim.study.trials.running()) == before


def ended(count: int, order: list[int]) -> Trials:
    """Trials that ended in this order; trial i had 1 + i % 3 steps."""
    trials = Trials()
    for i in range(count):
        trials.add(Trial(id=i, params={"x": i}, state=TrialState.RUNNING))
    for i in order:
        found = trials.get(i)
        assert found is not None
        found.add(1 + i % 3, float(i), 1.0)
        trials.move(found, TrialState.STOPPED)
    return trials


@given(st.permutations(range(12)), st.integers(1, 12))
def test_the_longest_are_told_of(order: list[int], limit: int) -> None:
    """A sampler that cannot use all is told of the latest and the longest, whatever the order in which they ended."""
    known = ended(12, order).observations(limit)
    latest = [] if limit == 12 else list(range(12))[12 - limit // 4 :]
    longest = sorted(set(range(12)) - set(latest), key=lambda i: (-(i % 3), -i))
    assert {each.params["x"] for each in known} == {*latest, *longest[: limit - len(latest)]}
    assert known == ended(12, sorted(order)).observations(limit)


def test_failures_are_not_forgotten() -> None:
    """In a long study the sampler is still told of trials without a score, a quarter of what it is told of."""
    trials = ended(60, list(range(60)))
    for i in range(60, 160):
        trials.add(Trial(id=i, params={"x": i}, state=TrialState.RUNNING))
        trials.move(trials.since(i)[0], TrialState.FAILED)
    for i in range(160, 220):
        trials.add(Trial(id=i, params={"x": i}, best_score=0.5, seen_step=9, state=TrialState.RUNNING))
        trials.move(trials.since(i)[0], TrialState.STOPPED)
    told = [each.params["x"] for each in trials.observations(40) if each.score is None]
    assert told == list(range(150, 160))


@pytest.mark.parametrize("search_alg", ["asha", "bayes_opt"])
def test_many_failures_leave_room_for_scores(search_alg: str) -> None:
    """Hundreds of trials without a score do not hide what the others scored, nor break the model."""
    drawn = np.random.default_rng(0).uniform(0.65, 1.0, 400).tolist()
    failed = [Observation({"x": x, "kind": "a"}, None, 0, complete=False) for x in drawn]
    spec = spec_of(search_alg=search_alg, early_stop="median_stop" if search_alg == "bayes_opt" else None)
    found = suggest(SuggestRequest(spec, 900, 4, (*SHORT[:8], *LONG[:3], *failed)))
    assert 0.4 < np.median([params["x"] for params in found]) < 0.65


def test_exact_scores_do_not_mislead() -> None:
    """With hundreds of scores without any noise, every turn of the sampler suggests what is good, not a corner."""
    box = Space({name: SearchSpace("uniform", [0, 1]) for name in "xyz"})
    spec = replace(spec_of(max_iterations=81), search_space=box)

    def good(params: dict[str, float], step: int) -> float:
        x, y, z = params["x"], params["y"], params["z"]
        return -0.3 * (x - 0.75) ** 2 - (y - 0.7) ** 2 - (z - 0.3) ** 2 - 0.5 / math.sqrt(step)

    scheduler = Asha.of(spec)
    trials = Trials(scheduler.marks)
    for i, drawn in enumerate(np.random.default_rng(0).random((200, 3)).tolist()):
        trial = Trial(id=i, params=dict(zip("xyz", drawn, strict=True)), state=TrialState.RUNNING)
        trials.add(trial)
        for step in range(1, 82):
            trial.add(step, good(trial.params, step), 1.0)
            if scheduler.observe(trial, step, good(trial.params, step)) is not None:
                break
        trials.move(trial, TrialState.STOPPED if trial.seen_step < 81 else TrialState.COMPLETED)
    best = good({"x": 0.75, "y": 0.7, "z": 0.3}, 81)
    for ordinal in range(200, 204):
        found = suggest(SuggestRequest(spec, ordinal, 4, trials.observations()))
        regrets = [best - good(params, 81) for params in found]
        assert min(regrets) < 0.01
        assert max(regrets) < 0.2


def test_many_equal_scores_at_full_length() -> None:
    """A metric that has come to its limit everywhere teaches nothing more: the design goes on."""
    everywhere = np.linspace(0, 1, 400).tolist()
    full = tuple(Observation({"x": x, "kind": "a"}, 1.0, 27, complete=True, marks=((1, x),)) for x in everywhere)
    assert suggest(SuggestRequest(spec_of(), 900, 1, full)) == [design(SPACE, 7, 900, ())]


def test_rungs_up_to_243() -> None:
    """1, 3, 9, 27, 81, 243 for (1, 243, 3)."""
    assert levels_of(spec_of(min_iterations=1, max_iterations=243)) == (1, 3, 9, 27, 81, 243)
