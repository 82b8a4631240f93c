import itertools
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hpopt.core.batch_size import NO_BOUND, BatchSizeBound, allowed, is_size
from hpopt.core.space import SearchSpace, Space
from tests.strategies import batch_sizes, units

GRID = SearchSpace("quniform", [8, 256, 8])
LOG_GRID = SearchSpace("qloguniform", [8, 256, 8])
CHOICE = SearchSpace("choice", [64, 8, "auto", 32, 16, 128])
CONTINUOUS = SearchSpace("uniform", [8, 256])
LOG = SearchSpace("loguniform", [8, 256])
ALL = (GRID, LOG_GRID, CHOICE, CONTINUOUS, LOG)


LESSONS = {"scores": BatchSizeBound.scored, "fits": BatchSizeBound.fitted, "fails": BatchSizeBound.failed}


def after(*events: tuple[str, float]) -> BatchSizeBound:
    """What is known after trials that "scores", "fits" to their end, or "fails"."""
    bound = NO_BOUND
    for kind, size in events:
        bound = LESSONS[kind](bound, size)
    return bound


@pytest.mark.parametrize(
    ("events", "fits", "fails"),
    [
        ([], None, None),
        ([("fits", 32), ("fits", 16)], 32, None),
        ([("scores", 32), ("scores", 16), ("scores", 64)], 64, None),
        ([("fails", 64), ("scores", 64), ("scores", 128), ("scores", 32)], 32, 64),
        ([("fails", 64), ("fails", 128)], None, 64),
        ([("fits", 32), ("fails", 64)], 32, 64),
        ([("fails", 64), ("fits", 64)], 64, None),
        ([("fails", 64), ("fits", 128)], 128, None),
        ([("fits", 64), ("fails", 64)], None, 64),
        ([("fits", 64), ("fails", 32)], None, 32),
    ],
)
def test_bound(events: list[tuple[str, float]], fits: float | None, fails: float | None) -> None:
    """The largest that fits and the smallest that fails; the newest word counts where they contradict each other."""
    assert after(*events) == BatchSizeBound(fits, fails)


def test_news() -> None:
    """A size that fits is news once, and only if it is larger than those before."""
    for lesson in (BatchSizeBound.scored, BatchSizeBound.fitted):
        bounds = list(itertools.accumulate((16, 16, 8, 32, "auto", True, 0), lesson, initial=NO_BOUND))
        assert [after != before for before, after in itertools.pairwise(bounds)] == [
            True, False, False, True, False, False, False,
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("space", "events", "first"),
    [
        (GRID, [("fails", 256)], [128, 120, 112]),
        (GRID, [("fails", 24)], [8, 16]),
        (GRID, [("fails", 16)], [8]),
        (GRID, [("fails", 8)], []),
        (GRID, [("fits", 64), ("fails", 256)], [128, 120, 112]),
        (GRID, [("fits", 120), ("fails", 128)], [120, 112, 104]),
        (GRID, [("fits", 128), ("fails", 64)], [32, 24, 16]),
        (GRID, [("fails", 64), ("fails", 256)], [32, 24, 16]),
        (LOG_GRID, [("fails", 256)], [128, 120, 112]),
        (LOG_GRID, [("fails", 8)], []),
        (CHOICE, [("fails", 128)], [64, 32, 16]),
        (CHOICE, [("fails", 32)], [16, 8]),
        (CHOICE, [("fails", 8)], []),
        (CHOICE, [("fits", 32), ("fails", 128)], [64, 32, 16]),
        (CONTINUOUS, [("fails", 128.0)], [64.0, 8.0]),
        (CONTINUOUS, [("fits", 25.0), ("fails", 100.0)], [50.0, 8.0]),
        (CONTINUOUS, [("fails", 12.0)], [8.0]),
        (CONTINUOUS, [("fails", 8.0)], []),
        (LOG, [("fails", 128.0)], [64.0, 8.0]),
        (SearchSpace("uniform", [0, 1]), [("fails", 0.5)], [0.25]),
        (SearchSpace("quniform", [32, 48, 16]), [("fails", 48)], [32]),
        (SearchSpace("quniform", [0, 64, 32]), [("fails", 32)], []),
        (SearchSpace("choice", [16, 16, 32, 8.5, True]), [("fails", 32)], [16, 8.5]),
    ],
)
def test_smaller(space: SearchSpace, events: list[tuple[str, float]], first: list[float]) -> None:
    """Half of the size that failed, or midway in log scale to one that fits, comes first; then the others."""
    tries = list(after(*events).smaller(space))
    assert [size for size, _ in itertools.groupby(tries)][: len(first)] == first
    assert bool(tries) == bool(first)


@pytest.mark.parametrize(
    ("space", "series"),
    [
        (GRID, [200, 96, 48, 24, 8]),
        (LOG_GRID, [200, 96, 48, 24, 8]),
        (SearchSpace("choice", ["auto", 200, 64, 16]), [200, 64, 16]),
        (CONTINUOUS, [200.0, 100.0, 50.0, 25.0, 12.5, 8.0]),
        (LOG, [200.0, 100.0, 50.0, 25.0, 12.5, 8.0]),
    ],
)
def test_series_of_the_documentation(space: SearchSpace, series: list[float]) -> None:
    """What docs/out-of-memory.md says of sizes that fail one after the other."""
    bound = NO_BOUND
    for size, following in zip(series, [*series[1:], None], strict=True):
        bound = bound.failed(size)
        assert next(bound.smaller(space, again=size != series[0]), None) == following


def test_after_midway_comes_what_fits() -> None:
    """A trial that ran out of memory again, between what fits and what fails, gets what fits."""
    bound = after(("fits", 32), ("fails", 200), ("fails", 80))
    assert next(bound.smaller(GRID)) == 48
    assert next(bound.smaller(GRID, again=True)) == 32
    assert next(after(("fails", 200)).smaller(GRID, again=True)) == 96


