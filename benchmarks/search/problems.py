"""All problems by name, in two halves; and those that were reported before."""

from pathlib import Path

from benchmarks.search import lookalikes, synthetic, trainings, yahpo
from benchmarks.search.problem import Problem

DATA = Path(__file__).parent / "data"
HALVES = ("tune", "report", "seen")
"""Two halves, and those that were reported before."""


def problems(half: str | None = None, data: Path = DATA) -> list[Problem]:
    """Those of one half, "tune" or "report", or those "seen", or all; `data` is the folder that holds `yahpo`.

    Nothing is read, loaded or trained before a truth is asked for. Raises ValueError for another half.
    """
    if half not in (None, *HALVES):
        raise ValueError(f"half={half!r}; use 'tune', 'report', 'seen' or None")
    found = [*yahpo.surrogates(data / "yahpo"), *trainings.trainings(), *synthetic.functions(), *lookalikes.functions()]
    return [problem for problem in found if half in (None, problem.half)]


def problem(name: str, data: Path = DATA) -> Problem:
    """The problem of this name; ValueError, with the names there are, for another."""
    named = {problem.name: problem for problem in problems(data=data)}
    if name not in named:
        raise ValueError(f"{name!r} is none of {', '.join(named)}")
    return named[name]
