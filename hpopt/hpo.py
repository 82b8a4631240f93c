"""HpOpt: an operator's session with one study."""

import atexit
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis import exceptions

from hpopt.client import Inquiry, Patience
from hpopt.config import Identity, build_config
from hpopt.contact import deadline, open_contacts, trained_here
from hpopt.core.keys import StudyKeys
from hpopt.core.messages import Ask, Close, Created, Nothing, Refusal, Release, Sample, encode
from hpopt.core.spec import StudySpec
from hpopt.core.trial import PENDING, Trial
from hpopt.errors import HpoptError, StudyPaused, StudyReplaced, UnknownStudy
from hpopt.mirror import Mirror
from hpopt.results import TrialRow, best, print_table, progress, read_trials, row
from hpopt.server import Server

SAY_WHY_AFTER = 30.0
"""Seconds after which a waiting `get_next_sample` says what it waits for."""

log = logging.getLogger("hpopt")


class HpOpt:
    """A study, as its operator sees it: ask for samples, launch a trainer for each, read the results.

    Safe to use from several threads; each of them may wait for a sample. A context manager: leaving it closes it.
    """

    def __init__(
        self,
        server: Server,
        keys: StudyKeys,
        session: str,
        created: Created,
        *,
        save_path: Path | None,
        shown_url: str | None,
    ) -> None:
        """Made by `hpopt.create` and `hpopt.join`."""
        self.spec: StudySpec = created.spec
        self.uid = created.uid
        self.save_path = save_path
        self.session = session
        self._server, self._keys, self._shown_url = server, keys, shown_url
        self._lock = threading.Lock()
        self._asked = 0
        self._unanswered: list[int] = []
        self._last_reply: bytes | str = "0"
        self._thread = threading.local()
        self._pid = os.getpid()
        self._closed = False
        self._at_close: list[Callable[[], None]] = []
        server.heart.add(keys.session(session))
        self._mirror = None if save_path is None else Mirror(save_path, lambda: self.spec, self._read, self._seq)
        atexit.register(self.close)

    # --- what it is

    @property
    def url(self) -> str:
        """The server's URL, credentials included: not for printing."""
        return self._server.client.url

    @property
    def namespace(self) -> str:
        """The namespace on the server."""
        return self._keys.namespace

    @property
    def study(self) -> str:
        """The study's name in its namespace."""
        return self._keys.study

    @property
    def num_workers(self) -> int:
        """How many trials may be under way at once, after the initial design."""
        return self.spec.num_workers

    def __repr__(self) -> str:
        return f"HpOpt(study={self._keys.path!r}, server={self._server.client.shown!r})"

    # --- samples

    def get_next_sample(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The config of the next trial; None when every trial of the study has ended.

        Returns at once for the first `num_init_trials`; later it waits while `num_workers` trials are under way. If it
        had to wait for trials that this very thread trained before, those are finalized instead.

        Raises TimeoutError after `timeout` seconds (the same request is repeated by the next call), StudyPaused when
        trials keep failing before their first report, StudyReplaced or UnknownStudy when the study is gone.
        """
        answer = self._ask("next", timeout)
        return self._config(answer) if isinstance(answer, Sample) else None

    def get_next_samples(self) -> list[dict[str, Any]]:
        """The configs of all trials that may begin now: at least one, or [] when every trial of the study has ended."""
        configs = []
        config = self.get_next_sample()
        while config is not None:
            configs.append(config)
            answer = self._ask("now", None)
            config = self._config(answer) if isinstance(answer, Sample) else None
        return configs

    def _ask(self, mode: str, timeout: float | None) -> Sample | Nothing:
        """One request. Its number is used up only when the answer is returned, so a retry gets the same one."""
        self._check_open()
        with self._lock:
            again = bool(self._unanswered)
            n = self._unanswered.pop(0) if again else self._asked
            self._asked = max(self._asked, n + 1)
        try:
            return self._answered(Ask(self.uid, self.session, n, mode, self._left_behind()), timeout, again=again)
        except BaseException:
            with self._lock:
                self._unanswered.append(n)
            raise

    def _answered(self, ask: Ask, timeout: float | None, *, again: bool) -> Sample | Nothing:
        patience = Patience(None, deadline())  # one for the whole request: an outage goes on through its parts
        last = "0" if again else self._last_reply
        inquiry = Inquiry(self._keys.inbox, ask, self._keys.replies(self.session), last, study=self._keys.path)
        answer: Sample | Nothing | Refusal
        while True:
            waited = time.monotonic() - patience.started
            patience.answer = waited + SAY_WHY_AFTER if timeout is None else min(timeout, waited + SAY_WHY_AFTER)
            try:
                answer = self._server.client.ask(inquiry, lambda found: self._mine(found, ask.n), patience)
                break
            except TimeoutError:
                if timeout is not None and patience.answer >= timeout:
                    raise TimeoutError(f"no sample within timeout={timeout:g} s: {self._waits_for()}") from None
                log.warning("hpopt: still waiting for a sample: %s", self._waits_for())
                inquiry.listen_first = True
        self._last_reply = inquiry.last
        if isinstance(answer, Refusal):
            raise _error(answer, self._keys.path)
        return answer

    @staticmethod
    def _mine(found: Any, n: int) -> Any:
        return found if isinstance(found, Sample | Nothing | Refusal) and found.n == n else None

    def _config(self, sample: Sample) -> dict[str, Any]:
        keys = self._keys
        self._handed.append((sample.trial, sample.attempt))
        identity = Identity(keys.namespace, keys.study, self.uid, sample.trial, sample.attempt, self._shown_url)
        return build_config(self.spec, identity, sample)

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

    def _waits_for(self) -> str:
        try:
            pending = [trial for trial in self._read() if trial.state in PENDING]
        except (HpoptError, exceptions.RedisError, OSError) as error:
            return f"the server cannot be asked why ({error})"
        trials = ", ".join(f"{trial.id} ({trial.state.name.lower()})" for trial in pending[:10])
        more = f" and {len(pending) - 10} more" if len(pending) > 10 else ""
        return f"num_workers={self.num_workers}, and under way are the trials {trials or 'none'}{more}"

    # --- results

    def get_best_config(self, wait: bool = False, timeout: float | None = None) -> dict[str, Any] | None:
        """The hyper-parameters of the best trial so far; None as long as no trial has a score.

        With `wait`, first waits until every trial has ended; raises TimeoutError after `timeout` seconds.
        """
        if wait:
            self._ask("end", timeout)
        winner = best(self._read(), self.spec)
        return None if winner is None else winner.params

    def print_results(self) -> None:
        """Print the hyper-parameters and the score of every scored trial."""
        print_table(self._read(), self.spec)

    def get_progress(self) -> float:
        """The share of the study that is done, from 0 to 1."""
        return progress(self._read(), self.spec)

    def trials(self) -> list[TrialRow]:
        """Every trial so far, by id."""
        return [row(trial) for trial in self._read()]

    def _read(self) -> list[Trial]:
        return read_trials(self._server.client, self._keys, self.uid, self.spec)

    def _seq(self) -> object:
        return self._server.client.get("HGET", self._keys.meta, "seq")

    # --- the end

    def on_close(self, action: Callable[[], None]) -> None:
        """Have something done when the session has been closed, last things first."""
        self._at_close.insert(0, action)

    def close(self) -> None:
        """End the session: what it trains itself is given back, open requests are withdrawn, the results are written.

        The study goes on as long as its server does; trials that were launched elsewhere are not touched.
        """
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        atexit.unregister(self.close)
        for contact in open_contacts(self._keys.path, self.uid):
            with contextlib.suppress(HpoptError, TimeoutError):
                contact.say(Release(self.uid, contact.identity.trial, contact.identity.attempt))
        if self._mirror is not None:
            self._mirror.close()
        self._server.heart.remove(self._keys.session(self.session))
        with contextlib.suppress(exceptions.RedisError, OSError):  # its heartbeat's end says the same, later
            event = encode(Close(self.uid, self.session))
            self._server.client.call(("XADD", self._keys.inbox, "NOMKSTREAM", "*", "e", event))
        for action in self._at_close:
            action()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this HpOpt is closed: call hpopt.create(..., resume=True) to go on with the study")
        if os.getpid() != self._pid:
            raise ValueError("this HpOpt belongs to the process that created it: pass configs to others")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("an HpOpt cannot be pickled: pass configs to other processes, or hpopt.join(...) there")


def _error(refusal: Refusal, study: str) -> HpoptError:
    """The exception for a request that was refused."""
    if refusal.code == "paused":
        return StudyPaused(f"{study} is paused: {refusal.message}. Mend the trainer, then go on with resume=True")
    if refusal.code == "replaced":
        return StudyReplaced(f"{study}: {refusal.message}")
    return UnknownStudy(f"{study}: {refusal.message}")
