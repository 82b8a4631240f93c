"""A fleet in virtual time around a study: workers that ask, start, train and report, with nothing to wait for.

A second is an epoch of the full training of a typical configuration, on the full dataset.
"""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from hpopt.core.cost import epoch_cost
from hpopt.core.effects import Effect, Replied, VerdictGiven
from hpopt.core.internal import Internal, Suggested
from hpopt.core.messages import Ask, Create, Event, Nothing, Report, Sample, Start
from hpopt.core.spec import StudySpec
from hpopt.core.study import Study
from hpopt.core.trial import Trial

BEGIN = 1000.0

Score = Callable[[Random, int], float]
"""What a trial scores at a step, from a generator of its own that is always in the same state."""


def rising(random: Random, step: int) -> float:
    """A curve that rises to a level of its own at a rate of its own, with some noise: curves cross."""
    level, rate = random.random(), random.uniform(0.2, 1.5)
    return level * (1 - math.exp(-rate * step)) + 0.05 * Random(f"{level}/{step}").random()


@dataclass
class Fleet:
    """One study and those who work for it, until it is done."""

    spec: StudySpec
    seed: int = 0
    workers: int = 0
    """How many there are really; 0: as many as the spec says."""
    spread: float = 0.0
    """Standard deviation of the logarithm of an epoch's cost, over configurations."""
    launch: float = 0.0
    """Seconds from handing a trial out until its training begins."""
    score: Score = rising
    study: Study = field(default_factory=Study)
    now: float = BEGIN
    queue: list[tuple[float, int, Event]] = field(default_factory=list)
    sent: int = 0
    handed: dict[int, int] = field(default_factory=dict)
    """Trial -> the worker that has it."""
    finished: float = BEGIN
    sent_home: int = 0
    """Workers that were told that every trial has ended."""

    def run(self) -> float:
        """Seconds from the first handing out to the end of the last trial."""
        self.start()
        self.finish()
        return self.finished - BEGIN

    def start(self) -> None:
        """Create the study; all workers ask."""
        self.tell(Create("u", "op", self.spec))
        for worker in range(self.workers or self.spec.num_workers):
            self.tell(Ask("u", f"w{worker}", 0))

    def step(self) -> None:
        """The next event."""
        self.now, _, event = heapq.heappop(self.queue)
        self.tell(event)

    def sleep(self, seconds: float) -> None:
        """Everything stands still for so long."""
        self.now += seconds
        self.queue = [(at + seconds, order, event) for at, order, event in self.queue]

    def finish(self) -> None:
        """Go on until everybody has been sent home."""
        while self.queue:
            self.step()
        assert self.sent_home == (self.workers or self.spec.num_workers), "somebody still waits"

    def tell(self, event: Event | Internal) -> None:
        """Handle an event, and what follows from it; suggestions are there at once."""
        self._follow(event, self.handle(event))
        while (request := self.study.wanted()) is not None:
            space, ordinals = request.spec.search_space, range(request.ordinal, request.ordinal + request.count)
            randoms = [Random(f"{self.seed}/{ordinal}") for ordinal in ordinals]
            params = tuple(space.from_unit([random.random() for _ in space]) for random in randoms)
            self.tell(Suggested("u", request.basis, request.ordinal, params))

    def handle(self, event: Event | Internal) -> list[Effect]:
        """What the study makes of an event."""
        return self.study.handle(event, self.now)

    def seconds(self, trial: int) -> float:
        """What an epoch of this trial takes."""
        cost = math.exp(self.spread * Random(f"{self.seed}/cost/{trial}").gauss(0, 1))
        return cost * epoch_cost(self.study.spec)

    def _follow(self, event: Event | Internal, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Replied(session, Sample() as sample):
                    self.handed[sample.trial] = int(session[1:])
                    self.later(self.launch, Start("u", sample.trial, sample.attempt, "a"))
                case Replied(_, Nothing() as nothing):
                    assert nothing.done
                    self.sent_home += 1
                case VerdictGiven(trial=trial) if isinstance(event, Start | Report):
                    self._go_on(self.study.trials.get(trial), event)

    def _go_on(self, trial: Trial | None, event: Start | Report) -> None:
        assert trial is not None
        if trial.stop_step is not None:
            self.finished = self.now
            self.sent += 1
            self.later(0.0, Ask("u", f"w{self.handed[trial.id]}", self.sent))
        else:
            step = trial.last_step + 1
            score = self.score(Random(f"{self.seed}/curve/{trial.id}"), step)
            self.later(self.seconds(trial.id), Report("u", trial.id, event.attempt, "a", step, score))

    def later(self, seconds: float, event: Event) -> None:
        """Send an event then."""
        self.sent += 1
        heapq.heappush(self.queue, (self.now + seconds, self.sent, event))
