"""Whole studies in virtual time: how long they take, beside their budgets."""

from statistics import fmean
from typing import Any

import pytest

from hpopt.core.budget import plan, trial_bounds
from hpopt.core.cost import expected_ratio
from hpopt.core.schedule import Schedule
from hpopt.core.spec import StudySpec
from hpopt.core.validation import validated
from tests.test_budget import make_spec
from tests.virtual import Fleet

EPOCHS = 20
SEEDS = {1: 8, 4: 5, 16: 2}
"""Studies of small fleets have fewer trials, and differ more from each other: the mean is over so many of them."""
RULES: dict[str, dict[str, Any]] = {
    "bayes_opt": {"search_alg": "bayes_opt"},
    "median_stop": {"search_alg": "bayes_opt", "early_stop": "median_stop"},
    "asha": {"search_alg": "asha"},
    "asha at random": {"search_alg": "asha", "acquisition": "random", "reduction_factor": 3},
}
SITES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as assumed": ({}, {}),
    "as it is": ({"full_dataset_size": 1500, "non_pure_train_ratio": 0.5}, {"spread": 0.3, "launch": 0.5}),
}
"""Arguments of the study, and of the fleet: its configurations differ in cost, and trials take time to launch."""


def spec_of(**fields: Any) -> StudySpec:
    """The arguments of a study with a full training of EPOCHS epochs."""
    return validated(make_spec(**{"num_full_iterations": EPOCHS, "seed": 1, **fields}))


def share_of_budget(fleet: Fleet) -> float:
    """How long the fleet's study takes, over what it was to take."""
    return fleet.run() / fleet.spec.num_full_iterations / fleet.spec.expected_time_ratio


def check_time(spec: StudySpec, seeds: int, **circumstances: Any) -> None:
    """On average within 20 %, unless it was warned of more, or has all the trials that are of use."""
    fleets = [Fleet(spec, seed, **circumstances) for seed in range(seeds)]
    share = fmean(map(share_of_budget, fleets))
    planned, warnings = plan(spec)
    if warnings:
        assert share <= 1.2 * expected_ratio(planned) / spec.expected_time_ratio
    else:
        enough = any(fleet.study.spec.trials == trial_bounds(spec)[1] for fleet in fleets)
        assert (0 if enough else 0.8) <= share <= 1.2


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("ratio", [2, 4, 10])
@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("rule", RULES)
def test_a_study_takes_what_it_was_given(rule: str, workers: int, ratio: float, site: str) -> None:
    """Whatever its rule, its budget and its fleet."""
    arguments, circumstances = SITES[site]
    spec = spec_of(**RULES[rule], **arguments, num_workers=workers, expected_time_ratio=ratio)
    check_time(spec, SEEDS[workers], **circumstances)


@pytest.mark.parametrize(("workers", "ratio"), [(64, 1), (64, 2), (64, 4), (128, 1), (128, 2)])
@pytest.mark.parametrize("rule", ["median_stop", "asha", "asha at random"])
def test_a_large_fleet_takes_what_it_was_given(rule: str, workers: int, ratio: float) -> None:
    """Rules that stop trials leave workers idle while the last ones run; without them trials come in whole waves."""
    check_time(spec_of(**RULES[rule], num_workers=workers, expected_time_ratio=ratio, num_full_iterations=50), 2)


HARD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "half the workers": ({"num_workers": 16}, {"workers": 8}),
    "long launches": ({"num_workers": 4}, {"launch": 8.0}),
    "costly configurations": ({"num_workers": 4}, {"spread": 1.0}),
}


@pytest.mark.parametrize("case", HARD)
def test_what_cannot_be_planned_is_corrected(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the plan alone would take more than 20 % too long, the corrected study does not."""
    arguments, circumstances = HARD[case]
    spec = spec_of(expected_time_ratio=6, **arguments)
    corrected = fmean(share_of_budget(Fleet(spec, seed, **circumstances)) for seed in range(4))
    monkeypatch.setattr(Schedule, "due", lambda *_: False)
    planned = fmean(share_of_budget(Fleet(spec, seed, **circumstances)) for seed in range(4))
    assert 0.8 <= corrected <= 1.2 < planned


def test_more_is_done_when_rules_save_more() -> None:
    """Trials that all end at once leave time for others; there are never more than are of use."""
    spec = spec_of(search_alg="asha", num_workers=4, expected_time_ratio=4)
    fleet = Fleet(spec, score=lambda random, _step: -random.random() if random.random() < 0.9 else 1.0)
    before = plan(spec)[0].trials
    fleet.run()
    assert before < fleet.study.spec.trials <= trial_bounds(spec)[1]


def test_a_machine_that_slept_changes_nothing() -> None:
    """Hours in which everything stood still are not taken for the pace of the study."""
    spec = spec_of(num_workers=4, max_iterations=10, subset_ratio=1.0, expected_time_ratio=10)
    fleet = Fleet(spec)
    fleet.start()
    for _ in range(150):
        fleet.step()
    fleet.sleep(10_000.0)
    fleet.finish()
    assert fleet.study.schedule.corrections == ()


@pytest.mark.parametrize(("epochs", "iterations", "ratio"), [(20, 20, 1), (20, 20, 2), (50, 40, 2), (50, None, 1)])
def test_a_wave_that_fits_is_not_cut(epochs: int, iterations: int | None, ratio: float) -> None:
    """Launches of a moment are no reason for a fleet of 16 to do a wave less than was planned."""
    spec = spec_of(num_full_iterations=epochs, max_iterations=iterations, num_workers=16, expected_time_ratio=ratio)
    assert 0.8 <= share_of_budget(Fleet(spec, launch=0.05)) <= 1.0
