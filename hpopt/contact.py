"""A process's contact with the coordinator about one attempt of a trial."""

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from hpopt import distributed
from hpopt.client import FAILED, RESEND, Client, Inquiry
from hpopt.config import Identity
from hpopt.core.messages import Finalize, OutOfMemory, Query, Release, Report, Start, Verdict
from hpopt.core.trial import LONGEST_LOG
from hpopt.errors import HpoptUnavailable
from hpopt.heartbeat import Heart
from hpopt.outage import DEADLINE, Patience, deadline, goes_on
from hpopt.role import NobodySpeaksError, Role
from hpopt.status import Status

UNSENT = 1024
"""So many reports are kept for later, if training goes on in an outage; of more, the newest."""

LOG = "HPOPT_LOG"
"""Environment variable: where the output of this training goes, "host:path"; it is named in the results."""

log = logging.getLogger("hpopt")
T = TypeVar("T")


class Contact:
    """This process's side of one attempt of a trial. One thread at a time; the others wait."""

    def __init__(self, identity: Identity, client: Client, heart: Heart) -> None:
        """Nothing is sent before `start`."""
        self.identity = identity
        self.client = client
        self.heart = heart
        self.role = Role()
        self.lock = threading.RLock()
        self.started = False
        self.stopped = False
        self.trainer: int | None = None
        """The thread that trained last; who only says that the attempt has ended does not train it."""
        self.step = 0
        """The last step that was answered, or put off."""
        self.unsent: deque[Report] = deque(maxlen=UNSENT)
        """Reports that training did not wait for, and that may not have reached the server."""
        self.adrift = False
        """Training goes on in an outage."""
        self._last: bytes | str = "0"
        self._heard: Verdict | None = None
        """The verdict at `_last`: it may answer a later step too, as rank 0 may be ahead."""
        self._arrived = False

    @property
    def life(self) -> str:
        """Which life of the attempt this process belongs to."""
        return self.role.life

    @property
    def alive_key(self) -> str:
        """The key of this life's heartbeat."""
        identity = self.identity
        return identity.keys.alive(identity.uid, identity.trial, identity.attempt, self.life)

    @property
    def reason(self) -> str:
        """Why the trial is where it is, by the newest verdict; "" before there was one."""
        return "" if self._heard is None else self._heard.reason

    def start(self) -> None:
        """Make contact, once; the steps go on from the last one that is committed."""
        self.trainer = threading.get_ident()
        goes_on()  # a bad setting is better told now than in the outage
        with self.lock:
            if self.stopped:
                return
            if self.role.update():
                self.fall_silent()
            if not self.started:
                self._begin(self._first_verdict())
            if self.role.speaks and not self.stopped:
                self.heart.add(self.alive_key)  # again: a forked child has not inherited its parent's heart

    def report(self, score: float | None, step: int | None) -> Status:
        """The score of the next step, or of `step`. Whoever is interrupted may report the same step again."""
        with self.lock:
            self.start()
            if self.stopped:
                return Status.STOP
            step = self.step + 1 if step is None else step
            status = self._speak(step, score) if self.role.speaks else self._listen(step)
            self.step = step
            if status is Status.STOP:
                self.end()
            return status

    def say(self, event: Finalize | OutOfMemory | Release, limit: float | None = None) -> None:
        """End the attempt, unless it has ended; returns when that is committed.

        Raises HpoptUnavailable after `limit` seconds, if given, even if another thread is waiting for an answer.
        """
        until = math.inf if limit is None else time.monotonic() + limit
        if not self.lock.acquire(timeout=-1 if limit is None else limit):
            raise HpoptUnavailable(f"trial {self.identity.trial} is still waiting for an answer")
        try:
            if not self.stopped:
                self._wait(event, self._accept_end, None if limit is None else max(0.0, until - time.monotonic()))
                self.end()
        finally:
            self.lock.release()

    def settle(self) -> None:
        """Learn, without waiting, whether somebody else has ended the attempt."""
        try:
            verdict = self.client.newest(self._stream)
        except FAILED:
            return
        if verdict is not None and self._accept_end(verdict):
            self.end()

    def end(self, *, tell: bool = True) -> None:
        """Nothing more will be reported. `tell`: see `fall_silent`."""
        self.stopped = True
        self.unsent.clear()
        self.fall_silent(tell=tell)

    def fall_silent(self, *, tell: bool = True) -> None:
        """No heartbeat until the next sign of life; without `tell` the last one runs out by itself."""
        if tell:
            self.heart.remove(self.alive_key)
        else:
            self.heart.drop(self.alive_key)

    # --- what the answers mean

    def _accept_start(self, verdict: Verdict) -> Verdict | None:
        mine = self.identity.attempt
        if verdict.stray:
            return verdict if self._meant(verdict) else None
        if verdict.attempt != mine:
            return verdict if verdict.attempt > mine else None
        return None if self.role.begun(verdict) is None else verdict

    def _begin(self, verdict: Verdict) -> None:
        if verdict.stray or verdict.attempt > self.identity.attempt or not self.role.begun(verdict):
            self._log_stop(verdict)
            self.end()
            return
        self.role.life = verdict.life
        self.started = True
        self.step = verdict.base_step

    def _meant(self, verdict: Verdict) -> bool:
        """Whether a stray verdict is the answer to this very process; a follower's questions carry no life."""
        life = self.life if self.role.speaks else ""
        return (verdict.attempt, verdict.life) == (self.identity.attempt, life)

    def _accept_report(self, step: int, verdict: Verdict) -> Status | None:
        if verdict.stray and not self._meant(verdict):
            return None
        if verdict.attempt != self.identity.attempt:
            return Status.STOP if verdict.attempt > self.identity.attempt else None
        if verdict.life != self.life or (verdict.stop_step is not None and step >= verdict.stop_step):
            self._log_stop(verdict)
            return Status.STOP
        return Status.RUNNING if verdict.last_step >= step else None

    def _accept_end(self, verdict: Verdict) -> bool | None:
        mine = self.identity.attempt
        if verdict.stray:
            return True if verdict.attempt == mine and verdict.life in ("", self.life) else None
        return True if verdict.attempt > mine or (verdict.attempt == mine and verdict.stop_step is not None) else None

    def _log_stop(self, verdict: Verdict) -> None:
        if verdict.stray or verdict.stop_step == 0:  # there is no such attempt, or study
            log.warning(
                "hpopt: nothing is reported for trial %d, attempt %d: %s (was the config passed on as "
                "get_next_sample() returned it?)",
                self.identity.trial, self.identity.attempt, verdict.reason,
            )  # fmt: skip
            return
        reason = verdict.reason or "another process trains this attempt"
        log.info("hpopt: trial %d stops: %s", self.identity.trial, reason)

    # --- what is said

    def _first_verdict(self) -> Verdict:
        identity = self.identity
        if not self.role.speaks:
            try:
                return self._wait(self._query(), self._accept_start)
            except NobodySpeaksError:
                self.role.speak(identity.trial)
        start = Start(identity.uid, identity.trial, identity.attempt, self.life, self.role.restart, _own_log())
        return self._wait(start, self._accept_start)

    def _listen(self, step: int) -> Status:
        known = None if self._heard is None else self._accept_report(step, self._heard)
        return self._wait(self._query(), lambda verdict: self._accept_report(step, verdict)) if known is None else known

    def _speak(self, step: int, score: float | None) -> Status:
        """Report, after what was put off."""
        identity = self.identity
        report = Report(identity.uid, identity.trial, identity.attempt, self.life, step, score)
        latest = max(step, *(each.step for each in self.unsent), 0)
        limit = min(deadline(), RESEND) if self.adrift else None  # an outage is waited out once
        try:
            status = self._wait(report, lambda verdict: self._accept_report(latest, verdict), limit)
        except HpoptUnavailable as error:
            if not (goes_on() and distributed.is_alone()):
                raise
            self._put_off(report, error)
            return Status.RUNNING
        self.unsent.clear()
        self.adrift = False
        return status

    def _put_off(self, report: Report, error: HpoptUnavailable) -> None:
        if not self.adrift:
            log.warning("hpopt: trial %d goes on, and its reports are kept: %s", report.trial, error)
        self.adrift = True
        if self._arrived:
            self.unsent.clear()  # all of them are in the inbox
        else:
            self.unsent.append(report)

    def _query(self) -> Query:
        return Query(self.identity.uid, self.identity.trial, self.identity.attempt)

    # --- the round trip

    @property
    def _stream(self) -> str:
        return self.identity.keys.verdicts(self.identity.uid, self.identity.trial)

    def _wait(self, event: Any, accept: Callable[[Any], T | None], limit: float | None = None) -> T:
        """Raises HpoptUnavailable after `limit` seconds, or after HPOPT_REPORT_DEADLINE."""
        keys, query = self.identity.keys, isinstance(event, Query)
        inquiry = Inquiry(
            keys.inbox, event, self._stream, self._last, tuple(self.unsent), listen_first=query, study=keys.path
        )

        def hear(verdict: Verdict) -> T | None:
            self._heard = verdict
            return accept(verdict)

        seconds = deadline() if limit is None else limit
        patience = Patience(seconds, seconds, DEADLINE if limit is None else "", out=self.adrift)
        if query:
            self.role.vigil(patience, self.identity.trial, started=self.started)
        elif isinstance(event, Start):
            self.role.queue(patience, self.identity.trial)
        try:
            return self.client.ask(inquiry, hear, patience)
        except TimeoutError as error:
            remedy = f": {self.role.remedy}" if query else ""
            raise HpoptUnavailable(f"{self.client.shown}: {error} ({patience.limit}){remedy}") from None
        finally:
            self._last, self._arrived = inquiry.last, inquiry.arrived


def _own_log() -> str:
    """Where the output of this process goes, as text that can travel whatever bytes the path is made of."""
    return os.environ.get(LOG, "").encode(errors="replace").decode()[:LONGEST_LOG]
