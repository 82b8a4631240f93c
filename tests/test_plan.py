"""The plan of a study as people see it: a table of what was given, derived, limited and measured."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from hpopt.core.budget import plan
from hpopt.core.plan import Plan
from hpopt.core.schedule import Schedule
from hpopt.core.space import SearchSpace, Space
from hpopt.core.validation import validated
from tests.test_budget import make_spec
from tests.virtual import Fleet


def test_plan_of_a_study() -> None:
    """What was given, what was derived and why, and what it costs."""
    spec = make_spec(seed=1, max_iterations=10)
    shown = Plan.of(plan(spec)[0], Schedule.of(spec))
    assert shown.derived == ("num_trials", "subset_ratio")
    assert {each.name: each.value for each in shown.arguments}["max_iterations"] == 10
    assert str(shown).splitlines() == [
        "the plan (what is derived may be given instead):",
        "  num_trials         31      derived   what fits into the budget",
        "  max_iterations     10      given",
        "  subset_ratio       0.5161  derived   5,161 of 10,000 samples",
        "  epochs of a trial  10      expected  each 0.613 of one on the full dataset",
        "  full trainings     3.8     expected  expected_time_ratio=4, num_workers=1",
    ]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"search_space": Space({"x": SearchSpace("choice", [1, 2, 3])}), "num_trials": 50},
            "num_trials 3 limited every configuration there is",
        ),
        (
            {"full_dataset_size": 1000, "subset_ratio": 0.1, "num_trials": 50},
            "subset_ratio 0.5 limited 500 of 1,000 samples, the least",
        ),
        (
            {"full_dataset_size": 300, "subset_ratio": 0.5, "num_trials": 50},
            "subset_ratio 1 limited 300 of 300 samples",
        ),
        ({"num_trials": 1_234_567, "subset_ratio": 0.7}, "num_trials 1234567 given"),
    ],
)
def test_plan_tells_what_was_given_from_what_became_of_it(fields: dict[str, Any], line: str) -> None:
    """A value at a limit may not be the user's, and large ones are written out."""
    spec = make_spec(seed=1, **fields)
    shown = str(Plan.of(plan(spec)[0], Schedule.of(spec)))
    assert line.split() in [each.split() for each in shown.splitlines()]


def test_plan_of_asha_has_its_rungs() -> None:
    """With the trials that are expected to get to each of them, one line for each bracket."""
    spec = make_spec(seed=1, search_alg="asha", max_iterations=9, reduction_factor=3, num_brackets=2, num_trials=90)
    shown = Plan.of(plan(spec)[0], Schedule.of(spec))
    assert [(stage.bracket, stage.level, stage.epochs) for stage in shown.stages] == [
        (0, 1, 1), (0, 3, 2), (0, 9, 6), (1, 3, 3), (1, 9, 6)
    ]  # fmt: skip
    assert sum(stage.trials for stage in shown.stages if stage.level == 9) < 90
    assert sum(stage.trials for stage in shown.stages if stage.epochs == stage.level) == pytest.approx(90)
    assert sum("rungs of bracket" in line for line in str(shown).splitlines()) == 2


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"expected_time_ratio": 0.01}, "the least that makes a search"),
        ({"expected_time_ratio": 1e6}, "the most that is of use"),
        ({"search_space": Space({"x": SearchSpace("choice", [1, 2, 3])})}, "every configuration there is"),
        ({}, "what fits into the budget"),
    ],
)
def test_plan_says_why(fields: dict[str, Any], why: str) -> None:
    """The number of trials has a reason."""
    spec = make_spec(seed=1, **fields)
    assert Plan.of(plan(spec)[0], Schedule.of(spec)).arguments[0].why == why


def test_a_dataset_of_unknown_size() -> None:
    """A subset_ratio that was left out is not shown as given, though there is nothing to derive."""
    spec = make_spec(seed=1, full_dataset_size=0, num_trials=5, max_iterations=4)
    shown = Plan.of(plan(spec)[0], Schedule.of(spec))
    assert (shown.derived, shown.arguments[2].why) == (("subset_ratio",), "full_dataset_size=0: its size is not known")


def test_plan_after_a_correction() -> None:
    """It tells what was planned, and expects what was measured."""
    fleet = Fleet(validated(make_spec(seed=1, num_full_iterations=10)), launch=2.0)
    fleet.run()
    shown = Plan.of(fleet.study.spec, fleet.study.schedule)
    assert shown.corrections == fleet.study.schedule.corrections
    assert shown.arguments[0].value == fleet.study.spec.trials == shown.corrections[-1].after
    assert f"planned were {shown.corrections[0].before}" in shown.arguments[0].why
    assert shown.expected_ratio == pytest.approx((fleet.finished - 1000) / 10, rel=0.1)
    assert f"after {shown.corrections[0].ended} trials" in str(shown)
    assert json.loads(json.dumps(shown.to_dict()))["corrections"] == [asdict(each) for each in shown.corrections]
