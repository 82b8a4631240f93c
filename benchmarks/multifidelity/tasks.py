"""All tasks by name: two halves, "tune" and "report", and "crossing", more tasks to tune on."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

from benchmarks.multifidelity import crossing, lcbench
from benchmarks.multifidelity.task import Task
from benchmarks.search.problems import DATA

PARTS = ("tune", "report", "crossing")
MEDIANS = Path(__file__).parent / "medians.json"
"""Seconds of an epoch of the median configuration, by the name of the task: `references.py` makes them."""


def tasks(half: str | None = None, data: Path = DATA) -> list[Task]:
    """Those of one of PARTS, or all; `data` is the folder that holds `yahpo`.

    Nothing is read or computed before something is trained. Raises ValueError for another half.
    """
    if half not in (None, *PARTS):
        raise ValueError(f"half={half!r}; use one of {', '.join(PARTS)}, or None")
    found = [*lcbench.tasks(data), *crossing.tasks()]
    return [replace(task, median=medians().get(task.name, 1.0)) for task in found if half in (None, task.half)]


def task(name: str, data: Path = DATA) -> Task:
    """The task of this name; ValueError, with the names there are, for another."""
    named = {task.name: task for task in tasks(data=data)}
    if name not in named:
        raise ValueError(f"{name!r} is none of {', '.join(named)}")
    return named[name]


def select(text: str) -> list[str]:
    """Names of tasks: one of PARTS, "all", or names separated by commas."""
    if text in {*PARTS, "all"}:
        return [each.name for each in tasks(None if text == "all" else text)]
    return [task(name).name for name in text.split(",")]


@cache
def medians() -> dict[str, float]:
    """Those stored."""
    stored: dict[str, float] = json.loads(MEDIANS.read_text()) if MEDIANS.exists() else {}
    return stored
