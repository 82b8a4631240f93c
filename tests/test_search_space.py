import copy
import json
import math
import pickle
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from hpopt.core.space import SearchSpace
from tests.space_helpers import over_the_wire, typed
from tests.strategies import (
    json_values,
    search_spaces,
)

NAN, INF = float("nan"), float("inf")


class TestConstruction:
    @pytest.mark.parametrize(
        ("type", "range", "match"),
        [
            ("uniform", [1, 0], "lo 1 is above hi 0; swap them"),
            ("loguniform", [1, 0.1], "swap them"),
            ("quniform", [3, 2, 1], "swap them"),
            ("qloguniform", [3, 2, 1], "swap them"),
            ("uniform", [], "0 items"),
            ("uniform", [0], "1 items"),
            ("uniform", [0, 1, 2], "3 items"),
            ("quniform", [0, 1], "2 items"),
            ("quniform", [0, 1, 0.1, 10], "4 items"),
            ("loguniform", [1], "base may be left out"),
            ("loguniform", [1, 2, 10, 3], "4 items"),
            ("qloguniform", [1, 2], "2 items"),
            ("qloguniform", [1, 2, 1, 10, 3], "5 items"),
            ("uniform", [NAN, 1], "lo nan is not finite"),
            ("uniform", [0, INF], "hi inf is not finite"),
            ("quniform", [0, 1, NAN], "q nan is not finite"),
            ("loguniform", [1, 2, INF], "base inf is not finite"),
            ("uniform", [0, Fraction(10**400)], "not finite"),
            ("uniform", [0, 2**53 + 1], "beyond 2\\*\\*53"),
            ("uniform", [-1e308, 1e308], "wider than a float"),
            ("loguniform", [0, 1], "lo 0 has no logarithm"),
            ("loguniform", [-1, 1], "lo -1 has no logarithm"),
            ("loguniform", [1e-300, 1e300], "wider than a float"),
            ("qloguniform", [0, 8, 1], "lo 0 has no logarithm"),
            ("loguniform", [1, 2, 1], "base 1 is no base"),
            ("loguniform", [1, 2, 0.5], "base 0.5 is no base"),
            ("qloguniform", [1, 2, 1, 0], "base 0 is no base"),
            ("quniform", [0, 1, 0], "q 0 is no step"),
            ("quniform", [0, 1, -0.1], "q -0.1 is no step"),
            ("qloguniform", [1, 2, -1], "q -1 is no step"),
            ("quniform", [5, 7, 10], "no multiple of q 10"),
            ("quniform", [5, 5, 2], "no multiple of q 2"),
            ("qloguniform", [1, 2, 3], "no multiple of q 3"),
            ("quniform", [0, 1, 1e-17], "finer than floats"),
            ("quniform", [0, 5e-324, 5e-324], "finer than floats"),
            ("quniform", [-1e308, 1e308, 1e307], "wider than a float"),
            ("quniform", [0, 2**52 + 1, 0.5], "finer than floats"),
            ("qloguniform", [1, 1e300, 1e-12], "finer than floats"),
            ("quniform", [0.0, 1e18, 1000], "write q as 1000.0"),
            ("choice", [], "0 options; give 1 to 1000"),
            ("choice", range(1001), "1001 options"),
            ("choice", [2**53 + 1], "beyond 2\\*\\*53"),
            ("choice", ["\ud800"], "no valid Unicode"),
            ("choice", [{"\ud800": 1}], "no valid Unicode"),
        ],
    )
    def test_senseless_ranges(self, type: str, range: Sequence[Any], match: str) -> None:
        """A range that makes no sense is a ValueError that begins with the type and says what to do."""
        with pytest.raises(ValueError, match=f"^{type} .*{match}"):
            SearchSpace(type, range)

    @pytest.mark.parametrize(
        ("type", "range", "match"),
        [
            ("uniform", [True, 2], "lo True is a bool; pass a number"),
            ("uniform", [0, "1"], "hi '1' is a str"),
            ("uniform", [0, None], "hi None is a NoneType"),
            ("uniform", [0, Decimal(1)], "hi .* is a Decimal"),
            ("quniform", [0, 1, np.bool_(True)], "q True is a bool"),  # noqa: FBT003 - a bool is what is tested
            ("loguniform", [1, 2, "e"], "base 'e' is a str"),
            ("uniform", 1, "is a int; pass a list"),
            ("uniform", "01", "is a str; pass a list"),
            ("choice", {1, 2}, "is a set; pass a list"),
            ("choice", {"a": 1}, "is a dict; pass a list"),
            ("choice", [NAN], "no finite JSON value"),
            ("choice", [-INF], "no finite JSON value"),
            ("choice", [[1, [NAN]]], "no finite JSON value"),
            ("choice", [{1, 2}], "map it in your trainer"),
            ("choice", [b"x"], "map it in your trainer"),
            ("choice", [{1: 2}], "string keys"),
            ("choice", [math.sin], "map it in your trainer"),
            ("choice", [np.zeros(2)], "map it in your trainer"),
        ],
    )
    def test_wrong_types_in_a_range(self, type: str, range: Any, match: str) -> None:
        """What is no number, no list or no JSON value is a TypeError that says so."""
        with pytest.raises(TypeError, match=f"^{type} .*{match}"):
            SearchSpace(type, range)

    def test_nesting_has_an_end(self) -> None:
        """An option that contains itself is a ValueError."""
        loop: list[Any] = []
        loop.append(loop)
        with pytest.raises(ValueError, match="nested deeper than 32"):
            SearchSpace("choice", [loop])

    @pytest.mark.parametrize(
        ("type", "match"),
        [("unifrom", "did you mean 'uniform'"), ("Choice", "did you mean 'choice'"), ("int", "qloguniform, choice$")],
    )
    def test_unknown_type(self, type: str, match: str) -> None:
        """An unknown type is a TypeError that names the five, and the closest."""
        with pytest.raises(TypeError, match=match):
            SearchSpace(type, [0, 1])

    @pytest.mark.parametrize("type", [None, 3, ["uniform"], b"uniform"])
    def test_type_that_is_no_string(self, type: Any) -> None:
        """So is a type that is no str."""
        with pytest.raises(TypeError, match="uniform, quniform, loguniform, qloguniform, choice"):
            SearchSpace(type, [0, 1])

    def test_long_ranges_in_messages_are_cut(self) -> None:
        """A message stays readable whatever the range."""
        with pytest.raises(TypeError) as caught:
            SearchSpace("choice", [*range(900), object])
        assert len(str(caught.value)) < 300

    def test_keywords(self) -> None:
        """The arguments have the names that the API reference gives them."""
        space = SearchSpace(type="uniform", range=[0, 1])
        assert (space.type, space.range) == ("uniform", [0, 1])

    @pytest.mark.parametrize(
        ("type", "range"),
        [
            ("uniform", [0, 1]),
            ("loguniform", [1, 2]),
            ("quniform", [0, 8, 2]),
            ("qloguniform", [8, 256, 4]),
            ("choice", [[1], 2]),
        ],
    )
    def test_the_users_list_stays_as_it_is(self, type: str, range: list[Any]) -> None:
        """One list can be used for many search spaces; changing it, or .range, later changes none of them."""
        before = copy.deepcopy(range)
        first, second = SearchSpace(type, range), SearchSpace(type, range)
        assert range == before
        range.append(3)
        range[0] = None
        first.range.append(4)
        assert first.range == second.range == before
        assert first == second

    @pytest.mark.parametrize(
        "bounds", [(0, 1), range(2), np.array([0, 1]), [np.int64(0), np.float32(1)], [Fraction(0), 1]]
    )
    def test_numbers_of_any_library(self, bounds: Any) -> None:
        """Tuples, arrays and numpy scalars are as good as lists of Python numbers, and are stored as such."""
        space = SearchSpace("uniform", bounds)
        assert space == SearchSpace("uniform", [0.0, 1.0])
        assert {type(x) for x in space.range} <= {int, float}

    def test_options_become_plain(self) -> None:
        """Tuples become lists and numpy scalars numbers, as they would on the wire."""
        space = SearchSpace("choice", [(1, np.int32(2)), np.float64(0.5), np.str_("a")])
        assert [typed(option) for option in space.range] == ["[1, 2]", "0.5", '"a"']
        assert space.index_of((1, 2)) == 0


