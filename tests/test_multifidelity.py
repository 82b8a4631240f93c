"""benchmarks/multifidelity: a fleet that decides nothing, in virtual time; its tasks, its runs and its tables."""

import ast
import importlib.metadata
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from benchmarks.multifidelity import fleet, loop, report
from benchmarks.multifidelity import run as runner
from benchmarks.multifidelity.fleet import Coordinated, Timing
from benchmarks.multifidelity.loop import Assignment, Fleet
from benchmarks.multifidelity.peers.native import specification
from benchmarks.multifidelity.peers.peer import Best, Prompt
from benchmarks.multifidelity.peers.registry import PEERS, distribution, tuner, version
from benchmarks.multifidelity.references import STORED
from benchmarks.multifidelity.report import Results, Steps, catch_up, efforts, leads, savings, speeds
from benchmarks.multifidelity.results import Key, done
from benchmarks.multifidelity.run import Settings
from benchmarks.multifidelity.simulate import simulate
from benchmarks.multifidelity.task import Task
from benchmarks.multifidelity.tasks import medians, select, task, tasks
from benchmarks.search import report as search_report
from benchmarks.search.references import references
from benchmarks.search.report import ranks, ratios, regrets
from hpopt.core.effects import Effect, VerdictGiven
from hpopt.core.incumbent import incumbent
from hpopt.core.messages import Event, Internal, Report, Suggested, SuggestRequest
from hpopt.core.rungs import rung_levels
from hpopt.core.search_space import SearchSpace
from hpopt.core.space import Space
from hpopt.core.study import Study
from hpopt.core.trial import TrialState
from tests.simulation import quick_suggest


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in the benchmarks."""
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the bootstrap: these intervals are either of no width or of no interest."""
    monkeypatch.setattr(search_report, "RESAMPLES", 50)


class Line:
    """A curve that rises from 0 to x in equal steps."""

    def __init__(self, x: float, epochs: int, seconds: float) -> None:
        self.truth, self.seconds = x, seconds
        self._epochs = epochs

    def score(self, epoch: int) -> float:
        return self.truth * epoch / self._epochs


def lines(epochs: int, seconds: float = 2.0) -> Task:
    """A task whose epochs all take the same time, which is the unit."""
    space = {"x": SearchSpace("uniform", [0.0, 1.0])}
    return Task("lines", "tune", space, epochs, lambda params: Line(params["x"], epochs, seconds), 2.0)