@pytest.mark.parametrize("space", ALL)
def test_without_a_failure_every_value_is_allowed(space: SearchSpace) -> None:
    """There is no bound before something failed."""
    bound = after(("fits", 16))
    assert bound.allows(space, 10**6)
    assert bound.within(space) is space
    assert list(bound.smaller(space)) == []


@pytest.mark.parametrize(
    ("size", "is_allowed"), [(63, True), (64, False), (65, False), ("auto", True), (None, True), (True, True)]
)
def test_allows(size: Any, is_allowed: bool) -> None:
    """Sizes from the bound on are not allowed; what is no size has no bound."""
    assert after(("fails", 64)).allows(CHOICE, size) == is_allowed


@pytest.mark.parametrize("space", ALL)
def test_the_smallest_size_is_always_allowed(space: SearchSpace) -> None:
    """Other configurations may fit with it, and something has to be tried."""
    bound = after(("fails", 8))
    assert bound.allows(space, 8)
    assert not bound.allows(space, 16)
    assert bound.within(space).contains(8)
    assert not bound.within(space).contains(16)


@pytest.mark.parametrize(
    ("space", "fails", "within"),
    [
        (GRID, 128, SearchSpace("quniform", [8, 120, 8])),
        (GRID, 1000, GRID),
        (SearchSpace("qloguniform", [8, 256, 8, 2]), 9, SearchSpace("qloguniform", [8, 8, 8, 2])),
        (SearchSpace("quniform", [0.1, 1.0, 0.1]), 0.3, SearchSpace("quniform", [0.1, 0.2, 0.1])),
        (CHOICE, 64, SearchSpace("choice", [8, "auto", 32, 16])),
        (SearchSpace("choice", ["auto", "max"]), 8, SearchSpace("choice", ["auto", "max"])),
        (SearchSpace("quniform", [-8, 16, 8]), 8, SearchSpace("quniform", [-8, 8, 8])),
    ],
)
def test_within(space: SearchSpace, fails: float, within: SearchSpace) -> None:
    """What is left of the hyper-parameter is of the same kind."""
    assert after(("fails", fails)).within(space) == within


@pytest.mark.parametrize("value", [0, -8, True, "8", None, [8]])
def test_what_is_no_size(value: Any) -> None:
    """Only a number above 0 is a batch size."""
    assert not is_size(value)
    assert is_size(8)
    assert is_size(8.0)


def test_only_the_batch_size_is_bounded() -> None:
    """All other hyper-parameters keep their ranges, in their order."""
    space = Space({"lr": LOG, "bs": GRID, "act": CHOICE})
    part = allowed(space, "bs", after(("fails", 64)))
    assert list(part) == list(space)
    assert (part["lr"], part["act"]) == (LOG, CHOICE)
    assert part["bs"] == SearchSpace("quniform", [8, 56, 8])
    assert allowed(space, None, after(("fails", 64))) is space


@settings(deadline=None)
@given(space=batch_sizes, u=units, events=st.lists(st.tuples(st.booleans(), units), max_size=4), again=st.booleans())
@example(space=SearchSpace("uniform", [0.0, 1.9e154]), u=1.0, events=[(True, 0.5)], again=False)  # a product of inf
def test_smaller_sizes_are_values_of_the_space(
    space: SearchSpace, u: float, events: list[tuple[bool, float]], again: bool
) -> None:
    """Whatever was learned before: each size below the bound comes once, and nothing else does."""
    size = space.from_unit(u)
    assume(is_size(size))
    bound = NO_BOUND
    for fits, at in events:
        value = space.from_unit(at)
        if is_size(value):
            bound = bound.fitted(value) if fits else bound.failed(value)
    bound = bound.failed(size)
    tries = list(itertools.islice(bound.smaller(space, again=again), 1000))
    assert all(is_size(each) and each < size and space.contains(each) for each in tries)
    if space.size is not None and space.size <= 1000:
        sizes = {each for each in map(space.value_at, range(space.size)) if is_size(each)}
        assert set(tries) == {each for each in sizes if each < (bound.fails or 0)}
        assert len(tries) == sum(is_size(each) and each < (bound.fails or 0) for each in _values(space))


@settings(deadline=None)
@given(space=batch_sizes, at=units, fails=units)
def test_within_has_what_is_allowed_and_nothing_else(space: SearchSpace, at: float, fails: float) -> None:
    """A value is in the narrowed hyper-parameter if and only if the bound allows it."""
    assume(is_size(space.from_unit(fails)))
    bound = NO_BOUND.failed(space.from_unit(fails))
    within = bound.within(space)
    inside = within.from_unit(at)
    assert space.contains(inside)
    assert bound.allows(space, inside)
    value = space.from_unit(at)
    assert bound.allows(space, value) == (within.contains(value) and within.nearest(value) == value)


@settings(deadline=None)
@given(space=st.sampled_from(ALL), u=units, fits=st.none() | st.integers(1, 300))
def test_every_series_of_failures_ends(space: SearchSpace, u: float, fits: int | None) -> None:
    """Halving goes down to the smallest size in a few steps."""
    size = space.from_unit(u)
    assume(is_size(size))
    bound = BatchSizeBound(fits=fits)
    for attempt in range(12):
        bound = bound.failed(size)
        following = next(bound.smaller(space, again=attempt > 0), None)
        if following is None:
            assert size == 8
            return
        size = following
    raise AssertionError("no end")


def _values(space: SearchSpace) -> list[Any]:
    return list(space.range) if space.is_choice else [space.value_at(i) for i in range(space.size or 0)]
