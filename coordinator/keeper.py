"""Keeps one owned study: event -> handle -> commit -> suggest, until the lease is lost or the service drains."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgpack

from coordinator.batch import SCHEMA, Batch
from coordinator.store import AWAY, BLOCK, CONNECTION_LOST, Entry, Store, StudyLink
from coordinator.suggest import Suggester
from hpopt.core.keys import StudyKeys
from hpopt.core.messages import (
    Ask,
    Close,
    Create,
    DecodeError,
    Event,
    Finalize,
    Internal,
    Lost,
    OutOfMemory,
    Query,
    Release,
    Report,
    Start,
    Suggested,
    SuggestFailed,
    SuggestRequest,
    Tick,
    decode,
)  # fmt: skip
from hpopt.core.study import Study

FROM_OUTSIDE = (Report, Ask, Start, Finalize, OutOfMemory, Release, Query, Create, Close)
BATCH_BYTES = 256 * 1024
TRIM_EVERY = 1_000
"""Events between two trimmings of the inbox."""
STARTS_BEFORE_SUSPICION = 2
"""So many owners without progress, and events are handled one by one, each marked before it is tried."""
MARKS_BEFORE_REFUSAL = 2

log = logging.getLogger("hpopt.coordinator")


class FencedError(Exception):
    """Another coordinator owns the study now, or what is stored is not what was expected."""


class PoisonedError(Exception):
    """An event could not be handled; the study in memory is no longer what is stored."""


@dataclass(slots=True)
class Timing:
    """How long things may take, in seconds."""

    lease: float = 10.0
    grace: float = 180.0
    """A trainer or an operator that is silent for so long is given up."""
    takeover: float = 75.0
    """A second process of an attempt that is alive is refused after this."""
    tick: float = 5.0


@dataclass(slots=True)
class Silence:
    """Since when a heartbeat has been missing; everybody is fresh when the watch begins."""

    since: dict[str, float] = field(default_factory=dict)

    def update(self, missing: set[str], now: float) -> None:
        """`missing`: the heartbeat keys that are not there now."""
        self.since = {key: self.since.get(key, now) for key in missing}

    def lasting(self, seconds: float, now: float) -> set[str]:
        """The keys that have been missing for so long."""
        return {key for key, since in self.since.items() if now - since >= seconds}


class Keeper:
    """One study and everything it needs to be kept going."""

    def __init__(self, store: Store, keys: StudyKeys, suggester: Suggester, timing: Timing) -> None:
        """`store` holds the lease already when `run` is called."""
        self.store = store
        self.keys = keys
        self.suggester = suggester
        self.timing = timing
        self.link: StudyLink = store.link(keys)
        self.control: StudyLink = store.link(keys)
        """For what happens while the first connection waits for events."""
        self.study = Study(timing.takeover)
        self.lock = asyncio.Lock()
        self.draining = asyncio.Event()
        self.seq = 0
        self.cursor = "0-0"
        self.cautious = False
        self.suspect: tuple[str, int] = ("", 0)
        self.silence = Silence()
        self._stored = b""
        self._starts = 0
        self._untrimmed = 0
        self._suggesting: asyncio.Task[None] | None = None

    async def run(self, meta: dict[bytes, bytes]) -> None:
        """Serve the study until it is drained; `meta` is what acquiring its lease returned.

        Raises FencedError, PoisonedError or a connection's error: the study is to be dropped from memory then.
        """
        await self._load(meta)
        try:
            async with asyncio.TaskGroup() as group:
                ticker = group.create_task(self._tick_forever())
                reader = group.create_task(self._read_forever())
                await self.draining.wait()
                async with self.lock:  # the batch in hand is finished first
                    ticker.cancel()
                    reader.cancel()
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            if self._suggesting is not None:
                self._suggesting.cancel()
            await self.link.close()
            await self.control.close()

    # --- loading

    async def _load(self, meta: dict[bytes, bytes]) -> None:
        started = time.monotonic()
        if int(meta.get(b"schema", b"1")) > SCHEMA:
            raise FencedError(f"the study was written by a later version (schema {meta[b'schema'].decode()})")
        self.seq = int(meta[b"seq"])
        self.cursor = meta.get(b"cursor", b"0-0").decode()
        self._starts = int(meta.get(b"starts", b"0"))
        self.cautious = self._starts > STARTS_BEFORE_SUSPICION
        self.suspect = (meta.get(b"suspect", b"").decode(), int(meta.get(b"marks", b"0")))
        uid = meta.get(b"uid", b"").decode()
        if uid:
            self._stored = meta[b"state"]
            loaded = await self.store.load(self.keys, uid)
            self.study.restore(uid, msgpack.unpackb(self._stored), loaded)
            count, took = len(loaded), time.monotonic() - started
            log.info("study loaded", extra={"study": self.keys.path, "trials": count, "seconds": round(took, 3)})
        await self._suggest_if_wanted()

    # --- the three sources of events: the inbox, the clock, the sampler

    async def _read_forever(self) -> None:
        entries = await self.link.read(self.cursor, self._count)
        while True:
            parts = list(_parts(entries))
            for part in parts:
                async with self.lock:
                    await self._apply(part, last=part is parts[-1])
            entries = await self.link.read(self.cursor, self._count)

    @property
    def _count(self) -> int:
        return 1 if self.cautious else 64

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(self.timing.tick)
            if self.link.reading_since and time.monotonic() - self.link.reading_since > BLOCK / 1000 + 10:
                await self.link.close()
                raise ConnectionError("a read has not returned in time")
            async with self.lock:
                await self._tick()

    async def _tick(self) -> None:
        lives, sessions = self.study.watched()
        uid = self.study.uid
        by_key = {self.keys.alive(uid, *life): life for life in lives}
        by_session = {self.keys.session(session): session for session in sessions}
        missing = await self.store.silent([*by_key, *by_session]) if by_key or by_session else set()
        now = self.store.now()
        self.silence.update(missing, now)
        given_up = self.silence.lasting(self.timing.grace, now)
        silent = frozenset(by_key[key] for key in self.silence.lasting(self.timing.tick, now) & by_key.keys())
        gone = frozenset(by_session[key] for key in given_up & by_session.keys())
        events: list[Internal] = [Tick(silent, gone)]
        events += [Lost(*by_key[key]) for key in sorted(given_up & by_key.keys())]
        await self._internal(events)

    async def _suggest_if_wanted(self) -> None:
        if self._suggesting is None or self._suggesting.done():
            request = self.study.wanted()
            if request is not None:
                self._suggesting = asyncio.create_task(self._suggest(self.study.uid, request))

    async def _suggest(self, uid: str, request: SuggestRequest) -> None:
        event: Internal
        try:
            params = await self.suggester.suggest(request)
            event = Suggested(uid, len(request.observations), request.ordinal, tuple(params))
        except (RuntimeError, ValueError, ArithmeticError) as error:  # what is left of the sampler's own failures
            log.warning("suggestion failed", extra={"study": self.keys.path, "detail": repr(error)})
            event = SuggestFailed(uid, str(error))
        self._suggesting = None
        try:
            async with self.lock:
                await self._internal([event])
        except (FencedError, *AWAY) as error:
            log.info("suggestion dropped", extra={"study": self.keys.path, "detail": str(error)})
            await self.link.close()  # wakes the reader, which fails and has the study loaded again

    # --- one batch

    async def _apply(self, entries: list[Entry], *, last: bool) -> None:
        """Handle events from the inbox and commit what follows, together with the cursor."""
        batch = Batch(self.keys, self.study.uid)
        for entry_id, payload in entries:
            if self.cautious and await self._refused(entry_id, payload, batch):
                continue
            self._handle(entry_id, payload, batch)
        self.cursor = entries[-1][0]
        await self._commit(self.link, batch, moved=True, read_on=last)
        self._untrimmed += len(entries)
        if self._untrimmed >= TRIM_EVERY:
            self._untrimmed = 0
            await self._trim()

    async def _trim(self) -> None:
        """Drop the committed events from the inbox; if that fails now, the next time does it."""
        with contextlib.suppress(*AWAY):
            await self.control.trim(self.cursor)

    def _handle(self, entry_id: str, payload: bytes, batch: Batch) -> None:
        try:
            event: Event = decode(payload, *FROM_OUTSIDE)
        except DecodeError as error:
            batch.refuse(str(error), payload)
            log.warning("message refused", extra={"study": self.keys.path, "entry": entry_id, "detail": str(error)})
            return
        try:
            batch.add(self.study.handle(event, _server_time(entry_id)), payload)
        except Exception as error:
            log.exception("event not handled", extra={"study": self.keys.path, "entry": entry_id})
            raise PoisonedError(entry_id) from error

    async def _refused(self, entry_id: str, payload: bytes, batch: Batch) -> bool:
        """Whether this event has brought its owners down before, so often that it is put aside."""
        suspect, marks = self.suspect
        marks = marks if suspect == entry_id else 0
        if marks >= MARKS_BEFORE_REFUSAL:
            batch.refuse("it could not be handled", payload)
            log.error("event put aside", extra={"study": self.keys.path, "entry": entry_id})
            return True
        self.suspect = (entry_id, marks + 1)
        mark = Batch(self.keys, self.study.uid)
        keys, arguments = mark.command(self.store.owner, self.seq, "", {"suspect": entry_id, "marks": marks + 1})
        await self._run(self.link, keys, arguments, None)
        return False

    async def _internal(self, events: Iterable[Internal]) -> None:
        """Handle events of the coordinator's own; the inbox's cursor stays."""
        batch = Batch(self.keys, self.study.uid)
        for event in events:
            batch.add(self.study.handle(event, self.store.now()))
        if batch.empty:
            await self._suggest_if_wanted()
        else:
            await self._commit(self.control, batch)

    async def _commit(self, link: StudyLink, batch: Batch, *, moved: bool = False, read_on: bool = False) -> None:
        """`moved`: the cursor has. `read_on`: the next read of the inbox leaves in the same write."""
        meta: dict[str, bytes | str | int] = {"cursor": self.cursor} if moved else {}
        if moved and self._starts:
            meta["starts"] = 0  # progress: whoever starts next need not be suspicious
        if batch.study_changed and self.study.uid:
            stored = msgpack.packb(self.study.to_wire())
            if stored != self._stored:
                meta.update(uid=self.study.uid, schema=SCHEMA, state=stored)
                self._stored = stored
        keys, arguments = batch.command(self.store.owner, self.seq, self.study.uid, meta)
        await self._run(link, keys, arguments, (self.cursor, self._count) if read_on else None)
        if moved:
            self._starts = 0
        for note in batch.notes:
            log.info(note.what, extra={"study": self.keys.path, "trial": note.trial, "detail": note.detail})
        for old in batch.replaced:
            await self.store.forget(self.keys, old.uid, old.trials)
        await self._suggest_if_wanted()

    async def _run(
        self, link: StudyLink, keys: list[str], arguments: list[object], read: tuple[str, int] | None
    ) -> None:
        """Commit; an unknown outcome is settled by reading the fence."""
        try:
            answer = await link.commit(keys, arguments, read)
        except CONNECTION_LOST:
            await link.close()
            if await self.store.fence(self.keys) != (self.store.owner, self.seq + 1):
                raise
            answer = "OK"
        if answer != "OK":
            raise FencedError("another coordinator has taken the study over")
        self.seq += 1


def _parts(entries: list[Entry]) -> Iterable[list[Entry]]:
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


def _server_time(entry_id: str) -> float:
    """When the event arrived, by the server's clock, in seconds: stream ids begin with it."""
    return int(entry_id.partition("-")[0]) / 1000
