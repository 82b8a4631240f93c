import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpopt.core.space import SearchSpace, Space
from tests.space_helpers import over_the_wire, typed
from tests.strategies import (
    is_close,
    spaces,
    units,
)

LR = SearchSpace("loguniform", [0.0001, 0.1])
BS = SearchSpace("qloguniform", [8, 256, 4])
OPTIMIZER = SearchSpace("choice", ["sgd", "adam"])


class TestSpace:
    def test_mapping(self) -> None:
        """A Space is a mapping, in the order given, that the user's dict cannot change later."""
        given = {"lr": LR, "bs": BS}
        space = Space(given)
        given["opt"] = OPTIMIZER
        assert list(space) == ["lr", "bs"]
        assert (space["bs"], len(space), "opt" in space) == (BS, 2, False)
        assert space == Space({"bs": BS, "lr": LR})
        assert space != Space({"bs": BS, "lr": BS})
        assert repr(Space({"lr": LR})) == "Space({'lr': SearchSpace('loguniform', [0.0001, 0.1])})"

    @pytest.mark.parametrize(
        ("spaces", "error", "match"),
        [
            ({}, ValueError, "0 hyper-parameters"),
            ({f"x{i}": LR for i in range(65)}, ValueError, "65 hyper-parameters .* give 1 to 64"),
            ({"": LR}, ValueError, "'' has 0 characters"),
            ({"x" * 65: LR}, ValueError, "has 65 characters; use 1 to 64"),
            ({"\ud800": LR}, ValueError, "no valid Unicode"),
            ({3: LR}, TypeError, "name 3 .* is a int; use a str"),
            ({"lr": [0, 1]}, TypeError, "lr=.* pass an hpopt.search_space"),
            ({"lr": {"type": "uniform", "range": [0, 1]}}, TypeError, "lr="),
            ([LR], TypeError, "is a list; pass a dict"),
            (None, TypeError, "is a NoneType; pass a dict"),
        ],
    )
    def test_refusals(self, spaces: Any, error: type[Exception], match: str) -> None:
        """A Space that cannot be is refused by name."""
        with pytest.raises(error, match=match):
            Space(spaces)

    def test_most_dimensions(self) -> None:
        """64 hyper-parameters with names of 64 characters are fine."""
        assert len(Space({f"{i:064}": LR for i in range(64)})) == 64

    @pytest.mark.parametrize(
        ("spaces", "size"),
        [
            ({"opt": OPTIMIZER}, 2),
            ({"opt": OPTIMIZER, "bs": BS, "one": SearchSpace("uniform", [1, 1])}, 2 * 63),
            ({"opt": OPTIMIZER, "lr": LR}, None),
            ({f"x{i}": SearchSpace("quniform", [1, 2**53, 1]) for i in range(3)}, 2**159),
        ],
    )
    def test_size(self, spaces: dict[str, SearchSpace], size: int | None) -> None:
        """Configurations are counted exactly; one continuum makes them infinitely many."""
        assert Space(spaces).size == size

    @given(spaces, st.data())
    def test_points(self, space: Space, data: st.DataObject) -> None:
        """A point of the unit cube is a complete configuration that JSON and msgpack can carry; its key tells it."""
        params = space.from_unit(data.draw(st.lists(units, min_size=len(space), max_size=len(space))))
        assert list(params) == list(space)
        assert typed(space.check(params)) == typed(params)
        assert typed(over_the_wire(params)) == typed(params) == typed(json.loads(json.dumps(params)))
        again = space.from_unit(space.to_unit(params))
        for name, part in space.items():
            assert part.key(again[name]) == part.key(params[name]) or is_close(again[name], params[name], part)
        assert hash(space.key(params)) == hash(space.key(over_the_wire(params)))

    @pytest.mark.parametrize("point", [[], [0.5], [0.5] * 3])
    def test_points_of_other_spaces(self, point: list[float]) -> None:
        """A point needs one coordinate per hyper-parameter."""
        with pytest.raises(ValueError, match="give 2: lr, bs"):
            Space({"lr": LR, "bs": BS}).from_unit(point)

    def test_keys(self) -> None:
        """Configurations have the same key when they are the same: 8.0 for 8 and rounding errors do not matter."""
        space = Space({"bs": BS, "p": SearchSpace("quniform", [0, 1, 0.1]), "flag": SearchSpace("choice", [1, True])})
        key = space.key({"bs": 8, "p": 0.3, "flag": 1})
        assert space.key({"flag": 1, "p": 3 * 0.1, "bs": 8.0}) == key
        assert space.key({"bs": 8, "p": 0.3, "flag": True}) != key
        assert space.key({"bs": 8, "p": 0.4, "flag": 1}) != key

    def test_all_configurations(self) -> None:
        """A finite space can be counted through; the last hyper-parameter changes fastest."""
        space = Space({"opt": OPTIMIZER, "n": SearchSpace("quniform", [1, 3, 1])})
        configs = [space.config_at(i) for i in range(6)]
        assert [(config["opt"], config["n"]) for config in configs] == [
            ("sgd", 1), ("sgd", 2), ("sgd", 3), ("adam", 1), ("adam", 2), ("adam", 3),
        ]  # fmt: skip
        assert len({space.key(config) for config in configs}) == space.size

    @pytest.mark.parametrize(("spaces", "index"), [({"opt": OPTIMIZER}, 2), ({"opt": OPTIMIZER}, -1), ({"lr": LR}, 0)])
    def test_no_such_configuration(self, spaces: dict[str, SearchSpace], index: int) -> None:
        """Numbers from 0 to size - 1 name configurations; those of a continuum have none."""
        with pytest.raises(ValueError, match="no configuration number"):
            Space(spaces).config_at(index)

    def test_check_completes(self) -> None:
        """A configuration is given back as the search would have made it."""
        space = Space({"lr": LR, "bs": BS, "p": SearchSpace("quniform", [0, 1, 0.1])})
        assert typed(space.check({"p": 3 * 0.1, "bs": np.float64(16), "lr": 0.01})) == typed(
            {"lr": 0.01, "bs": 16, "p": 0.3}
        )

    @pytest.mark.parametrize(
        ("params", "error", "match"),
        [
            ({"lr": 0.01}, ValueError, "'bs' is missing"),
            ({}, ValueError, "'lr' is missing"),
            ({"lr": 0.01, "bs": 8, "bss": 8}, ValueError, "'bss' is no hyper-parameter .* did you mean 'bs'"),
            ({"lr": 0.01, "bs": 8, 3: 8}, ValueError, "3 is no hyper-parameter"),
            ({"lr": 1, "bs": 8}, ValueError, "lr=1 is outside SearchSpace\\('loguniform'"),
            ({"lr": 0.01, "bs": 9}, ValueError, "bs=9 is outside"),
            ({"lr": 0.01, "bs": None}, ValueError, "bs=None is outside"),
            ([0.01, 8], TypeError, "is a list; pass a dict"),
        ],
    )
    def test_check_refuses(self, params: Any, error: type[Exception], match: str) -> None:
        """What is missing, unknown or outside is named."""
        with pytest.raises(error, match=match):
            Space({"lr": LR, "bs": BS}).check(params)

    @given(spaces)
    def test_wire(self, space: Space) -> None:
        """A Space survives the wire, order included."""
        other = Space.from_wire(over_the_wire(space.to_wire()))
        assert other == space
        assert list(other) == list(space)
        assert pickle.loads(pickle.dumps(space)) == space  # noqa: S301 - our own bytes

    @pytest.mark.parametrize(
        "wire",
        [
            None, [], [[]], [["lr", "uniform"]], {"lr": 1}, [[1, "uniform", [0, 1]]],
            [["lr", "uniform", [0, 1]], ["lr", "uniform", [0, 1]]],
        ],
    )  # fmt: skip
    def test_bad_wire(self, wire: Any) -> None:
        """Anything else from the wire is refused, one name twice included."""
        with pytest.raises((ValueError, TypeError)):
            Space.from_wire(wire)
