"""The picture of the learning curves: what is in it, before anything is drawn."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from hpopt.core.curve import Point
from hpopt.core.rungs import levels_of
from hpopt.core.schedulers.median import grace_steps
from hpopt.core.spec import StudySpec
from hpopt.plot.endings import COMPLETED, STOPPED, UNDER_WAY, Ending, ending
from hpopt.plot.record import StudyRecord, plural
from hpopt.results import TrialRow

MOST_POINTS = 200_000
"""In the whole picture; longer curves lose points between their first and their last."""

Run = list[tuple[int, float]]
"""(step, score) without a gap."""


class Line(NamedTuple):
    """One trial's curve. It is broken where scores were not finite and where another attempt began."""

    trial: int
    ending: Ending
    runs: list[Run]


class Mark(NamedTuple):
    """Where a trial's curve ends before its last iteration; for a rule also the threshold that it missed, and where."""

    trial: int
    ending: Ending
    step: int
    score: float
    threshold: float | None = None
    at: int = 0


class Rung(NamedTuple):
    """A rung where trials are judged: how many reached it, and how many were stopped there."""

    level: int
    reached: int
    stopped: int


@dataclass(frozen=True, slots=True)
class CurvesPicture:
    """Everything that is drawn; `best` is the id of the trial that is drawn in black."""

    lines: list[Line]
    marks: list[Mark]
    rungs: list[Rung]
    grace: int
    """Steps in which the median rule stops nobody; 0 if there is no such rule."""
    iterations: int
    best: int | None
    notes: list[str]

    @property
    def scores(self) -> list[float]:
        """All scores in the picture."""
        return [score for line in self.lines for run in line.runs for _, score in run]


def curves_picture(record: StudyRecord) -> CurvesPicture:
    """What the learning curves of a study look like. Raises ValueError when there are none."""
    rows = record.scored
    if record.curves is None:
        raise ValueError(
            f"study {record.name!r} has no curves.csv beside its results.json, which has no learning curves: go on "
            "with the study for a moment (resume=True), or draw 'progress' or 'parameters'"
        )
    points = {row.id: _counting(record.curves.get(row.id, ()), row.first_attempt) for row in rows}
    most = max(20, MOST_POINTS // len(rows))
    lines = [Line(row.id, ending(row), _runs(points[row.id], most)) for row in rows]
    marks = [mark for row in rows if (mark := _mark(row, points[row.id], record.spec)) is not None]
    invalid = sum(point.score is None for each in points.values() for point in each)
    notes = [record.without_score, f"gaps: {plural(invalid, 'step')} without a finite score" if invalid else ""]
    grace = grace_steps(record.spec) if record.spec.early_stop == "median_stop" else 0
    return CurvesPicture(
        lines, marks, _rungs(record), grace, record.spec.iterations, record.best, [note for note in notes if note]
    )


def _counting(points: Iterable[Point], first_attempt: int) -> list[Point]:
    """The points that count: not those of attempts with other params."""
    return [point for point in points if point.attempt >= first_attempt]


def _runs(points: Sequence[Point], most: int) -> list[Run]:
    """The pieces of a curve, of `most` points in all, or a few more."""
    stride = math.ceil(len(points) / most)
    runs = []
    for (_, valid), run in groupby(points, key=lambda point: (point.attempt, point.score is not None)):
        if valid:
            whole = [(point.step, point.score) for point in run if point.score is not None]
            runs.append([*whole[:-1:stride], whole[-1]])
    return runs


def _mark(row: TrialRow, points: Sequence[Point], spec: StudySpec) -> Mark | None:
    how = ending(row)
    last = next(((point.step, point.score) for point in reversed(points) if point.score is not None), None)
    if how in (COMPLETED, UNDER_WAY) or last is None:
        return None
    if row.stopped_by is None:
        return Mark(row.id, how, *last)
    step, threshold = row.stopped_by.step, row.stopped_by.threshold  # the last step may have had no valid score
    return Mark(row.id, how, step, last[1], threshold, _judged_at(row, spec) if how is STOPPED else 0)


def _judged_at(row: TrialRow, spec: StudySpec) -> int:
    """The step at which a rule compared the stopped trial with others: with asha the rung at or before its end."""
    step = 0 if row.stopped_by is None else row.stopped_by.step
    if spec.search_alg != "asha":
        return step
    return max((level for level in levels_of(spec, row.bracket) if level <= step), default=step)


def _rungs(record: StudyRecord) -> list[Rung]:
    """The rungs of all brackets but the last level, where a trial is complete."""
    spec = record.spec
    if spec.search_alg != "asha":
        return []
    reached = Counter(
        level for row in record.rows for level in levels_of(spec, row.bracket)[:-1] if row.step >= level
    )  # fmt: skip
    stopped = Counter(_judged_at(row, spec) for row in record.rows if ending(row) is STOPPED)
    return [Rung(level, reached[level], stopped[level]) for level in levels_of(spec)[:-1]]
