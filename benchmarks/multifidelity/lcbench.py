"""Learning curves of multi-layer perceptrons on tabular data: LCBench (Zimmer et al., 2021, arXiv:2006.13799).

They are those of the surrogate of YAHPO Gym (see benchmarks/search/yahpo.py, which also says whose it is): the
validation accuracy in percent after 1 to 52 epochs. The surrogate's time after the last epoch is spread evenly over the
epochs, for its times in between do not always rise. The number in a task's name is the OpenML task.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.multifidelity.task import Task
from benchmarks.search.problem import Params
from benchmarks.search.yahpo import EPOCHS, LCBENCH, encoding, session

TUNE = (
    "126025", "126029", "146212", "167149", "126026", "167152", "167168", "167185", "167201",
    "168329", "168330", "168331", "168335", "168868", "168908", "168910", "189354", "189862",
    "189865", "189866", "189873", "189905", "189906", "189908", "189909", "3945",
)  # fmt: skip
REPORT = ("167104", "167161", "167181", "167184", "167190", "167200", "34539", "7593")
SECONDS, ACCURACY = 0, 1  # the surrogate's outputs
EARLY = 3  # so many epochs are looked up at once with the last one: most trials of a stopping rule need no more


class Curve:
    """See Training. Most of the curve is looked up when it is asked for."""

    def __init__(self, folder: Path, task: str, params: Params) -> None:
        self._folder, self._task, self._params = folder, task, params
        *early, last = self._look_up([*range(1, EARLY + 1), EPOCHS])
        self.seconds = max(float(last[SECONDS]) / EPOCHS, 1e-6)
        self.truth = float(last[ACCURACY])
        self._scores = [float(row[ACCURACY]) for row in early]

    def score(self, epoch: int) -> float:
        """The accuracy after this epoch."""
        if epoch == EPOCHS:
            return self.truth
        if epoch > len(self._scores):
            later = self._look_up(range(EARLY + 1, EPOCHS))
            self._scores += [float(row[ACCURACY]) for row in later]
        return self._scores[epoch - 1]

    def _look_up(self, epochs: Sequence[int]) -> NDArray[np.float32]:
        """The outputs (len(epochs), 6) of the surrogate."""
        row = [self._params[name] for name in LCBENCH]
        x = np.array([[epoch, *row] for epoch in epochs], dtype=np.float32)
        code = encoding(self._folder)["OpenML_task_id"][self._task]
        inputs = {"x_cont": x, "x_cat": np.full((len(x), 1), code, dtype=np.int32)}
        outputs: NDArray[np.float32] = session(self._folder).run(None, inputs)[0]
        return outputs


def tasks(data: Path) -> list[Task]:
    """All of them; `data` is the folder that holds yahpo. No file is read before something is trained."""
    return [_task(name, half, data / "yahpo" / "lcbench") for half, names in HALVES for name in names]


HALVES = (("tune", TUNE), ("report", REPORT))


def _task(name: str, half: str, folder: Path) -> Task:
    return Task(f"lcbench-{name}", half, LCBENCH, EPOCHS, lambda params: Curve(folder, name, params))
