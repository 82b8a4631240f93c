"""Keeps one owned study: event -> handle -> commit -> suggest, until the lease is lost or the service drains."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable

import msgpack

from coordinator.batch import SCHEMA, Batch, Meta
from coordinator.inbox import UNHANDLED, arrival, parts, regrets, understood
from coordinator.store import (
    AWAY,
    BATCH_EVENTS,
    BLOCK,
    COMMAND_TIMEOUT,
    CONNECTION_LOST,
    SERVER_BUSY,
    Entry,
    Store,
    StudyLink,
)
from coordinator.suggest import Suggester
from coordinator.timing import Silence, Timing
from hpopt.core.codec import DecodeError
from hpopt.core.internal import Internal, Lost, Suggested, SuggestFailed, Tick
from hpopt.core.keys import StudyKeys
from hpopt.core.study import Study
from hpopt.core.suggest_request import SuggestRequest

TRIM_EVERY = 1_000
"""Events between two trimmings of the inbox."""
STARTS_BEFORE_SUSPICION = 2
"""So many owners without progress, and events are handled one by one, each marked before it is tried."""
MARKS_BEFORE_REFUSAL = 2
AFTER_FAILURE = 2.0
"""Seconds before the sampler is asked again after it failed."""

log = logging.getLogger("hpopt.coordinator")


class FencedError(Exception):
    """Another coordinator owns the study now, or what is stored is not what was expected."""


class PoisonedError(Exception):
    """An event could not be handled; the study in memory is no longer what is stored."""


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
        self.cautious = 0
        """So many events are still to be handled one by one, each marked before it is tried."""
        self.suspect: tuple[str, int] = ("", 0)
        self.silence = Silence()
        self._stored = b""
        self._starts = 0
        self._untrimmed = 0
        self._tasks = asyncio.TaskGroup()
        self._suggesting: asyncio.Task[None] | None = None

    async def run(self, meta: dict[bytes, bytes]) -> None:
        """Serve the study until it is drained; `meta` is what acquiring its lease returned.

        Raises FencedError, PoisonedError or a connection's error: the study is to be dropped from memory then.
        """
        await self._load(meta)
        try:
            async with self._tasks:  # what fails in one of them leaves the study in doubt, so it ends them all
                tasks = [self._tasks.create_task(each()) for each in (self._tick_forever, self._read_forever)]
                self._suggest_if_wanted()
                await self.draining.wait()
                async with self.lock:  # the batch in hand is finished first
                    for task in (*tasks, self._suggesting):
                        if task is not None:
                            task.cancel()
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            await self.link.close()
            await self.control.close()

    # --- loading

    async def _load(self, meta: dict[bytes, bytes]) -> None:
        started = time.monotonic()
        self.seq = int(meta[b"seq"])
        self.cursor = meta.get(b"cursor", b"0-0").decode()
        self._starts = int(meta.get(b"starts", b"0"))
        self.cautious = BATCH_EVENTS if self._starts > STARTS_BEFORE_SUSPICION else 0
        self.suspect = (meta.get(b"suspect", b"").decode(), int(meta.get(b"marks", b"0")))
        uid = meta.get(b"uid", b"").decode()
        if uid:
            self._stored = meta[b"state"]
            self.study.restore(uid, msgpack.unpackb(self._stored))
            async for part in self.store.load(self.keys, uid):  # between the parts leases are renewed
                self.study.take_in(part)
            count, took = len(self.study.trials), time.monotonic() - started
            log.info("study loaded", extra={"study": self.keys.path, "trials": count, "seconds": round(took, 3)})

    # --- the three sources of events: the inbox, the clock, the sampler

    async def _read_forever(self) -> None:
        entries = await self.link.read(self.cursor, self._count)
        while True:
            batches = list(parts(entries))
            for each in batches:
                async with self.lock:
                    await self._apply(each, last=each is batches[-1])
            entries = await self.link.read(self.cursor, self._count)

    @property
    def _count(self) -> int:
        return 1 if self.cautious else BATCH_EVENTS

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(self.timing.tick)
            if self.link.reading_since and time.monotonic() - self.link.reading_since > BLOCK / 1000 + 10:
                await self.link.close()
                raise ConnectionError("a read has not returned in time")
            try:
                async with asyncio.timeout(COMMAND_TIMEOUT), self.lock:  # a commit that hangs holds the lock
                    await self._tick()
            except TimeoutError:
                raise ConnectionError("the server has not answered in time") from None

    async def _tick(self) -> None:
        lives, sessions = self.study.watched()
        uid = self.study.uid
        by_key = {self.keys.alive(uid, *life): life for life in lives}
        by_session = {self.keys.session(session): session for session in sessions}
        missing = await self.store.silent([*by_key, *by_session]) if by_key or by_session else set()
        now = time.monotonic()
        self.silence.update(missing, now)
        given_up = self.silence.lasting(self.timing.grace, now)
        silent = frozenset(by_key[key] for key in self.silence.lasting(self.timing.tick, now) & by_key.keys())
        gone = frozenset(by_session[key] for key in given_up & by_session.keys())
        events: list[Internal] = [Tick(silent, gone)]
        lost = given_up & by_key.keys()
        events += [Lost(*by_key[key]) for key in sorted(lost)]
        self.silence.forget(lost)
        await self._internal(events)

    def _suggest_if_wanted(self) -> None:
        if self._suggesting is None or self._suggesting.done():
            request = self.study.wanted()
            if request is not None:
                self._suggesting = self._tasks.create_task(self._suggest(self.study.uid, request))

    async def _suggest(self, uid: str, request: SuggestRequest) -> None:
        event: Internal
        try:
            params = await self.suggester.suggest(request)
            event = Suggested(
                uid, request.basis, request.ordinal, tuple(params), len(params) < request.count, request.epoch
            )
        except Exception as error:
            log.exception("suggestion failed", extra={"study": self.keys.path})
            event = SuggestFailed(uid, str(error))
            await asyncio.sleep(AFTER_FAILURE)
        async with self.lock:
            self._suggesting = None
            await self._internal([event])

    # --- one batch

    async def _apply(self, entries: list[Entry], *, last: bool) -> None:
        """Handle events from the inbox and commit what follows, together with the cursor."""
        batch = Batch(self.keys, self.study.uid)
        for entry_id, payload in entries:
            if self.cautious and await self._refused(entry_id, payload, batch):
                continue
            self._handle(entry_id, payload, batch)
        await self._commit(self.link, batch, cursor=entries[-1][0], read_on=last)
        self.cautious = max(0, self.cautious - len(entries))
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
            batch.add(self.study.handle(understood(payload), arrival(entry_id)), payload)
        except DecodeError as error:
            batch.refuse(str(error), payload)
            log.warning("message refused", extra={"study": self.keys.path, "entry": entry_id, "detail": str(error)})
        except Exception as error:
            log.exception("event not handled", extra={"study": self.keys.path, "entry": entry_id})
            raise PoisonedError(entry_id) from error

    async def _refused(self, entry_id: str, payload: bytes, batch: Batch) -> bool:
        """Whether this event has brought its owners down before, so often that it is put aside."""
        suspect, marks = self.suspect
        marks = marks if suspect == entry_id else 0
        if marks >= MARKS_BEFORE_REFUSAL:
            batch.refuse(UNHANDLED, payload)
            batch.add(regrets(payload))
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
            self._suggest_if_wanted()
        else:
            await self._commit(self.control, batch)

    async def _commit(self, link: StudyLink, batch: Batch, *, cursor: str | None = None, read_on: bool = False) -> None:
        """`cursor`: where the inbox is read up to now. `read_on`: its next read leaves in the same write."""
        meta: Meta = {} if cursor is None else {"cursor": cursor}
        if cursor is not None and self._starts:
            meta["starts"] = 0  # progress: whoever starts next need not be suspicious
        if batch.study_changed and self.study.uid:
            stored = msgpack.packb(self.study.to_wire())
            if stored != self._stored:
                meta.update(uid=self.study.uid, schema=SCHEMA, state=stored)
                self._stored = stored
        keys, arguments = batch.command(self.store.owner, self.seq, self.study.uid, meta)
        await self._run(link, keys, arguments, (cursor, self._count) if cursor is not None and read_on else None)
        if cursor is not None:
            self.cursor, self._starts = cursor, 0
        for note in batch.notes:
            log.info(note.what, extra={"study": self.keys.path, "trial": note.trial, "detail": note.detail})
        for old in batch.replaced:
            await self.store.forget(self.keys, old.uid, old.trials)
        self._suggest_if_wanted()

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
        except SERVER_BUSY:
            await self._make_room()
            raise
        if answer != "OK":
            raise FencedError("another coordinator has taken the study over")
        self.seq += 1

    async def _make_room(self) -> None:
        """A server that is out of memory still trims. Not what another owner, or an older state, has yet to read."""
        with contextlib.suppress(*AWAY):
            if await self.store.fence(self.keys) == (self.store.owner, self.seq):
                await self.control.trim(self.cursor)
