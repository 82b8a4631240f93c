import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpopt.core.space import SearchSpace
from tests.space_helpers import all_values, typed
from tests.strategies import (
    choices,
    continuous_spaces,
    is_close,
    numeric_bounds,
    qloguniforms,
    quantized_spaces,
    quniforms,
    search_spaces,
    units,
)

NAN, INF = float("nan"), float("inf")


class TestValues:
    @pytest.mark.parametrize(
        ("type", "range", "values"),
        [
            ("quniform", [0, 10, 5], [0, 5, 10]),
            ("quniform", [8, 21, 4], [8, 12, 16, 20]),
            ("quniform", [5, 9, 4], [8]),
            ("quniform", [-7, 5, 3], [-6, -3, 0, 3]),
            ("quniform", [7, 7, 7], [7]),
            ("quniform", [0.5, 3.5, 1], [1, 2, 3]),
            ("quniform", [0, 1, 0.25], [0.0, 0.25, 0.5, 0.75, 1.0]),
            ("quniform", [-0.3, 0.3, 0.1], [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3]),
            ("quniform", [0.1, 0.7, 0.2], [0.2, 0.4, 0.6]),
            ("quniform", [0, 1, 1 / 3], [0.0, 1 / 3, 2 / 3, 1.0]),
            ("quniform", [1e-7, 3e-7, 1e-7], [1e-7, 2e-7, 3e-7]),
            ("quniform", [1e-300, 3e-300, 1e-300], [1e-300, 2e-300, 3e-300]),
            ("quniform", [0, 2e300, 1e300], [0.0, 1e300, 2e300]),
            ("quniform", [0, 4, 2.0], [0.0, 2.0, 4.0]),
            ("quniform", [2**53 - 1, 2**53, 1], [2**53 - 1, 2**53]),
            ("qloguniform", [8, 21, 4], [8, 12, 16, 20]),
            ("qloguniform", [0.01, 0.03, 0.01, 2], [0.01, 0.02, 0.03]),
            ("qloguniform", [1, 1, 1], [1]),
            ("uniform", [3, 3], [3.0]),
            ("loguniform", [0.1, 0.1], [0.1]),
            ("choice", ["only"], ["only"]),
            ("choice", ["b", "a", "b", "c", "a"], ["b", "a", "c"]),
            (
                "choice",
                [1, True, "1", 1.0, None, [1], [1.0], {"a": 1}],
                [1, True, "1", 1.0, None, [1], [1.0], {"a": 1}],
            ),
        ],
    )
    def test_values_of_finite_ranges(self, type: str, range: list[Any], values: list[Any]) -> None:
        """A finite range has exactly these values: multiples of q inside the bounds, without float dust."""
        space = SearchSpace(type, range)
        assert typed(all_values(space)) == typed(values)
        assert typed([space.from_unit((i + 0.5) / 1000) for i in (0, 999)]) == typed([values[0], values[-1]])
        assert space.size == len(values)

    @pytest.mark.parametrize(
        ("type", "range", "size"),
        [
            ("uniform", [0, 1], None),
            ("loguniform", [1e-4, 0.1], None),
            ("quniform", [0, 1e9, 1e-6], 10**15 + 1),
            ("quniform", [-(2**53), 2**53, 1], 2**54 + 1),
            ("quniform", [0, 2**52, 0.5], 2**53 + 1),
            ("choice", range(1000), 1000),
        ],
    )
    def test_size(self, type: str, range: Sequence[Any], size: int | None) -> None:
        """Values are counted, not listed; a continuum has no size."""
        assert SearchSpace(type, range).size == size

    def test_kinds(self) -> None:
        """A search space says whether it has options or a step."""
        flags = {
            type: (space.is_choice, space.is_quantized)
            for type in ("uniform", "quniform", "loguniform", "qloguniform", "choice")
            for space in [SearchSpace(type, [1, 2, 1][: 3 if type[0] == "q" else 2])]
        }
        assert flags == {
            "uniform": (False, False),
            "quniform": (False, True),
            "loguniform": (False, False),
            "qloguniform": (False, True),
            "choice": (True, False),
        }

    @given(search_spaces, units)
    def test_samples_are_values(self, space: SearchSpace, u: float) -> None:
        """Every sample is a value of the space, and the nearest one to itself."""
        value = space.from_unit(u)
        assert space.contains(value)
        assert typed(space.nearest(value)) == typed(value)

    @given(continuous_spaces, units)
    def test_continuous_samples_are_floats_in_range(self, space: SearchSpace, u: float) -> None:
        """A continuous sample is a float between the bounds, which both are samples too, even for int bounds."""
        lo, hi = numeric_bounds(space)
        assert type(space.from_unit(u)) is float
        assert lo <= space.from_unit(u) <= hi
        assert (space.from_unit(0), space.from_unit(1)) == (lo, hi)

    @given(quantized_spaces, units)
    def test_quantized_samples_are_multiples_in_range(self, space: SearchSpace, u: float) -> None:
        """A quantised sample is the float or int that is written as a multiple of q, and lies between the bounds."""
        lo, hi, q = space.range[:3]
        value = space.from_unit(u)
        assert lo <= value <= hi
        assert type(value) is type(q)
        multiple = round(Decimal(repr(value)) / Decimal(repr(q)))
        assert type(q)(multiple * Decimal(repr(q))) == value

    @given(search_spaces, st.lists(units, min_size=2))
    def test_samples_rise_with_u(self, space: SearchSpace, us: list[float]) -> None:
        """from_unit keeps the order; for a choice, that of the options."""
        values = [space.from_unit(u) for u in sorted(us)]
        ranks = [space.index_of(value) for value in values] if space.is_choice else values
        assert ranks == sorted(ranks)

    @pytest.mark.parametrize(
        ("type", "range"), [("quniform", [0, 10, 1]), ("quniform", [0.05, 0.75, 0.1]), ("choice", ["a", "b", "c"])]
    )
    def test_every_value_is_as_likely(self, type: str, range: list[Any]) -> None:
        """Equally spaced u give each value of a grid or choice equally often, those at the ends too."""
        space = SearchSpace(type, range)
        size = space.size or 0
        counts = Counter(space.from_unit((i + 0.5) / (100 * size)) for i in np.arange(100 * size))
        assert [counts[value] for value in all_values(space)] == [100] * size

    def test_mass_of_log_cells(self) -> None:
        """A qloguniform value is as likely as its cell is wide in log scale."""
        space = SearchSpace("qloguniform", [8, 64, 8])
        counts = Counter(space.from_unit((i + 0.5) / 100_000) for i in range(100_000))
        total = math.log(68 / 4)
        expected = {value: 100_000 * math.log((value + 4) / (value - 4)) / total for value in all_values(space)}
        assert counts == pytest.approx(expected, abs=1)

    def test_loguniform_is_uniform_in_the_exponent(self) -> None:
        """Equal steps of u are equal factors, whatever the base."""
        for base in ([], [2], [math.e]):
            space = SearchSpace("loguniform", [1e-4, 1, *base])
            assert [space.from_unit(i / 4) for i in range(5)] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])

    def test_from_unit_of_bad_coordinates(self) -> None:
        """Coordinates beyond the interval are moved to its ends; NaN is a ValueError."""
        for type, range in (("uniform", [1, 5]), ("loguniform", [1, 5]), ("quniform", [1, 5, 1]), ("choice", [1, 5])):
            space = SearchSpace(type, range)
            assert [space.from_unit(u) for u in (-3, -1e-9, 1 + 1e-9, INF)] == [1, 1, 5, 5]
            with pytest.raises(ValueError, match="NaN"):
                space.from_unit(NAN)

    def test_options_are_copies(self) -> None:
        """Whoever gets a list may change it."""
        space = SearchSpace("choice", [[64, 64], {"act": "relu"}])
        space.value_at(0).append(1)
        space.from_unit(0.9)["act"] = "tanh"
        assert all_values(space) == [[64, 64], {"act": "relu"}]


