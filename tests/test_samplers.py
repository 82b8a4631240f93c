"""Suggestions, from the request to the configurations: what every sampler promises, and how good bayes_opt is."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import StudySpec
from hpopt.core.suggest_request import Observation, SuggestRequest
from hpopt.samplers import bayes
from hpopt.samplers.acquisition import MAX_KAPPA, LogExpectedImprovement, UpperConfidenceBound, decayed_kappa
from hpopt.samplers.axis import places
from hpopt.samplers.base import suggest
from hpopt.samplers.bayes import acquisition_for
from hpopt.samplers.encoding import Encoding
from hpopt.samplers.posterior import FitError, Posterior
from hpopt.samplers.sobol import design
from tests import strategies

Config = dict[str, Any]

MIXED = Space(
    {
        "lr": SearchSpace("loguniform", [1e-5, 1e-1]),
        "momentum": SearchSpace("uniform", [0.5, 1.0]),
        "batch": SearchSpace("qloguniform", [8, 256, 8]),
        "layers": SearchSpace("quniform", [1, 9, 1]),
        "optimizer": SearchSpace("choice", ["sgd", "adam", ["lamb", 1]]),
        "fixed": SearchSpace("uniform", [3.0, 3.0]),
    }
)
FINITE = Space(
    {"layers": SearchSpace("quniform", [1, 4, 1]), "optimizer": SearchSpace("choice", ["sgd", "adam", True])}
)
WIDE = Space({"a": SearchSpace("quniform", [1, 100, 1]), "b": SearchSpace("qloguniform", [1, 100, 1])})
ONE_VALUE = Space({"lr": SearchSpace("uniform", [0.1, 0.1]), "optimizer": SearchSpace("choice", ["sgd"])})
SPACES = {"mixed": MIXED, "finite": FINITE, "wide": WIDE}


pytestmark = pytest.mark.usefixtures("one_thread")


def spec_of(space: Space, **arguments: Any) -> StudySpec:
    """A resolved spec."""
    plan = {"num_trials": 50, "max_iterations": 10, "subset_ratio": 1.0, "seed": 7, "num_init_trials": 3}
    return StudySpec(full_dataset_size=0, num_full_iterations=10, search_space=space, **(plan | arguments))


def quality(params: Config) -> float:
    """A score that some configurations of MIXED have more of than others."""
    score = -((math.log10(params["lr"]) + 3.0) ** 2) - 2.0 * float(params["momentum"] - 0.9) ** 2
    return score - 0.02 * abs(int(params["layers"]) - 4) + (0.1 if params["optimizer"] == "adam" else 0.0)


def observe(spec: StudySpec, n: int, score: Callable[[Config], float | None]) -> tuple[Observation, ...]:
    """The first n points of the design, with their scores."""
    everything = replace(spec, search_alg="asha", default_hyper_parameters=())
    designed = suggest(SuggestRequest(everything, 0, n))
    return tuple(Observation(params, score(params), 10, complete=True) for params in designed)


def optimize(spec: StudySpec, score: Callable[[Config], float], trials: int) -> list[Observation]:
    """A study with one worker."""
    observations: list[Observation] = []
    for ordinal in range(trials):
        (params,) = suggest(SuggestRequest(spec, ordinal, 1, tuple(observations)))
        observations.append(Observation(params, score(params), 10, complete=True))
    return observations


def keys(space: Space, configs: list[Config]) -> set[tuple[Any, ...]]:
    """The identities of configurations, each of which is one of the space."""
    for params in configs:
        space.check(params)
    return {space.key(params) for params in configs}


@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
def test_the_same_request_has_the_same_answer(search_alg: str) -> None:
    """Suggestions depend on the request alone, not on what was asked before."""
    spec = spec_of(MIXED, search_alg=search_alg)
    request = SuggestRequest(spec, 12, 3, observe(spec, 12, quality), (MIXED.from_unit([0.2] * 6),))
    first = suggest(request)
    suggest(replace(request, ordinal=30, count=2, pending=()))
    assert suggest(request) == first
    assert suggest(replace(request, spec=replace(spec, seed=8))) != first


def test_the_design_is_addressed_by_ordinal() -> None:
    """A point of the initial design does not depend on the points asked for before it, nor on how many at a time."""
    spec = spec_of(MIXED, search_alg="asha")
    together = suggest(SuggestRequest(spec, 0, 600))
    assert len(keys(MIXED, together)) == 600
    for ordinal in (599, 255, 256, 3, 0):
        assert suggest(SuggestRequest(spec, ordinal, 1)) == [together[ordinal]]


def test_the_design_fills_the_space() -> None:
    """The centre, then sixteen points of a Sobol sequence, which have one in each sixteenth of every axis."""
    space = Space({name: SearchSpace("uniform", [0, 1]) for name in "abc"})
    first, *points = suggest(SuggestRequest(spec_of(space, search_alg="asha"), 0, 17))
    assert first == dict.fromkeys("abc", 0.5)
    for name in "abc":
        assert sorted(int(16 * params[name]) for params in points) == list(range(16))


def test_default_hyper_parameters_come_first() -> None:
    """The user's own configurations are the first trials, each once; then the design goes on."""
    defaults = tuple(MIXED.from_unit([u] * 6) for u in (0.3, 0.6, 0.3))
    spec = spec_of(MIXED, default_hyper_parameters=defaults)
    samples = suggest(SuggestRequest(spec, 0, 4))
    assert samples[:2] == list(defaults[:2])
    assert len(keys(MIXED, samples)) == 4
    assert samples[3] == design(MIXED, 7, 3, ())
    samples[0]["lr"] = 0.0
    assert suggest(SuggestRequest(spec, 0, 1)) == [defaults[0]]