class TestContains:
    @pytest.mark.parametrize(
        ("type", "range", "inside", "outside"),
        [
            ("uniform", [0, 1], [0, 1, 0.5, 0.0, np.float32(0.25)], [-0.1, 1.1, True, NAN, INF, "0.5", None, [0.5]]),
            ("loguniform", [0.1, 1], [0.1, 1], [0, -1, 1.1]),
            ("quniform", [8, 16, 4], [8, 8.0, 12, np.int64(16)], [9, 8.5, 20, 4, True, "8", NAN]),
            ("quniform", [0, 1, 0.1], [0.3, 3 * 0.1, 1, 0, 1e-17], [0.31, 1.1, -0.1]),
            ("qloguniform", [1, 8, 1], [1, 8.0], [0, 8.5, 9]),
            (
                "choice",
                [1, "a", None, [1, 2]],
                [1, "a", None, (1, 2), np.int64(1)],
                [True, 1.0, "1", [1], NAN, object()],
            ),
            ("choice", [True], [True], [1, 1.0]),
            ("choice", [{"a": 1, "b": 2}], [{"b": 2, "a": 1}], [{"a": 1}, {"a": 1.0, "b": 2}]),
            ("choice", [0.0], [0.0, -0.0], [0, False]),
        ],
    )
    def test_contains(self, type: str, range: list[Any], inside: list[Any], outside: list[Any]) -> None:
        """Numbers may be ints or floats and slightly off; options have to be of the same type."""
        space = SearchSpace(type, range)
        assert [value for value in inside if not space.contains(value)] == []
        assert [value for value in outside if space.contains(value)] == []

    def test_index_of_integral_float(self) -> None:
        """JSON tools turn 8 into 8.0: it is the same value of an int grid, which gives it back as an int."""
        space = SearchSpace("qloguniform", [8, 256, 4])
        assert typed(space.value_at(space.index_of(12.0))) == "12"

    @pytest.mark.parametrize("value", [9, "8", True, NAN])
    def test_index_of_other_values(self, value: Any) -> None:
        """What is no value has no index."""
        with pytest.raises(ValueError, match="no numbered value"):
            SearchSpace("quniform", [8, 16, 4]).index_of(value)

    def test_options_that_look_alike(self) -> None:
        """1, True, "1" and 1.0 are four options, each with its own place."""
        space = SearchSpace("choice", [1, True, "1", 1.0])
        assert [space.index_of(value) for value in (1, True, "1", 1.0)] == [0, 1, 2, 3]

    def test_to_unit_of_no_option(self) -> None:
        """An unknown option is a ValueError, not a guess."""
        with pytest.raises(ValueError, match="'c' is none of the options"):
            SearchSpace("choice", ["a", "b"]).to_unit("c")


