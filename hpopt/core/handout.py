"""Who gets which trial: the open requests of all operators, and the suggestions prepared for them."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any

from hpopt.core.batch_size import BatchSizeBound, Size
from hpopt.core.internal import Suggested
from hpopt.core.messages import Ask, Nothing, Sample
from hpopt.core.resizing import Resizing
from hpopt.core.rungs import bracket_of
from hpopt.core.spec import StudySpec
from hpopt.core.suggest_request import SuggestRequest
from hpopt.core.trial import Trial, TrialState
from hpopt.core.trials import OBSERVED, Trials

PREPARE_AT_MOST = 8
"""Suggestions kept ready, so that an operator need not wait for a fit, ..."""
REQUEST_AT_MOST = 64
"""... and made at once for a fleet with so much room: they know each other, and take three times as long as one."""
NEWS = 0.05
"""Share of more ended trials after which suggestions of asha's are made again."""
WRITTEN_OFF_AT_ONCE = 500
"""Trials of one commit; the next follow when the sampler has been asked again."""
TOO_LARGE = "not trained: its batch does not fit into memory, and all that fits has been tried"


@dataclass(slots=True)
class HandOut:
    """The hand-out desk of one study. `ready` holds suggestions made when `basis` trials had ended.

    Each of them knows those before it; `unaware`: but not all trials that were handed out in the meantime.
    """

    spec: StudySpec
    trials: Trials
    resizing: Resizing
    requests: dict[tuple[str, int], Ask] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    """Sessions without a heartbeat; `closed` are those that said so themselves."""
    closed: set[str] = field(default_factory=set)
    ready: list[dict[str, Any]] = field(default_factory=list)
    basis: int = 0
    unaware: bool = False
    epoch: int = 0
    """How often the spec has changed, or what fits into memory; suggestions made before count for nothing."""
    exhausted_at: tuple[int, BatchSizeBound] | None = None
    """The sampler had no more than what is ready when so many trials had ended and this was the bound."""
    refused_at: tuple[int, int, BatchSizeBound] | None = None
    """How many trials there were, and had ended, and the bound, when suggestions were impossible as they came."""
    failures: int = 0
    """How often in a row the sampler has failed."""
    repeated: list[dict[str, Any]] = field(default_factory=list)
    """Configurations that were tried before and suggested again, by a sampler that does not see all trials."""
    _fit: tuple[Size | None, Size | None] = (None, None)
    """What was known of the sizes that fit into memory when what is ready was made; see `_follow_bound`."""
    _tried: set[Hashable] = field(default_factory=set)
    """Keys of the first `_indexed` trials, where the sampler does not see them all."""
    _indexed: int = 0

    @property
    def absent(self) -> frozenset[str]:
        """The sessions that are not there, of those that it matters of."""
        return self.gone | self.closed

    @property
    def done(self) -> bool:
        """Every trial of the study has ended."""
        return self.trials.ended == self.spec.trials

    @property
    def idle(self) -> bool:
        """Nothing is under way, and nobody is there who would take a trial that waits."""
        asked = any(ask.mode != "end" for ask in self.requests.values())
        return not self.trials.under_way and (self.done or not asked)

    def may_issue(self) -> bool:
        """Whether one more trial may be under way: always during the initial design, else up to `num_workers`."""
        return len(self.trials) < self._initial() or len(self.trials.pending) < self.spec.num_workers

    @property
    def full(self) -> bool:
        """Only the end of a trial can make room for one more, or leave one to be handed out again."""
        return not self.may_issue() or len(self.trials) >= self.spec.trials or self.spent

    @property
    def exhausted(self) -> bool:
        """Asking the sampler again would bring nothing new."""
        return self.exhausted_at == (self.trials.ended, self.resizing.bound)

    @property
    def spent(self) -> bool:
        """There is nothing left to try for new trials: what no trial stands for does not fit into memory."""
        return self.exhausted and not self.ready

    def nothing(self, ask: Ask) -> Nothing | None:
        """The answer when there is no trial for the request; None if it has to wait for one."""
        if ask.mode == "end":
            return Nothing(ask.n, done=True) if self.idle or self.done else None
        if self.done:
            return Nothing(ask.n, done=True)
        if ask.mode == "now" and self.full:
            return Nothing(ask.n, done=False)
        return None

    def take(self, ask: Ask, now: float) -> Trial | None:
        """The trial that the request gets now, if there is one for it."""
        self._follow_bound()
        if ask.mode == "end":
            return None
        trial = self.trials.orphan(self._is_absent, ask.session)  # its operator died before it was started
        if trial is None and self.may_issue():
            trial = self._again(self.trials.next_reissuable()) or self._new()
        if trial is not None:
            self.trials.bind(trial, ask.session, ask.n)
            trial.issued_at = now
        return trial

    def wanted(self) -> SuggestRequest | None:
        """The suggestions to prepare now, None when there are enough fresh ones."""
        self._follow_bound()
        created = len(self.trials)
        left = self.spec.trials - created
        depth = min(left, max(self._initial() - created, self._stock()))
        if depth <= 0 or self.exhausted:
            return None
        if self._fresh_only() and not self.may_issue():
            return None  # it would be stale by the time it may be handed out
        if self._enough(depth):
            return None
        limit = OBSERVED if self._samples_observations else None
        return SuggestRequest(
            self.spec, created, depth, self.trials.observations(limit), self.trials.taken(), self.trials.running(),
            self.trials.ended, self.resizing.bound, (*self.resizing.left_behind(), *self.repeated), self.epoch,
        )  # fmt: skip

    def seen(self, session: str) -> None:
        """The session has just spoken, so it is there."""
        self.gone -= {session}
        self.closed.discard(session)

    def close(self, session: str) -> bool:
        """The session ends: drop its open requests; True if there were any."""
        self.closed.add(session)
        dropped = self.withdraw()
        self.closed &= {trial.session for trial in self.trials.pending_trials()}  # the others do not matter any more
        return dropped

    def withdraw(self) -> bool:
        """Drop the open requests of sessions that are gone; True if there were any."""
        dropped = [key for key in self.requests if key[0] in self.gone or key[0] in self.closed]
        for key in dropped:
            del self.requests[key]
        return bool(dropped)

    def prepare(self, suggested: Suggested) -> None:
        """Replace the suggestions by newer ones, but for those that have become impossible in the meantime.

        If some were tried before, all are asked for again, and the sampler is told.
        """
        self._follow_bound()
        if suggested.epoch != self.epoch:
            return
        key = self.spec.search_space.key
        taken = {key(trial.params) for trial in self.trials.since(suggested.ordinal)}
        again = [each for each in suggested.params if key(each) not in taken and self._is_repeated(each)]
        if again:
            self.repeated += again
            return
        suggestions = [each for each in suggested.params if key(each) not in taken]
        self.ready = suggestions
        self.unaware = not taken <= {key(each) for each in suggested.params[: len(taken)]}
        self.prune()
        if len(self.ready) < len(suggestions):
            self._refused(suggestions)
        self.basis = suggested.basis
        self.exhausted_at = (suggested.basis, self.resizing.bound) if suggested.last else None
        self.failures = 0

    def change(self, spec: StudySpec) -> None:
        """Another spec from now on. If it differs, suggestions have to be made with it."""
        if spec != self.spec:
            self.spec, self.ready, self.epoch = spec, [], self.epoch + 1
            self.exhausted_at = self.refused_at = None  # they were about what was ready

    def prune(self) -> None:
        """Drop what was suggested and has become impossible: another trial stands for it, or its batch is too large.

        And all behind it as long as the user's configurations come: each of those is suggested for one place only.
        """
        self._follow_bound()
        in_place = len(self.trials) < len(self.spec.default_hyper_parameters)
        self.ready = list((takewhile if in_place else filter)(self.resizing.offers, self.ready))

    def _follow_bound(self) -> None:
        """Suggestions are made for what fits into memory, as it is known: when that changes, so do they.

        All stay below what fails. The user's configurations get a size that also depends on what fits.
        """
        bound, in_place = self.resizing.bound, len(self.trials) < len(self.spec.default_hyper_parameters)
        fit = (bound.fails, bound.fits if in_place and bound.fails is not None else None)
        if fit != self._fit:
            self._fit, self.ready, self.epoch = fit, [], self.epoch + 1

    @property
    def _samples_observations(self) -> bool:
        """Whether the sampler gets to see some of the results only; where the space ends it has to know them all."""
        return self.spec.search_alg == "asha" and self.spec.search_space.size is None

    def _is_repeated(self, params: dict[str, Any]) -> bool:
        """Whether a trial had this configuration, and the sampler could not know: it was not told so before."""
        if not self._samples_observations or len(self.trials) <= OBSERVED:
            return False
        key = self.spec.search_space.key
        self._tried.update(key(trial.params) for trial in self.trials.since(self._indexed))
        self._indexed = len(self.trials)
        return key(params) in self._tried and params not in self.repeated

    def _refused(self, suggestions: list[dict[str, Any]]) -> None:
        """Some of them are impossible. If some were before, in the same state, the sampler knows and has no others.

        A continuum may have room for a few small batches only; what has been tried of it is then given twice, for a
        study may not wait for ever.
        """
        state = (len(self.trials), self.trials.ended, self.resizing.bound)
        if state == self.refused_at and self.spec.search_space.size is None:
            self.ready = [each for each in suggestions if self.resizing.allows(each)]
        self.refused_at = state

    def write_off(self, now: float) -> list[Trial]:
        """Once all that fits was tried, what does not fit are the trials that are left; they are nobody's to train."""
        if not self.spent or self.trials.ended < len(self.trials):
            return []  # a trial under way may yet show that more fits
        left = min(self.spec.trials - len(self.trials), WRITTEN_OFF_AT_ONCE)
        written_off = []
        for params in islice(self.resizing.unclaimed(), left):
            trial = Trial(len(self.trials), params, state=TrialState.FAILED, reason=TOO_LARGE, ended_at=now)
            self.trials.add(trial)
            written_off.append(trial)
        return written_off

    def models(self, ordinal: int) -> bool:
        """Whether the suggestion of this ordinal depends on results."""
        return ordinal >= self.spec.first_modelled

    def _enough(self, depth: int) -> bool:
        """Whether what is ready will do for now: as many as wanted, and made from the newest results.

        Of suggestions that know all results and all trials handed out, as many will do as can be handed out before a
        trial ends: to make them again would bring nothing new.

        The trials of asha are many, and most of them short and bad: one more of them changes little. So there it will
        do as long as half of them are left and few results have come since.
        """
        if not self.models(len(self.trials)):
            return len(self.ready) >= depth
        if self._many:
            few = self.trials.ended - self.basis <= NEWS * self.basis
            return few and 2 * len(self.ready) >= depth
        fresh = self.basis == self.trials.ended and not self.unaware
        return fresh and len(self.ready) >= min(depth, max(self._room(), 1))

    def _stock(self) -> int:
        """How many suggestions are to be made at once."""
        ahead = REQUEST_AT_MOST if self._many else max(PREPARE_AT_MOST, self._waiting(), self._room())
        return min(ahead, self.spec.num_workers, REQUEST_AT_MOST)

    def _room(self) -> int:
        """How many more trials may be under way."""
        return self.spec.num_workers - len(self.trials.pending)

    @property
    def _many(self) -> bool:
        """Trials come and go so fast that suggestions need not be made from the newest results."""
        return self.spec.search_alg == "asha" and self.spec.num_workers > 1

    def _is_absent(self, session: str) -> bool:
        return session in self.gone or session in self.closed

    def _waiting(self) -> int:
        return sum(ask.mode != "end" for ask in self.requests.values())

    def _initial(self) -> int:
        """How many trials are handed out without waiting."""
        return min(self.spec.num_init_trials, self.spec.trials) if self.spec.search_alg == "bayes_opt" else 0

    def _fresh_only(self) -> bool:
        return self.spec.num_workers == 1 and self.models(len(self.trials))

    def _again(self, trial: Trial | None) -> Trial | None:
        if trial is not None:
            trial.reissue()
            if self.resizing.fit(trial):
                self.prune()
            self.trials.move(trial, TrialState.ISSUED)
        return trial

    def _new(self) -> Trial | None:
        if len(self.trials) >= self.spec.trials or not self.ready:
            return None
        if self._fresh_only() and self.basis != self.trials.ended:
            return None
        trial = Trial(id=len(self.trials), params=self.ready.pop(0))
        trial.bracket = bracket_of(self.spec, trial.id) if self.spec.search_alg == "asha" else 0
        self.trials.add(trial)
        return trial


def sample(ask_n: int, trial: Trial) -> Sample:
    """The answer that hands out a trial; it can be rebuilt from the trial's record."""
    return Sample(ask_n, trial.id, trial.attempt, trial.bracket, trial.params)