class Watched(Study):
    """A study that keeps what it was told, what followed, and what it wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[Event | Internal, list[Effect]]] = []
        self.requests: list[SuggestRequest] = []

    def handle(self, event: Event | Internal, now: float) -> list[Effect]:
        effects = super().handle(event, now)
        self.log.append((event, effects))
        return effects

    def wanted(self) -> SuggestRequest | None:
        request = super().wanted()
        if request is not None:
            self.requests.append(request)
        return request


class Recorded:
    """A sampler that keeps what it was asked and what it gave."""

    def __init__(self) -> None:
        self.given: list[tuple[SuggestRequest, list[dict[str, Any]]]] = []

    def __call__(self, request: SuggestRequest) -> list[dict[str, Any]]:
        self.given.append((request, quick_suggest(request)))
        return self.given[-1][1]


def watched(name: str, workers: int, timing: str, where: Task | None = None) -> tuple[Watched, Recorded, Coordinated]:
    """Hpopt on a task, with everything recorded."""
    where = where or lines(9)
    spec, study, sampler = specification(name, where, 3, workers), Watched(), Recorded()
    levels = rung_levels(1, where.epochs, 3) if spec.search_alg == "asha" else ()
    return study, sampler, Coordinated(spec, sampler, levels, Timing.of(timing), study)


class TestFleet:
    @pytest.mark.parametrize("timing", ["instant", "fixed:0.4", "measured:10"])
    @pytest.mark.parametrize("name", ["hpopt-asha", "hpopt-asha-random", "hpopt-bayes", "hpopt-bayes-median"])
    def test_decides_nothing(self, name: str, timing: str) -> None:
        """Every configuration comes from a suggestion, every stop from a verdict, and all are obeyed."""
        study, sampler, made = watched(name, 4, timing)
        run = Fleet(made, lines(9), 4, 6.0).simulate()
        assert [request for request, _ in sampler.given] == study.requests
        handed = [event.params for event, _ in study.log if isinstance(event, Suggested)]
        assert handed == [tuple(given) for _, given in sampler.given][: len(handed)]
        given = [params for _, found in sampler.given for params in found]
        assert all(trial.params in given for trial in study.trials)
        stops: dict[int, int] = {}
        reported: dict[int, int] = {}
        for event, effects in study.log:
            if isinstance(event, Report):
                assert event.trial not in stops
                assert event.step == reported.get(event.trial, 0) + 1
                reported[event.trial] = event.step
                verdicts = [each.verdict for each in effects if isinstance(each, VerdictGiven)]
                if verdicts[-1].stop_step is not None:
                    assert verdicts[-1].stop_step <= event.step
                    stops[event.trial] = event.step
        running = [trial.id for trial in study.trials if trial.state is TrialState.RUNNING]
        assert sorted(stops) == [trial.id for trial in study.trials if trial.id not in running]
        assert len(running) <= 4
        assert (run.trials, run.epochs) == (len(study.trials), sum(reported.values()))
        assert (min(stops.values()) < 9) == (name != "hpopt-bayes")

    @pytest.mark.parametrize("module", [fleet, loop])
    def test_knows_no_rule(self, module: Any) -> None:
        """Neither file imports a scheduler or a sampler."""
        tree = ast.parse(Path(module.__file__).read_text())
        named = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        named += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert named
        assert not [name for name in named if name.startswith(("hpopt.core.schedulers", "hpopt.core.rungs"))]
        assert not [name for name in named if "samplers" in name or "optimizer" in name]

    @pytest.mark.parametrize("name", ["hpopt-asha", "hpopt-bayes"])
    def test_incumbent(self, name: str) -> None:
        """After every report the best trial is the one that hpopt's results would show."""
        where = task("crossing-1")
        study, _, made = watched(name, 3, "instant", where)
        spec = study.spec
        changes: list[tuple[int, float]] = []
        levels = rung_levels(1, where.epochs, 3) if spec.search_alg == "asha" else ()
        report = made.report

        def checked(trial: int, epoch: int, score: float, now: float) -> bool:
            over = report(trial, epoch, score, now)
            best = incumbent(study.trials, spec, levels)
            assert best is not None
            assert made.best() == best.id
            if not changes or changes[-1][0] != best.id:
                changes.append((best.id, where.truth(best.params)))
            return over

        made.report = checked  # type: ignore[method-assign]
        run = Fleet(made, where, 3, 1.0).simulate()
        assert len(changes) > 2
        assert [each.truth for each in run.incumbents] == [truth for _, truth in changes]

    def test_waiting(self) -> None:
        """A lonely worker is idle while its suggestion is made."""
        where = lines(4)
        _, _, made = watched("hpopt-bayes", 1, "fixed:1", where)
        run = Fleet(made, where, 1, 15.0).simulate()
        # five trials of the initial design are prepared at once, then each waits: 1 + 5 * 4 + 7 * (1 + 4) + 1 + 3 = 60
        assert (run.trials, run.epochs) == (13, 51)
        assert run.idle == pytest.approx(9 / 60)

    def test_all_trials_given_out(self) -> None:
        """When a finite space has been tried, the workers stay idle to the end."""
        space = {"x": SearchSpace("choice", [0.25, 0.5])}
        where = Task("two", "tune", space, 4, lambda params: Line(params["x"], 4, 2.0), 2.0)
        run = Fleet(tuner("hpopt-bayes", where, 0, 2), where, 2, 5.0).simulate()
        assert (run.trials, run.epochs) == (2, 8)
        assert run.idle == pytest.approx(0.8)

    def test_timing(self) -> None:
        """A timing is read from what it prints; others are refused."""
        for text in ("instant", "measured:10", "fixed:0.05"):
            assert str(Timing.of(text)) == text
        assert (Timing.of("measured:5").epochs(2.0), Timing.of("fixed:5").epochs(2.0)) == (0.4, 5.0)
        for text in ("instant:1", "fixed", "fixed:0", "later"):
            with pytest.raises(ValueError, match="timing="):
                Timing.of(text)


