"""One trial, and the table of what may become of it."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self


class TrialState(IntEnum):
    """Where a trial is in its life; the numbers are what is stored."""

    WAITING = 0
    """To be handed out again: it was released, never started, or crashed before it scored."""
    ISSUED = 1
    """Handed to an operator; its trainer has not made contact yet."""
    RUNNING = 2
    COMPLETED = 3
    STOPPED = 4
    OUT_OF_MEMORY = 5
    """To be handed out again with a smaller batch."""
    FAILED = 6
    LOST = 7
    """Its trainer went silent: to be handed out again, unless that trainer comes back first."""


PENDING = frozenset({TrialState.ISSUED, TrialState.RUNNING})
"""Trials that occupy a worker."""
REISSUABLE = frozenset({TrialState.WAITING, TrialState.OUT_OF_MEMORY, TrialState.LOST})
"""Trials that the next free worker gets."""
ENDED = frozenset({TrialState.COMPLETED, TrialState.STOPPED, TrialState.FAILED})
"""Trials that nothing happens to any more."""

_S = TrialState
TRANSITIONS: dict[TrialState, frozenset[TrialState]] = {
    _S.WAITING: frozenset({_S.ISSUED, _S.RUNNING}),
    _S.ISSUED: frozenset({_S.RUNNING, _S.WAITING, _S.FAILED}),
    _S.RUNNING: frozenset({_S.COMPLETED, _S.STOPPED, _S.FAILED, _S.WAITING, _S.OUT_OF_MEMORY, _S.LOST}),
    _S.OUT_OF_MEMORY: frozenset({_S.ISSUED}),
    _S.LOST: frozenset({_S.ISSUED, _S.RUNNING}),
    _S.COMPLETED: frozenset(),
    _S.STOPPED: frozenset(),
    _S.FAILED: frozenset(),
}
"""Every move a trial can make. Anything else is a bug and raises."""

LOGS = 8
"""So many attempts of a trial are remembered with the place of their output."""
LONGEST_LOG = 512
"""Characters of such a place; a longer one is cut."""


@dataclass(slots=True)
class Trial:
    """A trial's record: what is stored of it, and changes with its state rather than with every report."""

    id: int
    params: dict[str, Any]
    attempt: int = 1
    state: TrialState = TrialState.ISSUED
    bracket: int = 0
    session: str = ""
    """The operator session that holds the trial, and its request's number: the answer can be rebuilt from them."""
    request: int = 0
    life: str = ""
    """Which process of the attempt speaks for it; empty before the first contact."""
    restart: int = -1
    """The launcher's restart count of that life, -1 when it has none."""
    base_step: int = 0
    """The last committed step when this life began; its own steps count from here."""
    refused: tuple[str, ...] = ()
    """Lives that came second to an attempt that was alive; they are told to stop."""
    challenger: tuple[str, int, float] | None = None
    """(life, restart count, since) of a process that waits to take the attempt over."""
    stop_step: int | None = None
    """From this step on the answer is STOP; None while the trial may go on."""
    reason: str = ""
    """Why the trial is in its state, for a person."""
    issued_at: float = 0.0
    """Server time in seconds, as are the other times."""
    started_at: float = 0.0
    ended_at: float = 0.0
    crashes: int = 0
    losses: int = 0
    releases: int = 0
    ooms: int = 0
    first_attempt: int = 1
    """The earliest attempt whose points still count: later than 1 after the params changed."""
    best_score: float | None = None
    """Best valid score and last step. Stored when the trial ends; until then they follow from its curve."""
    best_step: int = 0
    last_step: int = 0
    """The last step of this attempt."""
    seen_step: int = 0
    """The last step of any attempt that counts; the schedulers have seen the trial up to here."""
    invalid: int = 0
    """How many steps in a row had no valid score."""
    stopped_by: tuple[str, int, float | None, float | None] | None = None
    """(rule, step, score, threshold) of the decision that stopped it; None if nobody but its trainer did."""
    first_step: int = 0
    """The first step that this attempt reported, and when: its time per epoch counts from there. 0 before that."""
    first_at: float = 0.0
    logs: tuple[tuple[int, str], ...] = ()
    """(attempt, where its output is) of the latest attempts that said so."""
    too_large: tuple[Any, ...] = ()
    """Batch sizes that it was handed out with before: they did not fit into memory."""

    def move(self, state: TrialState, reason: str = "") -> None:
        """Change the state; raises RuntimeError on a move that is not in TRANSITIONS."""
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"trial {self.id} cannot go from {self.state.name} to {state.name}")
        self.state = state
        self.reason = reason

    def add(self, step: int, score: float | None, sign: float) -> None:
        """Take in the score of a step that lies beyond `last_step`."""
        self.last_step = step
        self.seen_step = max(self.seen_step, step)
        self.invalid = self.invalid + 1 if score is None else 0
        if score is not None and (self.best_score is None or sign * score > sign * self.best_score):
            self.best_score, self.best_step = score, step

    def keep_log(self, log: str) -> bool:
        """Remember where the output of this attempt is; True if that is news."""
        entry = (self.attempt, log[:LONGEST_LOG])
        if not log or entry in self.logs:
            return False
        others = (each for each in self.logs if each[0] != self.attempt)
        self.logs = (*others, entry)[-LOGS:]
        return True

    def reissue(self) -> None:
        """Begin the next attempt: nobody speaks for it yet, and its steps count from 1 again."""
        self.attempt += 1
        self.life, self.restart, self.base_step, self.last_step, self.invalid = "", -1, 0, 0, 0
        self.refused, self.challenger, self.stop_step = (), None, None
        self.first_step, self.first_at, self.started_at = 0, 0.0, 0.0

    def forget_scores(self) -> None:
        """The next attempt has other params: what was scored so far no longer counts."""
        self.first_attempt = self.attempt + 1
        self.best_score, self.best_step, self.seen_step, self.invalid = None, 0, 0, 0

    def to_wire(self) -> list[Any]:
        """The record as plain values, in the order of the fields."""
        return [getattr(self, name) for name in _FIELDS]

    @classmethod
    def from_wire(cls, wire: list[Any]) -> Self:
        """The record that `to_wire` was called on; unknown values at its end are ignored, missing ones get defaults."""
        values = dict(zip(_FIELDS, wire, strict=False))
        values["state"] = TrialState(values["state"])
        values["refused"] = tuple(values.get("refused", ()))
        if values.get("challenger") is not None:
            life, restart, since = values["challenger"]
            values["challenger"] = (life, restart, since)
        values["logs"] = tuple((attempt, log) for attempt, log in values.get("logs", ()))
        values["too_large"] = tuple(values.get("too_large", ()))
        if values.get("stopped_by") is not None:
            values["stopped_by"] = tuple(values["stopped_by"])
        return cls(**values)


_FIELDS = tuple(Trial.__dataclass_fields__)
