"""Studies whose trials run out of memory, and what is looked at in them."""

from collections.abc import Iterable, Iterator
from typing import Any

from hpopt.core.messages import Sample
from hpopt.core.space import SearchSpace, Space
from hpopt.core.trial import Trial, TrialState
from tests.simulation import Simulation

S = TrialState
SIZES = Space({"lr": SearchSpace("uniform", [0, 1]), "bs": SearchSpace("choice", [8, 16, 32, 64])})
LARGEST = {"lr": 0.5, "bs": 64}
FINITE = Space({"bs": SearchSpace("choice", [64, 8, 16, 32]), "act": SearchSpace("choice", ["a", "b"])})


def state(sim: Simulation, to: Sample) -> TrialState:
    """The trial's state."""
    return trial_of(sim, to).state


def trial_of(sim: Simulation, to: Sample) -> Trial:
    """The trial's record."""
    return sim.study.trials.since(to.trial)[0]


def begun(*defaults: dict[str, Any], **spec: Any) -> tuple[Simulation, list[Sample]]:
    """A study that begins with these configurations, all of them handed out."""
    sim, count = Simulation(), len(defaults)
    spec = {"search_space": SIZES, "num_workers": count, "num_init_trials": count, **spec}
    sim.create(batch_size_name="bs", default_hyper_parameters=defaults, **spec)
    return sim, [sim.sample() for _ in defaults]


def largest(**spec: Any) -> tuple[Simulation, Sample]:
    """A study whose first trial, handed out, has the largest batch."""
    sim, (to,) = begun(LARGEST, **spec)
    return sim, to


def out_of_memory_until(sim: Simulation, to: Sample, fits: float) -> list[Any]:
    """The batch sizes that are tried for a trial, until one fits."""
    tried = [to.params["bs"]]
    while tried[-1] > fits:
        sim.report(to, 0.5)
        sim.out_of_memory(to)
        to = sim.sample()
        tried.append(to.params["bs"])
    return tried


def limited(limit: float, name: str = "bs") -> Any:
    """A training that runs out of memory with a batch larger than this."""

    def train(to: Sample) -> Iterator[float | None]:
        for _ in range(4):
            if not isinstance(to.params[name], str) and to.params[name] > limit:
                raise MemoryError
            yield 0.5

    return train


def configs(handed: Iterable[Sample | Trial]) -> list[tuple[Any, ...]]:
    """The values of the hyper-parameters."""
    return [tuple(each.params.values()) for each in handed]
