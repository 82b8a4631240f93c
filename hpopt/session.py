"""An operator's session on the wire: its heartbeat, and its numbered requests with their answers."""

import contextlib
import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterable
from typing import Any

from hpopt.client import FAILED, Inquiry
from hpopt.contacts import trained_here
from hpopt.core.codec import encode
from hpopt.core.keys import StudyKeys
from hpopt.core.messages import Ask, Close, Nothing, Refusal, Sample, Withdraw
from hpopt.errors import HpoptError, StudyError, StudyPaused, StudyReplaced, UnknownStudy
from hpopt.outage import DEADLINE, Patience, deadline
from hpopt.server import Server

log = logging.getLogger("hpopt")
WITHDRAW_AFTER = 30.0
"""Seconds after which a request that was given up is withdrawn: until then the next one of its kind repeats it."""

CLOSED = "this HpOpt is closed: call hpopt.create(..., resume=True) to go on with the study"

_OPERATOR = re.compile(r"[A-Za-z0-9_.-]{1,40}")


def session_name(operator: str | None) -> str:
    """A new name for a session: it begins with the operator's, if that has one. Raises ValueError for a bad one."""
    if operator is None:
        return secrets.token_hex(8)
    if not isinstance(operator, str) or not _OPERATOR.fullmatch(operator):
        raise ValueError(f"operator={operator!r}: use 1 to 40 of the characters A-Z a-z 0-9 _ . -")
    return f"{operator}.{secrets.token_hex(8)}"


