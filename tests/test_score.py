import logging
import math
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpopt.score import EXACT, to_score

INF, NAN = math.inf, math.nan
YES = True
TINY = 5e-324
"""The smallest double above 0."""


class Level(IntEnum):
    HIGH = 3


class Element:
    """A value of a library that nobody has heard of, with one element."""

    def __init__(self, inside: Any) -> None:
        self.inside = inside

    def __repr__(self) -> str:
        """Alike in every process: it names a test."""
        return f"Element({self.inside!r})"

    def item(self) -> Any:
        return self.inside


def meta_tensor() -> torch.Tensor:
    """A tensor that has a shape, but no values."""
    return torch.zeros((), device="meta")


NOT_FINITE: list[Any] = [
    NAN, INF, -INF, 10**400, -(10**5000), Fraction(10**400),
    Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity"), Decimal("1e400"),
    np.float64(NAN), np.float32(INF), np.array([NAN]), np.longdouble("1e4000"),
    torch.tensor(NAN), torch.tensor([-INF]),
]  # fmt: skip
NO_NUMBERS: list[Any] = [
    None, "0.5", b"0.5", "", 1j, complex(1, 0), True, False, [0.5], (0.5,), {"mAP": 0.5}, {0.5}, object(), float,
    len, timedelta(1), [], range(1),
    np.bool_(YES), np.array(YES), np.array([True]), np.complex64(1), np.str_("0.5"), np.array("0.5"),
    np.array([0.5, 0.6]), np.array([]), np.zeros((2, 2)), np.array(None, dtype=object),
    torch.tensor(YES), torch.tensor([0.5, 0.6]), torch.tensor([]), torch.tensor(1j), meta_tensor(),
    Element(None), Element(YES), Element([0.5]),
]  # fmt: skip


def names(values: list[Any]) -> list[str]:
    """A name for each value, however it prints."""
    return [f"{i}-{type(value).__name__}" for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (0.5, 0.5),
        (-0.0, -0.0),
        (1, 1.0),
        (0, 0.0),
        (1e308, 1e308),
        (-1e308, -1e308),
        (TINY, TINY),
        (Level.HIGH, 3.0),
        (Decimal("0.1"), 0.1),
        (Fraction(1, 4), 0.25),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int8(-3), -3.0),
        (np.uint64(3), 3.0),
        (np.array(0.5), 0.5),
        (np.array([0.5]), 0.5),
        (np.array([[[3]]]), 3.0),
        (np.array(Decimal("0.5"), dtype=object), 0.5),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([[0.5]]), 0.5),
        (torch.tensor(3), 3.0),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.nn.Parameter(torch.tensor([0.5])), 0.5),
        (Element(0.5), 0.5),
    ],
    ids=repr,
)
def test_numbers(value: Any, score: float) -> None:
    """A number of any library becomes the float that is nearest to it."""
    found = to_score(value)
    assert type(found) is float
    assert found == score
    assert math.copysign(1, found) == math.copysign(1, score)


@pytest.mark.parametrize("value", NOT_FINITE, ids=names(NOT_FINITE))
def test_numbers_that_are_not_finite_floats(value: Any) -> None:
    """NaN, the infinities, and what is too large for a float are an invalid step, not an error."""
    assert to_score(value) is None


@pytest.mark.parametrize("value", NO_NUMBERS, ids=names(NO_NUMBERS))
def test_what_is_no_number(value: Any) -> None:
    """Anything else is a TypeError that says what was given and what to pass."""
    with pytest.raises(TypeError, match=rf"score=.*: pass one number, not {type(value).__name__}"):
        to_score(value)


def test_error_shows_no_more_than_the_head_of_a_value() -> None:
    """A value that prints as a novel does not fill the log."""
    with pytest.raises(TypeError) as caught:
        to_score(list(range(1000)))
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(("value", "rounded"), [(EXACT, False), (EXACT + 1, True), (-EXACT - 1, True), (1e300, False)])
def test_integers_that_a_float_rounds(value: float, rounded: bool, caplog: pytest.LogCaptureFixture) -> None:
    """An int that a float does not hold exactly is kept as the nearest one, with a warning."""
    with caplog.at_level(logging.WARNING, "hpopt"):
        assert to_score(value) == float(value)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * rounded


WRAPPERS: list[Callable[[float], Any]] = [
    float, np.float64, np.array, lambda x: np.array([x]), lambda x: torch.tensor(x, dtype=torch.float64), Decimal,
]  # fmt: skip


@given(st.floats(), st.sampled_from(WRAPPERS))
def test_wrapping_changes_nothing(value: float, wrap: Callable[[float], Any]) -> None:
    """A float means the same, whatever it is wrapped in: itself if it is finite, else an invalid step."""
    assert to_score(wrap(value)) == (value if math.isfinite(value) else None)


def test_neither_numpy_nor_torch_is_imported() -> None:
    """A trainer without them can report."""
    code = (
        "import sys; from decimal import Decimal; from hpopt.score import to_score; to_score(Decimal(1)); to_score(3);"
        "assert not {'numpy', 'torch'} & sys.modules.keys(), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
