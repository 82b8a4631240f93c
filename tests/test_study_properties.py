import os
from collections import defaultdict
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hpopt.core.curve import Point, unpack
from hpopt.core.effects import Effect, PointAdded, Replied, StudyReplaced, TrialChanged, VerdictGiven
from hpopt.core.incumbent import COMPARED, incumbent
from hpopt.core.internal import Internal, Lost, Suggested, SuggestFailed, Tick
from hpopt.core.messages import (
    Ask,
    Close,
    Create,
    Created,
    Event,
    Finalize,
    Nothing,
    OutOfMemory,
    Query,
    Refusal,
    Release,
    Report,
    Sample,
    Start,
    Verdict,
    Withdraw,
)
from hpopt.core.rungs import rung_levels
from hpopt.core.space import SearchSpace, Space
from hpopt.core.trial import ENDED, PENDING, REISSUABLE, TrialState
from hpopt.status import Status
from tests.committed import snapshot
from tests.simulation import SPACE, Simulation, heard

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
FINITE = Space({"bs": SearchSpace("choice", [64, 8, 16, 32]), "act": SearchSpace("choice", ["relu", "tanh"])})
SESSIONS = ("A", "B")
LIVES = ("a", "b", "c")

specs = st.fixed_dictionaries(
    {
        "search_alg": st.sampled_from(["bayes_opt", "asha"]),
        "early_stop": st.sampled_from([None, "median_stop"]),
        "mode": st.sampled_from(["max", "min"]),
        "search_space": st.sampled_from([SPACE, FINITE]),
        "batch_size_name": st.sampled_from([None, "bs", "bs"]),
        "num_trials": st.integers(1, 6),
        "num_init_trials": st.integers(1, 3),
        "num_workers": st.integers(1, 3),
        "max_iterations": st.integers(1, 5),
        "num_brackets": st.sampled_from([None, 2]),
        "launch_timeout": st.sampled_from([None, 30.0]),
    }
)
scores = st.sampled_from([None, 0.0, 0.5, 1.0, -1.0]) | st.floats(-10, 10)
picks = st.integers(0, 999)
deliveries = st.sampled_from(["once"] * 6 + ["twice", "after a crash", "before a crash"])
"""How an event reaches the study: twice; after a crash that lost what had been decided; or before a crash."""


