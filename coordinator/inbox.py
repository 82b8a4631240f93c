"""What comes out of an inbox: parts of a batch's size, their events, and answers to those that cannot be handled."""

import contextlib
from collections.abc import Iterable

from coordinator.store import Entry
from hpopt.core.attempts import unknown_trial
from hpopt.core.codec import decode
from hpopt.core.effects import Effect, Replied
from hpopt.core.messages import (
    Ask,
    Close,
    Create,
    Event,
    Finalize,
    OutOfMemory,
    Query,
    Refusal,
    Release,
    Report,
    Start,
    Withdraw,
)

FROM_OUTSIDE = (Report, Ask, Start, Finalize, OutOfMemory, Release, Query, Create, Close, Withdraw)
BATCH_BYTES = 256 * 1024
UNHANDLED = "the coordinator could not handle it: see its log"


def understood(payload: bytes) -> Event:
    """The event in an entry's bytes. Raises DecodeError when there is none."""
    event: Event = decode(payload, *FROM_OUTSIDE)
    return event


def arrival(entry_id: str) -> float:
    """When the event arrived, by the server's clock, in seconds: stream ids begin with it."""
    return int(entry_id.partition("-")[0]) / 1000


def parts(entries: list[Entry]) -> Iterable[list[Entry]]:
    """The entries in parts of at most BATCH_BYTES."""
    part: list[Entry] = []
    size = 0
    for entry in entries:
        if part and size + len(entry[1]) > BATCH_BYTES:
            yield part
            part, size = [], 0
        part.append(entry)
        size += len(entry[1])
    if part:
        yield part


def regrets(payload: bytes) -> list[Effect]:
    """The answer to an event that is put aside, so that its sender does not send it for ever."""
    with contextlib.suppress(Exception):  # it may be the decoder that it was too much for: then there is no answer
        event = understood(payload)
        if isinstance(event, Ask | Create):
            return [Replied(event.session, Refusal(event.n if isinstance(event, Ask) else -1, "bad", UNHANDLED))]
        if not isinstance(event, Close | Withdraw):
            return [unknown_trial(event, UNHANDLED, stray=True)]
    return []
