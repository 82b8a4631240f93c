"""The messages of the wire protocol: what operators, trainers and coordinators say to each other.

How they are written is in `codec.py`. Nothing but plain values ever crosses.
"""

from dataclasses import dataclass
from typing import Any

from hpopt.core.spec import StudySpec

OUT_OF_MEMORY = "out of memory"
"""What the reason begins with of a verdict on an attempt that ran out of memory."""

# --- events: operators and trainers to the coordinator


@dataclass(frozen=True, slots=True)
class Create:
    """Make the study `uid`, or join the one that is there (`resume`)."""

    uid: str
    session: str
    spec: StudySpec
    resume: bool = False
    overwrite: bool = False
    private: bool = False
    """The server belongs to this operator alone (embedded mode): a new study may replace an unfinished one."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The session's n-th request. `mode`: "next" waits for a sample, "now" does not, "end" waits for the last trial.

    `yields` are the trials (trial, attempt, life) that the asking thread has left behind, the oldest first: they are
    finalized, one by one, as long as the request would have to wait otherwise.
    """

    uid: str
    session: str
    n: int
    mode: str = "next"
    yields: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """Say the newest verdict of the trial again (its stream has expired)."""

    uid: str
    trial: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Start:
    """A process begins to train an attempt. `restart` is its launcher's restart count, -1 when it has none.

    `log` says where its output goes, "host:path", as far as that is known.
    """

    uid: str
    trial: int
    attempt: int
    life: str
    restart: int = -1
    log: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The score of one step (1, 2, ...). None is a score that was not a finite number."""

    uid: str
    trial: int
    attempt: int
    life: str
    step: int
    score: float | None


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The attempt ran out of memory."""

    uid: str
    trial: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Finalize:
    """The attempt has ended, whatever was reported."""

    uid: str
    trial: int
    attempt: int
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """The attempt was interrupted from outside; hand the trial to somebody else."""

    uid: str
    trial: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Close:
    """The operator session ends: withdraw its open requests."""

    uid: str
    session: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The session will not ask for the answers to these requests any more: what they were given is for others.

    With `keep`, only what they would be given: an operator with a name looks for the rest among its open samples.
    """

    uid: str
    session: str
    requests: tuple[int, ...]
    keep: bool = False


# --- answers


@dataclass(frozen=True, slots=True)
class Verdict:
    """Cumulative: every step up to `last_step` is RUNNING, unless it is `stop_step` or later."""

    attempt: int
    life: str
    base_step: int
    last_step: int
    stop_step: int | None = None
    reason: str = ""
    refused: tuple[str, ...] = ()
    stray: bool = False
    """There is no such attempt: this is for the very sender (attempt, life) alone, and says nothing of the trial."""


@dataclass(frozen=True, slots=True)
class Created:
    """The study exists: its uid, its spec with everything resolved, and a Schedule as plain values."""

    uid: str
    spec: StudySpec
    notices: tuple[str, ...] = ()
    schedule: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Request n gets this trial."""

    n: int
    trial: int
    attempt: int
    bracket: int
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Nothing:
    """Request n gets no sample: `done` when every trial has ended, else because none is free now."""

    n: int
    done: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Request n (-1: the create) is refused. `code`: spec, exists, paused, stuck, unknown, replaced, bad."""

    n: int
    code: str
    message: str


Event = Create | Ask | Query | Start | Report | OutOfMemory | Finalize | Release | Close | Withdraw
Answer = Created | Sample | Nothing | Refusal
