"""All trials of a study, with what must be found without looking at each of them."""

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from hpopt.core.curve import Point
from hpopt.core.suggest_request import Observation
from hpopt.core.trial import ENDED, PENDING, REISSUABLE, Trial, TrialState

OBSERVED = 500
"""So many ended trials a sampler is told of, when most are stopped early and a model could not use them all."""

NOBODY = ""
"""The session of a trial that was handed out to one that never came for it."""

_NEAR = 64
Marks = tuple[tuple[int, float], ...]


class Trials:
    """The trials by id, and which of them are pending, to be handed out again, or at their end."""

    def __init__(self, marks: Callable[[Trial], Marks] = lambda _: ()) -> None:
        """No trials yet. `marks`: (step, best score by then) where the stopping rule compares a trial."""
        self._marks = marks
        self._trials: list[Trial] = []
        self._reissuable: list[int] = []  # a heap; an id may be stale, its state tells
        self.pending: set[int] = set()
        self._open: set[int] = set()
        self._issued: dict[str, set[int]] = {}  # handed out and not begun, by session: few, however many are pending
        self._ended: list[int] = []  # rising, as are the observations beside them
        self._observations: list[Observation] = []
        self._by_steps: dict[int, list[int]] = {}  # the ended trials with a score, by their steps; rising
        self._scoreless: list[int] = []  # the others, rising
        self._handed: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._trials)

    @property
    def ended(self) -> int:
        """How many trials have ended."""
        return len(self._ended)

    def get(self, trial_id: int) -> Trial | None:
        """The trial of this id, None if there is none."""
        return self._trials[trial_id] if 0 <= trial_id < len(self._trials) else None

    def since(self, trial_id: int) -> list[Trial]:
        """The trials from this id on."""
        return self._trials[trial_id:]

    def add(self, trial: Trial) -> None:
        """Take in a trial, which has the next id."""
        if trial.id != len(self._trials):
            raise ValueError(f"trial {trial.id} cannot follow {len(self._trials) - 1}")
        self._trials.append(trial)
        self._index(trial)
        if trial.session:
            self.bind(trial, trial.session, trial.request)

    def move(self, trial: Trial, state: TrialState, reason: str = "") -> None:
        """Change a trial's state. All state changes go through here."""
        trial.move(state, reason)
        self.pending.discard(trial.id)
        self._index(trial)

    def bind(self, trial: Trial, session: str, request: int) -> None:
        """The trial is now the answer to this request of this session."""
        self._rebind(trial, session, request)
        self._handed[session, request] = trial.id

    def unbind(self, trial: Trial) -> None:
        """Nobody has the trial any more: whoever asks next gets it, as it is."""
        self._rebind(trial, NOBODY, 0)

    def handed(self, session: str, request: int) -> Trial | None:
        """The trial that answered this request, if it was answered with one."""
        trial_id = self._handed.get((session, request))
        return None if trial_id is None else self._trials[trial_id]

    def next_reissuable(self) -> Trial | None:
        """The trial of the lowest id that waits for a worker."""
        while self._reissuable:
            trial = self._trials[self._reissuable[0]]
            if trial.state in REISSUABLE:
                return trial
            heapq.heappop(self._reissuable)
        return None

    @property
    def under_way(self) -> bool:
        """Whether some trial is being trained, or somebody has it who may yet do so."""
        return len(self.pending) > len(self._issued.get(NOBODY, ()))

    def orphan(self, absent: Callable[[str], bool], asking: str) -> Trial | None:
        """The first trial that nobody has, or a session which is not there, and that never started; None without."""
        left = (ids for session, ids in self._issued.items() if session != asking and (not session or absent(session)))
        first = min(chain.from_iterable(left), default=None)
        return None if first is None else self._trials[first]

    def pending_trials(self) -> list[Trial]:
        """Every trial that occupies a worker, by id."""
        return [self._trials[i] for i in sorted(self.pending)]

    def observations(self, limit: int | None = None) -> tuple[Observation, ...]:
        """What a sampler may learn from: every trial that has ended, by id.

        At most `limit` of them: a quarter the latest, a quarter the latest without a score, for where those lie is
        not to be forgotten; else those that came farthest, of the last such length the latest.
        """
        if limit is None or len(self._observations) <= limit:
            return tuple(self._observations)
        quarter = limit // 4
        chosen = {
            *self._ended[len(self._ended) - quarter :],
            *self._scoreless[max(0, len(self._scoreless) - quarter) :],
        }
        longest = (i for steps in sorted(self._by_steps, reverse=True) for i in reversed(self._by_steps[steps]))
        chosen.update(islice((i for i in longest if i not in chosen), limit - len(chosen)))
        return tuple(self._observations[_place(self._ended, trial_id)] for trial_id in sorted(chosen))

    def running(self) -> tuple[Observation, ...]:
        """What is known already of the trials that have not ended and have come past a mark, by id."""
        trials = (self._trials[i] for i in sorted(self._open))
        known = (Observation(t.params, t.best_score, t.seen_step, False, self._marks(t)) for t in trials)  # noqa: FBT003
        return tuple(each for each in known if each.marks)

    def taken(self) -> tuple[dict[str, Any], ...]:
        """The params of every trial that has not ended, by id."""
        return tuple(self._trials[i].params for i in sorted(self._open))

    def _index(self, trial: Trial) -> None:
        self._note_issued(trial)
        if trial.state in ENDED:
            self._open.discard(trial.id)
            place = _insert(self._ended, trial.id)
            complete = trial.state is TrialState.COMPLETED
            known = Observation(trial.params, trial.best_score, trial.seen_step, complete, self._marks(trial))
            self._observations.insert(place, known)
            ids = self._scoreless if known.score is None else self._by_steps.setdefault(known.steps, [])
            _insert(ids, trial.id)
            return
        self._open.add(trial.id)
        if trial.state in PENDING:
            self.pending.add(trial.id)
        else:
            heapq.heappush(self._reissuable, trial.id)

    def _rebind(self, trial: Trial, session: str, request: int) -> None:
        self._handed.pop((trial.session, trial.request), None)
        self._forget_issued(trial)
        trial.session, trial.request = session, request
        self._note_issued(trial)

    def _note_issued(self, trial: Trial) -> None:
        if trial.state is TrialState.ISSUED:
            self._issued.setdefault(trial.session, set()).add(trial.id)
        else:
            self._forget_issued(trial)

    def _forget_issued(self, trial: Trial) -> None:
        ids = self._issued.get(trial.session, set())
        ids.discard(trial.id)
        if not ids:
            self._issued.pop(trial.session, None)


def _place(ids: list[int], trial_id: int) -> int:
    """Where a trial is, or belongs, in rising ids: most often near the end, where looking for it costs little."""
    near = max(0, len(ids) - _NEAR)
    return bisect_left(ids, trial_id, near if near and ids[near] <= trial_id else 0)


def _insert(ids: list[int], trial_id: int) -> int:
    """Put a trial into rising ids; its place."""
    place = _place(ids, trial_id)
    ids.insert(place, trial_id)
    return place


def replay(trial: Trial, points: Iterable[Point], sign: float) -> list[Point]:
    """Rebuild what follows from a trial's curve; the points that count, those of each attempt in rising steps."""
    counted = []
    trial.best_score, trial.best_step, trial.last_step, trial.seen_step, trial.invalid = None, 0, 0, 0, 0
    for point in points:
        if point.attempt >= trial.first_attempt:
            counted.append(point)
            trial.add(point.step, point.score, sign)
        if point.attempt == trial.attempt:
            trial.last_step = point.step
        else:
            trial.last_step, trial.invalid = 0, 0
    return counted
