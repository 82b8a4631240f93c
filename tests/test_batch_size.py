from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpopt.core.batch_size import BatchSizeBound, is_size
from hpopt.core.space import SearchSpace

GRID = SearchSpace("quniform", [8, 256, 8])
LOG_GRID = SearchSpace("qloguniform", [8, 256, 8])
CHOICE = SearchSpace("choice", [64, 8, "auto", 32, 16, 128])
CONTINUOUS = SearchSpace("uniform", [8, 256])


def after(*events: tuple[str, float]) -> BatchSizeBound:
    """What is known after sizes that "fits" and sizes that "fails"."""
    bound = BatchSizeBound()
    for kind, size in events:
        bound.fitted(size) if kind == "fits" else bound.failed(size)
    return bound


@pytest.mark.parametrize(
    ("events", "fits", "fails"),
    [
        ([], None, None),
        ([("fits", 32), ("fits", 16)], 32, None),
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
    bound = after(*events)
    assert (bound.fits, bound.fails) == (fits, fails)


def test_news() -> None:
    """A size that fits is news once, and only if it is larger than those before."""
    bound = BatchSizeBound()
    assert [bound.fitted(size) for size in (16, 16, 8, 32, "auto", True, 0)] == [
        True, False, False, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("space", "events", "failed", "following"),
    [
        (GRID, [], 256, 128),
        (GRID, [], 128, 64),
        (GRID, [], 24, 8),
        (GRID, [], 16, 8),
        (GRID, [], 8, None),
        (GRID, [("fits", 64)], 256, 128),
        (GRID, [("fits", 120)], 128, 120),
        (GRID, [("fits", 128)], 64, 32),
        (LOG_GRID, [], 256, 128),
        (LOG_GRID, [], 8, None),
        (CHOICE, [], 128, 64),
        (CHOICE, [], 32, 16),
        (CHOICE, [], 8, None),
        (CHOICE, [("fits", 32)], 128, 64),
        (CONTINUOUS, [], 128, None),
        (SearchSpace("quniform", [32, 48, 16]), [], 48, 32),
        (SearchSpace("quniform", [0, 64, 32]), [], 32, 0),
        (SearchSpace("choice", ["small", "large"]), [], 8, None),
    ],
)
def test_next_size(space: SearchSpace, events: list[tuple[str, float]], failed: float, following: float | None) -> None:
    """Half of the size that failed, or midway in log scale to one that fits: always smaller, always of the space."""
    bound = after(*events)
    bound.failed(failed)
    assert bound.next_size(space, failed) == following


@pytest.mark.parametrize(
    ("space", "fails", "largest"),
    [(GRID, 128, 120), (GRID, 8, 8), (CHOICE, 64, 32), (CHOICE, 8, 8), (CONTINUOUS, 64, None), (GRID, 1000, 256)],
)
def test_largest(space: SearchSpace, fails: float, largest: float | None) -> None:
    """The largest size that has not been shown to fail, else the smallest there is."""
    assert after(("fails", fails)).largest(space) == largest


def test_without_a_failure_every_size_is_allowed() -> None:
    """There is no bound before something failed."""
    assert BatchSizeBound().allows(10**6)
    assert BatchSizeBound().largest(GRID) is None


@pytest.mark.parametrize(("size", "allowed"), [(63, True), (64, False), (65, False), ("auto", True), (None, True)])
def test_allows(size: Any, allowed: bool) -> None:
    """Sizes from the bound on are not allowed; what is no size has no bound."""
    assert after(("fails", 64)).allows(size) == allowed


@pytest.mark.parametrize("value", [0, -8, True, "8", None, [8]])
def test_what_is_no_size(value: Any) -> None:
    """Only a number above 0 is a batch size."""
    assert not is_size(value)
    assert is_size(8)
    assert is_size(8.0)


@given(
    space=st.sampled_from([GRID, LOG_GRID, CHOICE]),
    u=st.floats(0, 1),
    fits=st.none() | st.integers(1, 300),
)
def test_every_series_of_failures_ends(space: SearchSpace, u: float, fits: int | None) -> None:
    """Halving goes down to the smallest size in a few steps, without leaving the space."""
    size = space.from_unit(u)
    if not is_size(size):
        return
    bound = BatchSizeBound(fits=fits)
    for _ in range(12):
        assert space.contains(size)
        bound.failed(size)
        following = bound.next_size(space, size)
        if following is None:
            assert size == 8
            return
        assert following < size
        size = following
    raise AssertionError("no end")
