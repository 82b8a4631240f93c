"""The study: a pure state machine. `handle(event, now)` decides what follows from an event; others do it.

Rules
- All events go through `handle`. It does no I/O, looks at no clock and draws no random numbers.
- A trial's state changes only through `Trials.move`, along the table in trial.py.
- Every event may arrive twice: a repeat changes nothing and is answered as the first time.
- If `handle` raises, that is a bug: the caller drops the study and loads it again from what is committed.
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from hpopt.core.attempts import Attempts, unknown_trial
from hpopt.core.batch_size import BatchSizeBound
from hpopt.core.budget import plan
from hpopt.core.curve import Point
from hpopt.core.effects import Effect, Replied, StudyChanged, StudyReplaced, TrialChanged, Turn
from hpopt.core.handout import HandOut, sample
from hpopt.core.internal import Internal, Lost, Suggested, SuggestFailed, Tick
from hpopt.core.messages import (
    Answer,
    Ask,
    Close,
    Create,
    Created,
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
from hpopt.core.schedule import Schedule
from hpopt.core.spec import DEFAULT_KAPPA, DEFAULTS, GUARDS, RUNGS, StudySpec, inherited, resumed
from hpopt.core.suggest_request import SuggestRequest
from hpopt.core.trial import Trial, TrialState
from hpopt.core.trials import NOBODY, Trials

REMEMBERED = 16
"""So many uids of replaced incarnations, and of creates that joined this one, are still recognised."""
GIVE_UP_AFTER = 3
"""So many failures of the sampler in a row are told to the operators who wait for it."""
REPLACED = "a new study has taken this one's name"


class Study:
    """One study, from its creation to its last trial. Before the creation it has no uid and refuses everything."""

    def __init__(self, takeover_after: float = 75.0) -> None:
        """`takeover_after`: seconds after which the second process of a live attempt is refused."""
        self.takeover_after = takeover_after
        self.uid = ""
        self.past: list[str] = []
        self.joined: list[str] = []
        self.notices: tuple[str, ...] = ()
        self.schedule = Schedule()
        self.attempts: Attempts
        self.desk: HandOut

    @property
    def spec(self) -> StudySpec:
        """The arguments, resolved."""
        return self.attempts.spec

    @property
    def trials(self) -> Trials:
        """All trials so far."""
        return self.attempts.trials

    # --- what the coordinator calls

    def handle(self, event: Event | Internal, now: float) -> list[Effect]:
        """All events go through here. `now`: server time in seconds."""
        turn = Turn(now)
        if isinstance(event, Create):
            self._create(event, turn)
        elif self.uid and getattr(event, "uid", self.uid) == self.uid:
            self._HANDLERS[type(event)](self, event, turn)
        else:
            self._refuse(event, turn)
        if self.uid:
            self._serve(turn)
        return turn.effects

    def wanted(self) -> SuggestRequest | None:
        """The suggestions to be made now, if any."""
        return None if not self.uid or self.attempts.paused else self.desk.wanted()

    def watched(self) -> tuple[list[tuple[int, int, str]], set[str]]:
        """Whose heartbeats matter: lives (trial, attempt, life) and operator sessions."""
        if not self.uid:
            return [], set()
        pending = self.trials.pending_trials()
        lives = [(t.id, t.attempt, t.life) for t in pending if t.state is TrialState.RUNNING]
        return lives, ({t.session for t in pending} | {session for session, _ in self.desk.requests}) - {NOBODY}

    def to_wire(self) -> dict[str, Any]:
        """The study's own state as plain values; its trials are stored one by one."""
        asks = [[ask.session, ask.n, ask.mode] for ask in self.desk.requests.values()]
        bound = self.attempts.resizing.bound
        return {
            "past": self.past,
            "joined": self.joined,
            "spec": self.spec.to_wire(),
            "notices": list(self.notices),
            "requests": asks,
            "paused": self.attempts.paused,
            "failures": self.attempts.failures,
            "bound": [bound.fits, bound.fails],
            "schedule": self.schedule.to_wire(),
        }

    def restore(self, uid: str, wire: dict[str, Any]) -> None:
        """Become the study that was committed. What it knows of its trials is to be taken in next."""
        self._begin(uid, StudySpec.from_wire(wire["spec"]))
        self.past, self.joined, self.notices = list(wire["past"]), list(wire["joined"]), tuple(wire["notices"])
        self.schedule = Schedule.from_wire(wire.get("schedule"))
        self.attempts.paused, self.attempts.failures = wire["paused"], wire["failures"]
        self.attempts.room_since = None
        self.attempts.resizing.bound = BatchSizeBound(*wire["bound"])
        for session, n, mode in wire["requests"]:
            self.desk.requests[session, n] = Ask(uid, session, n, mode)

    def take_in(self, trials: Iterable[tuple[Trial, Iterable[Point]]]) -> None:
        """The committed trials that come next by id, each with its curve."""
        for trial, points in trials:
            self.attempts.restore(trial, points)

    # --- the life of the study itself

    def _begin(self, uid: str, spec: StudySpec) -> None:
        if self.uid:
            self.past = [*self.past, self.uid][-REMEMBERED:]
        self.uid, self.joined = uid, []
        self.attempts = Attempts(uid, spec, self.takeover_after)
        self.desk = HandOut(spec, self.trials, self.attempts.resizing)

    def _create(self, event: Create, turn: Turn) -> None:
        if event.uid in (self.uid, *self.joined):
            self._created(event, turn)
        elif event.uid in self.past:
            turn.add(Replied(event.session, Refusal(-1, "replaced", REPLACED)))
        elif self.uid and event.resume:
            self._join(event, turn)
        elif self.uid and not (self.desk.done or event.overwrite or event.private):
            message = f"it is not finished: {self.trials.ended} of {self.spec.trials} trials have ended"
            turn.add(Replied(event.session, Refusal(-1, "exists", message)))
        else:
            self._replace(event, turn)

    def _replace(self, event: Create, turn: Turn) -> None:
        spec, notices = _planned(event.spec)
        if spec.seed is None:
            spec = dataclasses.replace(spec, seed=zlib.crc32(event.uid.encode()))
        lost = self._lost_by_replacing()
        if self.uid:
            for ask in self.desk.requests.values():
                turn.add(Replied(ask.session, Refusal(ask.n, "replaced", REPLACED)))
            turn.add(StudyReplaced(self.uid, len(self.trials)))
        self._begin(event.uid, spec)
        self.notices = tuple(notices)
        self.schedule = Schedule.of(event.spec)
        turn.note("study created", detail=f"{spec.search_alg}, {spec.trials} trials of {spec.iterations} iterations")
        self._created(event, turn, *lost)

    def _lost_by_replacing(self) -> list[str]:
        """What the user should know who has a study replaced that has results."""
        if not self.uid or not self.trials.ended:
            return []
        went_on = "resume=True would have gone on with it"
        return [f"this replaces a study of the same name, with {self.trials.ended} ended trials: {went_on}"]

    def _join(self, event: Create, turn: Turn) -> None:
        try:
            spec = resumed(self.spec, _planned(inherited(self.spec, event.spec))[0])
        except ValueError as error:
            turn.add(Replied(event.session, Refusal(-1, "spec", str(error))))
            return
        self.joined = [*self.joined, event.uid][-REMEMBERED:]
        self.desk.change(spec)
        self.attempts.spec = spec
        self.schedule = self.schedule.joined(event.spec)
        self.attempts.paused, self.attempts.failures = "", 0
        turn.note("study resumed", detail=f"{len(self.trials)} of {spec.trials} trials exist")
        self._created(event, turn)

    def _created(self, event: Create, turn: Turn, *notices: str) -> None:
        turn.add(StudyChanged())
        notices = (*notices, *self.notices)
        turn.add(Replied(event.session, Created(self.uid, self.spec, notices, self.schedule.to_wire())))

    def _refuse(self, event: Event | Internal, turn: Turn) -> None:
        """An event for a study that is not there, or not any more."""
        replaced = bool(self.uid)
        reason = REPLACED if replaced else "there is no such study"
        if isinstance(event, Ask):
            turn.add(Replied(event.session, Refusal(event.n, "replaced" if replaced else "unknown", reason)))
        elif isinstance(event, Start | Report | OutOfMemory | Finalize | Release | Query):
            turn.add(unknown_trial(event, reason))

    # --- operators

    def _ask(self, event: Ask, turn: Turn) -> None:
        self.desk.seen(event.session)
        trial = self.trials.handed(event.session, event.n)
        key = (event.session, event.n)
        if trial is not None:
            turn.add(Replied(event.session, sample(event.n, trial)))
            return
        if key not in self.desk.requests:
            self.desk.requests[key] = dataclasses.replace(event, yields=())
            turn.add(StudyChanged())
            self._serve(turn)
        for left_behind in event.yields:  # of a repeated request too: its thread may have trained in between
            if key in self.desk.requests and (self.desk.full or event.mode == "end"):
                self._yield(*left_behind, event.session, turn)

    def _yield(self, trial_id: int, attempt: int, life: str, session: str, turn: Turn) -> None:
        """A request would have to wait for a trial that the asking thread has left behind: end it."""
        trial = self.trials.get(trial_id)
        if trial is None or (trial.attempt, trial.life) != (attempt, life) or trial.id not in self.trials.pending:
            return
        if life or trial.session == session:  # one that was never begun may be another's by now
            self.attempts.finish(trial, "its training returned before the last iteration", turn)
            self._serve(turn)

    def _serve(self, turn: Turn) -> None:
        """Answer every open request that can be answered, in the order they came."""
        for trial in self.desk.write_off(turn.now):
            turn.add(TrialChanged(trial))
            turn.note("trial failed", trial, trial.reason)
        if not self.desk.done and self.schedule.due(self.spec, self.trials.ended):
            self._check_schedule(turn)
        for key, ask in list(self.desk.requests.items()):
            answer = self._answer(ask, turn)
            if answer is not None:
                del self.desk.requests[key]
                turn.add(StudyChanged())
                turn.add(Replied(ask.session, answer))

    def _check_schedule(self, turn: Turn) -> None:
        """See how long trials take, and whether that asks for another num_trials. A study that is done stays done."""
        spec, self.schedule = self.schedule.check(self.spec, self.trials, turn.now)
        turn.add(StudyChanged())
        if spec != self.spec:
            self.attempts.spec = self.desk.spec = spec
            turn.note("num_trials corrected", detail=str(self.schedule.corrections[-1]))

    def _answer(self, ask: Ask, turn: Turn) -> Answer | None:
        if self.attempts.paused and not self.desk.done:
            return Refusal(ask.n, "paused", self.attempts.paused)
        trial = self.desk.take(ask, turn.now)
        if trial is None:
            return self.desk.nothing(ask)
        turn.add(TrialChanged(trial))
        turn.note("trial handed out", trial, f"attempt {trial.attempt}")
        return sample(ask.n, trial)

    def _close(self, event: Close, turn: Turn) -> None:
        if self.desk.close(event.session):
            turn.add(StudyChanged())

    def _withdraw(self, event: Withdraw, turn: Turn) -> None:
        for n in event.requests:
            if self.desk.requests.pop((event.session, n), None) is not None:
                turn.add(StudyChanged())
            trial = self.trials.handed(event.session, n)
            if trial is not None and trial.state is TrialState.ISSUED and not event.keep:
                self.trials.unbind(trial)
                turn.add(TrialChanged(trial))
                turn.note("trial given back", trial, "nobody came for it")

    # --- trainers

    def _out_of_memory(self, event: OutOfMemory, turn: Turn) -> None:
        self.attempts.out_of_memory(event, turn)
        self.desk.prune()

    # --- the coordinator itself

    def _tick(self, event: Tick, turn: Turn) -> None:
        self.desk.gone = event.gone
        if self.desk.withdraw():
            turn.add(StudyChanged())
        self.attempts.pass_time(event.silent, self.desk.absent, turn)

    def _lost(self, event: Lost, turn: Turn) -> None:
        trial = self.trials.get(event.trial)
        if trial is None or trial.state is not TrialState.RUNNING:
            return
        if (trial.attempt, trial.life) == (event.attempt, event.life):
            self.attempts.lost(trial, turn, orphaned=trial.session in self.desk.absent)

    def _suggested(self, event: Suggested, _turn: Turn) -> None:
        self.desk.prepare(event)

    def _suggest_failed(self, event: SuggestFailed, turn: Turn) -> None:
        turn.note("suggestion failed", detail=event.reason)
        self.desk.failures += 1
        if self.desk.failures < GIVE_UP_AFTER:
            return
        for key, ask in list(self.desk.requests.items()):
            if ask.mode != "end":
                del self.desk.requests[key]
                turn.add(
                    Replied(ask.session, Refusal(ask.n, "stuck", f"no suggestion could be made: {event.reason[:1000]}"))
                )
                turn.add(StudyChanged())

    _HANDLERS: ClassVar[dict[type, Callable[[Any, Any, Turn], None]]] = {
        Ask: _ask,
        Close: _close,
        Withdraw: _withdraw,
        Start: lambda self, event, turn: self.attempts.start(event, turn),
        Report: lambda self, event, turn: self.attempts.report(event, turn),
        OutOfMemory: _out_of_memory,
        Finalize: lambda self, event, turn: self.attempts.finalize(event, turn),
        Release: lambda self, event, turn: self.attempts.release(event, turn),
        Query: lambda self, event, turn: self.attempts.query(event, turn),
        Tick: _tick,
        Lost: _lost,
        Suggested: _suggested,
        SuggestFailed: _suggest_failed,
    }