class Script:
    """A peer that tries given values, and stops what is below a half after its second epoch."""

    def __init__(self, values: list[float]) -> None:
        self.values, self.over = iter(values), list[tuple[int, bool]]()
        self.last = 0.0
        self._best = Best()

    def ask(self) -> dict[str, Any]:
        return {"x": next(self.values)}

    def report(self, trial: int, epoch: int, score: float) -> bool:
        self._best.offer(trial, score)
        return epoch >= 2 and score < epoch / 8

    def done(self, trial: int, score: float, *, stopped: bool) -> None:
        self.over.append((trial, stopped))
        self.last = score

    def best(self) -> int | None:
        return self._best.trial


class TestLoop:
    def test_one_worker(self) -> None:
        """Times, true values and epochs of the incumbents; a trial that is stopped makes room at once."""
        peer = Script([0.4, 0.8, 0.1, 1.0, 0.9])
        run = Fleet(Prompt(peer, 4), lines(4, seconds=4.0), 1, 5.0).simulate()  # each epoch takes two units of 20
        assert peer.over == [(0, True), (1, False), (2, True)]
        assert peer.last == pytest.approx(0.05)
        assert [tuple(each) for each in run.incumbents] == [(0.5, 0.4, 1), (2.0, 0.8, 4)]
        assert (run.trials, run.epochs, run.idle) == (4, 10, 0.0)

    def test_workers_side_by_side(self) -> None:
        """Epochs end in the order of time, those of equal times in the order of the workers."""
        seen = []

        class Noting(Script):
            def report(self, trial: int, epoch: int, score: float) -> bool:
                seen.append((trial, epoch))
                return super().report(trial, epoch, score)

        def train(params: dict[str, Any]) -> Line:
            return Line(params["x"], 4, 2.0 if params["x"] < 0.7 else 6.0)

        where = Task("paces", "tune", lines(4).space, 4, train, 2.0)
        Fleet(Prompt(Noting([0.6, 0.8, 0.6, 0.6]), 4), where, 2, 1.5).simulate()
        assert seen == [(0, 1), (0, 2), (0, 3), (1, 1), (0, 4), (2, 1), (2, 2), (1, 2)]

    def test_a_tuner_that_never_ends_a_trial(self) -> None:
        """That is an error of the adapter's, and not an endless training."""

        class Endless(Prompt):
            def report(self, trial: int, epoch: int, score: float, now: float) -> bool:
                return super().report(trial, epoch, score, now) and False

        with pytest.raises(RuntimeError, match="trial 0 is not over after its last epoch, 4"):
            Fleet(Endless(Script([0.5]), 4), lines(4), 1, 5.0).simulate()

    def test_numbers_of_trials(self) -> None:
        """Trials are numbered as they are assigned."""

        class Other(Prompt):
            def assigned(self) -> list[Assignment]:
                return [each._replace(trial=each.trial + 7) for each in super().assigned()]

        with pytest.raises(RuntimeError, match="trial 7 follows -1"):
            Fleet(Other(Script([0.5]), 4), lines(4), 1, 5.0).simulate()

    @pytest.mark.parametrize("peer", ["hpopt-asha-random", "hpopt-bayes-median", "random"])
    def test_determinism(self, peer: str) -> None:
        """The same seed gives the same run, another seed another one."""
        one, same, other = (
            simulate(peer, "crossing-2", seed=seed, workers=3, horizon=1.5)["incumbents"] for seed in (1, 1, 2)
        )
        assert one == same
        assert one != other


