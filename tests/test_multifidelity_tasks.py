"""benchmarks/multifidelity: what is trained, and the tuners that are compared."""

import importlib.metadata
import itertools

import numpy as np
import pytest

from benchmarks.multifidelity.fleet import Timing
from benchmarks.multifidelity.peers.registry import PEERS, distribution, tuner, version
from benchmarks.multifidelity.references import STORED
from benchmarks.multifidelity.simulate import simulate
from benchmarks.multifidelity.tasks import PARTS, medians, select, task, tasks
from benchmarks.search.references import references
from hpopt.core.space import Space

pytestmark = pytest.mark.usefixtures("one_thread")


class TestTasks:
    def test_halves(self) -> None:
        """What constants are chosen on and what is reported are different tasks, eight or more of the latter."""
        tune, report, more = (set(select(half)) for half in PARTS)
        assert (len(tune), len(report), len(more)) == (28, 10, 12)
        assert not (tune | more) & report
        assert set(select("all")) == tune | report | more == set(references(STORED)) == set(medians())
        assert select("crossing-1,lcbench-7593") == ["crossing-1", "lcbench-7593"]
        with pytest.raises(ValueError, match=r"'crossing-9' is none of .*crossing-4"):
            task("crossing-9")
        with pytest.raises(ValueError, match="'both'; use one of tune, report, crossing, or None"):
            tasks("both")

    @pytest.mark.parametrize("name", ["crossing-1", "crossing-3", "lcbench-126025"])
    def test_references(self, name: str) -> None:
        """The best configuration has its truth; random ones are worse, and half of them are faster than the median."""
        if name.startswith("lcbench"):
            pytest.importorskip("onnxruntime")
        where, known = task(name), references(STORED)[name]
        assert where.truth(known.params) == pytest.approx(known.best, rel=1e-5)
        space, rng = Space(where.space), np.random.default_rng(3)
        params = [space.from_unit(rng.random(len(space)).tolist()) for _ in range(200)]
        assert max(map(where.truth, params)) <= known.best
        assert np.median([where.truth(each) for each in params]) == pytest.approx(known.typical, rel=0.2)
        assert np.median([where.seconds_per_epoch(each) for each in params]) == pytest.approx(1.0, rel=0.2)

    def test_curves_of_lcbench(self) -> None:
        """However a curve is looked up, it is the same, and it ends at the truth."""
        pytest.importorskip("onnxruntime")
        where = task("lcbench-7593")
        params = Space(where.space).from_unit([0.3] * 7)
        curve, late = where.curve(params), where.train(params)
        assert len(curve) == where.epochs == 52
        assert curve[-1] == where.truth(params)
        assert [late.score(epoch) for epoch in (40, 2, 52, 4)] == [curve[39], curve[1], curve[51], curve[3]]
        assert where.seconds_per_epoch(params) > 0

    @pytest.mark.parametrize("name", ["crossing-1", "crossing-2", "crossing-3", "crossing-4"])
    def test_curves_cross(self, name: str) -> None:
        """Many a pair of good configurations changes places, and the noise of a configuration is its own."""
        where, rng = task(name), np.random.default_rng(4)
        space = Space(where.space)
        drawn = [space.from_unit(rng.random(4).tolist()) for _ in range(300)]
        good = sorted(drawn, key=where.truth)[-40:]
        curves = np.array([where.curve(params) for params in good])
        assert np.array_equal(curves[0], where.curve(good[0]))
        assert curves.shape == (40, 81)
        pairs = list(itertools.combinations(range(40), 2))
        crossing = sum((curves[a, 8] - curves[b, 8]) * (curves[a, 80] - curves[b, 80]) < 0 for a, b in pairs)
        assert 0.2 < crossing / len(pairs) < 0.8
        noise = curves[:, -1] - [where.truth(params) for params in good]
        assert 0.005 < noise.std() < 0.02


@pytest.mark.parametrize("name", PEERS)
def test_peers(name: str) -> None:
    """Every peer whose packages are here trains in virtual time, finds something, and does the same again."""
    package = distribution(name)
    if package is not None:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed")  # who compares installs the peers; the project needs none
    runs = [simulate(name, "crossing-1", seed=0, workers=4, horizon=0.4) for _ in range(2)]
    assert runs[0]["incumbents"] == runs[1]["incumbents"]
    assert runs[0]["idle"] < 0.01
    assert runs[0]["epochs"] > 40
    assert runs[0]["version"] == version(name)


def test_unknown_peers() -> None:
    """They are named, with those there are; and only hpopt's suggestions can take time."""
    crossing = task("crossing-1")
    for make in (lambda: version("bests"), lambda: tuner("bests", crossing, 0, 1)):
        with pytest.raises(ValueError, match=r"'bests' is none of hpopt-asha, .*random"):
            make()
    with pytest.raises(ValueError, match="timing=fixed:1: random takes no time"):
        tuner("random", crossing, 0, 1, Timing.of("fixed:1"))