def test_the_design_lasts_for_num_init_trials() -> None:
    """The model is asked from trial num_init_trials on, in asha from the sixth; never with acquisition="random"."""
    spec = spec_of(MIXED, num_init_trials=6)
    observations = observe(spec, 5, quality)
    assert suggest(SuggestRequest(spec, 5, 1, observations)) == [design(MIXED, 7, 5, ())]
    assert suggest(SuggestRequest(spec, 6, 1, observations)) != [design(MIXED, 7, 6, ())]
    asha = replace(spec, search_alg="asha", reduction_factor=3)
    assert suggest(SuggestRequest(asha, 4, 1, observations[:4])) == [design(MIXED, 7, 4, ())]
    assert suggest(SuggestRequest(asha, 5, 1, observations)) != [design(MIXED, 7, 5, ())]
    for other in (spec, asha):
        drawn = replace(other, acquisition="random")
        assert suggest(SuggestRequest(drawn, 6, 1, observations)) == [design(MIXED, 7, 6, ())]


def test_minimizing_mirrors_maximizing() -> None:
    """A study that minimizes -f tries exactly what a study that maximizes f does."""
    up = optimize(spec_of(MIXED), quality, 14)
    down = optimize(spec_of(MIXED, mode="min"), lambda params: -quality(params), 14)
    assert [each.params for each in up] == [each.params for each in down]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_many_suggestions_at_once_differ(space: Space) -> None:
    """Eight suggestions of one request differ from each other, from the results and from what is pending."""
    spec = spec_of(space)
    observations = observe(spec, 4, lambda params: float(next(iter(params.values()))))
    pending = (space.from_unit([0.9] * len(space)),)
    size = space.size or 100
    count = min(8, size - 5)
    suggestions = suggest(SuggestRequest(spec, 5, count, observations, pending))
    everything = [*suggestions, *pending, *(each.params for each in observations)]
    assert len(keys(space, everything)) == 5 + count


def test_pending_trials_spread_the_next_ones() -> None:
    """Many suggestions from one model are not the same point with a different last digit."""
    space = Space({name: SearchSpace("uniform", [0, 1]) for name in "ab"})
    spec = spec_of(space)
    observations = observe(spec, 8, lambda params: -((params["a"] - 0.5) ** 2) - (params["b"] - 0.5) ** 2)
    points = np.array([[params["a"], params["b"]] for params in suggest(SuggestRequest(spec, 8, 8, observations))])
    gaps = np.linalg.norm(points[:, None] - points, axis=2)[np.triu_indices(8, 1)]
    assert gaps.min() > 0.002
    assert gaps.max() > 0.1