class TestTasks:
    def test_halves(self) -> None:
        """What constants are chosen on and what is reported are different tasks, eight or more of the latter."""
        tune, report = ({each.name for each in tasks(half)} for half in ("tune", "report"))
        assert (len(tune), len(report)) == (28, 10)
        assert not tune & report
        assert set(select("all")) == tune | report == set(references(STORED)) == set(medians())
        assert select("crossing-1,lcbench-7593") == ["crossing-1", "lcbench-7593"]
        with pytest.raises(ValueError, match=r"'crossing-9' is none of .*crossing-4"):
            task("crossing-9")
        with pytest.raises(ValueError, match="'both'; use 'tune', 'report' or None"):
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
    for make in (lambda: version("bests"), lambda: tuner("bests", lines(4), 0, 1)):
        with pytest.raises(ValueError, match=r"'bests' is none of hpopt-asha, .*random"):
            make()
    with pytest.raises(ValueError, match="timing=fixed:1: random takes no time"):
        tuner("random", lines(4), 0, 1, Timing.of("fixed:1"))


# --- runs and tables


def stored(peer: str, name: str, seed: int, incumbents: list[list[float]], **more: Any) -> dict[str, Any]:
    """A run of ten full trainings with eight workers; incumbents [time, regret, epochs]."""
    known = references(STORED)[name]
    truths = [[at, known.best - regret * (known.best - known.typical), epochs] for at, regret, epochs in incumbents]
    head = {"peer": peer, "version": "1", "task": name, "seed": seed, "workers": 8, "timing": "instant"}
    seen = {"horizon": 10.0, "incumbents": truths, "trials": 20, "epochs": 1000, "idle": 0.01, "cpu": 3.0}
    return head | seen | more


def write(folder: Path, runs: list[dict[str, Any]]) -> None:
    """Append the runs as the runner does."""
    for each in runs:
        with (folder / f"{each['peer']}.jsonl").open("a") as file:
            file.write(json.dumps(each) + "\n")


