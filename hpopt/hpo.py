"""HpOpt: an operator's session with one study."""

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, SupportsFloat, TypeVar

from hpopt.client import FAILED
from hpopt.config import Identity, build_config
from hpopt.contact import Contact
from hpopt.contacts import open_contacts
from hpopt.core import handout
from hpopt.core.keys import StudyKeys
from hpopt.core.messages import Created, Sample
from hpopt.core.plan import Plan
from hpopt.core.schedule import Schedule
from hpopt.core.spec import StudySpec
from hpopt.core.trial import PENDING, Trial, TrialState
from hpopt.curves import read_tails
from hpopt.errors import HpoptError
from hpopt.mirror import Mirror
from hpopt.outage import DEADLINE, Patience, deadline
from hpopt.results import TrialRow, best, print_table, progress, read_created, read_paused, read_trials, row
from hpopt.server import Server
from hpopt.session import CLOSED, Session
from hpopt.trainer import release

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hpopt.plot import Kind, StudyRecord

T = TypeVar("T")
log = logging.getLogger("hpopt")

CLOSE_WITHIN = 10.0
"""Seconds in all for which `close` waits for a server, or a thread, that does not answer."""


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
        self._schedule = Schedule.from_wire(created.schedule)
        self.save_path = save_path
        self._server, self._keys, self._shown_url = server, keys, shown_url
        self._session = Session(server, keys, created.uid, session, self._waits_for)
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._closed = False
        self._handed: set[tuple[int, int]] = set()
        """The attempts (trial, attempt) that this session has given the configs of."""
        self._at_close: list[Callable[[], None]] = []
        self._mirror = None
        if save_path is not None:
            self._mirror = Mirror(save_path, self._known, self._read, self._tails, self._seq)
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
    def session(self) -> str:
        """The name of this session."""
        return self._session.name

    @property
    def num_workers(self) -> int:
        """How many trials may be under way at once, after the initial design."""
        return self.spec.num_workers

    @property
    def plan(self) -> Plan:
        """What the study is going to do, what of it was derived and why, and what it should cost: `print(hpo.plan)`.

        It is as of now: a num_trials that was derived is corrected when trials turn out to be longer or shorter.
        """
        if not self._closed:
            self._outlast(self._follow)
        return self._known()[1]

    @property
    def paused(self) -> str:
        """Why the study is paused: trials failed before their first report, one after the other. "" if it is not."""
        self._check_open()
        return self._outlast(lambda: read_paused(self._server.client, self._keys))

    def __repr__(self) -> str:
        return f"HpOpt(study={self._keys.path!r}, server={self._server.client.shown!r})"

    # --- samples

    def get_next_sample(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The config of the next trial; None when every trial of the study has ended.

        Returns at once for the first `num_init_trials`; later it waits while `num_workers` trials are under way. If it
        had to wait for trials that this very thread trained before, those are finalized instead.

        Raises TimeoutError after `timeout` seconds (the next call repeats the same request; if none comes for a while,
        or `get_best_config` waits, what it would be given is for others), StudyPaused when trials keep failing before
        their first report, StudyReplaced or UnknownStudy when the study is gone, StudyError when the sampler fails time
        and again.
        """
        self._check_open()
        answer = self._session.next(_seconds(timeout))
        return self._config(answer) if isinstance(answer, Sample) else None

    def get_next_samples(self) -> list[dict[str, Any]]:
        """The configs of all trials that may begin now: at least one, or [] when every trial of the study has ended."""
        self._check_open()
        samples: list[Sample] = []
        try:
            answer = self._session.next(None)
            while isinstance(answer, Sample):
                samples.append(answer)
                answer = self._session.ask("now")
        except BaseException:
            self._session.repeat("now", *(sample.n for sample in samples))
            raise
        return [self._config(sample) for sample in samples]

    def get_open_samples(self, started: bool | None = None) -> list[dict[str, Any]]:
        """The configs of the trials under way that this operator was handed, by id, as `get_next_sample` returned them.

        Those of this session, and of all sessions with the same `operator` name: also what was handed to an operator
        that was killed before it could launch it. With `started`, only those whose trainer has (True) or has not
        (False) made contact.
        """
        found = [
            trial
            for trial in self._trials()
            if trial.state in PENDING
            and started in {None, trial.state is TrialState.RUNNING}
            and self._session.same_operator(trial.session)
        ]
        self._session.see(trial.request for trial in found if trial.session == self.session)
        return [self._config(handout.sample(trial.request, trial)) for trial in found]

    def _config(self, sample: Sample) -> dict[str, Any]:
        keys = self._keys
        self._handed.add((sample.trial, sample.attempt))
        identity = Identity(keys.namespace, keys.study, self.uid, sample.trial, sample.attempt, self._shown_url)
        return build_config(self.spec, identity, sample)

    def _waits_for(self) -> str:
        try:
            pending = [trial for trial in self._read() if trial.state in PENDING]
        except (HpoptError, *FAILED) as error:
            return f"the server cannot be asked why ({error})"
        trials = ", ".join(f"{trial.id} ({trial.state.name.lower()})" for trial in pending[:10])
        more = f" and {len(pending) - 10} more" if len(pending) > 10 else ""
        return f"num_workers={self.num_workers}, and under way are the trials {trials or 'none'}{more}"

    # --- results

    def get_best_config(self, wait: bool = False, timeout: float | None = None) -> dict[str, Any] | None:
        """The hyper-parameters of the best trial so far; None as long as no trial has a score.

        With `wait`, first waits until every trial has ended, or until nothing is under way and nobody asks for a
        sample: then nothing more is to come. Raises TimeoutError after `timeout` seconds.
        """
        if wait:
            self._check_open()
            self._session.ask("end", _seconds(timeout))
        winner = best(self._trials(), self.spec)
        return None if winner is None else winner.params

    def print_results(self) -> None:
        """Print the hyper-parameters and the score of every scored trial."""
        print_table(self._trials(), self.spec)

    def get_progress(self) -> float:
        """The share of the study that is done, from 0 to 1."""
        return progress(self._trials(), self.spec)

    def trials(self) -> list[TrialRow]:
        """Every trial so far, by id."""
        return [row(trial) for trial in self._trials()]

    def plot(self, kind: "Kind" = "curves", path: str | os.PathLike[str] | None = None) -> "Figure":
        """A picture of the study so far, as a figure of matplotlib; also written to `path`, if it is given.

        Args:
            kind: "curves", the learning curves and where trials were stopped; "progress", the scores over time and
                over trials; "parameters", the scores over each hyper-parameter.
            path: A file whose name ends in .png, .svg or .pdf.

        Raises ValueError when there is nothing to draw yet or `kind` or `path` is not what it may be, MissingExtra
        without matplotlib.
        """
        from hpopt.plot import draw

        return draw(self.record(), kind, path)

    def record(self) -> "StudyRecord":
        """The study so far, with all its trials and their curves: what `hpopt.plot.draw` makes pictures from."""
        from hpopt.plot.record import read_record

        self._check_open()
        return self._outlast(lambda: read_record(self._server.client, self._keys, self.uid, self.spec))

    def _trials(self) -> list[Trial]:
        """Every trial as committed; an outage is waited out."""
        self._check_open()
        return self._outlast(self._read)

    def _outlast(self, read: Callable[[], T]) -> T:
        return self._server.client.outlast(read, Patience(None, deadline(), DEADLINE))

    def _known(self) -> tuple[StudySpec, Plan]:
        return self.spec, Plan.of(self.spec, self._schedule)

    def _follow(self) -> None:
        """Take in what became of the spec since it was read last."""
        stored = read_created(self._server.client, self._keys)
        if stored is not None and stored.uid == self.uid:
            self.spec, self._schedule = stored.spec, Schedule.from_wire(stored.schedule)

    def _read(self) -> list[Trial]:
        self._follow()
        return read_trials(self._server.client, self._keys, self.uid, self.spec)

    def _tails(self, begins: Mapping[int, int]) -> dict[int, bytes]:
        return read_tails(self._server.client, self._keys, self.uid, begins)

    def _seq(self) -> object:
        return self._server.client.get("HGET", self._keys.meta, "seq")

    # --- the end

    def on_close(self, action: Callable[[], None]) -> None:
        """Have something done when the session has been closed, last things first."""
        self._at_close.insert(0, action)

    def close(self) -> None:
        """End the session: what it trains itself is given back, open requests are withdrawn, the results are written.

        The study goes on as long as its server does; trials that were launched elsewhere, or are of another session in
        this process, are not touched. Whoever waits for a sample gets a ValueError.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        atexit.unregister(self.close)
        self._session.end()
        until = time.monotonic() + CLOSE_WITHIN
        answers = self._server_answers()
        mine = open_contacts(self._keys.path, self.uid)
        self._release((each for each in mine if (each.identity.trial, each.identity.attempt) in self._handed), answers)
        if self._mirror is not None:
            self._mirror.close(max(0.0, until - time.monotonic()))
        self._session.close(tell=answers)
        for action in self._at_close:
            action()

    def _server_answers(self) -> bool:
        try:
            self._server.client.call(("PING",))
        except FAILED:
            return False
        return True

    def _release(self, contacts: Iterable[Contact], answers: bool) -> None:
        """Give attempts back in half of the time; the silence of those that cannot be will say it."""
        until = time.monotonic() + CLOSE_WITHIN / 2
        for contact in contacts:
            try:
                if answers:
                    release(contact, max(0.0, until - time.monotonic()))
            except HpoptError as error:
                log.debug("hpopt: trial %d is not given back: %s", contact.identity.trial, error)
            if not contact.stopped:
                contact.fall_silent(tell=False)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(CLOSED)
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


def _seconds(timeout: Any) -> float | None:
    """A timeout that can be waited for. Raises TypeError or ValueError."""
    remedy = f"timeout={timeout!r}: pass seconds, 0 or more, or None"
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, SupportsFloat):
        raise TypeError(remedy)
    try:
        seconds = float(timeout)
    except OverflowError:
        raise ValueError(remedy) from None
    if not seconds >= 0:
        raise ValueError(remedy)
    return seconds