@pytest.mark.parametrize("early_stop", [None, "median_stop"])
def test_ten_thousand_pending_trials(early_stop: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The posterior takes in the latest few hundred of them: its cost grows with the cube of their number."""
    space = Space({name: SearchSpace("uniform", [0, 1]) for name in "ab"})
    spec = spec_of(space, early_stop=early_stop)
    observations = observe(spec, 8, lambda params: params["a"])
    pending = tuple(space.from_unit(u.tolist()) for u in np.random.default_rng(1).random((10_000, 2)))
    sizes: list[int] = []
    condition = Posterior.condition

    def counted(self: Posterior, X: NDArray[np.float64]) -> Posterior:
        sizes.append(len(self.points) + len(X))
        return condition(self, X)

    monkeypatch.setattr(Posterior, "condition", counted)
    suggestions = suggest(SuggestRequest(spec, 8 + len(pending), 2, observations, pending))
    assert len(keys(space, [*suggestions, *pending])) == 2 + len(pending)
    assert 100 < max(sizes) < 400


@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
@pytest.mark.parametrize("at_once", [1, 5])
def test_a_finite_space_is_exhausted_exactly(search_alg: str, at_once: int) -> None:
    """Every configuration is suggested once; then there is nothing left."""
    spec = spec_of(FINITE, search_alg=search_alg, default_hyper_parameters=({"layers": 2, "optimizer": True},))
    observations: list[Observation] = []
    while samples := suggest(SuggestRequest(spec, len(observations), at_once, tuple(observations))):
        observations += [Observation(params, float(params["layers"]), 10, complete=True) for params in samples]
    assert len(observations) == FINITE.size == 12
    assert len(keys(FINITE, [each.params for each in observations])) == 12


def test_a_large_finite_space_is_exhausted_exactly() -> None:
    """The last free ones of ten thousand configurations are found, in time that does not explode."""
    spec = spec_of(WIDE)
    missing = {0, 77, 9999}
    tried = [WIDE.config_at(i) for i in range(10_000) if i not in missing]
    observations = tuple(Observation(params, float(params["a"]), 10, complete=True) for params in tried)
    left = suggest(SuggestRequest(spec, len(tried), 5, observations))
    assert keys(WIDE, left) == {WIDE.key(WIDE.config_at(i)) for i in missing}


def test_a_space_of_one_configuration() -> None:
    """It is suggested once."""
    spec = spec_of(ONE_VALUE)
    assert suggest(SuggestRequest(spec, 0, 3)) == [{"lr": 0.1, "optimizer": "sgd"}]
    seen = Observation({"lr": 0.1, "optimizer": "sgd"}, 1.0, 10, complete=True)
    assert suggest(SuggestRequest(spec, 9, 1, (seen, seen))) == []


def test_neighbouring_floats_do_not_end_a_study() -> None:
    """A continuous space that happens to have two values gives them again rather than nothing."""
    space = Space({"lr": SearchSpace("uniform", [1.0, math.nextafter(1.0, 2.0)])})
    assert len(suggest(SuggestRequest(spec_of(space, search_alg="asha"), 0, 5))) == 5


PITFALLS: dict[str, list[float | None]] = {
    "no scores": [None] * 6,
    "one score": [None, None, 0.5, None, None, None],
    "two scores": [None, 0.5, None, None, 0.6, None],
    "constant": [0.25] * 6,
    "almost constant": [0.25, 0.25 + 1e-16, 0.25, 0.25, 0.25, 0.25],
    "constant above the median": [1.0, 1.0, 1.0, 1.0, 0.0, 0.5],
    "bad outlier": [0.1, 0.2, -1e30, 0.3, 0.4, 0.5],
    "good outlier": [0.1, 0.2, 1e30, 0.3, 0.4, 0.5],
    "both outliers": [0.1, 1e308, -1e308, None, 0.4, 0.5],
    "tiny": [1e-300, 2e-300, 0.0, -1e-300, 5e-324, 3e-300],
    "not finite": [math.nan, 0.2, math.inf, -math.inf, 0.4, 0.5],
}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("scores", PITFALLS.values(), ids=PITFALLS)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_odd_scores(space: Space, scores: list[float | None], mode: str) -> None:
    """Whatever was reported, the next suggestions are new configurations of the space."""
    spec = spec_of(space, mode=mode)
    values = iter(scores)
    observations = observe(spec, 6, lambda _: next(values))
    suggestions = suggest(SuggestRequest(spec, 6, 3, observations))
    assert len(keys(space, [*suggestions, *(each.params for each in observations)])) == 9


def test_repeated_and_neighbouring_results() -> None:
    """Results of one configuration, and of ones that differ in the last digit, are no numerical trouble."""
    spec = spec_of(MIXED)
    params = MIXED.from_unit([0.4] * 6)
    close = [{**params, "momentum": params["momentum"] + k * 1e-15} for k in range(5)]
    observations = observe(spec, 3, quality) + tuple(
        Observation(each, quality(each) + 0.1 * i, 10, complete=bool(i % 2))
        for i, each in enumerate([params] * 5 + close)
    )
    pending = (params, params, close[1])
    assert len(keys(MIXED, suggest(SuggestRequest(spec, 13, 4, observations, pending)))) == 4


def test_failed_trials_are_avoided() -> None:
    """Where trials fail, later ones do not go."""
    space = Space({name: SearchSpace("uniform", [0, 1]) for name in "ab"})
    spec = spec_of(space, num_init_trials=8)
    study = optimize(spec, lambda params: params["b"] if params["a"] < 0.5 else math.nan, 25)
    assert sum(each.params["a"] < 0.5 for each in study[10:]) >= 11


def test_a_failing_fit_is_no_failure(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without a surrogate the initial design goes on, and the log says so."""

    def refuse(*_: object) -> None:
        raise FitError("no Gaussian process can be fitted to 6 results")

    monkeypatch.setattr(bayes, "fit", refuse)
    spec = spec_of(MIXED)
    observations = observe(spec, 6, quality)
    assert suggest(SuggestRequest(spec, 6, 2, observations)) == [design(MIXED, 7, k, ()) for k in (6, 7)]
    assert "fitted to 6 results" in caplog.text


def test_many_results() -> None:
    """Beyond 300 results the surrogate sees some of them, and is still a model."""
    spec = spec_of(MIXED)
    (params,) = suggest(SuggestRequest(spec, 400, 1, observe(spec, 400, quality)))
    assert quality(params) > -0.1


@settings(max_examples=40, deadline=None)
@given(strategies.spaces, st.integers(0, 2**63 - 1), st.sampled_from(["bayes_opt", "asha"]))
def test_any_space(space: Space, seed: int, search_alg: str) -> None:
    """In any space a user can define there are suggestions until it is exhausted."""
    spec = spec_of(space, seed=seed, search_alg=search_alg, num_init_trials=2)
    size = math.inf if space.size is None else space.size
    observations: list[Observation] = []
    for ordinal, count in ((0, 2), (2, 2), (4, 3)):
        samples = suggest(SuggestRequest(spec, ordinal, count, tuple(observations)))
        assert len(samples) == min(count, size - len(observations))
        keys(space, samples)
        observations += [Observation(params, float(i % 5), 3, complete=True) for i, params in enumerate(samples)]


@settings(max_examples=60, deadline=None)
@given(strategies.spaces.filter(lambda space: space.size != 1), st.randoms(use_true_random=False))
def test_encoding_keeps_configurations(space: Space, random: Any) -> None:
    """A configuration is the same after a journey to the unit cube, and snapping changes nothing any more."""
    encoding = Encoding(space)
    configs = [space.from_unit([random.random() for _ in space]) for _ in range(5)]
    U = encoding.units(configs)
    assert encoding.snap(U) == pytest.approx(U, abs=1e-12)
    assert encoding.units([encoding.config(u) for u in U]) == pytest.approx(U, abs=1e-9)
    assert encoding.features(U).shape == (5, len(encoding.groups))


def test_snapping_goes_to_the_cell_of_the_value() -> None:
    """Unit coordinates become those of the value that the space gives them, for grids of both kinds and for choices."""
    rng = np.random.default_rng(0)
    space = Space({**WIDE, **FINITE})
    U = rng.random((500, len(space)))
    snapped = Encoding(space).snap(U)
    expected = np.array([space.to_unit(space.from_unit(u.tolist())) for u in U])
    assert snapped == pytest.approx(expected, abs=1e-12)


def test_rising_numbers_are_ordered() -> None:
    """A choice among rising numbers is a line, by logarithms if they span a lot; other choices have no order."""
    space = Space(
        {
            "batch": SearchSpace("choice", [8, 16, 32, 64, 128]),
            "depth": SearchSpace("choice", [2, 3, 5]),
            "flag": SearchSpace("choice", [0, 1]),
            "mixed": SearchSpace("choice", [1, True, 2]),
            "falling": SearchSpace("choice", [3, 2, 1]),
        }
    )
    encoding = Encoding(space)
    assert [axis.width for axis in encoding.axes] == [1, 1, 2, 3, 3]
    configs = [{"batch": b, "depth": d, "flag": 0, "mixed": 1, "falling": 3} for b, d in ((8, 2), (16, 3), (128, 5))]
    features = encoding.features(encoding.units(configs))
    assert features[:, 0] == pytest.approx([0.0, 0.25, 1.0])
    assert features[:, 1] == pytest.approx([0.0, 1 / 3, 1.0])


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0, 1e-6, 1e-5, 1e-4, 1e-2], [0.0, 0.25, 0.5, 0.75, 1.0]),
        ([-1e308, 0, 1e308], [0.0, 0.5, 1.0]),
        ([5e-324, 1e-300, 1e308], [0.0, 0.5, 1.0]),
        ([1, 2, 4, 8], [0.0, 1 / 7, 3 / 7, 1.0]),
        ([1, 10, 100], [0.0, 0.5, 1.0]),
        ([1, 2, 1000], [0.0, 0.1, 1.0]),
        ([2**70, 2**71, 2**74], [0.0, 0.25, 1.0]),
    ],
)
def test_places_of_rising_numbers(levels: list[float], expected: list[float]) -> None:
    """Logarithms where numbers span a lot, ranks where gaps would hide some of them, and never an overflow."""
    assert places(levels) == pytest.approx(expected, abs=0.001)


