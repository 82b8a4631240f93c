"""How trials ended, as a picture tells it: the words, the colour and the mark of each way."""

from typing import NamedTuple

from hpopt.core.schedulers.base import INVALID_SCORES
from hpopt.core.trial import ENDED
from hpopt.results import TrialRow


class Ending(NamedTuple):
    """One way to end. Colours of Okabe and Ito's palette, which the colour-blind tell apart; marks as matplotlib's."""

    label: str
    colour: str
    mark: str


UNDER_WAY = Ending("under way", "#56B4E9", "o")
STOPPED = Ending("stopped by the rule", "#E69F00", "v")
INVALID = Ending("stopped: scores not finite", "#D55E00", "D")
EARLY = Ending("ended by its trainer", "#009E73", "s")
FAILED = Ending("failed", "#CC79A7", "X")
COMPLETED = Ending("completed", "#0072B2", "o")
ENDINGS = (STOPPED, INVALID, EARLY, FAILED, UNDER_WAY, COMPLETED)
"""In the order they are drawn: what matters most comes last, on top."""
BEST = "#000000"
"""The best trial's colour."""

_ENDED = frozenset(state.name.lower() for state in ENDED)


def ending(row: TrialRow) -> Ending:
    """How the trial ended, if it did."""
    if row.state not in _ENDED:
        return UNDER_WAY
    if row.state == "completed":
        return COMPLETED
    if row.state == "failed":
        return FAILED
    if row.stopped_by is None:
        return EARLY
    return INVALID if row.stopped_by.rule == INVALID_SCORES else STOPPED
