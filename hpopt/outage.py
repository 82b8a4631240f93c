"""Outages of the server or the coordinator: how long one is waited out, and what comes then."""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hpopt.errors import HpoptUnavailable

DEADLINE = "HPOPT_REPORT_DEADLINE"
"""Environment variable: seconds for which an outage is waited out."""
DEFAULT_DEADLINE = 600.0
ON_OUTAGE = "HPOPT_ON_OUTAGE"
"""Environment variable: what a report does at the deadline, "raise" (the default) or "continue"."""
BLOCK = 2.0
"""Seconds for which one read waits on the server."""
REMIND = 30.0
"""Seconds without any answer, although all is well, after which somebody is told."""

log = logging.getLogger("hpopt")


@dataclass(slots=True)
class Patience:
    """One wait: `answer` seconds in all (None: for ever), `outage` seconds without server or coordinator."""

    answer: float | None
    outage: float
    setting: str = ""
    """What the user sets to have an outage waited out for longer."""
    remind: Callable[[], None] | None = None
    """Called after every `every` seconds without an answer and without an outage."""
    check: Callable[[], None] = lambda: None
    """Called before each attempt; raises when nobody wants the answer any more."""
    every: float = field(default_factory=lambda: REMIND)
    out: bool = False
    """An outage is going on, and was told."""
    started: float = field(default_factory=time.monotonic)
    well_at: float = field(default_factory=time.monotonic)
    """When server and coordinator were last known to be there."""
    quiet_since: float = field(default_factory=time.monotonic)

    @property
    def waited(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds until the answer is overdue."""
        return math.inf if self.answer is None else self.answer - self.waited

    @property
    def over(self) -> bool:
        """Whether the answer is overdue."""
        return self.left <= 0

    @property
    def limit(self) -> str:
        """How long an outage may last, in words."""
        return f"{self.setting}={self.outage:g} s".lstrip("=")

    def block(self) -> int:
        """Milliseconds for the next read."""
        return max(1, int(1000 * min(BLOCK, self.left)))

    def endure(self, kind: type[HpoptUnavailable], trouble: str, remedy: str) -> None:
        """An outage is going on: say so once. Raises `kind` if it lasts too long, TimeoutError if overdue."""
        if self._outage_left() <= 0:
            raise kind(f"{trouble}: gave up after {self.limit}: {remedy}")
        if self.over:
            raise TimeoutError(trouble)
        if not self.out:
            log.warning("hpopt: %s: waiting for up to %s", trouble, self.limit)
        self.out, self.quiet_since = True, time.monotonic()

    def nap(self, seconds: float) -> None:
        """Pause in an outage, but not beyond the end of it."""
        time.sleep(max(0.0, min(seconds, self.left, self._outage_left())))

    def well(self, who: str) -> None:
        """Server and coordinator are there; an outage, if there was one, has ended."""
        if self.out:
            log.warning("hpopt: %s answers again", who)
        self.out, self.well_at = False, time.monotonic()

    def stay(self) -> None:
        """All is well, but there is no answer yet."""
        if self.remind is not None and time.monotonic() - self.quiet_since >= self.every:
            self.quiet_since = time.monotonic()
            self.remind()

    def _outage_left(self) -> float:
        return self.well_at + self.outage - time.monotonic()


def deadline() -> float:
    """Seconds for which an outage is waited out. Raises ValueError for a bad setting."""
    text = os.environ.get(DEADLINE, "")
    try:
        seconds = float(text) if text else DEFAULT_DEADLINE
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise ValueError(f"{DEADLINE}={text!r}: set it to a number of seconds above 0")
    return seconds


def goes_on() -> bool:
    """Whether training goes on when an outage outlasts the deadline. Raises ValueError for a bad setting."""
    text = os.environ.get(ON_OUTAGE, "")
    if text not in ("", "raise", "continue"):
        raise ValueError(f'{ON_OUTAGE}={text!r}: set it to "raise" or "continue"')
    return text == "continue"
