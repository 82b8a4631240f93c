"""Where users see the plan of a study."""

import json
import logging
from pathlib import Path

import pytest

from tests.conftest import Create
from tests.studies import run_all, sample, train


def test_a_plan_is_shown_in_one_block(create: Create, caplog: pytest.LogCaptureFixture) -> None:
    """One message with every line of the table, at a level that a script shows which has not set up any logging."""
    hpo = create(num_trials=None, max_iterations=None)
    (shown,) = (record for record in caplog.records if "the plan" in record.getMessage())
    assert shown.getMessage() == f"hpopt: {hpo.plan}"
    assert shown.levelno == logging.WARNING
    assert "num_trials" in str(hpo.plan)
    assert hpo.plan.derived == ("num_trials", "max_iterations")


def test_nothing_is_shown_when_everything_was_given(create: Create, caplog: pytest.LogCaptureFixture) -> None:
    """Who has decided everything need not be told; the plan is there for those who ask."""
    hpo = create()
    assert caplog.records == []
    assert hpo.plan.derived == ()
    assert str(hpo.plan).splitlines()[:2] == ["the plan:", "  num_trials         6    given"]


def test_the_plan_is_kept_with_the_results(create: Create, tmp_path: Path) -> None:
    """results.json has it, with every correction; num_trials is there what it is by now."""
    hpo = create(num_trials=None)
    train(sample(hpo))
    run_all(hpo)
    count = len(hpo.trials())
    plan = hpo.plan
    assert hpo.get_progress() == 1
    assert plan.arguments[0].value == count == hpo.spec.num_trials
    hpo.close()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["study"]["num_trials"] == count
    assert results["plan"] == json.loads(json.dumps(plan.to_dict()))
    assert hpo.plan == plan