def test_moves_on_ordered_options() -> None:
    """A mutation goes to another option unless it is at the end; the neighbours are one, two and four away."""
    encoding = Encoding(Space({"batch": SearchSpace("choice", [1, 2, 4, 8, 16, 32])}))
    (axis,) = encoding.axes
    start = np.full(200, 2.5 / 6)
    moved = axis.perturb(start, np.full(200, 0.01), np.random.default_rng(0))
    assert set(np.rint(moved * 6 - 0.5)) == {1.0, 3.0}
    assert np.rint(axis.neighbours(2.5 / 6) * 6 - 0.5).tolist() == [0.0, 1.0, 3.0, 4.0]
    assert axis.perturb(np.array([5.5 / 6]), np.array([0.3]), np.random.default_rng(1)).max() <= 5.5 / 6


def test_the_first_trial_is_the_centre() -> None:
    """The middle of ranges and of rising numbers, the first of other options, unless the user knows better."""
    space = Space(
        {
            "lr": SearchSpace("loguniform", [1e-4, 1.0]),
            "layers": SearchSpace("quniform", [1, 5, 1]),
            "batch": SearchSpace("choice", [16, 32, 64]),
            "optimizer": SearchSpace("choice", ["sgd", "adam"]),
        }
    )
    (params,) = suggest(SuggestRequest(spec_of(space), 0, 1))
    assert params == {"lr": pytest.approx(1e-2), "layers": 3, "batch": 32, "optimizer": "sgd"}
    (own,) = suggest(SuggestRequest(spec_of(space, default_hyper_parameters=({**params, "layers": 1},)), 0, 1))
    assert own["layers"] == 1


