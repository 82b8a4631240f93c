"""What follows from an event. The study decides, the coordinator commits: these are the decisions."""

from dataclasses import dataclass, field

from hpopt.core.curve import Point
from hpopt.core.messages import Answer, Verdict
from hpopt.core.trial import Trial


@dataclass(frozen=True, slots=True)
class TrialChanged:
    """Write the trial's record."""

    trial: Trial


@dataclass(frozen=True, slots=True)
class PointAdded:
    """Append a point to the trial's curve."""

    trial: int
    point: Point


@dataclass(frozen=True, slots=True)
class VerdictGiven:
    """Publish the newest verdict of a trial. `ended`: it may expire, nothing will follow it."""

    uid: str
    trial: int
    verdict: Verdict
    ended: bool


@dataclass(frozen=True, slots=True)
class Replied:
    """Answer an operator session."""

    session: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class StudyChanged:
    """Write the study's own state: spec, open requests, counters."""


@dataclass(frozen=True, slots=True)
class StudyReplaced:
    """Drop every key of an earlier incarnation, of `trials` trials."""

    uid: str
    trials: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Keep the event's bytes as a dead letter."""

    reason: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something a person who reads the log wants to know."""

    what: str
    trial: int | None = None
    detail: str = ""


Effect = TrialChanged | PointAdded | VerdictGiven | Replied | StudyChanged | StudyReplaced | Refused | Noted


@dataclass(slots=True)
class Turn:
    """One event being handled: the server time in seconds, and what follows from it so far."""

    now: float = 0.0
    effects: list[Effect] = field(default_factory=list)

    def add(self, effect: Effect) -> None:
        """One more consequence."""
        self.effects.append(effect)

    def note(self, what: str, trial: Trial | None = None, detail: str = "") -> None:
        """Something for the log."""
        self.effects.append(Noted(what, None if trial is None else trial.id, detail))
