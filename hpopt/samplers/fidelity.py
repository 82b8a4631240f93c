"""Trials of different lengths in one model: the resource, a trial's steps, is one more input of the surrogate.

A Gaussian process over (configuration, log steps) learns from every point at which trials are compared how scores grow
with the steps, and so what a trial that was stopped would have come to. Suggestions are made for trials of full length.
The model of `Klein et al., "Fast Bayesian Optimization of Machine Learning Hyperparameters on Large Datasets"`
(AISTATS 2017), with the steps in place of the size of the dataset, and of Syne Tune's MOBSTER (arXiv 2003.10865).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hpopt.core.space import Space
from hpopt.core.suggest_request import Observation
from hpopt.samplers.encoding import Encoding
from hpopt.samplers.subset import LIMIT

Array = NDArray[np.float64]


class FullLength(Encoding):
    """An encoding whose features have the length of the trial as a last column: 1 is a trial of all its steps."""

    def __init__(self, space: Space, allowed: Space | None = None) -> None:
        super().__init__(space, allowed)
        self.groups = np.append(self.groups, self.groups.max() + 1)

    def features(self, U: Array) -> Array:
        """The feature rows (m, p + 1) of snapped unit rows, of full length."""
        return self.features_at(U, np.ones(len(U)))

    def features_at(self, U: Array, length: Array) -> Array:
        """The feature rows (m, p + 1) of snapped unit rows after a share `length` (m,) of log(steps)."""
        return np.column_stack([super().features(U), length])


Curve = list[tuple[int, float]]
"""(step, best by then) in rising steps, larger is better."""


def curve(observation: Observation, sign: float) -> Curve:
    """What is known of a trial: its marks, and its end if that lies beyond the last of them."""
    points = [(step, sign * score) for step, score in observation.marks]
    if observation.score is not None and (not points or points[-1][0] < observation.steps):
        points.append((observation.steps, sign * observation.score))
    return points


def longest_first(curves: Sequence[Curve], limit: int = LIMIT) -> list[tuple[int, int, float]]:
    """At most `limit` points (number of the curve, step, score) of the curves: those of the most steps.

    Long trials are few, and say most about full length. Of the steps for which there is not room for all, points are
    taken at even distances among the scores, the best of them always.
    """
    by_step: dict[int, list[tuple[float, int]]] = {}
    for number, points in enumerate(curves):
        for step, score in points:
            by_step.setdefault(step, []).append((score, number))
    return list(_first(by_step, limit))


def _first(by_step: dict[int, list[tuple[float, int]]], limit: int) -> Iterator[tuple[int, int, float]]:
    room = limit
    for step in sorted(by_step, reverse=True):
        points = by_step[step]
        if len(points) > room:
            points = sorted(points)
            points = [points[i] for i in np.unique(np.linspace(len(points) - 1, 0, room).round().astype(int))]
        yield from ((number, step, score) for score, number in points)
        room -= len(points)
        if room <= 0:
            return


def length_of(steps: Array, full: int) -> Array:
    """log(steps) / log(full): the share of the way, on a logarithmic scale."""
    return np.log(np.maximum(steps, 1.0)) / math.log(full)
