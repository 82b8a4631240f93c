"""Bayesian optimization: from results to a surrogate, and from that to suggestions."""

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpopt.core.spec import DEFAULT_KAPPA, StudySpec
from hpopt.core.suggest_request import Observation, SuggestRequest
from hpopt.samplers.acquisition import Acquisition, LogExpectedImprovement, UpperConfidenceBound, decayed_kappa
from hpopt.samplers.encoding import Encoding
from hpopt.samplers.fidelity import FullLength, curve, length_of, longest_first
from hpopt.samplers.optimize import STARTS, Screen, candidates, improve
from hpopt.samplers.posterior import FitError
from hpopt.samplers.sobol import generator
from hpopt.samplers.subset import LIMIT, informative
from hpopt.samplers.surrogate import Rows, fit
from hpopt.samplers.transform import half_rank, is_constant, symlog

Array = NDArray[np.float64]
Config = dict[str, Any]

PENDING = {FullLength: 128, Encoding: LIMIT}
"""Of more trials under way the latest count as pending: each of them adds a row to the posterior. Where trials have
different lengths, those before them have come to where they are compared."""
POLISHED = 4
"""The first suggestions of a request are improved from the best of the pool, which takes longer than to screen it."""
DOUBT = 0.1
"""Extra noise, relative to the signal variance, of a result that a full training might have contradicted."""
FAILURES = LIMIT // 4
"""So many trials without a score, the latest, are among the points of trials of different lengths."""
ROUGHNESS = 3e-4
"""Extra noise of each of those points: half_rank has a kink at the median, which many exact scores on both sides of it
show clearly. Without noise the model would have to bend that sharply, and overshoot where nothing was tried."""
_INCUMBENTS = 4

logger = logging.getLogger("hpopt.samplers")


def proposals(
    request: SuggestRequest, rng: np.random.Generator, taken: Collection[tuple[Any, ...]]
) -> Iterator[Config]:
    """Suggestions for the ordinals of the request, one after the other; ends early when the model knows no more.

    The caller adds the key of each suggestion to `taken` before it asks for the next: what is in there is not given.
    """
    if request.spec.search_space.size == 1:
        return
    kind = FullLength if compares(request.spec) else Encoding
    encoding: Encoding = kind(request.spec.search_space, request.allowed)
    tried = encoding.units([observation.params for observation in request.observations])
    if isinstance(encoding, FullLength):
        training = _curves(request, encoding, tried)
    else:
        training = _training(request, encoding, tried)
    if training is None:
        return
    try:
        search = _Search(request, encoding, tried, training, rng)
        for ordinal in range(request.ordinal, request.ordinal + request.count):
            acquisition = acquisition_for(request.spec, ordinal, len(request.observations), search.threshold)
            params = search.pick(acquisition, taken)
            if params is None:
                return
            yield params
            search.add(params)
    except FitError as error:
        logger.warning("a suggestion comes from the initial design instead: %s", error)


def transform_for(ordinal: int) -> Callable[[Array], Array]:
    """The view of the scores that the suggestion of this ordinal (the first of several) is made with.

    Two models that see the scores differently get stuck in different places. Over four ordinals each transform meets
    each acquisition of the mix.
    """
    return half_rank if ordinal % 4 in {0, 3} else symlog


def acquisition_for(spec: StudySpec, ordinal: int, finished: int, threshold: float) -> Acquisition:
    """What the suggestion of this ordinal maximizes, as `acquisition` and the three kappas of the spec ask for.

    "mix" takes log EI for even ordinals and UCB for odd ones. That is better than either alone: log EI stalls in a
    local optimum, UCB wastes the first evaluations.
    """
    if spec.search_alg == "asha":
        return _of_many(spec, ordinal, threshold)
    default = (spec.kappa, spec.kappa_decay, spec.kappa_decay_delay) == DEFAULT_KAPPA
    kind = spec.acquisition or ("mix" if default else "ucb")
    if kind == "log_ei" or (kind == "mix" and ordinal % 2 == 0):
        return LogExpectedImprovement(threshold)
    return UpperConfidenceBound(decayed_kappa(spec.kappa, spec.kappa_decay, spec.kappa_decay_delay, finished))


def _of_many(spec: StudySpec, ordinal: int, threshold: float) -> Acquisition:
    """The acquisition of one of the many suggestions that asha asks for before much is known of those before it.

    kappa is drawn from the exponential distribution of mean 1 (Hutter, Hoos & Leyton-Brown, "Parallel Algorithm
    Configuration", LION 2012): some suggestions exploit, some explore, and those made from one model differ.
    """
    kind = spec.acquisition or "mix"
    if kind == "log_ei" or (kind == "mix" and ordinal % 2 == 0):
        return LogExpectedImprovement(threshold)
    return UpperConfidenceBound(float(generator(spec.seed or 0, ordinal).spawn(1)[0].exponential()))


