"""docs/budget.md says what the code does."""

import ast
from typing import Any

import pytest

from hpopt.core.budget import plan
from hpopt.core.cost import expected_ratio
from hpopt.core.plan import Plan
from hpopt.core.schedule import Schedule
from tests.server import ROOT
from tests.test_budget import make_spec, reals

TEXT = (ROOT / "docs" / "budget.md").read_text(encoding="utf-8")


def examples() -> list[list[str]]:
    """The rows of the table of worked examples, without its head."""
    section = TEXT.split("## Worked examples")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return rows[2:]


def arguments(cell: str) -> dict[str, Any]:
    """What a row gives, read from the Python in its first cell."""
    if cell == "nothing":
        return {}
    call = ast.parse(f"f({cell.strip('`')})", mode="eval").body
    assert isinstance(call, ast.Call)
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}


@pytest.mark.parametrize("row", examples(), ids=lambda row: f"{row[0]}, {row[1]}")
def test_worked_examples(row: list[str]) -> None:
    """Every row is what these arguments lead to, and warns if the code does."""
    given, dimensions, *values, ratio = row
    planned, notices = plan(make_spec(search_space=reals(int(dimensions)), **arguments(given)))
    warned = any("is too small" in notice for notice in notices)
    assert values == [str(planned.num_trials), str(planned.max_iterations), f"{planned.subset_ratio:g}"]
    assert ratio == f"{expected_ratio(planned):.2f}{', with a warning' if warned else ''}"


def test_there_are_worked_examples() -> None:
    """The table is found."""
    assert len(examples()) > 10


def test_the_table_that_is_shown() -> None:
    """It looks like that."""
    spec = make_spec()
    shown = str(Plan.of(plan(spec)[0], Schedule.of(spec)))
    assert f"```text\nhpopt: {shown}\n```" in TEXT


def test_the_warning_that_is_quoted() -> None:
    """It reads like that, but for its line breaks."""
    (warning,) = plan(make_spec(expected_time_ratio=0.1))[1]
    assert warning in TEXT.replace("\n> ", " ")