class StudyMachine(RuleBasedStateMachine):
    """Two operators, three processes per attempt, and a coordinator that dies: everything may happen at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.sim = Simulation(prompt=False, takeover_after=20.0)
        self.samples: list[tuple[str, Sample]] = []
        self.holders: dict[tuple[str, int, int], tuple[str, int, Sample]] = {}
        self.withdrawn: set[tuple[str, str, int]] = set()
        self.asked: list[Ask] = []
        self.gone: set[str] = set()
        self.closed: set[str] = set()
        self.accepted: dict[int, list[Point]] = defaultdict(list)
        self.params: dict[int, dict[str, Any]] = {}
        self.stops: dict[tuple[str, int, int, str], int] = {}
        self.late: Suggested | None = None

    # --- sending, and watching what follows

    def tell(self, event: Event, delivery: str = "once") -> None:
        """Send an event from outside; if a second time, nothing may change."""
        if delivery == "after a crash":
            self.sim.study.handle(event, self.sim.now)
            self.sim.crash()
        self.watch(event, self.sim.send(event))
        if delivery == "before a crash":
            self.sim.crash()
        if delivery == "twice":
            before = snapshot(self.sim.study)
            self.watch(event, self.sim.send(event))
            assert snapshot(self.sim.study) == before, "a repeat changed the study"

    def watch(self, event: Event | Internal, effects: list[Effect]) -> None:
        """Keep books of our own of what the outside world saw."""
        if any(isinstance(effect, StudyReplaced) for effect in effects):
            self.accepted.clear()
            self.params.clear()
        for effect in effects:
            match effect:
                case PointAdded():
                    self.accepted[effect.trial].append(effect.point)
                case TrialChanged(trial) if isinstance(event, OutOfMemory) and trial.state is TrialState.FAILED:
                    self.accepted[trial.id].clear()
                case Replied(session, Sample() as sample):
                    self._handed(session, sample)
                case VerdictGiven():
                    self._never_running_after_stop(effect.uid, effect.trial, effect.verdict)
        for trial in self.sim.study.trials if self.sim.study.uid else ():
            if self.params.setdefault(trial.id, trial.params) != trial.params:
                self.params[trial.id] = trial.params
                self.accepted[trial.id].clear()
        if isinstance(event, Report):
            self._answered(event)

    def _handed(self, session: str, sample: Sample) -> None:
        key = (self.sim.study.uid, sample.trial, sample.attempt)
        before = self.holders.setdefault(key, (session, sample.n, sample))
        if before[:2] != (session, sample.n):
            given_up = (self.sim.study.uid, *before[:2]) in self.withdrawn
            assert given_up or before[0] in self.gone | self.closed, "handed to a second one while the first was there"
            assert (before[2].params, before[2].bracket) == (sample.params, sample.bracket)
            self.holders[key] = (session, sample.n, sample)
        if (key[0], sample) not in self.samples:
            self.samples.append((key[0], sample))

    def _never_running_after_stop(self, uid: str, trial: int, verdict: Verdict) -> None:
        for (its_uid, its_trial, attempt, life), step in self.stops.items():
            if (its_uid, its_trial) == (uid, trial):
                for later in (step, verdict.last_step, verdict.last_step + 1):
                    assert later < step or heard(verdict, attempt, life, later) is not Status.RUNNING

    def _answered(self, event: Report) -> None:
        verdict = self.sim.committed.verdict(event.uid, event.trial)
        status = heard(verdict, event.attempt, event.life, event.step)
        assert status is not None, "a report without an answer"
        key = (event.uid, event.trial, event.attempt, event.life)
        if status is Status.STOP:
            self.stops[key] = min(event.step, self.stops.get(key, event.step))
        elif event.step > 0:
            points = unpack(bytes(self.sim.committed.curves[event.trial]))
            last = max(point.step for point in points if point.attempt == event.attempt)
            assert last >= min(event.step, self.sim.study.spec.iterations), "acknowledged, but not committed"

    def here(self, session: str) -> None:
        """The session speaks, so it is there."""
        self.gone.discard(session)
        self.closed.discard(session)

    def send_ask(self, session: str, mode: str, yields: tuple[tuple[int, int, str], ...], delivery: str) -> None:
        """The session's next request."""
        self.here(session)
        n = self.sim.requests[session] = self.sim.requests.get(session, -1) + 1
        self.asked.append(Ask(self.sim.study.uid, session, n, mode, yields))
        self.tell(self.asked[-1], delivery)

    def pick(self, number: int) -> tuple[str, int, int]:
        """The uid, trial and attempt of something that was handed out: mostly the newest."""
        uid, sample = self.samples[-1 - min(number % 7, number % 3 + number % 5) % len(self.samples)]
        return uid, sample.trial, sample.attempt

    # --- what may happen

    @initialize(spec=specs)
    def create(self, spec: dict[str, Any]) -> None:
        """An operator creates the study."""
        self.tell(Create("u0", "A", self.sim.spec(**spec)))
        assert isinstance(self.sim.answer("A", -1), Created)

    @rule(session=st.sampled_from(SESSIONS), mode=st.sampled_from(["next", "next", "now", "end"]), delivery=deliveries)
    def ask(self, session: str, mode: str, delivery: str) -> None:
        """An operator wants a sample."""
        self.send_ask(session, mode, (), delivery)

    @precondition(lambda self: self.samples)
    @rule(session=st.sampled_from(SESSIONS), numbers=st.lists(picks, min_size=1, max_size=3), delivery=deliveries)
    def ask_and_leave_behind(self, session: str, numbers: list[int], delivery: str) -> None:
        """A thread wants its next sample without having ended its last trials."""
        left_behind = []
        for uid, trial, attempt in map(self.pick, numbers):
            found = self.sim.study.trials.get(trial)
            life = found.life if found is not None and uid == self.sim.study.uid else "a"
            left_behind.append((trial, attempt, life))
        self.send_ask(session, "next", tuple(left_behind), delivery)

    @precondition(lambda self: self.asked)
    @rule(number=picks)
    def ask_again(self, number: int) -> None:
        """A request comes once more, late: who holds the trial is told so again, and nothing changes."""
        ask = self.asked[number % len(self.asked)]
        holds = {(session, n): sample for session, n, sample in self.holders.values()}
        trial = self.sim.study.trials.handed(ask.session, ask.n)
        if trial is None or trial.state in REISSUABLE or ask.uid != self.sim.study.uid:
            return
        before = snapshot(self.sim.study)
        self.here(ask.session)
        self.tell(ask)
        assert self.sim.answer(ask.session, ask.n) == holds[ask.session, ask.n]
        assert snapshot(self.sim.study) == before

    @precondition(lambda self: self.samples)
    @rule(number=picks, life=st.sampled_from(LIVES), restart=st.sampled_from([-1, -1, 0, 1]), delivery=deliveries)
    def start(self, number: int, life: str, restart: int, delivery: str) -> None:
        """A process begins to train."""
        self.tell(Start(*self.pick(number), life, restart), delivery)

    @precondition(lambda self: self.samples)
    @rule(number=picks, life=st.sampled_from("aaab"), ahead=st.sampled_from([1, 1, 1, 1, 2, 9, 0, -1]),
          score=scores, delivery=deliveries)  # fmt: skip
    def report(self, number: int, life: str, ahead: int, score: float | None, delivery: str) -> None:
        """A process reports the next step, or an earlier one, or leaves some out."""
        uid, trial, attempt = self.pick(number)
        found = self.sim.study.trials.get(trial)
        step = max(1, (found.last_step if found is not None else 0) + ahead)
        self.tell(Report(uid, trial, attempt, life, step, score), delivery)

    @precondition(lambda self: self.samples)
    @rule(number=picks, kind=st.sampled_from([OutOfMemory, Finalize, Release, Query, "crash"]), delivery=deliveries)
    def end(self, number: int, kind: Any, delivery: str) -> None:
        """A process says how its attempt ended, or asks."""
        attempt = self.pick(number)
        self.tell(Finalize(*attempt, crashed=True) if kind == "crash" else kind(*attempt), delivery)

    @precondition(lambda self: self.sim.study.watched()[0])
    @rule(number=picks)
    def lose(self, number: int) -> None:
        """A process has been silent for the whole grace period."""
        lives = self.sim.study.watched()[0]
        event = Lost(*lives[number % len(lives)])
        self.watch(event, self.sim.send(event))

    @rule(seconds=st.sampled_from([0.0, 5.0, 25.0]), silent=st.booleans(), gone=st.sets(st.sampled_from(SESSIONS)))
    def tick(self, seconds: float, silent: bool, gone: set[str]) -> None:
        """Time passes, while some are not heard of."""
        lives, sessions = self.sim.study.watched()
        self.gone = gone & sessions
        self.sim.now += seconds
        event = Tick(frozenset(lives if silent else ()), frozenset(self.gone))
        self.watch(event, self.sim.send(event))

    @rule(session=st.sampled_from(SESSIONS), delivery=deliveries)
    def close(self, session: str, delivery: str) -> None:
        """An operator ends."""
        self.closed.add(session)
        self.tell(Close(self.sim.study.uid, session), delivery)

    @rule(session=st.sampled_from(SESSIONS), number=picks, keep=st.booleans())
    def withdraw(self, session: str, number: int, keep: bool) -> None:
        """Nobody is going to come for the answer to one of the operator's requests."""
        requests = (number % (self.sim.requests.get(session, 0) + 1),)
        event = Withdraw(self.sim.study.uid, session, requests, keep)
        if not keep:
            self.withdrawn.add((event.uid, session, *requests))
        self.watch(event, self.sim.send(event))

    @rule()
    def crash(self) -> None:
        """The coordinator dies."""
        self.sim.crash()

    @rule()
    def suggest(self) -> None:
        """The sampler answers; at all other times its answers are lost, or late."""
        self.deliver()

    @rule()
    def suggest_slowly(self) -> None:
        """The sampler is asked, and its answer comes later."""
        request = self.sim.study.wanted()
        if request is not None:
            params = tuple(self.sim.sampler(request))
            self.late = Suggested(
                self.sim.study.uid, request.basis, request.ordinal, params, len(params) < request.count
            )

    @precondition(lambda self: self.late is not None)
    @rule()
    def suggestions_come_late(self) -> None:
        """What the sampler did not know of must not matter."""
        if self.late is not None:
            event, self.late = self.late, None
            self.watch(event, self.sim.send(event))

    @rule()
    def suggest_fails(self) -> None:
        """The sampler fails."""
        event = SuggestFailed(self.sim.study.uid, "no luck")
        self.watch(event, self.sim.send(event))

    @rule(more=st.sampled_from([None, 0, 1]), delivery=deliveries)
    def resume(self, more: int | None, delivery: str) -> None:
        """An operator resumes the study, perhaps with more trials."""
        spec = self.sim.study.spec
        trials = None if more is None else spec.trials + more
        wanted = self.sim.spec(**{name: getattr(spec, name) for name in spec.to_wire()} | {"num_trials": trials})
        self.sim._uids += 1
        self.tell(Create(f"r{self.sim._uids}", "B", wanted, resume=True), delivery)
        assert isinstance(self.sim.answer("B", -1), Created)

    @precondition(lambda self: len(self.sim.study.past) < 1)
    @rule(spec=specs, overwrite=st.booleans(), delivery=deliveries)
    def replace(self, spec: dict[str, Any], overwrite: bool, delivery: str) -> None:
        """An operator starts anew."""
        free = overwrite or self.sim.study.desk.done
        self.tell(Create("u1", "B", self.sim.spec(**spec), overwrite=overwrite), delivery)
        assert (self.sim.study.uid == "u1") == free

    # --- what always holds

    @invariant()
    def nothing_is_lost(self) -> None:
        """Dropping the study and loading it from what is committed changes nothing."""
        assert snapshot(self.sim.committed.restore(20.0)) == snapshot(self.sim.study)

    @precondition(lambda self: self.sim.study.uid)
    @invariant()
    def trials_are_exact(self) -> None:
        """Never more trials than asked for, numbered without a gap, each with a configuration of the space."""
        trials, spec = self.sim.study.trials, self.sim.study.spec
        assert len(trials) <= spec.trials
        assert [trial.id for trial in trials] == list(range(len(trials)))
        for trial in trials:
            spec.search_space.check(trial.params)
        assert trials.pending == {trial.id for trial in trials if trial.state in PENDING}
        assert trials.ended == sum(trial.state in ENDED for trial in trials)
        if spec.search_space.size is not None:
            assert len({spec.search_space.key(trial.params) for trial in trials}) == len(trials), "tried twice"

    @precondition(lambda self: self.sim.study.uid)
    @invariant()
    def incumbent_is_the_best(self) -> None:
        """Of those who came to a rung the best score, then the lowest id; it is the highest that enough came to."""
        spec = self.sim.study.spec
        levels = rung_levels(1, spec.iterations, 2) if spec.search_alg == "asha" else ()
        standings = []
        for trial, points in self.accepted.items():
            valid = [spec.sign * point.score for point in points if point.score is not None]
            rung = sum(max((point.step for point in points), default=0) >= level for level in levels)
            standings += [(rung, max(valid), -trial)] if valid else []
        best = incumbent(self.sim.study.trials, spec, levels)
        assert (best is None) == (not standings)
        if best is not None and best.best_score is not None:
            enough = 1 if self.sim.study.trials.ended == spec.trials else COMPARED
            rungs = sorted((rung for rung, _, _ in standings), reverse=True)
            rung = rungs[min(enough, len(rungs)) - 1] if len(rungs) >= enough else rungs[0]
            assert (spec.sign * best.best_score, -best.id) == max(each[1:] for each in standings if each[0] >= rung)

    # --- the end

    def teardown(self) -> None:
        """However it went, an operator who goes on asking ends the study with the exact number of trials."""
        study = self.sim.study
        if study.uid:
            for _ in range(40 * study.spec.trials):
                answer = self.drain()
                if isinstance(answer, Refusal):
                    assert answer.code == "paused"
                    assert self.sim.study.attempts.failures >= 3
                    return
                if isinstance(answer, Nothing):
                    assert answer.done
                    assert self.sim.study.trials.ended == self.sim.study.spec.trials
                    return
            raise AssertionError("the study does not end")

    def drain(self) -> Any:
        """Everybody else is gone; one trial is trained to its end."""
        lives, sessions = self.sim.study.watched()
        self.sim.tick(silent=lives, gone=sessions - {"drain"})
        for life in self.sim.study.watched()[0]:
            self.sim.send(Lost(*life))
        n = self.sim.requests["drain"] = self.sim.requests.get("drain", -1) + 1
        self.sim.send(Ask(self.sim.study.uid, "drain", n))
        self.deliver()
        answer = self.sim.answer("drain", n)
        assert answer is not None, "a request that nothing but a new one can answer"
        if isinstance(answer, Sample):
            for step in range(1, self.sim.study.spec.iterations + 1):
                if self.sim.report(answer, 1.0, step) is not Status.RUNNING:
                    break
            else:
                raise AssertionError("a trial without an end")
        return answer

    def deliver(self) -> None:
        """The sampler answers what is wanted."""
        handed = len(self.sim.study.trials)
        effects = self.sim.suggest()
        self.watch(SuggestFailed("", ""), effects)
        assert len(self.sim.study.trials) >= handed


TestStudy = StudyMachine.TestCase
TestStudy.settings = settings(
    max_examples=2_000 if NIGHTLY else 150,
    stateful_step_count=100 if NIGHTLY else 40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
