"""Peer: a search with a rule that stops trials, told of every epoch; and what the adapters share."""

import math
import time
from typing import Protocol

from benchmarks.multifidelity.loop import Assignment
from benchmarks.search.peers.peer import silence
from benchmarks.search.problem import Params


class Peer(Protocol):
    """What an adapter makes of another tuner; trials are numbered 0, 1, 2, ... as they are asked for."""

    def ask(self) -> Params:
        """The configuration of the next trial. Others may be running."""

    def report(self, trial: int, epoch: int, score: float) -> bool:
        """The score after an epoch, larger is better; whether the trial is to be stopped."""

    def done(self, trial: int, score: float, *, stopped: bool) -> None:
        """The trial is over, with this score in the end: `stopped` by the peer, or after its last epoch."""

    def best(self) -> int | None:
        """The trial that the peer would call the best one now; None before there is one."""


class Best:
    """The best of the trials offered so far; of equal ones the first."""

    def __init__(self) -> None:
        self.trial: int | None = None
        self._score = -math.inf

    def offer(self, trial: int, score: float) -> None:
        """A trial has this score."""
        if score > self._score:
            self.trial, self._score = trial, score


class Prompt:
    """The Tuner made of a Peer: whoever asks is answered at once, in no virtual time."""

    def __init__(self, peer: Peer, epochs: int) -> None:
        self.peer = peer
        self.seconds = 0.0
        """CPU time of the peer so far."""
        self._epochs = epochs
        self._asked = 0
        self._assigned: list[Assignment] = []

    def ask(self, worker: int, now: float) -> None:
        """See Tuner."""
        del now
        began = time.process_time()
        with silence():
            params = self.peer.ask()
        self.seconds += time.process_time() - began
        self._assigned.append(Assignment(worker, self._asked, params))
        self._asked += 1

    def assigned(self) -> list[Assignment]:
        """See Tuner."""
        assigned, self._assigned = self._assigned, []
        return assigned

    def report(self, trial: int, epoch: int, score: float, now: float) -> bool:
        """See Tuner."""
        del now
        began = time.process_time()
        with silence():
            stopped = self.peer.report(trial, epoch, score) and epoch < self._epochs
            over = stopped or epoch == self._epochs
            if over:
                self.peer.done(trial, score, stopped=stopped)
        self.seconds += time.process_time() - began
        return over

    def best(self) -> int | None:
        """See Tuner."""
        return self.peer.best()

    def due(self) -> float:
        """Never: nothing happens but what workers cause."""
        return math.inf

    def wake(self, now: float) -> None:
        """It never comes to that."""
        raise RuntimeError(f"nothing is due at {now}")