class Session:
    """Asks for samples. Several threads may wait at once.

    The number of a request is used up only when its answer has been returned: a request that was interrupted, or timed
    out, is repeated by the next one of its kind. If none comes it is withdrawn, so that what it would be given, or was
    given meanwhile, is for others.
    """

    def __init__(self, server: Server, keys: StudyKeys, uid: str, name: str, waits_for: Callable[[], str]) -> None:
        """Begins to beat. `waits_for()`: in words, what a request without an answer waits for."""
        self.name = name
        self.uid = uid
        self._server, self._keys, self._waits_for = server, keys, waits_for
        self._lock = threading.RLock()
        self._asked = 0
        self._unanswered: dict[str, list[int]] = {"next": [], "now": [], "end": []}
        self._withdrawn: list[int] = []
        self._seen: set[int] = set()
        self._timer: threading.Timer | None = None
        self._closed = False
        self._last: bytes | str = "0"
        self._thread = threading.local()
        server.heart.add(keys.session(name))

    def same_operator(self, session: str) -> bool:
        """Whether a session is this one, or one of an operator with the same name."""
        operator = self.name.rpartition(".")[0]
        return session == self.name or (bool(operator) and session.rpartition(".")[0] == operator)

    def end(self) -> None:
        """Nobody waits for an answer any more."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()

    def close(self, *, tell: bool = True) -> None:
        """Withdraw open requests; no more heartbeat. Without `tell` its end says the same, later."""
        self.end()
        key = self._keys.session(self.name)
        self._server.heart.drop(key)
        if tell:
            with contextlib.suppress(*FAILED):
                event = encode(Close(self.uid, self.name))
                self._server.client.call(("UNLINK", key), ("XADD", self._keys.inbox, "NOMKSTREAM", "*", "e", event))

    # --- requests

    def next(self, timeout: float | None) -> Sample | Nothing:
        """A sample, first of all those that interrupted requests for "now" may have been given."""
        while self._unanswered["now"]:
            answer = self.ask("now", timeout)
            if isinstance(answer, Sample):
                return answer
        return self.ask("next", timeout)

    def ask(self, mode: str, timeout: float | None = None) -> Sample | Nothing:
        """One request of a kind that `Ask` names. Raises TimeoutError, and the errors of the study."""
        if mode == "end":  # nobody is going to repeat them while this waits for the last trial
            self.withdraw()
        with self._lock:
            again = bool(self._unanswered[mode])
            n = self._unanswered[mode].pop(0) if again else self._asked
            self._asked = max(self._asked, n + 1)
        try:
            answer = self._answer(Ask(self.uid, self.name, n, mode, self._left_behind()), timeout, again=again)
            self._settle()
        except BaseException:
            self.repeat(mode, n)
            raise
        if isinstance(answer, Refusal):  # that is an answer too: the next request has a number of its own
            raise _error(answer, self._keys.path)
        if isinstance(answer, Sample):
            self._handed.append((answer.trial, answer.attempt))
        return answer

    def repeat(self, mode: str, *numbers: int) -> None:
        """The answers to these requests were lost: the next requests of this kind are to have them."""
        with self._lock:
            self._unanswered[mode][:0] = numbers
        self._withdraw_later()

    def withdraw(self) -> None:
        """Tell the coordinator that nobody comes for what was given up; again later, if it cannot be told now."""
        with self._lock:
            for mode in ("next", "now"):
                self._withdrawn += self._unanswered[mode]
                self._unanswered[mode].clear()
            numbers = frozenset(self._withdrawn)
            kept = numbers if "." in self.name else numbers & self._seen
        parts = ((numbers - kept, False), (kept, True))
        events = [encode(Withdraw(self.uid, self.name, tuple(sorted(some)), keep)) for some, keep in parts if some]
        try:
            for event in events:
                self._server.client.get("XADD", self._keys.inbox, "NOMKSTREAM", "*", "e", event)
        except FAILED as error:
            log.debug("hpopt: requests not withdrawn: %s", error)
            self._withdraw_later()
        else:
            with self._lock:
                self._withdrawn = [n for n in self._withdrawn if n not in numbers]

    def see(self, numbers: Iterable[int]) -> None:
        """The operator has seen the answers to these requests elsewhere: it may launch them, so they stay its own."""
        with self._lock:
            self._seen.update(numbers)

    def _withdraw_later(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if not self._closed:
                self._timer = threading.Timer(WITHDRAW_AFTER, self.withdraw)
                self._timer.daemon = True
                self._timer.start()

    def _answer(self, ask: Ask, timeout: float | None, *, again: bool) -> Sample | Nothing | Refusal:
        patience = Patience(timeout, deadline(), DEADLINE, self._say_why, check=self._check_open)
        last = "0" if again else self._last
        inquiry = Inquiry(self._keys.inbox, ask, self._keys.replies(self.name), last, study=self._keys.path)
        answer: Sample | Nothing | Refusal
        try:
            answer = self._server.client.ask(inquiry, lambda found: _answers(found, ask.n), patience)
        except TimeoutError as error:
            why = error if patience.out else self._waits_for()
            raise TimeoutError(f"timeout={timeout:g} s: {why}") from None
        self._last = inquiry.last
        return answer

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(CLOSED)

    def _say_why(self) -> None:
        log.warning("hpopt: still waiting: %s", self._waits_for())

    # --- an operator that trains

    @property
    def _handed(self) -> list[tuple[int, int]]:
        """Attempts that this thread was handed, and is not known to have trained."""
        handed: list[tuple[int, int]] = self._thread.__dict__.setdefault("handed", [])
        return handed

    def _left_behind(self) -> tuple[tuple[int, int, str], ...]:
        """The trials that this thread has begun and not ended, and those it was handed, if it trains its own trials."""
        contacts = trained_here(self._keys.path, self.uid)
        trained = {(each.identity.trial, each.identity.attempt): each for each in contacts}
        if not trained:
            return ()  # a pure operator: what it was handed runs elsewhere
        self._handed[:] = [each for each in self._handed if each not in trained]
        begun = [(*attempt, each.life) for attempt, each in trained.items() if not each.stopped]
        return (*begun, *((*attempt, "") for attempt in self._handed))

    def _settle(self) -> None:
        """Have done with the trials that were ended because this thread had left them behind."""
        for contact in trained_here(self._keys.path, self.uid):
            if not contact.stopped:
                contact.settle()


def _answers(found: Any, n: int) -> Any:
    """What was found, if it is the answer to request n."""
    return found if isinstance(found, Sample | Nothing | Refusal) and found.n == n else None


def _error(refusal: Refusal, study: str) -> HpoptError:
    """The exception for a request that was refused."""
    if refusal.code == "paused":
        return StudyPaused(
            f"{study} is paused: {refusal.message}. Mend the trainer, or what launches it, then go on with "
            "create(..., resume=True)"
        )
    if refusal.code == "stuck":
        return StudyError(f"{study}: {refusal.message}. The coordinator's log says more; ask again when that is mended")
    kinds = {"replaced": StudyReplaced, "unknown": UnknownStudy}
    return kinds.get(refusal.code, StudyError)(f"{study}: {refusal.message}")
