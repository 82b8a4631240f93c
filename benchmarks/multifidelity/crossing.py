r"""Made-up learning curves that cross: what learns fastest is often not what ends best.

Four hyper-parameters: a learning rate and a width on log scales, a number of layers, and one of three optimizers. With
u in [0, 1]^3 for the numeric ones and c for the optimizer, the value after the last epoch R is

    f(u, c) = 0.1 + 0.85 max_k h_kc exp(-|A_k (u - p_kc)|^2 / (2 * 0.3^2))      k = 1, 2

two peaks, the second lower and narrower; A_k = I + S_k mixes the hyper-parameters (interactions), and the optimizer
moves the peaks and changes their heights. The curve climbs from 0.1 to f as

    y(t) = 0.1 + (f - 0.1) (1 - exp(-r t)) / (1 - exp(-r R)) + 0.01 * normal noise

with the learning speed log r = log(8 / R) + g - 3.2 w(u) (f - 0.3) / 0.65: the better the end the slower the way in
the part of the space where w(u), a sigmoid of a random direction, is close to 1; elsewhere the speed depends on the
learning rate alone, g = 1.5 (u_1 - 0.5). Epochs take longer the wider and deeper the network. Everything random about a
task comes from its seed, and the noise of a configuration from the configuration.
"""

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from benchmarks.multifidelity.task import Task
from benchmarks.search.problem import Params
from hpopt.core.space import SearchSpace, Space

SEEDS = {"tune": (1, 2), "report": (3, 4), "crossing": tuple(range(11, 23))}
EPOCHS = 81
CHANCE, NOISE = 0.1, 0.01
OPTIMIZERS = ["sgd", "momentum", "adam"]
SPACE = {
    "learning_rate": SearchSpace("loguniform", [1e-5, 1.0]),
    "width": SearchSpace("qloguniform", [16, 1024, 16]),
    "layers": SearchSpace("quniform", [1, 8, 1]),
    "optimizer": SearchSpace("choice", OPTIMIZERS),
}
NUMERIC = [name for name in SPACE if name != "optimizer"]
Array = NDArray[np.float64]


class Family:
    """The curves of one seed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        self.seed = seed
        self.mixing = np.eye(3) + rng.uniform(-0.6, 0.6, (2, 3, 3))  # (peak, 3, 3)
        self.mixing[1] *= 1.6
        middles = rng.uniform(0.15, 0.85, (2, 1, 3))
        self.peaks = middles + rng.normal(0.0, 0.12, (2, len(OPTIMIZERS), 3))  # (peak, optimizer, 3)
        heights = np.array([[1.0], [0.85]]) - rng.uniform(0.0, 0.15, (2, len(OPTIMIZERS)))
        self.heights = heights / heights.max()
        self.direction = rng.normal(0.0, 1.0, 3)

    def train(self, params: Params) -> "Curve":
        """The curve of a configuration."""
        u = np.array([SPACE[name].to_unit(params[name]) for name in NUMERIC])
        optimizer = OPTIMIZERS.index(params["optimizer"])
        z = np.einsum("kij,kj->ki", self.mixing, u - self.peaks[:, optimizer])
        bumps = self.heights[:, optimizer] * np.exp(-(z**2).sum(axis=1) / (2 * 0.3**2))
        end = CHANCE + 0.85 * float(bumps.max())
        gate = 1 / (1 + math.exp(-6 * float(self.direction @ (u - 0.5))))
        slow = 3.2 * gate * (end - 0.3) / 0.65
        speed = 8 / EPOCHS * math.exp(1.5 * (float(u[0]) - 0.5) - slow)
        seconds = 0.2 + (params["width"] / 256) ** 0.7 * params["layers"] / 4
        noise = zlib.crc32(repr((self.seed, Space(SPACE).key(params))).encode())
        return Curve(end, speed, seconds, noise)


class Curve:
    """See Training."""

    def __init__(self, truth: float, speed: float, seconds: float, noise: int) -> None:
        """`noise` is the seed of what is added to each epoch's score."""
        self.truth, self.seconds = truth, seconds
        rng = np.random.Generator(np.random.PCG64(noise))
        t = np.arange(1, EPOCHS + 1)
        climb = np.expm1(-speed * t) / math.expm1(-speed * EPOCHS)
        self._scores: list[float] = (CHANCE + (truth - CHANCE) * climb + NOISE * rng.standard_normal(EPOCHS)).tolist()

    def score(self, epoch: int) -> float:
        """The score after this epoch, noise included."""
        return self._scores[epoch - 1]


def tasks() -> list[Task]:
    """Two of each half, and twelve to tune on what is to find slow learners."""
    return [_task(seed, half) for half, seeds in SEEDS.items() for seed in seeds]


def _task(seed: int, half: str) -> Task:
    return Task(f"crossing-{seed}", half, SPACE, EPOCHS, Family(seed).train)
