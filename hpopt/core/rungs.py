"""Rungs and brackets of ASHA: how far trials go before they are compared.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (arXiv 1810.05934).
"""

from random import Random

from hpopt.core.spec import StudySpec


def rung_levels(min_iterations: int, max_iterations: int, reduction_factor: int, bracket: int = 0) -> tuple[int, ...]:
    """min(R, r * eta^(bracket + k)) for k = 0, 1, ...: strictly rising integers, the last one is max_iterations."""
    level = min_iterations * reduction_factor**bracket
    levels = []
    while level < max_iterations:
        levels.append(level)
        level *= reduction_factor
    return (*levels, max_iterations)


def max_brackets(min_iterations: int, max_iterations: int, reduction_factor: int) -> int:
    """How many brackets differ: the last of them has max_iterations as its only rung."""
    return len(rung_levels(min_iterations, max_iterations, reduction_factor))


def levels_of(spec: StudySpec, bracket: int = 0) -> tuple[int, ...]:
    """The rung levels of a bracket of a resolved spec."""
    return rung_levels(spec.min_iterations or 1, spec.iterations, spec.reduction_factor, bracket)


def bracket_of(spec: StudySpec, trial_id: int) -> int:
    """The bracket of a trial, drawn with the shares that asynchronous Hyperband gives: eta^(K-s) (K+1)/(K-s+1)."""
    brackets, eta = spec.num_brackets or 1, spec.reduction_factor
    if brackets == 1:
        return 0
    top = max_brackets(spec.min_iterations or 1, spec.iterations, eta) - 1
    shares = [eta ** (top - s) * (top + 1) / (top - s + 1) for s in range(brackets)]
    return Random(f"{spec.seed}/{trial_id}").choices(range(brackets), shares)[0]
