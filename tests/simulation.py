"""A whole study in one process: operators, trainers, sampler and coordinator around the pure core, without a server.

Every message is encoded and decoded on its way, and every effect is applied to a model of what a server would hold,
so that the study can be dropped and restored from there at any moment.
"""

from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any

from hpopt.core.codec import decode, encode
from hpopt.core.effects import Effect
from hpopt.core.internal import Internal, Lost, Suggested, SuggestFailed, Tick
from hpopt.core.messages import (
    Answer,
    Ask,
    Close,
    Create,
    Created,
    Event,
    Finalize,
    Nothing,
    OutOfMemory,
    Query,
    Release,
    Report,
    Sample,
    Start,
    Verdict,
    Withdraw,
)
from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import StudySpec
from hpopt.core.study import Study
from hpopt.core.suggest_request import SuggestRequest
from hpopt.core.validation import validated
from hpopt.status import Status
from tests.committed import Committed

SPACE = Space({"lr": SearchSpace("loguniform", [1e-4, 1e-1]), "bs": SearchSpace("quniform", [8, 64, 8])})
"""What is searched unless a test says otherwise."""
INTERNAL = (Tick, Suggested, SuggestFailed, Lost)

Sampler = Callable[[SuggestRequest], list[dict[str, Any]]]
Training = Callable[[Sample], Iterable[float | None]]
"""Yields the scores of a trial; raises MemoryError when it runs out of memory, anything else when it crashes."""


def quick_suggest(request: SuggestRequest) -> list[dict[str, Any]]:
    """A cheap sampler: configurations drawn by ordinal, other than all in the request; fewer if there are no more."""
    space, allowed, taken = request.spec.search_space, request.allowed, request.taken()
    found = []
    for ordinal in range(request.ordinal, request.ordinal + request.count):
        defaults = request.spec.default_hyper_parameters[ordinal : ordinal + 1]
        for params in (*defaults, *_candidates(allowed, Random(f"{request.spec.seed}/{ordinal}"))):
            if space.key(params) not in taken and all(allowed[name].contains(params[name]) for name in allowed):
                taken.add(space.key(params))
                found.append(params)
                break
    return found


def _candidates(space: Space, random: Random) -> Iterator[dict[str, Any]]:
    for _ in range(20):
        yield space.from_unit([random.random() for _ in space])
    yield from map(space.config_at, range(space.size or 0))


def heard(verdict: Verdict | None, attempt: int, life: str, step: int) -> Status | None:
    """What a trainer that waits for the answer to its step makes of a verdict; None: it goes on waiting."""
    if verdict is None or verdict.attempt < attempt:
        return None
    if verdict.stray:
        return Status.STOP if (verdict.attempt, verdict.life) == (attempt, life) else None
    if verdict.attempt > attempt or verdict.life != life or life in verdict.refused:
        return Status.STOP
    if verdict.stop_step is not None and step >= verdict.stop_step:
        return Status.STOP
    return Status.RUNNING if step <= verdict.last_step else None


