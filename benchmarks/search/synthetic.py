"""Functions from the literature on optimization, minus what is minimised there; their best values are known exactly.

Definitions: Surjanovic and Bingham, Virtual Library of Simulation Experiments, sfu.ca/~ssurjano. Where a published
optimum lies in or near the middle of the space, it is moved.
"""

import math

import numpy as np
import numpy.typing as npt

from benchmarks.search.problem import Params, Problem
from hpopt.core.search_space import SearchSpace

ACKLEY = (4.1, -6.4, 8.3, -0.8, 0.7)  # where its optimum is moved to
LEVY = (-7.0, 3.7, -2.0, 6.1, 5.0, -4.3, 2.0, -8.2)  # the same; the quantized dimensions are the even ones
EMBEDDED = ("x3", "x6", "x10", "x13")  # the four of x0 to x15 that matter
SHEKEL = (4.000746867, 3.999509480, 4.000746867, 3.999509480)
STYBLINSKI = (-3, -2.903534015, -3, -2.903534015, -3, -2.903534015, -3)
TRID = (4, 6, 6, 4)  # the optimum of the Trid function in four dimensions,
MOVED = (-8.5, 7, 10, -4.5)  # and where it is moved to

# The four peaks of the Hartmann function in six dimensions: heights, widths, places.
ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
HARTMANN = (0.20168951, 0.15001069, 0.47687398, 0.27533243, 0.31165162, 0.65730053)

# The ten peaks of the Shekel function in four dimensions: how wide they are, and where, a row per dimension.
BETA = np.array([1, 2, 2, 4, 4, 6, 3, 7, 5, 5]) / 10
C = np.array(
    [
        [4, 1, 8, 6, 3, 2, 5, 8, 6, 7],
        [4, 1, 8, 6, 7, 9, 3, 1, 2, 3.6],
        [4, 1, 8, 6, 3, 2, 5, 8, 6, 7],
        [4, 1, 8, 6, 7, 9, 3, 1, 2, 3.6],
    ]
)


def functions() -> list[Problem]:
    """All of them. What noise there is, is 1 to 3 % of the way from a typical configuration to the best."""
    return [
        Problem("branin", "tune", _plane(), branin, 1.0, {"x": math.pi, "y": 2.275}),
        Problem("hartmann6", "tune", _uniform(6, 0, 1), hartmann6, 0.1, _params(HARTMANN)),
        Problem("rosenbrock8", "tune", _uniform(8, -2.048, 2.048), rosenbrock8, 0.0, _params((1.0,) * 8)),
        Problem("ackley5", "seen", _uniform(5, -10, 15), ackley5, 0.5, _params(ACKLEY)),
        Problem("levy-int8", "seen", _half_quantized(8, 10), levy, 0.0, _params(LEVY)),
        Problem("shekel4", "report", _uniform(4, 0.5, 10), shekel4, 0.0, _params(SHEKEL)),
        Problem("styblinski7", "report", _half_quantized(7, 5), styblinski7, 4.0, _params(STYBLINSKI)),
        Problem("embedded16", "tune", _half_quantized(16, 16), embedded16, 13.0, _embedded_optimum()),
    ]


def branin(params: Params) -> float:
    """Three equal optima in the plane; -0.397887 at (pi, 2.275)."""
    x, y = params["x"], params["y"]
    valley = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return float(-(valley**2) - 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) - 10)


def hartmann6(params: Params) -> float:
    """Six dimensions, four peaks; 3.32237 at the highest."""
    return float(ALPHA @ np.exp(-(A * (_point(params) - P) ** 2).sum(axis=1)))


def rosenbrock8(params: Params) -> float:
    """A curved valley in eight dimensions, in log scale; 0 at (1, ..., 1), which is off the middle.

    The score is -log(1 + f): as it is, f is so large at the border that all but the border looks like the optimum.
    """
    x = _point(params)
    return float(-np.log1p((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()))


def ackley5(params: Params) -> float:
    """A funnel full of ripples in five dimensions; 0 at the place that it is moved to."""
    z = _point(params) - ACKLEY
    root, waves = math.sqrt((z**2).mean()), np.cos(2 * math.pi * z).mean()
    return float(20 * math.exp(-0.2 * root) + math.exp(waves) - 20 - math.e)


def levy(params: Params) -> float:
    """Waves in eight dimensions, integers and floats by turns; 0 at the place that it is moved to."""
    w = 1 + (_point(params) - LEVY) / 4
    first, last = math.sin(math.pi * w[0]) ** 2, (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
    between = (w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2)
    return float(-(first + between.sum() + last))


def shekel4(params: Params) -> float:
    """Ten peaks in four dimensions, in log scale; the highest, 10.5364, is the narrowest.

    The score is log(f): as it is, all but the peaks looks the same. The space is smaller than usual, so that its centre
    is no peak.
    """
    return float(np.log((1 / (((_point(params)[:, None] - C) ** 2).sum(axis=0) + BETA)).sum()))


def styblinski7(params: Params) -> float:
    """Two wells in each of seven dimensions, integers and floats by turns; one of the 128 is the best."""
    x = _point(params)
    return float(-0.5 * (x**4 - 16 * x**2 + 5 * x).sum())


def embedded16(params: Params) -> float:
    """Sixteen dimensions, of which the four-dimensional Trid function uses the four of EMBEDDED; 16 at the best."""
    x = np.array([params[name] for name in EMBEDDED], dtype=float) - MOVED + TRID
    return float((x[1:] * x[:-1]).sum() - ((x - 1) ** 2).sum())


def _point(params: Params) -> npt.NDArray[np.float64]:
    return np.array([params[f"x{i}"] for i in range(len(params))], dtype=float)


def _params(point: tuple[float, ...]) -> Params:
    return {f"x{i}": x for i, x in enumerate(point)}


def _plane() -> dict[str, SearchSpace]:
    return {"x": SearchSpace("uniform", [-5, 10]), "y": SearchSpace("uniform", [0, 15])}


def _uniform(dimensions: int, lo: float, hi: float) -> dict[str, SearchSpace]:
    return {f"x{i}": SearchSpace("uniform", [lo, hi]) for i in range(dimensions)}


def _half_quantized(dimensions: int, bound: int) -> dict[str, SearchSpace]:
    integer, real = SearchSpace("quniform", [-bound, bound, 1]), SearchSpace("uniform", [-bound, bound])
    return {f"x{i}": real if i % 2 else integer for i in range(dimensions)}


def _embedded_optimum() -> Params:
    return {f"x{i}": 1 for i in range(16)} | dict(zip(EMBEDDED, MOVED, strict=True))
