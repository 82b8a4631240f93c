"""What the trainers of a fleet have noted, read again: who trained what, and whether all of it is in the results."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import check_history
from tests.journal import Entry

Name = tuple[int, int]
"""Trial and attempt."""


@dataclass
class Attempt:
    """One attempt of a trial, as its trainer has noted it."""

    name: Name
    host: str
    form: str
    began: float
    begins: int
    """The iteration that it began with."""
    answers: list[tuple[float, float, int, str]] = field(default_factory=list)
    """When it reported and when it was answered, the iteration, and the answer."""
    calling: bool = False
    """A report of it is not answered yet."""

    @property
    def step(self) -> int:
        """The last iteration that was acknowledged with RUNNING."""
        return max((step for _, _, step, status in self.answers if status == "RUNNING"), default=self.begins - 1)

    @property
    def over(self) -> bool:
        """It was told to stop."""
        return bool(self.answers) and self.answers[-1][3] == "STOP"


def attempts(journal: Iterable[Entry]) -> dict[Name, Attempt]:
    """Every attempt, in the order in which they began."""
    found: dict[Name, Attempt] = {}
    calls: dict[Name, float] = {}
    for entry in journal:
        name = (entry["trial"], entry["attempt"])
        if entry["op"] == "ask":
            found[name] = Attempt(name, entry["host"], entry["form"], entry["at"], entry["begins"])
        elif entry["phase"] == "call":
            calls[name] = entry["at"]
            found[name].calling = True
        elif entry["phase"] == "done":
            found[name].answers.append((calls[name], entry["at"], entry["step"], entry["status"]))
            found[name].calling = False
    return found


def table(journal: list[Entry]) -> list[str]:
    """Lines of a table: what each host has done."""
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for each in attempts(journal).values():
        count = counts[each.host, each.form]
        for column, more in enumerate((1, each.begins > 1, each.over, len(each.answers))):
            count[column] += more
    head = ["| host | form | attempts | gone on from a checkpoint | trials ended | reports acknowledged |"]
    rows = [f"| {host} | {form} | {' | '.join(map(str, count))} |" for (host, form), count in sorted(counts.items())]
    return [*head, "|---|---|---:|---:|---:|---:|", *rows]


def violations(journal: list[Entry], study: check_history.Stored, folder: Path) -> list[str]:
    """Everything that is wrong with what is stored, and with the results in `folder`; [] when all is well."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    with (folder / "curves.csv").open(encoding="utf-8", newline="") as file:
        curves = list(csv.DictReader(file))
    found = check_history.violations([*journal, _told(results)], study)
    return found + _results(results["trials"], study) + _curves(curves, study) + _logs(journal, results["trials"])


def _told(results: dict[str, Any]) -> Entry:
    """The best of the results, as a client's answer that is to be checked."""
    return {"op": "best", "phase": "done", "params": results["best_config"]}


def _results(rows: list[dict[str, Any]], study: check_history.Stored) -> list[str]:
    """The trials of results.json are those that are stored."""
    said = [(row["id"], row["params"], row["attempt"], row["state"], row["score"]) for row in rows]
    states = check_history.ENDED
    there = [(each.number, each.params, each.attempt, states.get(each.state), each.best_score) for each in study.trials]
    return [f"results.json has {a}, stored is {b}" for a, b in zip(said, there, strict=False) if a != b] + (
        [] if len(said) == len(there) else [f"results.json has {len(said)} trials, stored are {len(there)}"]
    )


def _curves(rows: list[dict[str, str]], study: check_history.Stored) -> list[str]:
    """The points of curves.csv are those that are stored."""
    said = sorted((int(row["trial"]), int(row["attempt"]), int(row["step"]), float(row["score"])) for row in rows)
    there = sorted((each.number, *point) for each in study.trials for point in each.points)
    return [] if said == there else [f"curves.csv has {len(said)} points, stored are {len(there)}, or other ones"]


def _logs(journal: list[Entry], rows: list[dict[str, Any]]) -> list[str]:
    """The log of every attempt is named in the results, on the host that trained it."""
    logs = {(row["id"], int(attempt)): log for row in rows for attempt, log in row["logs"].items()}
    found = []
    for name, each in attempts(journal).items():
        host, _, path = logs.get(name, "").partition(":")
        if host != each.host or not Path(path).is_file():
            found.append(f"the log of attempt {name[1]} of trial {name[0]}, {each.host}, is said to be {host}:{path}")
    return found
