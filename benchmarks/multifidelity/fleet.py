"""hpopt as the tuner of a simulated fleet. It decides nothing: `Study.handle` and `suggest` do.

Every configuration is one that `suggest` gave for `study.wanted()`, and every trial ends by a verdict of the study's.
What is left to this file is what a coordinator, operators and trainers do: carry messages to and fro.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from benchmarks.multifidelity.loop import Assignment
from hpopt.core.effects import Replied, VerdictGiven
from hpopt.core.incumbent import Incumbent
from hpopt.core.internal import Internal, Suggested
from hpopt.core.messages import Ask, Create, Created, Event, Refusal, Report, Sample, Start, Verdict
from hpopt.core.spec import StudySpec
from hpopt.core.study import Study
from hpopt.core.suggest_request import SuggestRequest
from hpopt.core.trial import Trial

Suggest = Callable[[SuggestRequest], list[dict[str, Any]]]
UID, LIFE = "simulated", "only"
EPOCH_SECONDS = 10.0
"""Seconds of a median epoch as the study's clock shows them, unless something else is measured."""


@dataclass(frozen=True)
class Timing:
    """How long suggestions take in virtual time, where one request is answered after the other beside the training.

    "instant": no time; they are made from all results when they are asked for, and no more of them than that.
    "measured": as many seconds as they take here of CPU time, when a median epoch has `amount` seconds. "fixed":
    `amount` median epochs for each request. With the last two, who asks meanwhile gets one that was prepared before, or
    waits.
    """

    kind: Literal["instant", "measured", "fixed"] = "instant"
    amount: float = 0.0

    @classmethod
    def of(cls, text: str) -> Self:
        """What `str` gave: "instant", "measured:10", "fixed:0.05". ValueError for anything else."""
        kind, _, amount = text.partition(":")
        if kind == "instant" and not amount:
            return cls()
        if kind in {"measured", "fixed"} and amount and float(amount) > 0:
            return cls("measured" if kind == "measured" else "fixed", float(amount))
        raise ValueError(f"timing={text!r}: use 'instant', 'measured:SECONDS OF AN EPOCH' or 'fixed:EPOCHS'")

    def __str__(self) -> str:
        return self.kind if self.kind == "instant" else f"{self.kind}:{self.amount:g}"

    @property
    def epoch_seconds(self) -> float:
        """Seconds of a median epoch."""
        return self.amount if self.kind == "measured" else EPOCH_SECONDS

    def epochs(self, seconds: float) -> float:
        """The median epochs that a request of so many CPU seconds takes."""
        return seconds / self.amount if self.kind == "measured" else self.amount


INSTANT = Timing()


