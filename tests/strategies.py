"""Hypothesis strategies: what users hand in (JSON values, search spaces, studies), and what travels (messages)."""

import math
from typing import Any

from hypothesis import strategies as st

from hpopt.core.batch_size import has_sizes
from hpopt.core.messages import (
    Ask,
    Close,
    Create,
    Created,
    Finalize,
    Nothing,
    OutOfMemory,
    Query,
    Refusal,
    Release,
    Report,
    Sample,
    Start,
    Verdict,
    Withdraw,
)
from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import ALGORITHMS, StudySpec

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
batch_sizes = (
    continuous_spaces
    | quantized_spaces
    | st.lists(st.integers(1, 512) | st.sampled_from([0, 2.5, "auto", "max", True, None]), min_size=1, max_size=8).map(
        lambda options: SearchSpace("choice", options)
    )
)
"""What users name as `batch_size_name`."""
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


# --- messages

wire_ints = st.integers(-1, 2**31 - 1)
wire_names = st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True)
wire_scores = st.none() | st.floats(allow_nan=False, allow_infinity=False)
params = st.dictionaries(names, scalars, max_size=4)


@st.composite
def study_specs(draw: st.DrawFn) -> StudySpec:
    """Valid arguments of a study, with None wherever it may stand."""
    space = draw(spaces)
    defaults = st.lists(st.lists(units, min_size=len(space), max_size=len(space)).map(space.from_unit), max_size=2)
    return StudySpec(
        full_dataset_size=draw(st.integers(0, 10**6)),
        num_full_iterations=draw(st.integers(1, 1000)),
        search_space=space,
        search_alg=draw(st.sampled_from(ALGORITHMS)),
        early_stop=draw(st.sampled_from([None, "median_stop"])),
        mode=draw(st.sampled_from(["max", "min"])),
        metric=draw(texts.filter(bool)),
        num_trials=draw(st.none() | st.integers(1, 1000)),
        subset_ratio=draw(st.none() | st.floats(0.01, 2)),
        batch_size_name=draw(st.sampled_from([None, *(name for name in space if has_sizes(space[name]))])),
        image_resize=draw(st.tuples(st.integers(0, 512), st.integers(0, 512))),
        seed=draw(st.none() | st.integers(0, 2**63 - 1)),
        default_hyper_parameters=tuple(draw(defaults)),
        launch_timeout=draw(st.none() | st.floats(0.1, 1e6)),
    )


attempts = (wire_names, wire_ints, wire_ints)
messages = st.one_of(
    st.builds(Create, wire_names, wire_names, study_specs(), st.booleans(), st.booleans(), st.booleans()),
    st.builds(
        Ask, wire_names, wire_names, wire_ints, st.sampled_from(["next", "now", "end"]),
        st.lists(st.tuples(wire_ints, wire_ints, wire_names), max_size=3).map(tuple),
    ),
    st.builds(Query, *attempts),
    st.builds(Start, *attempts, wire_names, wire_ints, texts),
    st.builds(Report, *attempts, wire_names, wire_ints, wire_scores),
    st.builds(OutOfMemory, *attempts),
    st.builds(Finalize, *attempts, st.booleans()),
    st.builds(Release, *attempts),
    st.builds(Close, wire_names, wire_names),
    st.builds(Withdraw, wire_names, wire_names, st.lists(wire_ints, max_size=3).map(tuple), st.booleans()),
    st.builds(
        Verdict, wire_ints, wire_names | st.just(""), wire_ints, wire_ints, st.none() | wire_ints, texts,
        st.lists(wire_names, max_size=3).map(tuple),
    ),
    st.builds(Created, wire_names, study_specs(), st.lists(texts, max_size=2).map(tuple)),
    st.builds(Sample, wire_ints, wire_ints, wire_ints, wire_ints, params),
    st.builds(Nothing, wire_ints, st.booleans()),
    st.builds(Refusal, wire_ints, texts, texts),
)  # fmt: skip
"""Every message that travels."""
