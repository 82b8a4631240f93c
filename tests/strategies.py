"""Hypothesis strategies for what users hand in: JSON values, search spaces of every type, whole spaces."""

import math
from typing import Any

from hypothesis import strategies as st

from hpopt.core.space import SearchSpace, Space

SAFE = 2**53

safe_ints = st.integers(-SAFE, SAFE)
finite_floats = st.floats(-1e300, 1e300)
positive_floats = st.floats(1e-150, 1e150)
units = st.floats(0, 1)
# A fixed alphabet: the tables of all of Unicode take seconds to build in a fresh checkout.
texts = st.text("abcXYZ019 _-.:/\\\"'\n\x00\x7fäßé漢字🙂", max_size=8)
names = texts.filter(bool)

scalars = st.none() | st.booleans() | safe_ints | st.floats(allow_nan=False, allow_infinity=False) | texts
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)

bases = st.lists(st.integers(2, 16) | st.floats(1.1, 16), max_size=1)  # of 0 or 1 items: the base may be left out


@st.composite
def decimals(draw: st.DrawFn) -> float:
    """A float above 0 that a user would write: at most four digits and an exponent."""
    return float(f"{draw(st.integers(1, 9999))}e{draw(st.integers(-9, 3))}")


@st.composite
def uniforms(draw: st.DrawFn) -> SearchSpace:
    """[lo, hi] of any magnitude and sign, lo == hi included."""
    return SearchSpace("uniform", sorted(draw(st.lists(finite_floats | safe_ints, min_size=2, max_size=2))))


@st.composite
def loguniforms(draw: st.DrawFn) -> SearchSpace:
    """[lo, hi] of any magnitude, with and without a base."""
    bounds = sorted(draw(st.lists(positive_floats | st.integers(1, SAFE), min_size=2, max_size=2)))
    return SearchSpace("loguniform", [*bounds, *draw(bases)])


@st.composite
def quniforms(draw: st.DrawFn) -> SearchSpace:
    """Int and float grids of one to a million values, with bounds on the grid and off it, also negative."""
    return SearchSpace("quniform", draw(_grids(first=-(10**6))))


@st.composite
def qloguniforms(draw: st.DrawFn) -> SearchSpace:
    """The same above 0, with and without a base."""
    return SearchSpace("qloguniform", [*draw(_grids(first=1)), *draw(bases)])


@st.composite
def choices(draw: st.DrawFn) -> SearchSpace:
    """Options of every JSON type, some of them equal."""
    return SearchSpace("choice", draw(st.lists(json_values, min_size=1, max_size=8)))


continuous_spaces = uniforms() | loguniforms()
quantized_spaces = quniforms() | qloguniforms()
search_spaces = continuous_spaces | quantized_spaces | choices()
spaces = st.dictionaries(names, search_spaces, min_size=1, max_size=6).map(Space)


@st.composite
def _grids(draw: st.DrawFn, first: int) -> list[Any]:
    """[lo, hi, q] around the multiples `start` to `end` of q; `start` is at least `first`."""
    q: int | float = draw(st.integers(1, 1000) | decimals())
    start = draw(st.integers(first, first + 10**6))
    end = start + draw(st.integers(0, 10) | st.integers(0, 10**6))
    slack = draw(st.sampled_from([0, 0.25])) if isinstance(q, float) else 0
    lo, hi = (start - slack) * q, (end + slack) * q
    if isinstance(q, float) and not slack:  # as a user would write the two: without rounding errors
        lo, hi = float(f"{lo:.12g}"), float(f"{hi:.12g}")
    return [lo, hi, q]


def numeric_bounds(space: SearchSpace) -> tuple[float, float]:
    """The bounds of a numeric search space."""
    lo, hi = space.range[:2]
    return lo, hi


def is_close(a: float, b: float, space: SearchSpace) -> bool:
    """Whether two values of a continuous space are the same but for rounding errors."""
    lo, hi = numeric_bounds(space)
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12 * (hi - lo))
