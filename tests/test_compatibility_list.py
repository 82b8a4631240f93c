"""Holds docs/compatibility.md to what it says: every row names tests, and every one of them exists."""

import re
from pathlib import Path

import pytest

from tests.named import named_in
from tests.server import ROOT

PAGE = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
SECTIONS = {"What scripts rely on": 17, "How the reference is read": 36, "What 0.2 got wrong": 28}
"""Section -> how many rows there are: those of the specification."""


def rows_of(section: str) -> list[list[str]]:
    """The cells of each row of a section's table."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_row_names_tests_that_exist(section: str) -> None:
    """Row by row, in order, with nothing left out."""
    rows = rows_of(section)
    assert len(rows) == SECTIONS[section]
    if section != "What scripts rely on":
        assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)::([\w:]+)`", row[-1])
        assert named, row
        missing = [f"{file}::{name}" for file, name in named if name not in named_in(Path(__file__).with_name(file))]
        assert missing == []
