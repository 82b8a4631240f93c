"""How much a study does: num_trials, max_iterations and subset_ratio, derived from expected_time_ratio.

Notation
    E     num_full_iterations; one of them, on the full dataset, is the unit of cost
    B     the budget, expected_time_ratio * E
    n     num_trials                  d   hyper-parameters with more than one value
    m     max_iterations              p   non_pure_train_ratio
    s     subset_ratio                c   (1 - p) s + p, cost of an epoch: only pure training shrinks with the dataset
    W     num_workers, trials at a time
    eta   reduction_factor of ASHA

One scale z turns everything that the user left open: s = z, m = E z / 3 and n = 20 d z, each within its bounds. The
cost rises with z, so the largest z that the budget holds is found by bisection; what is left then goes into n.
"""

import math
from dataclasses import replace

from hpopt.core.cost import AS_ASSUMED, Pace, cost, expected_ratio
from hpopt.core.rungs import max_brackets
from hpopt.core.spec import StudySpec
from hpopt.core.subset import MIN_SAMPLES
from hpopt.core.validation import MAX_TRIALS

MIN_RATIO = 0.2
"""No derived subset is a smaller part of the dataset than this."""
MARGIN = {"bayes_opt": 0.95, "asha": 0.85}
"""Share of the budget that is planned for; how many of ASHA's trials survive is known less well."""
MARGIN_MEASURED = 0.95
"""The same once it was measured how trials run."""
OPEN = ("num_trials", "max_iterations", "subset_ratio")
"""The arguments that are derived when they are not given."""
Z_MIN, Z_MAX, BISECTIONS = 1e-3, 4.0, 60
MOST_OVER = 1.2
"""Shares of the budget that trials in whole waves may take where a wave less would be farther from it."""
ROUNDING = 1e-9
"""A plan that is over the budget by a smaller share than this is not."""


def plan(spec: StudySpec) -> tuple[StudySpec, list[str]]:
    """The spec with num_trials, max_iterations and subset_ratio resolved, and what the user should know about it.

    Given values stay as they are, but for what `within_limits` does. A plan of a plan is the same plan. If not even
    the least plan fits into the budget, it is returned nevertheless, with a warning.
    """
    limited, notices = within_limits(spec)
    if not left_open(spec):
        return limited, notices
    planned = _solve(limited)
    ratio = expected_ratio(planned)
    if ratio > spec.expected_time_ratio * (1 + ROUNDING):
        notices.append(
            f"expected_time_ratio={spec.expected_time_ratio:.12g} is too small for the least useful plan: raise it to "
            f"{math.ceil(ratio * 100) / 100:.12g}, or give a smaller num_trials, max_iterations or subset_ratio"
        )
    return planned, notices


def left_open(spec: StudySpec) -> tuple[str, ...]:
    """Which arguments the user of a spec has left to hpopt."""
    return tuple(name for name in OPEN if getattr(spec, name) is None)


def affordable(spec: StudySpec, pace: Pace, least: int) -> int:
    """The number of trials, at least `least`, that a resolved spec is to have, now that they run at this pace.

    As long as those it has fit into the budget they stay, and more come as far as MARGIN_MEASURED of it holds them.
    Else the study's time is to come as near to that as it can, though not beyond MOST_OVER: trials that nobody stops
    are cut by whole waves, and one wave may be much. As in a plan it is never less than what a search needs, and never
    more than what it can use.
    """
    low, high = trial_bounds(spec)
    fewest, high = replace(spec, num_trials=max(low, least)), max(low, least, high)
    budget = spec.expected_time_ratio * spec.num_full_iterations
    limit = MARGIN_MEASURED * budget
    held = _with_more_trials(fewest, limit, high, pace)
    if cost(spec, pace) <= budget * (1 + ROUNDING):
        return max(spec.trials, held.trials)
    next_wave = cost(replace(held, num_trials=held.trials + 1), pace)
    if next_wave <= MOST_OVER * budget and next_wave - limit < limit - cost(held, pace):
        held = _with_more_trials(held, next_wave, high, pace)
    return max(fewest.trials, min(spec.trials, held.trials))


def within_limits(spec: StudySpec) -> tuple[StudySpec, list[str]]:
    """The spec with its given values within what is possible, and a notice for each that had to change.

    A subset has at least MIN_SAMPLES samples and at most the full dataset, num_trials is no more than the number of
    different configurations, num_brackets no more than the number of different brackets. None stays None, except
    that a subset_ratio of a dataset of unknown size (0) is 1.
    """
    notices: list[str] = []
    ratio = _limited_ratio(spec, notices)
    trials = _limited_trials(spec, notices)
    brackets = _limited_brackets(spec, notices)
    return replace(spec, subset_ratio=ratio, num_trials=trials, num_brackets=brackets), notices


# --- limits


