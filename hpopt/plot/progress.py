"""The picture of a study's progress: what is in it, before anything is drawn."""

from dataclasses import dataclass
from typing import NamedTuple

from hpopt.plot.endings import UNDER_WAY, Ending, ending
from hpopt.plot.record import StudyRecord, better

UNITS = ((3 * 86_400.0, 86_400.0, "days"), (2 * 3_600.0, 3_600.0, "hours"), (180.0, 60.0, "minutes"))
"""From so many seconds on, a time is shown in this unit of so many seconds."""


class Dot(NamedTuple):
    """A trial's best score. `seconds`: since the first trial was handed out; `order`: 1 for the first to end."""

    trial: int
    seconds: float
    order: int
    score: float
    ending: Ending
    best: int
    """The best trial at that moment."""


@dataclass(frozen=True, slots=True)
class ProgressPicture:
    """The trials in the order they ended, then those under way; and how the score of the best one went."""

    dots: list[Dot]
    best: int | None
    notes: list[str]

    @property
    def stairs(self) -> list[tuple[float, int, float]]:
        """(seconds, order, score) of the best trial after each trial's end."""
        scores = {dot.trial: dot.score for dot in self.dots}
        return [(dot.seconds, dot.order, scores[dot.best]) for dot in self.dots]

    @property
    def unit(self) -> tuple[float, str]:
        """Seconds in the unit that suits the study's length, and its name."""
        whole = max(dot.seconds for dot in self.dots)
        return next(((unit, name) for least, unit, name in UNITS if whole >= least), (1.0, "seconds"))


def progress_picture(record: StudyRecord) -> ProgressPicture:
    """What the progress of a study looks like. Raises ValueError when no trial has a score."""
    moments = [time for row in record.rows for time in (row.issued_at, row.started_at, row.ended_at) if time > 0]
    first, now = min(moments, default=0.0), max(moments, default=0.0)
    ended = [(now if ending(row) is UNDER_WAY else row.ended_at, row.id, row) for row in record.scored]
    ended.sort(key=lambda each: (ending(each[2]) is UNDER_WAY, each[0], each[1]))
    dots, leader = [], None
    for order, (time, trial, row) in enumerate(ended, start=1):
        rows = [row] if leader is None else [leader, row]
        leader = next(each for each in rows if each.id == better(rows, record.spec))
        dots.append(Dot(trial, max(0.0, time - first), order, row.score or 0.0, ending(row), leader.id))
    return ProgressPicture(dots, record.best, [record.without_score] if record.without_score else [])
