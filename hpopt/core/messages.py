"""The wire protocol, defined once: what operators, trainers and coordinators say to each other.

A message on the wire is a msgpack list [version, tag, field, field, ...]. A reader ignores fields beyond those it
knows and takes the default of those that are missing, so that a message of the next or the previous version can be
read. Length is checked before decoding, types after; nothing but plain values ever crosses.
"""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgpack

from hpopt.core.batch_size import NO_BOUND, BatchSizeBound, allowed
from hpopt.core.space import Space
from hpopt.core.spec import StudySpec
from hpopt.core.validation import validated

VERSION = 1
"""Raised when a message changes in a way that the previous release cannot read."""
OLDEST = 1
"""The oldest version this release still reads."""
MAX_BYTES = 64 * 1024
"""Longest message that is decoded at all."""

OUT_OF_MEMORY = "out of memory"
"""What the reason begins with of a verdict on an attempt that ran out of memory."""


class DecodeError(ValueError):
    """The bytes are not a message of this protocol; the text says why, in one sentence."""


class WrongVersionError(DecodeError):
    """The message is of a version this release cannot read."""


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


# --- events the coordinator makes itself; they never travel


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes. `silent` are lives (trial, attempt, life) and `gone` sessions without a heartbeat."""

    silent: frozenset[tuple[int, int, str]] = frozenset()
    gone: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Suggested:
    """Suggestions from the sampler, made when `basis` trials had ended, for the ordinals from `ordinal` on.

    `last`: they are fewer than were asked for, as there are no more. `epoch`: of the request.
    """

    uid: str
    basis: int
    ordinal: int
    params: tuple[dict[str, Any], ...]
    last: bool = False
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class SuggestFailed:
    """The sampler failed; the study is told why and asks again later."""

    uid: str
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The life of this attempt has been silent for the whole grace period."""

    trial: int
    attempt: int
    life: str


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