def _planned(spec: StudySpec) -> tuple[StudySpec, list[str]]:
    """The spec with everything resolved and what does not apply left out, and what the user should know of it."""
    notices = []
    if spec.search_alg == "asha" and spec.early_stop is not None:
        notices.append(f"early_stop={spec.early_stop!r} is ignored: asha has a rule of its own")
        spec = dataclasses.replace(spec, early_stop=None)
    if spec.search_alg == "asha" and (spec.kappa, spec.kappa_decay, spec.kappa_decay_delay) != DEFAULT_KAPPA:
        notices.append("kappa, kappa_decay and kappa_decay_delay are ignored: asha draws a kappa for each suggestion")
    spec, more = _each_once(spec)
    notices += more
    if spec.early_stop is None:
        notices += _for_others(spec, GUARDS, "search_alg='bayes_opt' with early_stop='median_stop'")
    if spec.search_alg == "asha":
        notices += _for_others(spec, ("num_init_trials",), "search_alg='bayes_opt'")
    else:
        notices += _for_others(spec, RUNGS, "search_alg='asha'")
    planned, more = plan(spec)
    given = len(planned.default_hyper_parameters)
    if given > planned.trials:
        notices.append(f"default_hyper_parameters: {planned.trials} of {given} are tried, as num_trials says")
    return planned, [*notices, *more]


def _for_others(spec: StudySpec, names: tuple[str, ...], where: str) -> list[str]:
    """A notice for each of these arguments that was given, though it means something elsewhere only."""
    given = [name for name in names if getattr(spec, name) != DEFAULTS[name]]
    return [f"{name}={getattr(spec, name)!r} is ignored: it is for {where}" for name in given]


def _each_once(spec: StudySpec) -> tuple[StudySpec, list[str]]:
    """The spec with each of the user's configurations once, and what the user should know of it."""
    first: dict[Any, dict[str, Any]] = {}
    for params in spec.default_hyper_parameters:
        first.setdefault(spec.search_space.key(params), params)
    again = len(spec.default_hyper_parameters) - len(first)
    notice = f"default_hyper_parameters: each is tried once; {again} repeated another"
    return dataclasses.replace(spec, default_hyper_parameters=tuple(first.values())), [notice] if again else []
