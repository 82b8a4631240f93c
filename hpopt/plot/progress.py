"""The picture of a study's progress: what is in it, before anything is drawn."""

from dataclasses import dataclass
from typing import NamedTuple

from hpopt.plot.endings import UNDER_WAY, Ending, ending
from hpopt.plot.record import StudyRecord, trial_of
from hpopt.results import leader_of

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
    scored = {row.id for row in record.scored}
    ended = [(now if ending(row) is UNDER_WAY else row.ended_at, row.id, row) for row in record.rows]
    ended.sort(key=lambda each: (ending(each[2]) is UNDER_WAY, each[0], each[1]))
    dots: list[Dot] = []
    leader = leader_of(record.spec)
    for time, trial, row in ended:
        leader.observe(trial_of(row))
        if trial in scored and leader.trial is not None:
            dot = Dot(trial, max(0.0, time - first), len(dots) + 1, row.score or 0.0, ending(row), leader.trial.id)
            dots.append(dot)
    return ProgressPicture(dots, record.best, [record.without_score] if record.without_score else [])