class Simulation:
    """One study with its operators and trainers, on a clock that stands still until told to go on.

    `prompt`: suggestions are there as soon as they are wanted; else a test delivers them, with `suggest`.
    """

    def __init__(
        self, seed: int = 0, sampler: Sampler = quick_suggest, *, takeover_after: float = 75.0, prompt: bool = True
    ) -> None:
        self.seed = seed
        self.sampler = sampler
        self.takeover_after = takeover_after
        self.prompt = prompt
        self.study = Study(takeover_after)
        self.committed = Committed()
        self.now = 1000.0
        self.requests: dict[str, int] = {}
        self.steps: dict[tuple[str, int, int, str], int] = {}
        self._uids = 0

    # --- the coordinator

    def send(self, event: Event | Internal) -> list[Effect]:
        """Handle one event and commit what follows."""
        arrived = event if isinstance(event, INTERNAL) else decode(encode(event))
        effects = self.study.handle(arrived, self.now)
        self.committed.apply(self.study, effects)
        if self.prompt:
            self.suggest()
        return effects

    def suggest(self) -> list[Effect]:
        """Deliver suggestions until no more are wanted; what followed from them."""
        effects: list[Effect] = []
        while (request := self.study.wanted()) is not None:
            basis = request.basis
            params = tuple(self.sampler(request))
            event = Suggested(
                self.study.uid, basis, request.ordinal, params, len(params) < request.count, request.epoch
            )
            follows = self.study.handle(event, self.now)
            self.committed.apply(self.study, follows)
            effects += follows
        return effects

    def crash(self) -> None:
        """The coordinator dies, and another one goes on with what is committed."""
        self.study = self.committed.restore(self.takeover_after)
        if self.prompt:
            self.suggest()

    def tick(
        self, seconds: float = 0.0, *, silent: Iterable[tuple[int, int, str]] = (), gone: Iterable[str] = ()
    ) -> None:
        """Time passes; `silent` lives and `gone` sessions have no heartbeat."""
        self.now += seconds
        self.send(Tick(frozenset(silent), frozenset(gone)))

    # --- operators

    def create(
        self,
        session: str = "op",
        *,
        resume: bool = False,
        overwrite: bool = False,
        private: bool = False,
        uid: str | None = None,
        **spec: Any,
    ) -> Answer:
        """Create or join the study; the answer. A small study of 6 trials, unless `spec` says otherwise."""
        self._uids += uid is None
        event = Create(uid or f"u{self._uids}", session, self.spec(**spec), resume, overwrite, private)
        self.send(event)
        return self.answer(session, -1)  # type: ignore[return-value] # a create is always answered

    def spec(self, **changes: Any) -> StudySpec:
        """The arguments of a small study, with changes."""
        values: dict[str, Any] = {
            "full_dataset_size": 0, "num_full_iterations": 10, "search_space": SPACE, "num_trials": 6,
            "max_iterations": 4, "subset_ratio": 1.0, "num_init_trials": 2, "seed": self.seed,
        }  # fmt: skip
        return validated(StudySpec(**{**values, **changes}))

    def ask(
        self, session: str = "op", mode: str = "next", yields: tuple[tuple[int, int, str], ...] = ()
    ) -> Sample | Answer | None:
        """The session's next request; its answer, None while it has to wait."""
        n = self.requests[session] = self.requests.get(session, -1) + 1
        self.send(Ask(self.study.uid, session, n, mode, yields))
        return self.answer(session, n)

    def sample(self, session: str = "op", mode: str = "next") -> Sample:
        """A request that is answered with a trial at once."""
        answer = self.ask(session, mode)
        assert isinstance(answer, Sample), answer
        return answer

    def answer(self, session: str, n: int) -> Answer | None:
        """The newest answer to a request; n = -1 is the create."""
        answers: list[Answer] = [decode(each) for each in self.committed.replies.get(session, [])]
        return next((a for a in reversed(answers) if n == (-1 if isinstance(a, Created) else a.n)), None)

    def withdraw(self, *requests: int, session: str = "op", keep: bool = False) -> None:
        """Nobody is going to come for the answers to these requests."""
        self.send(Withdraw(self.study.uid, session, requests, keep))

    def close(self, session: str = "op") -> None:
        """The session ends."""
        self.send(Close(self.study.uid, session))

    # --- trainers

    def verdict(self, trial: int) -> Verdict | None:
        """The newest verdict of a trial."""
        return self.committed.verdict(self.study.uid, trial)

    def start(self, to: Sample, life: str = "a", restart: int = -1) -> Verdict:
        """A trainer's first contact."""
        self.send(Start(self.study.uid, to.trial, to.attempt, life, restart))
        verdict = self.verdict(to.trial)
        assert verdict is not None
        self.steps[self.study.uid, to.trial, to.attempt, life] = verdict.base_step
        return verdict

    def report(self, to: Sample, score: float | None, step: int | None = None, life: str = "a") -> Status | None:
        """The score of the next step, or of `step`; None if nobody answers. Makes contact first, if need be."""
        key = (self.study.uid, to.trial, to.attempt, life)
        if key not in self.steps:
            self.start(to, life)
        self.steps[key] = self.steps[key] + 1 if step is None else step
        self.send(Report(*key, self.steps[key], score))
        return heard(self.verdict(to.trial), to.attempt, life, self.steps[key])

    def complete(self, to: Sample) -> None:
        """Train to the end, whatever that is."""
        while self.report(to, 0.5) is Status.RUNNING:
            pass

    def out_of_memory(self, to: Sample) -> None:
        """The attempt ran out of memory."""
        self.send(OutOfMemory(self.study.uid, to.trial, to.attempt))

    def finalize(self, to: Sample, *, crashed: bool = False) -> None:
        """The attempt has ended."""
        self.send(Finalize(self.study.uid, to.trial, to.attempt, crashed))

    def release(self, to: Sample) -> None:
        """The attempt was interrupted."""
        self.send(Release(self.study.uid, to.trial, to.attempt))

    def query(self, to: Sample) -> Verdict | None:
        """The newest verdict, said again."""
        self.send(Query(self.study.uid, to.trial, to.attempt))
        return self.verdict(to.trial)

    def lose(self, to: Sample, life: str = "a") -> None:
        """The trainer has been silent for the whole grace period."""
        self.send(Lost(to.trial, to.attempt, life))

    # --- whole studies

    def run(self, train: Training, *, crashes: float = 0.0) -> list[Sample]:
        """Train until the study is done; every sample that was handed out.

        As many trainers at a time as `num_workers`, which take turns in an order that the seed draws. `crashes`: how
        likely it is that the coordinator dies between two turns.
        """
        random = Random(f"run/{self.seed}")
        samples: list[Sample] = []
        jobs: list[tuple[Sample, Iterator[float | None]]] = []
        while True:
            while len(jobs) < self.study.spec.num_workers:
                answer = self.ask(mode="now" if jobs else "next")
                if not isinstance(answer, Sample):
                    break
                samples.append(answer)
                jobs.append((answer, iter(train(answer))))
            if not jobs:
                assert answer == Nothing(self.requests["op"], done=True), answer
                return samples
            job = random.choice(jobs)
            if not self._step(*job):
                jobs.remove(job)
            if random.random() < crashes:
                self.crash()

    def _step(self, to: Sample, scores: Iterator[float | None]) -> bool:
        """One more score of a trainer; False when it has ended."""
        try:
            return self.report(to, next(scores)) is Status.RUNNING
        except StopIteration:
            self.finalize(to)
        except MemoryError:
            self.out_of_memory(to)
        except RuntimeError:
            self.finalize(to, crashed=True)
        return False


def created(**spec: Any) -> Simulation:
    """A study of its own."""
    sim = Simulation()
    assert isinstance(sim.create(**spec), Created)
    return sim
