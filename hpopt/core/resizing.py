"""The batch sizes of a study's trials, as far as memory has a say in them."""

from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from typing import Any

from hpopt.core.batch_size import NO_BOUND, BatchSizeBound, Size, is_size
from hpopt.core.spec import StudySpec
from hpopt.core.trial import Trial
from hpopt.core.trials import Trials


class Resizing:
    """Which trials get a smaller batch, and which.

    No configuration is tried twice: a trial that ran out of memory with a batch of 64 and goes on with 32 stands for
    both, and where another trial has the one with 32 already, it gets the next smaller one.
    """

    def __init__(self, spec: StudySpec, trials: Trials) -> None:
        """Nothing has run out of memory yet."""
        self.bound = NO_BOUND
        self._space, self._name = spec.search_space, spec.batch_size_name
        self._given = len(spec.default_hyper_parameters)
        self._trials = trials
        self._shrunk: set[int] = set()
        self._used: set[Hashable] = set()
        self._indexed = 0

    def take_in(self, trial: Trial) -> None:
        """A committed trial, after a restart."""
        if trial.too_large:
            self._shrunk.add(trial.id)

    # --- what trials show

    def scored(self, trial: Trial) -> bool:
        """The trial got through a step; True if that is news."""
        return self._learned(BatchSizeBound.scored, trial)

    def fitted(self, trial: Trial) -> bool:
        """The trial came to its end with scores; True if that is news."""
        return self._learned(BatchSizeBound.fitted, trial)

    def failed(self, trial: Trial) -> None:
        """The trial ran out of memory. It has a size."""
        self._learned(BatchSizeBound.failed, trial)

    # --- trials that get a smaller one

    def has_size(self, trial: Trial) -> bool:
        """Whether the trial has a batch size that could be smaller."""
        return self._name is not None and is_size(trial.params[self._name])

    def next_size(self, trial: Trial) -> Size | None:
        """The size to try next for a trial that the bound does not allow; None when no other trial has left one."""
        used = self._keys()
        sizes = self.bound.smaller(self._space[str(self._name)], again=trial.ooms > 1)
        return next((size for size in sizes if self._key(trial.params, size) not in used), None)

    def resize(self, trial: Trial, size: Size) -> None:
        """Give the trial this size from now on."""
        name = str(self._name)
        trial.too_large = (*trial.too_large, trial.params[name])
        trial.params = {**trial.params, name: size}
        if self._can_meet(trial):
            self._keys().add(self._space.key(trial.params))
        self._shrunk.add(trial.id)

    def fit(self, trial: Trial) -> bool:
        """Bring a trial that begins an attempt below what is known to fail, unless it has scores; True if it changed.

        One that no smaller size is left for keeps its own, and has this attempt to show that it fits.
        """
        if not self.has_size(trial) or trial.seen_step or self.allows(trial.params):
            return False
        size = self.next_size(trial)
        if size is not None:
            self.resize(trial, size)
        return size is not None

    def excuse(self, trial: Trial) -> str:
        """Why a trial that ran out of memory is not tried again."""
        if self._name is None:
            return "batch_size_name is not set"
        if not self.has_size(trial):
            return f"{self._name}={trial.params[self._name]!r} is no number that could be smaller"
        if next(self.bound.smaller(self._space[self._name]), None) is None:
            return "no smaller batch is left to try"
        if self.next_size(trial) is None:
            return "with every smaller batch it would be another trial's configuration"
        return f"that {trial.ooms} times"

    # --- new trials

    def offers(self, params: dict[str, Any]) -> bool:
        """Whether a new trial may be what was suggested: its size is allowed, and no trial stands for it by now."""
        if self.bound.fails is None and not self._shrunk:
            return True
        return self.allows(params) and self._space.key(params) not in self._keys()

    def allows(self, params: dict[str, Any]) -> bool:
        """Whether its size is."""
        name = self._name
        return name is None or self.bound.allows(self._space[name], params[name])

    def left_behind(self) -> tuple[dict[str, Any], ...]:
        """The configurations that trials had before they got a smaller size, as far as they could be met again."""
        shrunk = (self._trials.get(trial_id) for trial_id in sorted(self._shrunk))
        met = (trial for trial in shrunk if trial is not None and self._can_meet(trial))
        return tuple({**t.params, str(self._name): size} for t in met for size in t.too_large)

    def unclaimed(self) -> Iterator[dict[str, Any]]:
        """The configurations of a finite space that no trial has; when all else is tried, they are too large."""
        claimed = {self._space.key(trial.params) for trial in self._trials}
        configs = map(self._space.config_at, range(self._space.size or 0))
        return (params for params in configs if self._space.key(params) not in claimed)

    def _learned(self, lesson: Callable[[BatchSizeBound, Any], BatchSizeBound], trial: Trial) -> bool:
        before = self.bound
        if self._name is not None:
            self.bound = lesson(before, trial.params[self._name])
        return self.bound != before

    def _key(self, params: dict[str, Any], size: Any) -> Hashable:
        return self._space.key({**params, str(self._name): size})

    def _can_meet(self, trial: Trial) -> bool:
        """Whether what it stands for may be suggested again. In a continuum only what the user gave is."""
        return self._space.size is not None or trial.id < self._given

    def _keys(self) -> set[Hashable]:
        """The configurations that trials stand for, as far as they could be met again."""
        end = len(self._trials) if self._space.size is not None else min(len(self._trials), self._given)
        if self._indexed < end:
            for trial in islice(self._trials.since(self._indexed), end - self._indexed):
                sizes = (*trial.too_large, trial.params[str(self._name)])
                self._used.update(self._key(trial.params, size) for size in sizes)
            self._indexed = end
        return self._used
