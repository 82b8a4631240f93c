"""Suggestions of a study whose batches must not be too large: everything else is searched as before."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hpopt.core.batch_size import NO_BOUND, BatchSizeBound, is_size
from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import StudySpec
from hpopt.core.suggest_request import Observation, SuggestRequest
from hpopt.samplers.base import suggest
from hpopt.samplers.encoding import Encoding
from tests.strategies import batch_sizes, units

LR = SearchSpace("loguniform", [1e-4, 1])
ACT = SearchSpace("choice", ["relu", "tanh"])
KINDS = {
    "grid": SearchSpace("quniform", [8, 512, 8]),
    "log grid": SearchSpace("qloguniform", [8, 512, 8]),
    "fine grid": SearchSpace("quniform", [8, 512, 1]),
    "rising options": SearchSpace("choice", [8, 16, 32, 64, 128, 256, 512]),
    "options": SearchSpace("choice", [128, "auto", 8, 512, 64, 16]),
    "two options": SearchSpace("choice", [512, 8]),
    "continuum": SearchSpace("uniform", [8, 512]),
    "log continuum": SearchSpace("loguniform", [8, 512]),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def spec_of(bs: SearchSpace, **arguments: Any) -> StudySpec:
    """A resolved spec with this batch size."""
    plan = {"num_trials": 50, "max_iterations": 4, "subset_ratio": 1.0, "seed": 7, "num_init_trials": 3}
    space = Space({"lr": LR, "bs": bs, "act": ACT})
    values = {"search_space": space, "batch_size_name": "bs", **plan, **arguments}
    return StudySpec(full_dataset_size=0, num_full_iterations=10, **values)


def request_of(spec: StudySpec, bound: BatchSizeBound, count: int, seen: int) -> SuggestRequest:
    """A request after as many results, the better the larger the batch is."""
    rng = np.random.default_rng(0)
    configs = [bound_free(spec, rng) for _ in range(seen)]
    scores = [math.log(params["bs"]) if is_size(params["bs"]) else 0.0 for params in configs]
    observations = tuple(
        Observation(params, score, 4, complete=True, marks=((1, score), (2, score)))
        for params, score in zip(configs, scores, strict=True)
    )
    return SuggestRequest(spec, seen, count, observations, bound=bound, basis=seen)


def bound_free(spec: StudySpec, rng: np.random.Generator) -> dict[str, Any]:
    """Any configuration."""
    return spec.search_space.from_unit(rng.random(len(spec.search_space)).tolist())


@pytest.mark.parametrize("bs", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
@pytest.mark.parametrize("seen", [0, 20])
def test_no_suggestion_is_too_large(bs: SearchSpace, search_alg: str, seen: int) -> None:
    """Neither the design nor the model, which has seen that larger batches score better, suggests one."""
    spec = spec_of(bs, search_alg=search_alg)
    for ordinal in range(3):
        request = request_of(spec, NO_BOUND.failed(64), 6, seen + ordinal)
        found = suggest(request)
        assert len(found) == 6
        assert all(not is_size(params["bs"]) or params["bs"] < 64 for params in found)
        assert request.allowed["bs"].size == 1 or len({params["bs"] for params in found}) > 1


@pytest.mark.parametrize("bs", KINDS.values(), ids=KINDS)
def test_where_only_the_smallest_batch_is_left(bs: SearchSpace) -> None:
    """The search goes on in all other hyper-parameters."""
    for seen in (0, 20):
        found = suggest(request_of(spec_of(bs), NO_BOUND.failed(8), 6, seen))
        assert {params["bs"] for params in found} <= {8, "auto"}
        assert len({tuple(params.values()) for params in found}) == 6


def test_the_largest_that_fits_is_preferred_where_large_ones_are_better() -> None:
    """The model keeps what it knows of larger batches, and comes as close to them as it may."""
    for kind in ("grid", "log grid", "rising options"):
        largest = max(NO_BOUND.failed(64).within(KINDS[kind]).range[:2]) if kind != "rising options" else 32
        spec = spec_of(KINDS[kind], acquisition="ucb", kappa=0.0)
        (best,) = suggest(request_of(spec, NO_BOUND.failed(64), 1, 20))
        assert best["bs"] == largest


def test_what_is_left_behind_is_not_suggested_again() -> None:
    """A finite space is used up but for what did not fit."""
    space = Space({"bs": SearchSpace("choice", [64, 8, 32]), "act": ACT})
    spec = spec_of(ACT, search_space=space)
    left_behind = ({"bs": 64, "act": "relu"}, {"bs": 32, "act": "relu"})
    found = suggest(SuggestRequest(spec, 0, 9, left_behind=left_behind))
    assert len(found) == 4
    assert not any(params in left_behind for params in found)
    found = suggest(SuggestRequest(spec, 0, 9, left_behind=left_behind, bound=NO_BOUND.failed(64)))
    assert sorted(map(str, found)) == sorted(
        map(str, [{"bs": 8, "act": "relu"}, {"bs": 8, "act": "tanh"}, {"bs": 32, "act": "tanh"}])
    )


def test_without_a_batch_size_there_is_no_bound() -> None:
    """What is known of memory means nothing when no hyper-parameter has to do with it."""
    spec = spec_of(KINDS["grid"], batch_size_name=None)
    free = request_of(spec, NO_BOUND, 4, 20)
    assert suggest(request_of(spec, NO_BOUND.failed(64), 4, 20)) == suggest(free)


def test_a_bound_that_forbids_nothing_changes_nothing() -> None:
    """A size beyond all of the space has failed elsewhere: the suggestions stay as they are."""
    spec = spec_of(KINDS["log grid"])
    assert suggest(request_of(spec, NO_BOUND.failed(1000), 4, 20)) == suggest(request_of(spec, NO_BOUND, 4, 20))


@settings(deadline=None, max_examples=60)
@given(bs=batch_sizes, fails=units, points=st.lists(units, min_size=1, max_size=8))
def test_confined_rows_are_allowed(bs: SearchSpace, fails: float, points: list[float]) -> None:
    """Whatever the kind: moved rows stand for allowed values, and those that are allowed stay where they are."""
    value = bs.from_unit(fails)
    assume(is_size(value))
    bound = NO_BOUND.failed(value)
    space = Space({"act": ACT, "bs": bs})
    encoding = Encoding(space, Space({"act": ACT, "bs": bound.within(bs)}))
    U = encoding.units([{"act": "tanh", "bs": bs.from_unit(u)} for u in points])
    confined = encoding.confine(U)
    assert np.array_equal(encoding.snap(confined), confined)
    for before, after in zip(U, confined, strict=True):
        assert bound.allows(bs, encoding.config(after)["bs"])
        if bs.size is not None and bound.allows(bs, encoding.config(before)["bs"]):
            assert np.array_equal(before, after)