class TestReport:
    def test_steps(self) -> None:
        """The regret is that of the last incumbent before a time, 1 before the first."""
        found = Steps(np.array([0.5, 2.0]), np.array([0.7, 0.2]), np.array([10.0, 50.0]))
        assert found.at(np.array([0.4, 0.5, 1.9, 2.0, 9.0])).tolist() == [1.0, 0.7, 0.7, 0.2, 0.2]
        assert found.at(np.array([9.0, 10.0, 50.0]), epochs=True).tolist() == [1.0, 0.7, 0.2]

    def test_tables(self, tmp_path: Path) -> None:
        """Means over tasks, ratios, ranks, and how soon the subject is where a peer ends."""
        slow, fast = [[1.0, 0.8, 50], [8.0, 0.4, 800]], [[0.5, 0.4, 60], [4.0, 0.2, 400]]
        for name in ("crossing-1", "crossing-2"):
            write(tmp_path, [stored("a", name, seed, fast) for seed in range(2)])
            write(tmp_path, [stored("b", name, 0, slow), stored("b", name, 1, slow) | {"workers": 64}])
        results = Results(tmp_path, ["a", "b", "absent"], ["crossing-1", "crossing-2"], 8, 10.0)
        assert results.peers == ["a", "b"]
        assert regrets(results, [1, 5, 10])[1] == [
            "b 1", "0.800 [0.800, 0.800]", "0.800 [0.800, 0.800]", "0.400 [0.400, 0.400]",
        ]  # fmt: skip
        assert ratios(results, "a", [1, 10]) == [["b", "2 x 1", "0.50 [0.50, 0.50]", "0.50 [0.50, 0.50]"]]
        assert [row[1] for row in ranks(results, [5])] == ["1.00 [1.00, 1.00]", "2.00 [2.00, 2.00]"]
        assert leads(results, "a") == [["b", "0.400", "8.00", "0.50", "0.06 [0.06, 0.06]"]]
        assert leads(results, "b") == [["a", "0.200", "4.00", "inf", "inf [inf, inf]"]]
        assert efforts(results)[0] == ["a", "1.00 % (1.00 %)", "20", "1000", "3"]

    def test_catching_up_has_an_interval(self) -> None:
        """It spans what the tasks give when they are drawn again."""
        grid = np.array([1.0, 2.0, 4.0])
        theirs = np.array([[0.9, 0.9, 0.5]] * 2)
        ours = np.array([[0.5, 0.5, 0.5], [0.9, 0.5, 0.5]])
        them, us, share, (low, high) = catch_up(grid, ours, theirs, [("x", 0), ("y", 0)])
        assert (them, us, share, low, high) == (4.0, 2.0, 0.5, 0.25, 0.5)

    def test_epochs_saved(self, tmp_path: Path) -> None:
        """What median stopping needs for the regret after each quarter is counted against the epochs without it."""
        write(tmp_path, [stored("hpopt-bayes", "crossing-1", 0, [[1.0, 0.8, 50], [8.0, 0.4, 800]])])
        write(tmp_path, [stored("hpopt-bayes-median", "crossing-1", 0, [[2.0, 0.3, 200]])])
        results = Results(tmp_path, ["hpopt-bayes", "hpopt-bayes-median"], ["crossing-1"], 8, 10.0)
        early = ["0.800", "0.05", "0.20", "4.00 [4.00, 4.00]"]
        assert savings(results) == [
            *([part, *early] for part in ("0.25", "0.50", "0.75")),
            ["1.00", "0.400", "0.80", "0.20", "0.25 [0.25, 0.25]"],
        ]

    def test_speeds(self, tmp_path: Path) -> None:
        """Decisions per CPU second, what 8 workers ask for per second, and the cost of a request."""
        costs = {"handle": 0.1, "suggest": 2.0, "requests": 40, "reports": 8100, "timing": "measured:10"}
        write(tmp_path, [stored("hpopt-asha", "crossing-1", 0, [[1.0, 0.8, 50]], **costs)])
        results = Results(tmp_path, ["hpopt-asha"], ["crossing-1"], 8, 10.0, timing=Timing.of("measured:10"))
        assert speeds(results) == [["hpopt-asha", "81000", "1.00", "40", "0.05"]]
        assert not Results(tmp_path, ["hpopt-asha"], ["crossing-1"], 8, 10.0).peers

    def test_timings(self, tmp_path: Path) -> None:
        """Runs of hpopt whose suggestions take their time stand beside those of others, which take none."""
        for peer, timing in (("hpopt-asha", "instant"), ("hpopt-asha", "fixed:0.1"), ("random", "instant")):
            write(tmp_path, [stored(peer, "crossing-1", 0, [[1.0, 0.8, 50]], timing=timing)])
        results = Results(tmp_path, ["hpopt-asha", "random"], ["crossing-1"], 8, 10.0, timing=Timing.of("fixed:0.1"))
        assert [results.stored[peer][("crossing-1", 0)]["timing"] for peer in results.peers] == ["fixed:0.1", "instant"]

    def test_picture(self, tmp_path: Path) -> None:
        """Curves are drawn into a file, one panel for each number of workers."""
        pytest.importorskip("matplotlib")
        from benchmarks.multifidelity.curves import curves

        write(tmp_path, [stored("a", "crossing-1", 0, [[0.1, 0.9, 1], [5.0, 0.1, 500]])])
        results = Results(tmp_path, ["a"], ["crossing-1"], 8, 10.0)
        curves({8: results}, "a", tmp_path / "curves.png")
        assert (tmp_path / "curves.png").stat().st_size > 5_000


