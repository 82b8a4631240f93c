"""A process's part in an attempt: whether it speaks for it or listens, and which life of it this process belongs to."""

import logging
from collections.abc import Callable

from hpopt import distributed
from hpopt.core.messages import Verdict
from hpopt.outage import REMIND, Patience

SOON = 5.0
"""Seconds after which a process that comes second to an attempt says so."""

log = logging.getLogger("hpopt")


class NobodySpeaksError(Exception):
    """No rank 0 has come, although all is well."""


class Role:
    """Rank 0 speaks for its life; the others listen to whichever life of their own job there is."""

    def __init__(self) -> None:
        """As the launcher, or torch.distributed, tells at this moment."""
        self.begin, self.restart = distributed.job()
        self.life, _ = distributed.life()
        self.rank = distributed.rank()
        self.speaks = self.rank == 0
        self._told = False

    def update(self) -> bool:
        """Take the rank from torch.distributed's group, if there is one; True if this process no longer speaks.

        The group knows better than the environment did. What it has said is true when it is gone, too.
        """
        rank, spoke = distributed.group_rank(), self.speaks
        if rank is not None:
            self.rank, self.speaks = rank, rank == 0
        return spoke and not self.speaks

    def joins(self, life: str) -> bool:
        """Whether a life is that of this process: before there is one, none is.

        Where each rank 0 of a job has a life of its own, the others know only how it begins.
        """
        if self.speaks or not life or self.life == self.begin:
            return life == self.life
        return life.startswith(self.begin)

    def refused(self, verdict: Verdict) -> bool:
        """Whether this process, or its rank 0, has come second to the attempt."""
        known = self.speaks or self.begin != ""
        return known and not self.joins(verdict.life) and any(map(self.joins, verdict.refused))

    def begun(self, verdict: Verdict) -> bool | None:
        """Whether training may begin: False if it is over, None if that is not known yet."""
        if self.refused(verdict):
            return False
        if verdict.stop_step is not None and (self.speaks or not self.joins(verdict.life)):
            return False
        return True if self.joins(verdict.life) else None

    def vigil(self, patience: Patience, trial: int, *, started: bool) -> None:
        """Have it told that this process waits for rank 0. Who may be independent gives up: NobodySpeaksError."""
        if started or not distributed.may_be_independent():
            text = f"waits for rank 0 to report the next iteration of trial {trial}"
            patience.remind, patience.every = lambda: self._tell(text), REMIND
        else:
            patience.remind = self._countdown(patience, trial)

    def queue(self, patience: Patience, trial: int) -> None:
        """Have it told that this process waits for the silence of one that has begun the attempt before."""
        text = f"may not begin yet: an earlier process of trial {trial}, if there is one, has to be silent first"
        patience.remind, patience.every = lambda: self._tell(text), SOON

    def speak(self, trial: int) -> None:
        """Be a task of its own."""
        log.warning("hpopt: no rank 0 has come: rank %d trains trial %d by itself", self.rank, trial)
        self.speaks = True

    @property
    def remedy(self) -> str:
        """What to do when this process has heard nothing of rank 0 for too long."""
        return (
            f"this is rank {self.rank}, and rank 0 has not reported this iteration: every rank may call hpopt.report, "
            "but rank 0 has to, as often as the others (if this process has no other ranks, set RANK=0)"
        )

    def _tell(self, text: str) -> None:
        """Once is enough: rank 0 may well take its time in every epoch."""
        if not self._told:
            log.warning("hpopt: rank %d %s", self.rank, text)
        self._told = True

    def _countdown(self, patience: Patience, trial: int) -> Callable[[], None]:
        """Says after a while what it waits for, and gives up when INDEPENDENT_AFTER is over."""
        seconds = distributed.INDEPENDENT_AFTER
        patience.every = seconds / 10

        def look() -> None:
            if patience.every > seconds / 2:
                raise NobodySpeaksError
            patience.every = seconds - patience.every
            log.warning(
                "hpopt: rank %d waits up to %g s for a rank 0 of trial %d, then trains it by itself (set RANK=0 and "
                "WORLD_SIZE=1 for a task of its own, WORLD_SIZE alone for one of many ranks)", self.rank, seconds, trial
            )  # fmt: skip

        return look
