import math
from dataclasses import fields, replace
from typing import Any

import msgpack
import pytest
from hypothesis import given

from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import StudySpec, inherited, resumed
from hpopt.core.validation import MAX_ITERATIONS, MAX_TRIALS, validated
from tests.strategies import study_specs

SPACE = Space({"lr": SearchSpace("uniform", [0, 1]), "bs": SearchSpace("choice", [8, 16])})
GOOD: dict[str, Any] = {"full_dataset_size": 1000, "num_full_iterations": 10, "search_space": SPACE}
RESOLVED = StudySpec(**GOOD, num_trials=6, max_iterations=4, subset_ratio=0.5, seed=7, min_iterations=2, num_brackets=3)

ACCEPTED: dict[str, list[Any]] = {
    "full_dataset_size": [0, 1, 2**31 - 1],
    "num_full_iterations": [1, MAX_ITERATIONS],
    "search_alg": ["bayes_opt", "asha"],
    "early_stop": [None, "median_stop"],
    "mode": ["max", "min"],
    "metric": ["m", "x" * 256],
    "num_init_trials": [1, 1000],
    "num_trials": [None, 1, MAX_TRIALS],
    "max_iterations": [None, 1, MAX_ITERATIONS],
    "min_iterations": [None, 1, 100],
    "reduction_factor": [2, 10],
    "num_brackets": [None, 1, 100],
    "subset_ratio": [None, 1e-9, 0.5, 1, 1.0, 3],
    "batch_size_name": [None, "bs"],
    "image_resize": [(0, 0), (224, 0), (65_536, 65_536)],
    "expected_time_ratio": [1e-9, 4, 1e9],
    "non_pure_train_ratio": [1e-9, 0.2, 0.999],
    "num_workers": [1, 100_000],
    "kappa": [0, 0.0, 2.576],
    "kappa_decay": [1e-9, 1, 1.5],
    "kappa_decay_delay": [0, 3],
    "acquisition": [None, "mix", "log_ei", "ucb", "random"],
    "seed": [None, 0, 2**63 - 1],
    "default_hyper_parameters": [(), ({"lr": 0.5, "bs": 8}, {"lr": 1, "bs": 16})],
    "launch_timeout": [None, 0.1, 60],
    "grace_period": [0, 0.0, 0.1, 1],
    "min_peers": [1, 3],
    "grace_trials": [0, 1, 5],
    "lenient_every": [0, 1, 2, 9],
}
NOT_INTS: list[Any] = [True, 1.0, "1", [1], math.nan]
NOT_NUMBERS: list[Any] = [True, "1", [1], 1j]
NOT_FINITE: list[Any] = [math.nan, math.inf, -math.inf]
WRONG_VALUE: dict[str, list[Any]] = {
    "full_dataset_size": [-1],
    "num_full_iterations": [0, -1, MAX_ITERATIONS + 1],
    "search_alg": ["random", "", "smbo", None, 1],
    "early_stop": ["asha", "", False],
    "mode": ["maximize", "", None, 1],
    "metric": ["", "x" * 257, "\ud800"],
    "num_init_trials": [0, -1],
    "num_trials": [0, -1, MAX_TRIALS + 1],
    "max_iterations": [0, -1, MAX_ITERATIONS + 1],
    "min_iterations": [0, -1],
    "reduction_factor": [1, 0, -3],
    "num_brackets": [0, -1],
    "subset_ratio": [0, 0.0, -0.5, 2**70, *NOT_FINITE],
    "batch_size_name": ["", "batch"],
    "image_resize": [(1,), (1, 2, 3), (-1, 0), (0, 65_537), [0, 0]],
    "expected_time_ratio": [0, -4, *NOT_FINITE],
    "non_pure_train_ratio": [0, 1, 1.5, -0.2, *NOT_FINITE],
    "num_workers": [0, -1],
    "kappa": [-1, -1e-9, 10**400, *NOT_FINITE],
    "kappa_decay": [0, -1, *NOT_FINITE],
    "kappa_decay_delay": [-1],
    "acquisition": ["ei", "", "UCB", 1],
    "seed": [-1, 2**63],
    "default_hyper_parameters": [({"lr": 0.5},), ({"lr": 2, "bs": 8},), ({"lr": 0.5, "bs": 8, "x": 1},)],
    "launch_timeout": [0, -1, *NOT_FINITE],
    "grace_period": [-0.1, 1.1, 5, *NOT_FINITE],
    "min_peers": [0, -1],
    "grace_trials": [-1],
    "lenient_every": [-1],
}
WRONG_TYPE: dict[str, list[Any]] = {
    "full_dataset_size": [*NOT_INTS, None],
    "num_full_iterations": [*NOT_INTS, None],
    "search_space": [None, {"lr": SPACE["lr"]}, []],
    "metric": [None, 1],
    "num_init_trials": [*NOT_INTS, None],
    "num_trials": NOT_INTS,
    "max_iterations": NOT_INTS,
    "min_iterations": NOT_INTS,
    "reduction_factor": [*NOT_INTS, None],
    "num_brackets": NOT_INTS,
    "subset_ratio": NOT_NUMBERS,
    "batch_size_name": [1, ["bs"]],
    "image_resize": [(True, 0), (1.0, 2), ("1", "2"), (None, None)],
    "expected_time_ratio": [*NOT_NUMBERS, None],
    "non_pure_train_ratio": [*NOT_NUMBERS, None],
    "num_workers": [*NOT_INTS, None],
    "kappa": [*NOT_NUMBERS, None],
    "kappa_decay": [*NOT_NUMBERS, None],
    "kappa_decay_delay": [*NOT_INTS, None],
    "seed": NOT_INTS,
    "default_hyper_parameters": [({"lr", "bs"},), ["lr"], {"lr": 1, "bs": 8}, None],
    "launch_timeout": NOT_NUMBERS,
    "grace_period": [*NOT_NUMBERS, None],
    "min_peers": [*NOT_INTS, None],
    "grace_trials": [*NOT_INTS, None],
    "lenient_every": [*NOT_INTS, None],
}