def test_options_are_equally_far_apart() -> None:
    """Any two options of a choice are at distance 1."""
    encoding = Encoding(FINITE)
    X = encoding.features(encoding.units([{"layers": 1, "optimizer": option} for option in ("sgd", "adam", True)]))
    gaps = np.sum((X[:, None] - X) ** 2, axis=2)
    assert gaps == pytest.approx(1.0 - np.eye(3))


def test_large_choices() -> None:
    """Many choices of many options are a bounded amount of work."""
    space = Space({f"choice {i}": SearchSpace("choice", [f"option {k}" for k in range(1000)]) for i in range(40)})
    spec = spec_of(space)
    observations = observe(spec, 20, lambda params: float(params["choice 3"].split()[1]))
    assert len(Encoding(space).groups) <= 2048
    assert len(keys(space, suggest(SuggestRequest(spec, 20, 2, observations)))) == 2


def test_kappa_decays_after_the_delay() -> None:
    """kappa_t = kappa decay^max(0, finished - delay), and cannot explode."""
    assert [decayed_kappa(2.0, 0.5, 3, finished) for finished in (0, 3, 4, 6)] == pytest.approx([2.0, 2.0, 1.0, 0.25])
    assert decayed_kappa(2.0, 1.5, 0, 100_000) == MAX_KAPPA
    assert decayed_kappa(0.0, 1.5, 0, 100_000) == 0.0
    assert decayed_kappa(2.0, 0.5, 0, 100_000) == 0.0


