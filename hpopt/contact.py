"""A process's contact with the coordinator about one attempt of a trial."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hpopt import distributed
from hpopt.client import SLACK, Client, Inquiry, Patience
from hpopt.config import Identity
from hpopt.core.messages import Finalize, OutOfMemory, Query, Release, Report, Start, Verdict
from hpopt.errors import HpoptUnavailable
from hpopt.heartbeat import Heart
from hpopt.server import connect
from hpopt.status import Status

DEADLINE = "HPOPT_REPORT_DEADLINE"
"""Environment variable: seconds for which a trainer waits out an outage."""
DEFAULT_DEADLINE = 600.0

log = logging.getLogger("hpopt")
T = TypeVar("T")


class Contact:
    """This process's side of one attempt of a trial."""

    def __init__(self, identity: Identity, client: Client, heart: Heart) -> None:
        """Nothing is sent before `start`."""
        self.identity = identity
        self.client = client
        self.heart = heart
        self.life, self.restart = distributed.life()
        self.speaks = distributed.is_speaker()
        self.lock = threading.RLock()
        self.started = False
        self.stopped = False
        self.trainer: int | None = None
        """The thread that trained last; who only says that the attempt has ended does not train it."""
        self.step = 0
        self._last: bytes | str = "0"

    @property
    def alive_key(self) -> str:
        """The key of this life's heartbeat."""
        identity = self.identity
        return identity.keys.alive(identity.uid, identity.trial, identity.attempt, self.life)

    def start(self) -> None:
        """Make contact, once; the steps go on from the last one that is committed."""
        self.trainer = threading.get_ident()
        with self.lock:
            if self.started or self.stopped:
                return
            if self.speaks:
                self.heart.add(self.alive_key)
            alone = not self.speaks and distributed.may_be_independent()
            limit = distributed.INDEPENDENT_AFTER if alone else None
            try:
                self._begin(self._wait(self._start_event(), self._accept_start, limit))
            except TimeoutError:
                if not alone:
                    raise
                self.speaks = True  # no rank 0 ever came: this is a task of its own
                self.start()

    def report(self, score: float | None, step: int | None) -> Status:
        """The score of the next step, or of `step`."""
        with self.lock:
            self.start()
            if self.stopped:
                return Status.STOP
            self.step = self.step + 1 if step is None else step
            identity = self.identity
            event = Report(identity.uid, identity.trial, identity.attempt, self.life, self.step, score)
            status = self._wait(event if self.speaks else self._query(), self._accept_report)
            if status is Status.STOP:
                self.end()
            return status

    def say(self, event: Finalize | OutOfMemory | Release) -> None:
        """End the attempt; returns when that is committed."""
        with self.lock:
            self._wait(event, self._accept_end)
            self.end()

    def end(self) -> None:
        """Nothing more will be reported."""
        self.stopped = True
        self.heart.remove(self.alive_key)

    # --- what the answers mean

    def _accept_start(self, verdict: Verdict) -> Verdict | None:
        mine = self.identity.attempt
        if verdict.attempt != mine:
            return verdict if verdict.attempt > mine else None
        if self.life in verdict.refused or verdict.stop_step is not None or verdict.life == self.life:
            return verdict
        if not self.speaks and self.restart < 0:
            return verdict  # without a launcher's count, a follower belongs to whichever life there is
        return None

    def _begin(self, verdict: Verdict) -> None:
        over = verdict.attempt > self.identity.attempt or self.life in verdict.refused
        if over or (self.speaks and verdict.stop_step is not None):
            self._log_stop(verdict)
            self.end()
            return
        if not self.speaks:
            self.life = verdict.life
        self.started = True
        self.step = verdict.base_step

    def _accept_report(self, verdict: Verdict) -> Status | None:
        if verdict.attempt != self.identity.attempt:
            return Status.STOP if verdict.attempt > self.identity.attempt else None
        if verdict.life != self.life or (verdict.stop_step is not None and self.step >= verdict.stop_step):
            self._log_stop(verdict)
            return Status.STOP
        return Status.RUNNING if verdict.last_step >= self.step else None

    def _accept_end(self, verdict: Verdict) -> bool | None:
        mine = self.identity.attempt
        return True if verdict.attempt > mine or (verdict.attempt == mine and verdict.stop_step is not None) else None

    def _log_stop(self, verdict: Verdict) -> None:
        reason = verdict.reason or "another process has taken it over"
        log.info("hpopt: trial %d stops: %s", self.identity.trial, reason)

    # --- the round trip

    def _wait(self, event: Any, accept: Callable[[Any], T | None], limit: float | None = None) -> T:
        """Raises TimeoutError after `limit` seconds, HpoptUnavailable after HPOPT_REPORT_DEADLINE."""
        identity, keys, patience = self.identity, self.identity.keys, deadline()
        stream = keys.verdicts(identity.uid, identity.trial)
        listen_first = isinstance(event, Query)
        inquiry = Inquiry(keys.inbox, event, stream, self._last, listen_first=listen_first, study=keys.path)
        try:
            return self.client.ask(inquiry, accept, Patience(limit or patience + SLACK, patience))
        except TimeoutError:
            if limit is not None:
                raise
            raise HpoptUnavailable(f"no answer from {self.client.shown} within {DEADLINE}={patience:g} s") from None
        finally:
            self._last = inquiry.last

    def _start_event(self) -> Start | Query:
        identity = self.identity
        if not self.speaks:
            return self._query()
        return Start(identity.uid, identity.trial, identity.attempt, self.life, self.restart)

    def _query(self) -> Query:
        return Query(self.identity.uid, self.identity.trial, self.identity.attempt)


def deadline() -> float:
    """Seconds for which an outage of server or coordinator is waited out. Raises ValueError for a bad setting."""
    text = os.environ.get(DEADLINE, "")
    try:
        seconds = float(text) if text else DEFAULT_DEADLINE
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{DEADLINE}={text!r}: set it to a number of seconds")
    return seconds


# --- the contacts of this process

REMEMBERED = 1024
"""Ended attempts of which this process still knows that they have ended."""

_Key = tuple[str, str, int, int]
_contacts: dict[_Key, Contact] = {}
_lock = threading.Lock()


def contact(config: Mapping[str, Any]) -> Contact:
    """The contact for a config's attempt; the same one for every call."""
    identity = Identity.of(config)
    key = (identity.keys.path, identity.uid, identity.trial, identity.attempt)
    found = _contacts.get(key)
    if found is None:
        server = connect(identity.url)
        with _lock:
            found = _contacts.setdefault(key, Contact(identity, server.client, server.heart))
            for old in [old for old, each in _contacts.items() if each.stopped][:-REMEMBERED]:
                del _contacts[old]
    return found


def trained_here(path: str, uid: str) -> list[Contact]:
    """The attempts of this study that the calling thread trained last, ended or not, the oldest first."""
    thread = threading.get_ident()
    return [each for key, each in list(_contacts.items()) if key[:2] == (path, uid) and each.trainer == thread]


def open_contacts(path: str, uid: str) -> list[Contact]:
    """The attempts of this study that this process has begun and not ended."""
    return [
        each for key, each in list(_contacts.items()) if key[:2] == (path, uid) and each.started and not each.stopped
    ]


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - a lock that another thread held at the fork is never released in the child
    _lock = threading.Lock()
    for each in _contacts.values():
        each.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