class _Search:
    """The posterior, and a pool of candidates that is screened again after each pick."""

    def __init__(
        self,
        request: SuggestRequest,
        encoding: Encoding,
        tried: Array,
        training: tuple[Rows, Array],
        rng: np.random.Generator,
    ) -> None:
        rows, units = training
        pending = encoding.units(request.pending[-PENDING[type(encoding)] :])
        self._encoding, self._space = encoding, request.spec.search_space
        self._picked = 0
        self._posterior = fit(rows, encoding.groups)
        finals = encoding.features(units)
        best = np.argsort(-self._posterior.predict(finals)[0], kind="stable")[:_INCUMBENTS]
        if len(pending):
            self._posterior = self._posterior.condition(encoding.features(pending))
            finals = np.concatenate([finals, encoding.features(pending)])
        self._known = {u.tobytes() for u in (*tried, *pending)}
        self._pool = _unlike(encoding.confine(candidates(encoding, units[best], rng)), self._known)
        self._left = np.ones(len(self._pool), dtype=bool)
        self._screen = Screen(self._posterior, encoding.features(self._pool), room=request.count)
        self.threshold = float(np.max(self._posterior.predict(finals)[0]))
        """What is to be improved on: the best mean of any point that was or will be tried."""
        if not isinstance(encoding, FullLength):
            self.threshold = max(self.threshold, float(rows.y.max()))

    def pick(self, acquisition: Acquisition, taken: Collection[tuple[Any, ...]]) -> Config | None:
        """The configuration of the largest acquisition among those not taken; None when the pool has none."""
        if not len(self._pool):
            return None
        worth = acquisition(self._screen.mean, self._screen.std)[0]
        polished = self._polished(acquisition, worth) if self._picked < POLISHED else ()
        configs = map(self._encoding.config, chain(polished, self._screened(worth)))
        return next((params for params in configs if self._space.key(params) not in taken), None)

    def _polished(self, acquisition: Acquisition, worth: Array) -> Iterable[Array]:
        """What the best of the pool, of this worth (m,), can be improved to, the best one first."""
        starts = self._pool[np.argsort(-worth, kind="stable")[:STARTS]]
        return improve(self._posterior, acquisition, self._encoding, starts, self._known)

    def _screened(self, worth: Array) -> Iterator[Array]:
        """The pool, the best first, without what was looked at here before: that is taken now."""
        while self._left.any():
            left = np.flatnonzero(self._left)
            best = left[np.argmax(worth[left])]
            self._left[best] = False
            yield self._pool[best]

    def add(self, params: Config) -> None:
        """Take the configuration as pending from now on."""
        self._picked += 1
        u = self._encoding.units([params])
        self._known.add(u[0].tobytes())
        x = self._encoding.features(u)
        self.threshold = max(self.threshold, float(self._posterior.predict(x)[0][0]))
        self._posterior = self._posterior.condition(x)
        self._screen.update(self._posterior)


def _unlike(U: Array, known: set[bytes]) -> Array:
    """The rows of U, each once, that are not among the known ones."""
    fresh = {u.tobytes(): i for i, u in enumerate(U)}
    return U[sorted(i for row, i in fresh.items() if row not in known)]


def _training(request: SuggestRequest, encoding: Encoding, U: Array) -> tuple[Rows, Array] | None:
    """Training data and its unit rows, of what was tried at U (n, d).

    None while the scores say nothing: fewer than two, or all the same.
    """
    observations = request.observations
    scores = np.array([_score(each, request.spec.sign) for each in observations])
    finite = np.isfinite(scores)
    if np.count_nonzero(finite) < 2 or is_constant(scores[finite]):
        return None
    y = transform_for(request.ordinal)(np.where(finite, scores, scores[finite].min()))  # failures: the worst known
    excess = np.array([0.0 if each.complete and ok else DOUBT for each, ok in zip(observations, finite, strict=True)])
    chosen = informative(encoding.features(U), y)
    return _merged(encoding, U[chosen], y[chosen], excess[chosen])


def compares(spec: StudySpec) -> bool:
    """Whether trials of different lengths have to be told apart: some are stopped for what they scored."""
    return (spec.search_alg == "asha" or spec.early_stop is not None) and spec.iterations > 1


def _curves(request: SuggestRequest, encoding: FullLength, tried: Array) -> tuple[Rows, Array] | None:
    """Training data of all points where trials were compared, and the unit rows of the configurations in it.

    A trial that failed without a score counts as one of full length with the worst score known. None as in _training.
    """
    spec, full = request.spec, request.spec.iterations
    known = (*request.observations, *request.running)
    seen = [curve(each, spec.sign) for each in known]
    failed = [k for k, each in enumerate(request.observations) if each.score is None][-FAILURES:]
    points = longest_first(seen, LIMIT - len(failed))
    if len(points) < 2 or is_constant(np.array([score for _, _, score in points])):
        return None
    worst = min(score for points in seen for _, score in points)
    points += [(k, full, worst) for k in failed]
    number, steps, y = (np.array(column) for column in zip(*points, strict=True))
    U = np.concatenate([tried, encoding.units([each.params for each in request.running])])
    rows = Rows(
        X=encoding.features_at(U[number], length_of(steps, full)),
        y=transform_for(request.ordinal)(y),
        share=np.ones(len(y)),
        excess=np.where(np.isin(number, failed), DOUBT, ROUGHNESS),
    )
    return rows, U[np.unique(number)]


def _score(observation: Observation, sign: float) -> float:
    """Larger is better; NaN without a valid score."""
    return math.nan if observation.score is None else sign * observation.score


def _merged(encoding: Encoding, U: Array, y: Array, excess: Array) -> tuple[Rows, Array]:
    """Results of one configuration are averaged, their noise with them."""
    _, first, inverse = np.unique(U.round(9), axis=0, return_index=True, return_inverse=True)
    inverse, U = inverse.reshape(-1), U[first]
    counts = np.bincount(inverse)
    rows = Rows(
        X=encoding.features(U),
        y=np.bincount(inverse, y) / counts,
        share=1.0 / counts,
        excess=np.bincount(inverse, excess) / counts,
    )
    return rows, U