class TestRun:
    def test_what_is_stored_is_not_run_again(self, tmp_path: Path) -> None:
        """Only what is missing, shorter than asked for, or of another hpopt is left to do."""
        write(tmp_path, [stored("random", "crossing-1", 0, []), stored("random", "crossing-2", 0, [], horizon=2.0)])
        write(tmp_path, [stored("hpopt-asha", "crossing-1", 0, [])])
        write(tmp_path, [stored("hpopt-asha", "crossing-2", 0, []) | {"version": version("hpopt-asha")}])
        settings = Settings(10.0, tmp_path, {})
        assert done(tmp_path, 10.0)[Key("random", "crossing-1", 0, 8)] == "1"
        keys = runner.wanted(["random", "hpopt-asha"], ["crossing-1", "crossing-2"], 1, [8], Timing())
        left = list(runner.missing(keys, settings))
        assert left == [Key("hpopt-asha", "crossing-1", 0, 8), Key("random", "crossing-2", 0, 8)]

    def test_interpreters(self) -> None:
        """A peer's interpreter is that of the longest beginning of its name."""
        settings = Settings(1.0, Path(), {"syne": "s", "syne-bohb": "b"})
        names = ("syne-asha", "syne-bohb", "random")
        assert [settings.python(peer) for peer in names] == ["s", "b", sys.executable]

    def test_half_a_line(self, tmp_path: Path) -> None:
        """Half a line, as a full disk may leave one, is refused with its place."""
        write(tmp_path, [stored("a", "crossing-1", 0, [])])
        with (tmp_path / "a.jsonl").open("a") as file:
            file.write('{"peer": "a", "ta\n')
        with pytest.raises(ValueError, match=r"a\.jsonl, line 2 is no run"):
            done(tmp_path, 1.0)

    def test_failures(self, tmp_path: Path) -> None:
        """A run that fails says why, and leaves no line."""
        python = tmp_path / "python"
        python.write_text("#!/bin/sh\necho no such peer >&2\nexit 1\n")
        python.chmod(0o700)
        settings = Settings(1.0, tmp_path / "results", {"random": str(python)})
        said = runner.run(Key("random", "lines", 0, 1), settings)
        assert said == "FAILED random lines seed 0 workers 1: no such peer"
        assert not settings.results.exists()

    def test_timeout(self, tmp_path: Path) -> None:
        """So does a run that takes too long."""
        python = tmp_path / "python"
        python.write_text("#!/bin/sh\nexec sleep 60\n")
        python.chmod(0o700)
        settings = Settings(1.0, tmp_path / "results", {"random": str(python)}, timeout=0.1)
        assert runner.run(Key("random", "lines", 0, 1), settings).endswith("not done after 0.1 s")

    def test_from_end_to_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """One command makes the runs, repeats none, and another one prints the tables."""
        common = ["--peers=hpopt-asha-random", f"--results={tmp_path}", "--horizon=1", "--workers=2"]
        for _ in range(2):
            monkeypatch.setattr(sys, "argv", ["run", *common, "--tasks=crossing-1", "--seeds=1", "--jobs=1"])
            runner.main()
        assert capsys.readouterr().out.count("hpopt-asha-random crossing-1 seed 0 workers 2") == 1
        assert len((tmp_path / "hpopt-asha-random.jsonl").read_text().splitlines()) == 1
        subject = "--subject=hpopt-asha-random"
        monkeypatch.setattr(sys, "argv", ["report", *common, "--tasks=crossing-1", subject])
        report.main()
        said = capsys.readouterr().out
        assert "2 workers: 1 tasks, 1 runs common to all peers" in said
        assert f"hpopt-asha-random {version('hpopt-asha-random')}" in said
        assert "0.00 % (0.00 %)" in said

    def test_a_horizon_for_each_number_of_workers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Runs of many workers may be shorter."""
        few, many = (stored("random", "crossing-1", 0, [[0.5, 0.9, 10]]) | {"workers": n} for n in (1, 64))
        write(tmp_path, [few, many | {"horizon": 2.0}])
        common = ["report", "--peers=random", "--tasks=crossing-1", f"--results={tmp_path}", "--workers=1,64"]
        monkeypatch.setattr(sys, "argv", [*common, "--horizon=10,2"])
        report.main()
        said = capsys.readouterr().out
        assert said.index("| peer | time 1 | time 2 | time 5 | time 10 |") < said.index("| peer | time 1 | time 2 |\n")
        monkeypatch.setattr(sys, "argv", [*common, "--horizon=10,2,1"])
        with pytest.raises(SystemExit):
            report.main()
        assert "--horizon=10,2,1: give one, or as many as --workers=1,64 has" in capsys.readouterr().err
