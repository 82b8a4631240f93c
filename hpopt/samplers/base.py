"""The one question a study asks of a sampler: which hyper-parameters next?

Run it in a process whose BLAS has one thread (OPENBLAS_NUM_THREADS=1 before numpy is imported): the matrices are small,
and on a busy machine a second thread makes a suggestion take many times as long.
"""

import math
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from hpopt.core.suggest_request import SuggestRequest
from hpopt.samplers.bayes import proposals
from hpopt.samplers.sobol import design, generator


def suggest(request: SuggestRequest, *, model: bool = True) -> list[dict[str, Any]]:
    """`count` configurations, for the trials from `ordinal` on; fewer only when a finite space has no more.

    They differ from each other and from all in the request, and have no batch that its bound forbids. The same request
    is always answered alike: there is no state, no clock and no global random number.

    The default hyper-parameters come first, then a Sobol design. From `spec.first_modelled` on a model is asked; the
    design goes on while the scores teach it nothing, and without a `model`.

    Raises ValueError when the spec has no seed.
    """
    spec = request.spec
    if spec.seed is None:
        raise ValueError("seed=None: resolve the spec before asking for suggestions")
    space, end = spec.search_space, request.ordinal + request.count
    taken, allowed = request.taken(), request.allowed
    found: list[dict[str, Any]] = []
    first_modelled = spec.first_modelled if model else math.inf
    modelled: Iterator[dict[str, Any]] = iter(())
    for ordinal in range(request.ordinal, end):
        if ordinal == max(request.ordinal, first_modelled):
            rest = replace(request, ordinal=ordinal, count=end - ordinal, pending=(*request.pending, *found))
            modelled = proposals(rest, generator(spec.seed, ordinal), taken)
        params = (
            _default(request, ordinal, taken)
            or next(modelled, None)
            or design(space, spec.seed, ordinal, taken, allowed)
        )
        if params is None:
            break
        taken.add(space.key(params))
        found.append(params)
    return found


def _default(request: SuggestRequest, ordinal: int, taken: set[tuple[Hashable, ...]]) -> dict[str, Any] | None:
    """The user's own configuration for this ordinal, unless it was given already; with a batch that fits."""
    spec, name = request.spec, request.spec.batch_size_name
    if ordinal >= len(spec.default_hyper_parameters):
        return None
    params = dict(spec.default_hyper_parameters[ordinal])
    tries: Iterable[dict[str, Any]] = [params]
    if name is not None and not request.bound.allows(spec.search_space[name], params[name]):
        tries = ({**params, name: size} for size in request.bound.instead(spec.search_space[name]))
    return next((each for each in tries if spec.search_space.key(each) not in taken), None)