class TestCoordinates:
    @given(quantized_spaces | choices(), st.data())
    def test_finite_round_trips(self, space: SearchSpace, data: st.DataObject) -> None:
        """Index, unit and internal coordinate each lead back to the very same value."""
        index = data.draw(st.integers(0, (space.size or 0) - 1))
        value = space.value_at(index)
        assert space.index_of(value) == index
        assert 0 < space.to_unit(value) < 1
        assert typed(space.from_unit(space.to_unit(value))) == typed(value)
        assert typed(space.space_to_real(space.real_to_space(value))) == typed(value)

    @given(continuous_spaces, units)
    def test_continuous_round_trips(self, space: SearchSpace, u: float) -> None:
        """Unit and internal coordinate lead back to the value, but for rounding errors."""
        value = space.from_unit(u)
        assert 0 <= space.to_unit(value) <= 1
        assert is_close(space.from_unit(space.to_unit(value)), value, space)
        assert is_close(space.space_to_real(space.real_to_space(value)), value, space)

    @given(search_spaces, st.floats(-1e300, 1e300))
    def test_internal_coordinates_never_leave_the_range(self, space: SearchSpace, x: float) -> None:
        """Any finite internal coordinate is a value, and values have coordinates between the bounds."""
        value = space.space_to_real(x)
        assert space.contains(value)
        internal = space.real_to_space(value)
        slack = 1e-9 * max(abs(space.lower_space()), abs(space.upper_space()))
        assert space.lower_space() - slack <= internal <= space.upper_space() + slack

    @pytest.mark.parametrize(
        ("type", "range", "lower", "upper"),
        [
            ("uniform", [-1, 2], -1, 2),
            ("quniform", [5, 21, 4], 5, 21),
            ("loguniform", [0.001, 100], -3, 2),
            ("loguniform", [0.25, 8, 2], -2, 3),
            ("qloguniform", [8, 256, 4, 2], 3, 8),
            ("choice", ["a", "b", "c"], 0, 3),
        ],
    )
    def test_internal_bounds(self, type: str, range: list[Any], lower: float, upper: float) -> None:
        """The internal coordinate is the value, its logarithm, or the place of the option."""
        space = SearchSpace(type, range)
        assert (space.lower_space(), space.upper_space()) == pytest.approx((lower, upper))

    def test_options_stand_in_the_middle(self) -> None:
        """The internal coordinates of option i are [i, i + 1)."""
        space = SearchSpace("choice", ["a", "b", "c"])
        assert [space.real_to_space(option) for option in "abc"] == [0.5, 1.5, 2.5]

    @pytest.mark.parametrize(
        ("type", "range", "x", "value"),
        [
            ("uniform", [0, 1], 0.25, 0.25),
            ("quniform", [5, 21, 4], 5, 8),
            ("quniform", [0, 1, 0.1], 0.26, 0.3),
            ("loguniform", [0.001, 100], -2, 0.01),
            ("qloguniform", [8, 256, 4, 2], 4.1, 16),
            ("choice", ["a", "b", "c"], 1.99, "b"),
            ("choice", ["a", "b", "c"], 3, "c"),
            ("choice", ["a", "b", "c"], -1, "a"),
        ],
    )
    def test_space_to_real(self, type: str, range: list[Any], x: float, value: Any) -> None:
        """Internal coordinates mean what they always have, but stay in the range."""
        assert SearchSpace(type, range).space_to_real(x) == pytest.approx(value)

    @pytest.mark.parametrize("type", ["uniform", "loguniform", "choice"])
    def test_space_to_real_of_nan(self, type: str) -> None:
        """NaN is no coordinate."""
        with pytest.raises(ValueError, match="not finite"):
            SearchSpace(type, [1, 2]).space_to_real(NAN)

    def test_half_cells_at_the_ends(self) -> None:
        """A value of a grid stands in the middle of its cell, also the first and the last."""
        assert [SearchSpace("quniform", [0, 4, 1]).to_unit(x) for x in (0, 2, 4)] == pytest.approx([0.1, 0.5, 0.9])
        log = SearchSpace("qloguniform", [1, 3, 1])
        assert log.to_unit(2) == pytest.approx(math.log(4) / math.log(7))

    @pytest.mark.parametrize("range", [[1.0, 1.0 + 2**-52], [5e-324, 1e-323], [1e300, 1.0000000000000002e300]])
    @pytest.mark.parametrize("type", ["uniform", "loguniform"])
    def test_neighbouring_floats(self, type: str, range: list[float]) -> None:
        """Bounds that are neighbouring floats are no special case."""
        space = SearchSpace(type, range)
        assert [space.from_unit(space.to_unit(x)) for x in range] == range
        assert [space.to_unit(x) for x in range] == [0, 1]

    def test_huge_integers(self) -> None:
        """Integers keep all their digits up to 2**53."""
        space = SearchSpace("quniform", [-(2**53), 2**53, 1])
        for value in (-(2**53), -(2**53) + 1, 0, 2**53 - 1, 2**53):
            assert space.value_at(space.index_of(value)) == value
        assert [space.from_unit(u) for u in (0.0, 1.0)] == [-(2**53), 2**53]
        assert all(type(space.from_unit(u)) is int for u in (0, 0.3, 1 / 3, 1.0))

    def test_numbers_beyond_the_range_mean_the_nearest_value(self) -> None:
        """to_unit takes any number, as data of an older, wider space may hold it."""
        space = SearchSpace("quniform", [0, 1, 0.25])
        assert [space.from_unit(space.to_unit(x)) for x in (-5, 0.3, 99)] == [0.0, 0.25, 1.0]
        assert [space.nearest(x) for x in (1e308, -(2**53))] == [1.0, 0.0]
        assert SearchSpace("quniform", [0, 1, 1e-9]).nearest(1e308) == 1.0

    @pytest.mark.parametrize("index", [-1, 3])
    def test_no_such_index(self, index: int) -> None:
        """Values are numbered from 0 to size - 1."""
        with pytest.raises(ValueError, match="use 0 to 2"):
            SearchSpace("choice", ["a", "b", "c"]).value_at(index)

    def test_numpy_index(self) -> None:
        """A numpy index gives Python values."""
        assert type(SearchSpace("quniform", [0, 9, 1]).value_at(np.int64(3))) is int  # type: ignore[arg-type]

    def test_a_continuum_has_no_indices(self) -> None:
        """Neither way."""
        space = SearchSpace("uniform", [0, 1])
        with pytest.raises(ValueError, match="not numbered"):
            space.value_at(0)
        with pytest.raises(ValueError, match="no numbered value"):
            space.index_of(0.5)


@given(quniforms(), qloguniforms())
def test_quantized_types_have_the_same_values(linear: SearchSpace, log: SearchSpace) -> None:
    """A log scale changes how likely the values of a grid are, not which there are."""
    twin = SearchSpace("quniform", log.range[:3])
    assert (twin.size, twin.value_at(0)) == (log.size, log.value_at(0))
    assert linear.value_at((linear.size or 0) - 1) == linear.from_unit(1)
