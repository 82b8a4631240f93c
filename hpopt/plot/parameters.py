"""The picture of the scores over each hyper-parameter: what is in it, before anything is drawn."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from hpopt.core.search_space import SearchSpace
from hpopt.plot.endings import Ending, ending
from hpopt.plot.record import StudyRecord

JITTER = 0.5
"""Share of an option's place over which its trials are spread, so that they do not hide one another."""
_GOLDEN = 0.6180339887498949
LOG_FROM = 3.0
"""A logarithmic range is drawn as one from this ratio of its bounds on."""
LONGEST = 14
"""Characters of an option that are shown."""


class Value(NamedTuple):
    """One trial: where it stands on the axis, and its best score."""

    trial: int
    x: float
    score: float
    ending: Ending


@dataclass(frozen=True, slots=True)
class Panel:
    """One hyper-parameter: its axis from `low` to `high`, and every scored trial on it."""

    name: str
    low: float
    high: float
    log: bool
    options: list[str]
    """The labels at 0, 1, 2, ... of a choice; [] for numbers."""
    values: list[Value]


@dataclass(frozen=True, slots=True)
class ParametersPicture:
    """A panel for each hyper-parameter, in the order of the search space."""

    panels: list[Panel]
    best: int | None
    notes: list[str]


def parameters_picture(record: StudyRecord) -> ParametersPicture:
    """What a study has found out about its hyper-parameters. Raises ValueError when no trial has a score."""
    panels = [_panel(record, name, space) for name, space in record.spec.search_space.items()]
    return ParametersPicture(panels, record.best, [record.without_score] if record.without_score else [])


def _panel(record: StudyRecord, name: str, space: SearchSpace) -> Panel:
    values = [
        Value(row.id, _place(space, row.params[name], row.id), row.score or 0.0, ending(row)) for row in record.scored
    ]
    if space.is_choice:
        options = [_shown(space.value_at(index)) for index in range(space.size or 0)]
        return Panel(name, -0.5, len(options) - 0.5, log=False, options=options, values=values)
    ends = (space.value_at(0), space.value_at(space.size - 1)) if space.size else space.range[:2]
    low, high = map(float, ends)
    log = "log" in space.type and high / low >= LOG_FROM
    return Panel(name, low, high, log, [], values)


def _place(space: SearchSpace, value: Any, trial: int) -> float:
    """On the axis; the spread of an option's trials follows from their ids."""
    if not space.is_choice:
        return float(value)
    return space.index_of(value) + JITTER * ((trial * _GOLDEN) % 1 - 0.5)


def _shown(option: Any) -> str:
    text = str(option)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
