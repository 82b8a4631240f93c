"""The trainer's side of the public API: report, reportOOM, finalize_trial, trial."""

import logging
import operator
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from hpopt import distributed
from hpopt.contact import Contact
from hpopt.contacts import contact
from hpopt.core.messages import OUT_OF_MEMORY, Finalize, OutOfMemory, Release
from hpopt.errors import HpoptError, HpoptUnavailable
from hpopt.memory import in_short, is_out_of_memory, kernel_kills, let_go, says_killed
from hpopt.score import to_score
from hpopt.status import Status

_MISSING: Any = object()
_INTERRUPTED = (None, 0, 130, 143)
"""With these a process exits that was told to end; 128 + the signal's number is what a shell shows of it."""
INTERRUPTED_WITHIN = 10.0
"""Seconds for which a training that is interrupted waits for its trial to be given back."""

log = logging.getLogger("hpopt")


def report(
    config: Mapping[str, Any], score: Any = _MISSING, current_iters: int | None = None, result: Any = _MISSING
) -> Status:
    """Report the score of one iteration; RUNNING: go on, STOP: end the training. Returns when that is committed.

    `current_iters` is the iteration, counted from 1, for a trainer that does not report each of them; without it every
    call is the next one. `result` is another name for `score`. NaN and the infinities count as an invalid iteration.

    Raises TypeError or ValueError for a score or a config that is none, UnknownStudy when the study does not exist and
    HpoptUnavailable when an outage lasts for longer than HPOPT_REPORT_DEADLINE (600 seconds). With
    HPOPT_ON_OUTAGE=continue, and without other ranks, the answer is RUNNING then, and the report goes with the next.
    """
    if (score is _MISSING) == (result is _MISSING):
        raise TypeError("pass the score once, as score= or as result=")
    step = None if current_iters is None else _step(current_iters)
    it, number = contact(config), to_score(result if score is _MISSING else score)
    most = config.get("iterations")
    if step is not None and type(most) is int and step > most and not it.stopped:
        log.warning("hpopt: current_iters=%d ends trial %d, which has %d iterations", step, it.identity.trial, most)
    return it.report(number, step)


def reportOOM(config: Mapping[str, Any]) -> None:
    """Report that the trial ran out of memory: it is tried again, with a smaller batch if `batch_size_name` is set."""
    it = contact(config)
    it.say(OutOfMemory(it.identity.uid, it.identity.trial, it.identity.attempt))


def finalize_trial(config: Mapping[str, Any], crashed: bool = False) -> None:
    """Say that the trial has ended, for whatever cause; does nothing if that is known.

    A trial with scores keeps its best one, as STOPPED or, if it `crashed`, as FAILED. One without is tried once more.
    """
    it = contact(config)
    it.say(Finalize(it.identity.uid, it.identity.trial, it.identity.attempt, bool(crashed)))


def _step(current_iters: Any) -> int:
    """The iteration as an int, also from one of numpy's or of torch's."""
    remedy = f"current_iters={current_iters!r}: pass an int of at least 1, or leave it out"
    try:
        step = operator.index(current_iters)
    except TypeError:
        raise TypeError(remedy) from None
    if isinstance(current_iters, bool):
        raise TypeError(remedy)
    if not 1 <= step < 2**31:
        raise ValueError(remedy)
    return step


def start_of_contact(config: Mapping[str, Any]) -> None:
    """Tell the coordinator that this process trains the config's trial."""
    contact(config).start()


def release(it: Contact, limit: float | None = None) -> None:
    """Give the trial of a contact back; raises HpoptUnavailable after `limit` seconds, if given."""
    it.say(Release(it.identity.uid, it.identity.trial, it.identity.attempt), limit)


class trial:  # noqa: N801 - used like a function: `with hpopt.trial(config) as t`
    """One attempt as a `with` block: `t.report(score)`, `t.release()`.

    Leaving the block finalizes the trial; an exception, or an exit with an error, counts as a crash, an interruption
    gives the trial back. Under a launcher that starts the training again after a crash, the trial goes on.

    An error that says that memory ran out (`hpopt.is_out_of_memory`) is reported as `hpopt.reportOOM` does it. It ends
    here: what it held is freed, so that this process can go on with the next config. Only one of several ranks passes
    it on, for whoever has started them to end the others.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Nothing is sent before the block is entered."""
        self.config = config
        self._contact = contact(config)
        self._kills = 0

    def __enter__(self) -> Self:
        self._contact.start()
        self._kills = kernel_kills()
        return self

    @property
    def out_of_memory(self) -> bool:
        """Whether the attempt has ended because memory ran out, whichever process of it said so; known at its end."""
        return self._contact.stopped and self._contact.reason.startswith(OUT_OF_MEMORY)

    def report(self, score: Any, current_iters: int | None = None) -> Status:
        """See `hpopt.report`."""
        return report(self.config, score, current_iters)

    def release(self, within: float | None = None) -> bool:
        """Give the trial back, to be handed to somebody else: this process was interrupted. Whether it is.

        `within`: seconds; where that takes longer, it falls silent instead, and is handed out again when that is
        noticed. Without it an outage is waited out, and HpoptUnavailable raised at its deadline.
        """
        try:
            release(self._contact, within)
        except HpoptError as error:
            if within is None:
                raise
            trial = self._contact.identity.trial
            log.warning("hpopt: trial %d is not given back now, but when its silence is noticed: %s", trial, error)
            self._contact.end(tell=False)
            return False
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        del kind, traceback
        if self._contact.stopped:
            return False
        if isinstance(error, HpoptUnavailable):
            self._contact.fall_silent(tell=False)  # nobody is there to be told
        elif error is not None and not isinstance(error, KeyboardInterrupt) and self._ran_out(error):
            return self._give_up(error)
        elif error is not None and not _is_failure(error):
            self.release(INTERRUPTED_WITHIN)
        elif error is None or not distributed.restarts_left():  # else the attempt goes on: all ranks are started again
            finalize_trial(self.config, crashed=error is not None)
        return False

    def _ran_out(self, error: BaseException) -> bool:
        """Also if a process of the training was killed, and the kernel says that it did so for want of memory."""
        return is_out_of_memory(error) or (says_killed(error) and kernel_kills() > self._kills)

    def _give_up(self, error: BaseException) -> bool:
        """Report that memory ran out; whether the error ends here."""
        summary = in_short(error)  # before it lets go of what its text may be made of
        ends = isinstance(error, Exception) and distributed.is_alone()
        if ends:
            log.debug("hpopt: where memory ran out", exc_info=error)
            let_go(error)  # before others are told, who may begin at once
        reportOOM(self.config)
        log.warning("hpopt: trial %d: %s (%s)", self._contact.identity.trial, self._contact.reason, summary)
        return ends


def _is_failure(error: BaseException) -> bool:
    """Whether it ends a training that went wrong; all else interrupts one, as a handler of SIGTERM does by exiting."""
    return isinstance(error, Exception) or (isinstance(error, SystemExit) and error.code not in _INTERRUPTED)
