"""Pauses after crashes: a machine that lets every training crash is not to use up the study's trials."""

from dataclasses import dataclass

_FIRST = 1.0
"""Seconds of the first pause; each one is twice as long as the one before."""


@dataclass(slots=True)
class Backoff:
    """The pauses of one job. `longest`: seconds that none of them exceeds; 0 is no pauses at all."""

    longest: float
    crashes: int = 0
    """How many trainings in a row have crashed soon."""

    def after(self, lasted: float, *, crashed: bool) -> float:
        """Seconds to pause after a training that lasted so many seconds: one that took its time needs no pause."""
        self.crashes = self.crashes + 1 if crashed and lasted <= self.longest else 0
        return min(self.longest, _FIRST * 2.0 ** min(self.crashes - 1, 30)) if self.crashes else 0.0