class Coordinated:
    """See Tuner. Worker i is an operator session of its own, which trains what it asks for."""

    def __init__(
        self,
        spec: StudySpec,
        suggest: Suggest,
        levels: tuple[int, ...] = (),
        timing: Timing = INSTANT,
        study: Study | None = None,
    ) -> None:
        """`levels`: the rungs that trials are compared at. `study` replaces the one that is used."""
        self.study = Study() if study is None else study
        self.handle_seconds, self.suggest_seconds = 0.0, 0.0
        """CPU time so far."""
        self.reports, self.requests = 0, 0
        """So many scores were reported, and so many requests for suggestions answered."""
        self._suggest, self._timing = suggest, timing
        self._instant = timing.kind == "instant"
        self._asked: dict[int, int] = {}
        self._waiting: set[int] = set()
        self._verdicts: dict[int, Verdict] = {}
        self._assigned: list[Assignment] = []
        self._coming: tuple[float, Suggested] | None = None
        self._send(Create(UID, "0", spec), 0.0)
        self._incumbent = Incumbent(self.study.spec, levels)
        self._prepare(0.0)

    def ask(self, worker: int, now: float) -> None:
        """The worker's next request; Nothing is the answer when all trials have been given out."""
        if self._instant and not self._fresh:
            self._make_suggestions(now)
        self._asked[worker] = self._asked.get(worker, -1) + 1
        self._waiting.add(worker)
        self._send(Ask(UID, str(worker), self._asked[worker]), now)
        while self._instant and worker in self._waiting and self._make_suggestions(now):
            pass
        self._prepare(now)

    def assigned(self) -> list[Assignment]:
        """See Tuner."""
        assigned, self._assigned = self._assigned, []
        return assigned

    def report(self, trial: int, epoch: int, score: float, now: float) -> bool:
        """A trainer's report; whether its verdict is to stop."""
        self._send(Report(UID, trial, 1, LIFE, epoch, score), now)
        self.reports += 1
        stop = self._verdicts[trial].stop_step
        self._compare(self.study.trials.get(trial))
        self._prepare(now)
        return stop is not None and epoch >= stop

    def best(self) -> int | None:
        """What hpopt's results would show."""
        best = self._incumbent.trial
        return None if best is None else best.id

    def due(self) -> float:
        """When the suggestions that are being made are there."""
        return math.inf if self._coming is None else self._coming[0]

    def wake(self, now: float) -> None:
        """They are."""
        assert self._coming is not None
        suggested, self._coming = self._coming[1], None
        self._send(suggested, now)
        self._prepare(now)

    # --- messages

    def _send(self, event: Event | Internal, now: float) -> None:
        began = time.process_time()
        effects = self.study.handle(event, now * self._timing.epoch_seconds)
        self.handle_seconds += time.process_time() - began
        for effect in effects:
            if isinstance(effect, VerdictGiven):
                self._verdicts[effect.trial] = effect.verdict
            elif isinstance(effect, Replied):
                self._answer(int(effect.session), effect.answer, now)

    def _answer(self, worker: int, answer: Any, now: float) -> None:
        if isinstance(answer, Refusal):
            raise RuntimeError(  # noqa: TRY004 - nothing is wrong with its type
                f"the study refuses request {answer.n} of worker {worker}: {answer.message}"
            )
        if isinstance(answer, Created):
            return
        self._waiting.discard(worker)
        if isinstance(answer, Sample):
            self._assigned.append(Assignment(worker, answer.trial, answer.params))
            self._send(Start(UID, answer.trial, answer.attempt, LIFE), now)

    def _compare(self, trial: Trial | None) -> None:
        if trial is not None:
            self._incumbent.observe(trial)

    # --- suggestions

    @property
    def _fresh(self) -> bool:
        """Whether there are prepared suggestions that know of all results, or need none."""
        desk = self.study.desk
        return bool(desk.ready) and (desk.basis == desk.trials.ended or not desk.models(len(desk.trials)))

    def _make_suggestions(self, now: float) -> bool:
        """Have the suggestions that are wanted made at once; False if none are wanted."""
        request = self.study.wanted()
        if request is not None:
            self._send(self._suggested(self._needed(request))[0], now)
        return request is not None

    def _needed(self, request: SuggestRequest) -> SuggestRequest:
        """What is made anew after each result is made for the worker that asks: for who asks later it would be stale.

        asha's are not made anew so often, and what needs no results is never stale.
        """
        desk = self.study.desk
        anew = desk.spec.search_alg == "bayes_opt" and desk.models(request.ordinal)
        return replace(request, count=1) if anew else request

    def _prepare(self, now: float) -> None:
        """Have them made in the background, if they are wanted and no others are being made."""
        if not self._instant and self._coming is None:
            request = self.study.wanted()
            if request is not None:
                suggested, seconds = self._suggested(request)
                self._coming = (now + self._timing.epochs(seconds), suggested)

    def _suggested(self, request: SuggestRequest) -> tuple[Suggested, float]:
        """The sampler's answer, and the CPU seconds that it took."""
        began = time.process_time()
        params = tuple(self._suggest(request))
        seconds = time.process_time() - began
        self.suggest_seconds += seconds
        self.requests += 1
        return Suggested(UID, request.basis, request.ordinal, params), seconds