class TestIdentity:
    @given(search_spaces)
    def test_wire(self, space: SearchSpace) -> None:
        """A search space survives msgpack, JSON, pickle and copying."""
        for other in (
            SearchSpace.from_wire(over_the_wire(space.to_wire())),
            SearchSpace.from_wire(json.loads(json.dumps(space.to_wire()))),
            pickle.loads(pickle.dumps(space)),  # noqa: S301 - our own bytes
            copy.deepcopy(space),
        ):
            assert (other, hash(other)) == (space, hash(space))
            assert typed(other.to_wire()) == typed(space.to_wire())

    @pytest.mark.parametrize(
        "wire", [None, "uniform", ["uniform"], ["uniform", [0, 1], 2], {"type": "uniform", "range": [0, 1]}, ["x", []]]
    )
    def test_bad_wire(self, wire: Any) -> None:
        """Anything else from the wire is refused."""
        with pytest.raises((ValueError, TypeError)):
            SearchSpace.from_wire(wire)

    @pytest.mark.parametrize(
        ("type", "one", "other"),
        [
            ("uniform", [0, 1], (0.0, 1.0)),
            ("loguniform", [1, 2], [1, 2, 10]),
            ("qloguniform", [8, 256, 4], [8.0, 256, 4, 10.0]),
            ("choice", ["a", (1, 2)], ("a", [1, 2])),
            ("choice", ["a", "a", "b"], ["a", "b"]),
        ],
    )
    def test_equal(self, type: str, one: Any, other: Any) -> None:
        """Search spaces are equal when they mean the same."""
        assert SearchSpace(type, one) == SearchSpace(type, other)
        assert hash(SearchSpace(type, one)) == hash(SearchSpace(type, other))

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (("uniform", [0, 1]), ("uniform", [0, 2])),
            (("uniform", [1, 2]), ("loguniform", [1, 2])),
            (("loguniform", [1, 2]), ("loguniform", [1, 2, 2])),
            (("quniform", [0, 8, 2]), ("quniform", [0, 8, 2.0])),
            (("qloguniform", [8, 256, 4]), ("qloguniform", [8, 256, 4.0])),
            (("choice", ["a", "b"]), ("choice", ["b", "a"])),
            (("choice", [1]), ("choice", [True])),
            (("choice", [1]), ("choice", [1.0])),
        ],
    )
    def test_unequal(self, one: tuple[str, list[Any]], other: tuple[str, list[Any]]) -> None:
        """... and different when they do not."""
        assert SearchSpace(*one) != SearchSpace(*other)

    def test_other_things(self) -> None:
        """A search space equals nothing else, and shows what it is."""
        space = SearchSpace("uniform", [0, 1])
        assert space != ["uniform", [0, 1]]
        assert repr(space) == "SearchSpace('uniform', [0, 1])"

    @given(json_values)
    def test_every_json_value_can_be_an_option(self, value: Any) -> None:
        """Whatever JSON can say is an option, handed out as it is."""
        space = SearchSpace("choice", [value])
        assert typed(space.from_unit(0.5)) == typed(value)
        assert space.contains(value)
        hash(space.key(value))