def cases(table: dict[str, list[Any]]) -> list[Any]:
    """(name, value) for every value of a table."""
    each = [(name, value) for name, values in table.items() for value in values]
    return [pytest.param(*case, id=f"{i}-{case[0]}") for i, case in enumerate(each)]


@pytest.mark.parametrize(("name", "value"), cases(ACCEPTED))
def test_accepted(name: str, value: Any) -> None:
    """Every value that an argument may have, its bounds included, is kept as it is."""
    assert getattr(validated(StudySpec(**{**GOOD, name: value})), name) == value


@pytest.mark.parametrize(("name", "value"), cases(WRONG_VALUE))
def test_wrong_values(name: str, value: Any) -> None:
    """A value outside what is possible is a ValueError with the argument's name."""
    with pytest.raises(ValueError, match="lr|bs|'x'" if name == "default_hyper_parameters" else name):
        validated(StudySpec(**{**GOOD, name: value}))


@pytest.mark.parametrize(("name", "value"), cases(WRONG_TYPE))
def test_wrong_types(name: str, value: Any) -> None:
    """A value of another type is a TypeError with the argument's name; bool is no number."""
    with pytest.raises(TypeError, match=name):
        validated(StudySpec(**{**GOOD, name: value}))


def test_every_argument_is_in_the_tables() -> None:
    """No argument is left unchecked."""
    names = {field.name for field in fields(StudySpec)}
    assert ACCEPTED.keys() | {"search_space"} == names
    assert WRONG_VALUE.keys() | WRONG_TYPE.keys() == names


