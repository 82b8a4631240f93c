"""What is to be seen of a study at one moment."""

from dataclasses import dataclass

import hpopt
from hpopt import TrialRow

ENDED = ("completed", "stopped", "failed")
"""States in which a trial stays."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is to be seen of a study at one moment."""

    rows: list[TrialRow]
    best: TrialRow | None
    share: float
    """How much of the study is done, from 0 to 1."""
    left: float | None = None
    """Seconds that the rest will take, if it goes on like this; None as long as nothing is known."""

    def count(self, *states: str) -> int:
        """How many trials are in these states."""
        return sum(row.state in states for row in self.rows)


@dataclass(slots=True)
class Estimate:
    """Time left, from what was done since the first look: a resumed study has done some of it before."""

    started: float | None = None
    before: float = 0.0

    def left(self, share: float, now: float) -> float | None:
        """Seconds left when `share` of the study is done at the time `now`."""
        if self.started is None:
            self.started, self.before = now, share
        done = share - self.before
        return (1 - share) * (now - self.started) / done if done > 0 else None


def look(hpo: hpopt.HpOpt, estimate: Estimate, now: float) -> Snapshot:
    """The study at the time `now` of a monotonic clock."""
    rows, share, params = hpo.trials(), hpo.get_progress(), hpo.get_best_config()
    best = next((row for row in rows if row.score is not None and row.params == params), None)
    return Snapshot(rows, best, share, estimate.left(share, now))


def duration(seconds: float | None) -> str:
    """About how long: `40 s`, `12 min`, `3 h 5 min`."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
