"""Which part of the scores an axis shows, and whether it is logarithmic."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

SCALES = ("auto", "linear", "log")
LOG_FROM, LOG_SHARE = 10.0, 0.95
"""Losses are shown on a logarithmic axis from this ratio to the best one on, of the worst of this share of them."""
CROWD = 0.9
"""This share of the scores, the best ones, sets how much of the axis the others may have."""
FAR, ROOM = 3.0, 1.6
"""A score is far away beyond FAR times the distance from the best one to the worst of the crowd. If there is such a
score, the axis ends at ROOM times that distance. (In short trainings the crowd may be all but the first steps.)"""
MARGIN = 0.05
SMALLEST = 1e-290
"""What is closer together than this is drawn as one."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The scores from `low` to `high`, `hidden` of all lie beyond."""

    low: float
    high: float
    log: bool
    hidden: int

    def inside(self, score: float) -> float:
        """The score, or the end of the axis that is nearest to it."""
        return min(max(score, self.low), self.high)

    def near(self, score: float) -> float:
        """The score, or a place well beyond the axis in its direction: drawing cannot overflow there."""
        low, high = _on(self.low, self.log), _on(self.high, self.log)
        beyond = 20 * (high - low)
        return _off(min(max(_on(score, self.log), low - beyond), high + beyond), self.log)

    @property
    def note(self) -> str:
        """What to say of the scores that are not shown."""
        return f"beyond the axis: {self.hidden:,} much worse score{'s' * (self.hidden > 1)}" if self.hidden else ""


def scale_of(scores: Iterable[float], sign: float, asked: str = "auto") -> Scale:
    """The scale for these scores, at least one; `sign` is +1 when larger ones are better, -1 when smaller ones are.

    Scores that are far worse than nine out of ten are left out: one training that diverged would flatten all others.

    Raises ValueError when `asked` is none of SCALES, or "log" with scores that are not above 0, or without a score.
    """
    if asked not in SCALES:
        raise ValueError(f"scale={asked!r}: use one of {', '.join(SCALES)}")
    ranked = sorted((score for score in scores if math.isfinite(score)), reverse=sign > 0)
    if not ranked:
        raise ValueError("there is no point to draw: delete curves.csv, and resume the study to have it written again")
    if asked == "log" and min(ranked[0], ranked[-1]) <= 0:
        raise ValueError(f"scale='log' needs scores above 0, and there is {min(ranked[0], ranked[-1]):g}: use 'linear'")
    crowd, most = (ranked[math.ceil(share * len(ranked)) - 1] for share in (CROWD, LOG_SHARE))
    log = asked == "log" or (asked == "auto" and sign < 0 < ranked[0] and most / ranked[0] >= LOG_FROM)
    best, last, worst = (_on(score, log) for score in (ranked[0], crowd, ranked[-1]))
    end = best + _span(worst - best, last - best)
    if abs(end - best) < max(1e-12 * abs(best), SMALLEST):
        end = best - sign * 0.1 * (abs(best) if abs(best) > SMALLEST else 1.0)
    pad = MARGIN * (end - best)
    low, high = sorted((_off(best - pad, log), _off(end + pad, log)))
    return Scale(low, high, log, sum(not low <= score <= high for score in ranked))


def _span(all_of_it: float, crowd: float) -> float:
    return ROOM * crowd if crowd and abs(all_of_it) > FAR * abs(crowd) else all_of_it


def _on(score: float, log: bool) -> float:
    """The score's place on the axis. What is beyond 1e150 either way is not told apart: differences stay finite."""
    score = min(max(score, -1e150), 1e150)
    return math.log10(max(score, 1e-300)) if log else score


def _off(place: float, log: bool) -> float:
    return 10.0 ** min(place, 300.0) if log else place
