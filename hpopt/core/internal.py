"""The events that the coordinator makes itself; they never travel."""

from dataclasses import dataclass
from typing import Any


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


Internal = Tick | Suggested | SuggestFailed | Lost