# --- what the sampler gets; it stays inside the coordinator's machine


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of one trial: its best score (as reported; None without a valid one) after `steps` steps.

    `marks`: (step, best score by then) at the steps where the stopping rule compares, as far as the trial got.
    """

    params: dict[str, Any]
    score: float | None
    steps: int
    complete: bool
    marks: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class SuggestRequest:
    """`count` suggestions for the trials from `ordinal` on, given what has ended and what is pending.

    `running`: those of the pending trials that have marks. `basis`: how many trials had ended; in a large study of
    early-stopped trials not all of them are among the observations. `bound`: the batch sizes that fit into memory.
    `left_behind`: configurations that did not, whose trials have gone on with smaller batches. `epoch`: how often the
    spec has changed.
    """

    spec: StudySpec
    ordinal: int
    count: int
    observations: tuple[Observation, ...] = ()
    pending: tuple[dict[str, Any], ...] = ()
    running: tuple[Observation, ...] = ()
    basis: int = 0
    bound: BatchSizeBound = NO_BOUND
    left_behind: tuple[dict[str, Any], ...] = ()
    epoch: int = 0

    @property
    def allowed(self) -> Space:
        """The part of the search space that the suggestions have to lie in."""
        return allowed(self.spec.search_space, self.spec.batch_size_name, self.bound)

    def taken(self) -> set[tuple[Hashable, ...]]:
        """The keys of the configurations that are not to be suggested again."""
        configs = (*(each.params for each in self.observations), *self.pending, *self.left_behind)
        return {self.spec.search_space.key(params) for params in configs}


Event = Create | Ask | Query | Start | Report | OutOfMemory | Finalize | Release | Close | Withdraw
Internal = Tick | Suggested | SuggestFailed | Lost
Answer = Created | Sample | Nothing | Refusal

# Position in this table is the tag on the wire: append only.
_TYPES: tuple[type, ...] = (
    Create, Ask, Query, Start, Report, OutOfMemory, Finalize, Release, Close,
    Verdict, Created, Sample, Nothing, Refusal, Withdraw,
)  # fmt: skip
_TAGS = {cls: tag for tag, cls in enumerate(_TYPES)}
_FIELDS = {cls: tuple(field.name for field in dataclasses.fields(cls)) for cls in _TYPES}
_DEFAULTS = {cls: [f.default for f in dataclasses.fields(cls)] for cls in _TYPES}
_HAS_SPEC = {cls: fields.index("spec") for cls, fields in _FIELDS.items() if "spec" in fields}


def encode(message: Any) -> bytes:
    """The message as bytes."""
    cls = type(message)
    values = [getattr(message, name) for name in _FIELDS[cls]]
    if cls in _HAS_SPEC:
        values[_HAS_SPEC[cls]] = message.spec.to_wire()
    packed: bytes = msgpack.packb([VERSION, _TAGS[cls], *values])
    return packed


def decode(data: bytes, *expected: type) -> Any:
    """The message in `data`; raises DecodeError unless it is one of the `expected` types."""
    if len(data) > MAX_BYTES:
        raise DecodeError(f"the message has {len(data)} bytes, {MAX_BYTES} are allowed")
    version, tag, values = _envelope(data)
    if not OLDEST <= version <= VERSION + 1:
        raise WrongVersionError(f"the message is of protocol {version}, this side reads {OLDEST} to {VERSION + 1}")
    if not 0 <= tag < len(_TYPES):
        raise DecodeError(f"there is no message of type {tag}")
    cls = _TYPES[tag]
    if expected and cls not in expected:
        raise DecodeError(f"a {cls.__name__} is not expected here")
    return _build(cls, values)


def _envelope(data: bytes) -> tuple[int, int, list[Any]]:
    try:
        wire = msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise DecodeError(f"the message is not msgpack: {type(error).__name__}") from None
    if not (isinstance(wire, list) and len(wire) >= 2 and type(wire[0]) is int and type(wire[1]) is int):
        raise DecodeError("the message does not begin with a version and a type")
    return wire[0], wire[1], wire[2:]


def _build(cls: type, values: list[Any]) -> Any:
    checks = _CHECKS[cls]
    values = values[: len(checks)]
    for default in _DEFAULTS[cls][len(values) :]:
        if default is dataclasses.MISSING:
            raise DecodeError(f"a {cls.__name__} has more than {len(values)} fields")
        values.append(default)
    for i, check in enumerate(checks):
        try:
            values[i] = check(values[i])
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            raise DecodeError(f"{cls.__name__}.{_FIELDS[cls][i]}: {str(error)[:200]}") from None
    return cls(*values)


# --- one check per field, made once from the annotations

NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
LARGEST = 2**31 - 1


def _plain(*allowed: type) -> typing.Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) not in allowed:
            raise TypeError(f"{type(value).__name__} instead of {' or '.join(cls.__name__ for cls in allowed)}")
        return value

    return check


def _finite(value: Any) -> float:
    number = float(_plain(float, int)(value))
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _text(value: Any) -> str:
    text: str = _plain(str)(value)
    if len(text) > 4096:
        raise ValueError("longer than 4096 characters")
    return text


def _name(value: Any) -> str:
    if not NAME.fullmatch(_text(value)):
        raise ValueError("use 1 to 64 of the characters A-Z a-z 0-9 _ . : -")
    return str(value)


def _life(value: Any) -> str:
    return _name(value) if value else _text(value)


def _natural(value: Any) -> int:
    number: int = _plain(int)(value)
    if not -1 <= number <= LARGEST:
        raise ValueError("outside -1 .. 2**31 - 1")
    return number


def _mode(value: Any) -> str:
    if value not in ("next", "now", "end"):
        raise ValueError("use next, now or end")
    return str(value)


def _tuple_of(*checks: typing.Callable[[Any], Any]) -> typing.Callable[[Any], Any]:
    def check(value: Any) -> tuple[Any, ...]:
        items = _plain(list, tuple)(value)
        if len(items) != len(checks):
            raise ValueError(f"{len(items)} items instead of {len(checks)}")
        return tuple(each(item) for each, item in zip(checks, items, strict=True))

    return check


def _many(each: typing.Callable[[Any], Any]) -> typing.Callable[[Any], Any]:
    return lambda value: tuple(each(item) for item in _plain(list, tuple)(value))


def _optional(check: typing.Callable[[Any], Any]) -> typing.Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


_LEAVES: dict[Any, typing.Callable[[Any], Any]] = {
    str: _text,
    int: _natural,
    float: _finite,
    bool: _plain(bool),
    StudySpec: lambda value: validated(StudySpec.from_wire(_plain(dict)(value))),
}


def _check_for(hint: Any) -> typing.Callable[[Any], Any]:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _optional(_check_for(next(arg for arg in args if arg is not type(None))))
    if origin is tuple:
        return _many(_check_for(args[0])) if args[-1] is ... else _tuple_of(*map(_check_for, args))
    if origin is dict:
        return _plain(dict)
    return _LEAVES[hint]


def _field_checks(cls: type) -> list[typing.Callable[[Any], Any]]:
    hints = get_type_hints(cls)
    by_name = {"uid": _name, "session": _name, "life": _life, "mode": _mode}
    return [by_name.get(name) or _check_for(hints[name]) for name in _FIELDS[cls]]


_CHECKS = {cls: _field_checks(cls) for cls in _TYPES}
