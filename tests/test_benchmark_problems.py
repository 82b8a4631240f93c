import math
import warnings
from typing import Any

import numpy as np
import pytest

from benchmarks.search.problem import Problem
from benchmarks.search.problems import problem, problems
from benchmarks.search.references import Effort, Point, Reference, climb, reference, references
from hpopt.core.space import SearchSpace, Space

PROBLEMS = problems()
EXACT = [each for each in PROBLEMS if each.optimum is not None]
REFERENCES = references()

every = pytest.mark.parametrize("problem", PROBLEMS, ids=[each.name for each in PROBLEMS])
every_exact = pytest.mark.parametrize("problem", EXACT, ids=[each.name for each in EXACT])


def middle(problem: Problem) -> dict[str, Any]:
    """The centre of the space."""
    return Space(problem.space).from_unit([0.5] * len(problem.space))


def runnable(problem: Problem) -> None:
    """Skip the test where what the problem needs is not installed."""
    if problem.name.startswith(("lcbench", "rpart")):
        pytest.importorskip("onnxruntime")
    if problem.name == "torch-digits":
        pytest.importorskip("torch")


class TestProblems:
    def test_halves(self) -> None:
        """What constants are chosen on, what is reported and what was reported before differ, at least ten of each."""
        halves = [{each.name for each in problems(half)} for half in ("tune", "report", "seen")]
        assert min(map(len, halves)) >= 10
        assert len(set.union(*halves)) == sum(map(len, halves)) == len(PROBLEMS)

    def test_names(self) -> None:
        """A problem is found by its name; another name or half is refused."""
        assert [problem(each.name).name for each in PROBLEMS] == [each.name for each in PROBLEMS]
        with pytest.raises(ValueError, match=r"'branin2' is none of .*branin"):
            problem("branin2")
        with pytest.raises(ValueError, match="'both'; use 'tune', 'report', 'seen' or None"):
            problems("both")

    @every
    def test_truth(self, problem: Problem) -> None:
        """The same params have the same truth, a finite number; no warning gets out, not even where it is bad."""
        runnable(problem)
        space, rng = Space(problem.space), np.random.default_rng(5)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for unit in (rng.random(len(space)), np.full(len(space), 0.999)):
                truth = problem.truth(space.from_unit(list(unit)))
                assert math.isfinite(truth)
                assert problem.truth(space.from_unit(list(unit))) == truth

    @every
    def test_score(self, problem: Problem) -> None:
        """A score is the truth with noise of the problem's deviation; without noise it is the truth."""
        params = middle(problem)
        still = Problem(problem.name, problem.half, problem.space, lambda _: 5.0, problem.noise)
        scores = [still.score(still.truth(params), np.random.default_rng(seed)) for seed in range(200)]
        assert np.std(scores) == pytest.approx(problem.noise, rel=0.2)
        assert np.mean(scores) == pytest.approx(5, abs=problem.noise)

    @every_exact
    def test_optimum(self, problem: Problem) -> None:
        """The optimum of a function is inside its space, and no step away from it is better."""
        assert problem.optimum is not None
        space, best = Space(problem.space), problem.truth(problem.optimum)
        assert space.check(problem.optimum) == problem.optimum
        unit, rng = space.to_unit(problem.optimum), np.random.default_rng(0)
        assert climb(problem, Point(unit, best), 300, rng).truth <= best + 1e-6
        assert max(problem.truth(space.from_unit(list(rng.random(len(space))))) for _ in range(300)) < best

    @pytest.mark.parametrize(
        ("name", "best"),
        [
            ("branin", -0.397887),
            ("hartmann6", 3.32237),
            ("rosenbrock8", 0),
            ("ackley5", 0),
            ("levy-int8", 0),
            ("embedded16", 16),
            ("network6", -0.3),
            ("trees8", 0),
            ("sparse20", 0),
            ("categorical6", 0),
            ("shekel4", math.log(10.5364)),
            ("styblinski7", 273.4985),
            ("finetune9", 0),
        ],
    )
    def test_published(self, name: str, best: float) -> None:
        """The best value of a function is the published one."""
        known = problem(name)
        assert known.optimum is not None
        assert known.truth(known.optimum) == pytest.approx(best, abs=1e-5)
        assert REFERENCES[name].best == pytest.approx(best, abs=1e-5)

    def test_exact_are_tested(self) -> None:
        """Thirteen problems know their optimum."""
        assert len(EXACT) == 13


class TestReferences:
    @every
    def test_stored(self, problem: Problem) -> None:
        """Every problem has a reference: its best configuration is one of the space, and better than a typical one."""
        stored = REFERENCES[problem.name]
        assert stored.best > stored.typical
        assert Space(problem.space).check(stored.params) == stored.params
        assert (stored.regret(stored.best), stored.regret(stored.typical)) == (0, 1)

    @every
    def test_middle(self, problem: Problem) -> None:
        """The best configuration is not the middle of the space: a search gets nothing for starting there."""
        runnable(problem)
        assert REFERENCES[problem.name].regret(problem.truth(middle(problem))) > 0.05

    def test_no_others(self) -> None:
        """A problem that is gone leaves no reference behind."""
        assert set(REFERENCES) == {each.name for each in PROBLEMS}

    @pytest.mark.parametrize("name", ["lcbench-126025", "rpart-1461"])
    def test_surrogates(self, name: str) -> None:
        """A surrogate gives what the reference was computed with."""
        pytest.importorskip("onnxruntime")
        stored = REFERENCES[name]
        assert problem(name).truth(stored.params) == pytest.approx(stored.best, rel=1e-4)

    def test_search(self) -> None:
        """Where the optimum is not known, it is searched, from the stored best on; numbers, integers and options."""
        space = {
            "x": SearchSpace("uniform", [0, 1]),
            "n": SearchSpace("quniform", [0, 50, 1]),
            "kind": SearchSpace("choice", ["a", "b", "c"]),
        }

        def truth(params: dict[str, Any]) -> float:
            return -float((params["x"] - 0.3) ** 2 + (params["n"] - 17) ** 2 + (params["kind"] != "b"))

        bowl = Problem("bowl", "tune", space, truth)
        found = reference(bowl, None, Effort(50, 3, 300))
        assert found.params == {"x": pytest.approx(0.3, abs=0.01), "n": 17, "kind": "b"}
        assert found.typical < -1
        known = Reference(0.0, found.typical, "known", {"x": 0.3, "n": 17, "kind": "b"})
        assert reference(bowl, known, Effort(50, 3, 1)).best == pytest.approx(0, abs=1e-12)