def least_ratio(dataset_size: int) -> float:
    """The smallest share of a dataset of so many samples, 0 if that is not known, that a study may use."""
    return min(1.0, MIN_SAMPLES / dataset_size) if dataset_size else 1.0


def _limited_ratio(spec: StudySpec, notices: list[str]) -> float | None:
    size, asked = spec.full_dataset_size, spec.subset_ratio
    if size == 0:
        if asked is None or asked < 1:
            notices.append("full_dataset_size=0: its size is not known, so every trial uses the full dataset")
        return 1.0
    if asked is None:
        return None
    ratio = min(1.0, max(asked, least_ratio(size)))
    if asked < ratio:
        samples = min(size, MIN_SAMPLES)
        notices.append(f"subset_ratio={asked:g} becomes {ratio:g}: a subset has no less than {samples} samples")
    return ratio


def _limited_trials(spec: StudySpec, notices: list[str]) -> int | None:
    size = spec.search_space.size
    if spec.num_trials is None or size is None or spec.num_trials <= size:
        return spec.num_trials
    notices.append(f"num_trials={spec.num_trials} becomes {size}: the search space has no more configurations")
    return size


def _limited_brackets(spec: StudySpec, notices: list[str]) -> int | None:
    if spec.search_alg != "asha":
        return spec.num_brackets
    low, high = spec.min_iterations or 1, spec.max_iterations or spec.num_full_iterations
    if low > high:
        notices.append(f"min_iterations={low} is more than a trial has: each runs its {high} iterations to the end")
    most = max_brackets(low, high, spec.reduction_factor)
    if spec.num_brackets is None or spec.num_brackets <= most:
        return spec.num_brackets
    notices.append(
        f"num_brackets={spec.num_brackets} becomes {most}: no more differ from {low} to {high} iterations "
        f"with reduction_factor={spec.reduction_factor}"
    )
    return most


# --- the solution


def _solve(spec: StudySpec) -> StudySpec:
    limit = MARGIN[spec.search_alg] * spec.expected_time_ratio * spec.num_full_iterations
    best = _at_scale(spec, _largest_scale(spec, limit))
    return best if spec.num_trials is not None else _with_more_trials(best, limit, trial_bounds(best)[1])


def _largest_scale(spec: StudySpec, limit: float) -> float:
    """The largest z of a plan that costs no more than `limit`; Z_MIN if none does."""
    low, high = Z_MIN, Z_MAX
    if cost(_at_scale(spec, high)) <= limit:
        return high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(_at_scale(spec, middle)) <= limit else (low, middle)
    return low


def _with_more_trials(spec: StudySpec, limit: float, most: int, pace: Pace = AS_ASSUMED) -> StudySpec:
    """The resolved spec with as many trials, up to `most`, as cost no more than `limit`, but no fewer than it has."""
    low, high = spec.trials, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(replace(spec, num_trials=middle), pace) <= limit else (low, middle - 1)
    return replace(spec, num_trials=low)


def _at_scale(spec: StudySpec, z: float) -> StudySpec:
    """The spec with everything open resolved for the scale z."""
    return replace(
        spec,
        num_trials=_trials_at(spec, z) if spec.num_trials is None else spec.num_trials,
        max_iterations=_iterations_at(spec, z) if spec.max_iterations is None else spec.max_iterations,
        subset_ratio=_ratio_at(spec, z) if spec.subset_ratio is None else spec.subset_ratio,
    )


def _trials_at(spec: StudySpec, z: float) -> int:
    least, most = trial_bounds(spec)
    return min(max(round(20 * _dimensions(spec) * z), least), most)


def _iterations_at(spec: StudySpec, z: float) -> int:
    full = spec.num_full_iterations
    if spec.search_alg == "asha":  # its rungs save what shorter trials would
        return full
    return min(max(round(full * z / 3), min(2, full)), full)


def _ratio_at(spec: StudySpec, z: float) -> float:
    digits = math.floor(z * 10_000) / 10_000  # readable, and never more than z
    return min(max(digits, MIN_RATIO, least_ratio(spec.full_dataset_size)), 1.0)


def trial_bounds(spec: StudySpec) -> tuple[int, int]:
    """Least and largest number of trials that is ever derived.

    More would bring little; of ASHA's, one in eta gets past the first rung.
    """
    d = _dimensions(spec)
    initial = spec.num_init_trials if spec.search_alg == "bayes_opt" else 0
    size = spec.search_space.size
    possible = MAX_TRIALS if size is None else min(MAX_TRIALS, size)
    least = min(max(10, initial + d, len(spec.default_hyper_parameters)), possible)
    most = 20 * d * spec.num_workers * (spec.reduction_factor if spec.search_alg == "asha" else 1)
    return least, min(max(most, least), possible)


def _dimensions(spec: StudySpec) -> int:
    return max(1, sum(1 for dimension in spec.search_space.values() if dimension.size != 1))