def test_kappa_of_the_user_is_taken_literally() -> None:
    """With any of the three arguments set, every suggestion is of the upper confidence bound with that kappa."""
    spec = spec_of(MIXED, kappa=1.5, kappa_decay=0.5, kappa_decay_delay=2)
    for ordinal in (4, 5):
        assert acquisition_for(spec, ordinal, 3, 0.0) == UpperConfidenceBound(0.75)
    assert acquisition_for(spec_of(MIXED, kappa=0), 4, 3, 0.0) == UpperConfidenceBound(0.0)


def test_default_kappa_alternates() -> None:
    """With the defaults, confidence bound and expected improvement take turns."""
    kinds = [type(acquisition_for(spec_of(MIXED), ordinal, 3, 0.0)) for ordinal in range(4)]
    assert kinds == [LogExpectedImprovement, UpperConfidenceBound] * 2


def test_acquisition_of_the_user() -> None:
    """`acquisition` overrules the choice that the three kappas make; kappa keeps its literal meaning."""
    of = partial(acquisition_for, finished=20, threshold=0.5)
    ucb = spec_of(MIXED, acquisition="ucb")
    assert [of(ucb, ordinal) for ordinal in (6, 7)] == [UpperConfidenceBound(2.576)] * 2
    ei = spec_of(MIXED, acquisition="log_ei", kappa=1.0)
    assert [of(ei, ordinal) for ordinal in (6, 7)] == [LogExpectedImprovement(0.5)] * 2
    mix = spec_of(MIXED, acquisition="mix", kappa=1.0)
    assert [of(mix, ordinal) for ordinal in (6, 7)] == [LogExpectedImprovement(0.5), UpperConfidenceBound(1.0)]


def test_each_view_of_the_scores_meets_each_acquisition() -> None:
    """Over four ordinals both transforms of the scores are used with both acquisitions."""
    met = {(bayes.transform_for(k), type(acquisition_for(spec_of(MIXED), k, 3, 0.0))) for k in range(8, 12)}
    assert len(met) == 4


def test_kappa_explores() -> None:
    """A large kappa goes where little is known, kappa 0 where the mean is best."""
    space = Space({"a": SearchSpace("uniform", [0, 1])})
    seen = [(0.2, 0.0), (0.3, 0.9), (0.35, 1.0), (0.4, 0.9), (0.5, 0.0)]
    observations = tuple(Observation({"a": a}, score, 10, complete=True) for a, score in seen)
    greedy, curious = (
        suggest(SuggestRequest(spec_of(space, kappa=kappa), 5, 1, observations))[0]["a"] for kappa in (0.0, 50.0)
    )
    assert 0.3 < greedy < 0.45
    assert curious > 0.7


def test_a_spec_without_seed_is_refused() -> None:
    """A suggestion that nobody could repeat is not made."""
    with pytest.raises(ValueError, match="seed"):
        suggest(SuggestRequest(spec_of(MIXED, seed=None), 0, 1))


def branin(params: Config) -> float:
    """The negated Branin function; its maximum is -0.397887."""
    x, y = float(params["x"]), float(params["y"])
    valley = y - 5.1 * x**2 / (4.0 * math.pi**2) + 5.0 * x / math.pi - 6.0
    return -(valley**2 + 10.0 * (1.0 - 1.0 / (8.0 * math.pi)) * math.cos(x) + 10.0)


def test_better_than_random_search() -> None:
    """Thirty evaluations of Branin: the mean regret over seeds is a tenth of that of random points at most."""
    space = Space({"x": SearchSpace("uniform", [-5, 10]), "y": SearchSpace("uniform", [0, 15])})
    rng = np.random.default_rng(0)
    ours = [max(each.score or 0.0 for each in optimize(spec_of(space, seed=seed), branin, 30)) for seed in range(6)]
    random = [max(branin(space.from_unit(rng.random(2).tolist())) for _ in range(30)) for _ in range(200)]
    assert -0.397887 - np.mean(ours) < 0.1 * (-0.397887 - np.mean(random))


def test_a_mixed_space_is_optimized() -> None:
    """Numbers, grids and a choice together: after 40 trials the optimum is near."""
    study = optimize(spec_of(MIXED), quality, 40)
    assert max(each.score or -9.0 for each in study) > 0.09