def test_messages_name_the_value_and_the_remedy() -> None:
    """A refusal says what was passed and what to pass instead."""
    with pytest.raises(ValueError, match=r"^reduction_factor=1: use a value from 2 to \d+$"):
        validated(StudySpec(**GOOD, reduction_factor=1))
    with pytest.raises(TypeError, match=r"^num_trials=5\.0: pass an int, not float$"):
        validated(StudySpec(**GOOD, num_trials=5.0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"use one of 'lr', 'bs'$"):
        validated(StudySpec(**GOOD, batch_size_name="batch"))
    with pytest.raises(ValueError, match=r"^search_alg='random': use one of 'bayes_opt', 'asha'$"):
        validated(StudySpec(**GOOD, search_alg="random"))
    space = Space({"act": SearchSpace("choice", ["relu", True, 0, -8]), "shift": SearchSpace("uniform", [-1, 0])})
    for name in space:
        with pytest.raises(ValueError, match=rf"^batch_size_name='{name}': none of .* is a number above 0; name the"):
            validated(StudySpec(**{**GOOD, "search_space": space, "batch_size_name": name}))


def test_defaults_are_as_the_search_would_have_made_them() -> None:
    """Default hyper-parameters get the types and the order of the search space."""
    (params,) = validated(StudySpec(**GOOD, default_hyper_parameters=({"bs": 8, "lr": 1},))).default_hyper_parameters
    assert list(params.items()) == [("lr", 1.0), ("bs", 8)]
    assert type(params["lr"]) is float


@given(study_specs())
def test_round_trip(spec: StudySpec) -> None:
    """A spec is the same after being stored, its hyper-parameters in their order."""
    stored = StudySpec.from_wire(msgpack.unpackb(msgpack.packb(spec.to_wire())))
    assert stored == spec
    assert list(stored.search_space) == list(spec.search_space)


# --- resuming

CHANGES: dict[str, Any] = {
    "num_trials": 7,
    "num_workers": 4,
    "kappa": 1.0,
    "kappa_decay": 0.9,
    "kappa_decay_delay": 2,
    "acquisition": "log_ei",
    "expected_time_ratio": 2.0,
    "launch_timeout": 60.0,
}
NO_CHANGES: dict[str, Any] = {
    "full_dataset_size": 999,
    "num_full_iterations": 11,
    "search_space": Space({**SPACE, "lr": SearchSpace("uniform", [0, 2])}),
    "search_alg": "asha",
    "early_stop": "median_stop",
    "mode": "min",
    "metric": "loss",
    "num_init_trials": 3,
    "max_iterations": 5,
    "min_iterations": 1,
    "reduction_factor": 3,
    "num_brackets": 2,
    "subset_ratio": 0.6,
    "batch_size_name": "bs",
    "image_resize": (1, 1),
    "non_pure_train_ratio": 0.3,
    "seed": 8,
    "grace_period": 0.2,
    "min_peers": 5,
    "grace_trials": 2,
    "lenient_every": 4,
    "default_hyper_parameters": ({"lr": 0.5, "bs": 8},),
}


def test_every_argument_may_change_or_not() -> None:
    """Nothing is forgotten."""
    assert CHANGES.keys() | NO_CHANGES.keys() == {field.name for field in fields(StudySpec)}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_when_resuming(name: str) -> None:
    """These arguments take their new value."""
    assert resumed(RESOLVED, replace(RESOLVED, **{name: CHANGES[name]})) == replace(RESOLVED, **{name: CHANGES[name]})


@pytest.mark.parametrize("name", NO_CHANGES)
def test_not_changed_when_resuming(name: str) -> None:
    """All others are a ValueError that names them."""
    with pytest.raises(ValueError, match=f"cannot resume this study: {name}") as caught:
        resumed(RESOLVED, replace(RESOLVED, **{name: NO_CHANGES[name]}))
    assert "resume=False" in str(caught.value)


def test_all_differences_are_named_at_once() -> None:
    """Nobody has to resume again and again to find out what differs."""
    with pytest.raises(ValueError, match="mode was 'max' and is now 'min'; metric was 'mAP' and is now 'loss'"):
        resumed(RESOLVED, replace(RESOLVED, metric="loss", mode="min"))


def test_fewer_trials_are_refused() -> None:
    """The number of trials may only grow."""
    with pytest.raises(ValueError, match="num_trials was 6 and may only grow, not become 5"):
        resumed(RESOLVED, replace(RESOLVED, num_trials=5))


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (Space({"lr": SPACE["lr"]}), "'bs'"),
        (Space({**SPACE, "momentum": SPACE["lr"]}), "'momentum'"),
        (Space({"lr": SPACE["bs"], "bs": SPACE["lr"]}), "'lr', 'bs'"),
    ],
)
def test_the_space_names_what_differs(space: Space, names: str) -> None:
    """Of a search space only the hyper-parameters that differ are named."""
    with pytest.raises(ValueError, match=f"search_space differs in {names}:"):
        resumed(RESOLVED, replace(RESOLVED, search_space=space))


@pytest.mark.parametrize(
    "same",
    [
        Space({"lr": SearchSpace("uniform", (0.0, 1.0)), "bs": SearchSpace("choice", (8, 16))}),
        Space({"bs": SPACE["bs"], "lr": SPACE["lr"]}),
    ],
    ids=["tuples", "order"],
)
def test_the_same_space_written_otherwise(same: Space) -> None:
    """A tuple for a list, 1.0 for 1, another order: no difference."""
    assert resumed(RESOLVED, replace(RESOLVED, search_space=same)) == RESOLVED


@pytest.mark.parametrize(
    "name", ["num_trials", "max_iterations", "subset_ratio", "seed", "min_iterations", "num_brackets"]
)
def test_none_keeps_the_stored_value(name: str) -> None:
    """None for what a new study would derive keeps what the study has."""
    changes: dict[str, Any] = {name: None}
    assert inherited(RESOLVED, replace(RESOLVED, **changes)) == RESOLVED


def test_none_is_a_launch_timeout() -> None:
    """None in launch_timeout means no limit, also when resuming."""
    stored = replace(RESOLVED, launch_timeout=60.0)
    asked = inherited(stored, replace(stored, launch_timeout=None))
    assert resumed(stored, asked).launch_timeout is None


def test_unresolved_counts_are_an_error() -> None:
    """Nobody computes with a number of trials that is not known yet."""
    spec = StudySpec(**GOOD)
    with pytest.raises(ValueError, match="num_trials is not resolved"):
        _ = spec.trials
    with pytest.raises(ValueError, match="max_iterations is not resolved"):
        _ = spec.iterations
