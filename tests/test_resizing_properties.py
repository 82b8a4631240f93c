"""Whole studies in which memory runs out, of every kind: whatever the space, the limit and the luck."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from hpopt.core.batch_size import is_size
from hpopt.core.messages import Created, Sample
from hpopt.core.space import SearchSpace, Space
from hpopt.core.trial import ENDED, TrialState
from hpopt.samplers.base import suggest
from tests.simulation import Sampler, Simulation, quick_suggest

numbers = st.lists(st.sampled_from([1, 2, 8, 16, 24, 32, 64, 96, 128, 256, 512, 1000]), min_size=1, unique=True)
options = numbers.map(lambda found: SearchSpace("choice", found))
mixed = numbers.flatmap(lambda found: st.permutations([*found, "auto", "max"])).map(
    lambda found: SearchSpace("choice", found)
)
grids = st.builds(
    lambda kind, first, count: SearchSpace(kind, [8 * first, 8 * (first + count), 8]),
    st.sampled_from(["quniform", "qloguniform"]), st.integers(1, 4), st.integers(0, 40),
)  # fmt: skip
continua = st.builds(
    lambda kind, lo, factor: SearchSpace(kind, [lo, lo * factor]),
    st.sampled_from(["uniform", "loguniform"]), st.floats(0.5, 16), st.floats(1, 64),
)  # fmt: skip
limits = st.sampled_from([0.1, 1, 10, 20, 70, 300, 10_000])
studies = st.fixed_dictionaries(
    {
        "search_alg": st.sampled_from(["bayes_opt", "asha"]),
        "mode": st.sampled_from(["max", "min"]),
        "early_stop": st.sampled_from([None, "median_stop"]),
        "num_trials": st.integers(1, 30),
        "num_init_trials": st.integers(1, 5),
        "num_workers": st.integers(1, 5),
        "max_iterations": st.integers(1, 3),
        "seed": st.integers(0, 999),
    }
)
SETTINGS = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def too_large(params: dict[str, Any], limit: float) -> bool:
    """Whether a batch does not fit; "auto" and its like do."""
    return is_size(params["bs"]) and params["bs"] > limit


def smallest(bs: SearchSpace) -> float:
    """The smallest batch."""
    return float(min(filter(is_size, bs.range)) if bs.is_choice else bs.range[0])


def played(
    space: Space, limit: float, study: dict[str, Any], crashes: float, sampler: Sampler
) -> tuple[Simulation, list[Sample]]:
    """A study that has come to its end, and all that was handed out. What is too large scores nothing."""

    def train(to: Sample) -> Iterator[float | None]:
        if too_large(to.params, limit):
            raise MemoryError
        for _ in range(study["max_iterations"]):
            yield float(to.trial % 7)

    sim = Simulation(study["seed"], sampler)
    assert isinstance(sim.create(search_space=space, batch_size_name="bs", **study), Created)
    return sim, sim.run(train, crashes=crashes)


def expect(sim: Simulation, handed: list[Sample], limit: float) -> None:
    """Nothing lost, nothing twice, nothing outside, and what fits was trained with success."""
    space, trials = sim.study.spec.search_space, list(sim.study.trials)
    assert len(trials) == sim.study.spec.trials
    assert all(trial.state in ENDED for trial in trials)
    for params in (*(to.params for to in handed), *(trial.params for trial in trials)):
        space.check(params)
    assert max(Counter((to.trial, to.attempt) for to in handed).values(), default=1) == 1
    assert max(Counter(to.trial for to in handed).values(), default=1) <= 9
    for trial in trials:
        assert (trial.state is TrialState.FAILED) == too_large(trial.params, limit)


@SETTINGS
@given(options | mixed | grids, st.integers(1, 3), limits, studies, st.sampled_from([0.0, 0.2]))
def test_finite_spaces(bs: SearchSpace, acts: int, limit: float, study: dict[str, Any], crashes: float) -> None:
    """No configuration is tried twice, and those that fit are all tried before the study is at its end."""
    space = Space({"bs": bs, "act": SearchSpace("choice", list("abc"[:acts]))})
    sim, handed = played(space, limit, study, crashes, quick_suggest)
    expect(sim, handed, limit)
    size = (bs.size or 0) * acts
    assert len(sim.study.trials) == min(study["num_trials"], size)
    assert max(Counter(space.key(to.params) for to in handed).values()) == 1
    assert len({space.key(trial.params) for trial in sim.study.trials}) == len(sim.study.trials)
    fitting = sum(not too_large(space.config_at(i), limit) for i in range(size))
    trained = sum(trial.state is not TrialState.FAILED for trial in sim.study.trials)
    assert trained >= min(fitting, len(sim.study.trials) - sum(trial.ooms > 0 for trial in sim.study.trials))
    if study["num_trials"] >= size:
        assert trained == fitting


@SETTINGS
@given(options | mixed | grids | continua, limits, studies, st.sampled_from([0.0, 0.2]))
def test_continuous_spaces(bs: SearchSpace, limit: float, study: dict[str, Any], crashes: float) -> None:
    """There are as many trials as asked for, and all of them fit as long as anything does."""
    space = Space({"lr": SearchSpace("loguniform", [1e-4, 1]), "bs": bs})
    sim, handed = played(space, limit, study, crashes, quick_suggest)
    expect(sim, handed, limit)
    assert len(sim.study.trials) == study["num_trials"]
    if smallest(bs) <= limit:
        assert not any(trial.state is TrialState.FAILED for trial in sim.study.trials)


@SETTINGS
@given(options | grids | continua, limits, studies)
def test_the_bound_holds(bs: SearchSpace, limit: float, study: dict[str, Any]) -> None:
    """With one trial after the other, none begins with a size that ran out of memory before, nor a larger one."""
    space = Space({"lr": SearchSpace("loguniform", [1e-4, 1]), "bs": bs})
    study = {**study, "num_workers": 1, "num_init_trials": 1, "max_iterations": 1}
    _, handed = played(space, limit, study, 0.0, quick_suggest)
    failed = float("inf")
    for to in handed:
        assert to.params["bs"] < failed or to.params["bs"] == smallest(bs)
        if too_large(to.params, limit):
            failed = min(failed, to.params["bs"])


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(options | mixed | grids | continua, st.booleans(), limits, studies)
def test_with_the_search_itself(bs: SearchSpace, finite: bool, limit: float, study: dict[str, Any]) -> None:
    """The same holds with the design and the model that suggest in earnest."""
    other = SearchSpace("choice", [0.1, 0.2]) if finite else SearchSpace("loguniform", [1e-4, 1])
    space = Space({"lr": other, "bs": bs})
    with threadpool_limits(1):  # the matrices are small: a second BLAS thread makes them slower
        sim, handed = played(space, limit, study, 0.0, suggest)
    expect(sim, handed, limit)
    assert len(sim.study.trials) == min(study["num_trials"], space.size or study["num_trials"])
