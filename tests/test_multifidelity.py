"""benchmarks/multifidelity: a fleet that decides nothing, in virtual time."""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.multifidelity import fleet, loop
from benchmarks.multifidelity.fleet import Coordinated, Suggest, Timing
from benchmarks.multifidelity.loop import Assignment, Fleet
from benchmarks.multifidelity.peers import native
from benchmarks.multifidelity.peers.native import specification
from benchmarks.multifidelity.peers.peer import Best, Prompt
from benchmarks.multifidelity.peers.registry import tuner
from benchmarks.multifidelity.simulate import simulate
from benchmarks.multifidelity.task import Task
from benchmarks.multifidelity.tasks import task
from hpopt.core.effects import Effect, VerdictGiven
from hpopt.core.incumbent import incumbent
from hpopt.core.internal import Internal, Suggested
from hpopt.core.messages import Event, Report
from hpopt.core.rungs import rung_levels
from hpopt.core.search_space import SearchSpace
from hpopt.core.study import Study
from hpopt.core.suggest_request import SuggestRequest
from hpopt.core.trial import TrialState
from hpopt.samplers.base import suggest
from tests.simulation import quick_suggest

pytestmark = pytest.mark.usefixtures("one_thread")


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

    def __init__(self, sampler: Suggest = quick_suggest) -> None:
        self.sampler = sampler
        self.given: list[tuple[SuggestRequest, list[dict[str, Any]]]] = []

    def __call__(self, request: SuggestRequest) -> list[dict[str, Any]]:
        self.given.append((request, self.sampler(request)))
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
        lean = timing == "instant" and study.spec.search_alg == "bayes_opt"
        counts = [1 if lean and study.desk.models(each.ordinal) else each.count for each in study.requests]
        wanted = [replace(each, count=count) for each, count in zip(study.requests, counts, strict=True)]
        assert [request for request, _ in sampler.given] == wanted
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

    @pytest.mark.parametrize("name", ["hpopt-bayes", "hpopt-bayes-median"])
    def test_makes_no_more_than_is_needed(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """To leave out suggestions that would be made again before anybody got them changes no trial."""
        where = task("crossing-1")
        monkeypatch.setattr(native, "suggest", lean := Recorded(suggest))
        run = Fleet(tuner(name, where, 3, 4), where, 4, 2.0).simulate()
        monkeypatch.setattr(Coordinated, "_needed", lambda _, request: request)
        monkeypatch.setattr(native, "suggest", whole := Recorded(suggest))
        assert Fleet(tuner(name, where, 3, 4), where, 4, 2.0).simulate() == run
        assert [found[0] for _, found in lean.given] == [found[0] for _, found in whole.given]
        assert sum(len(found) for _, found in lean.given) < sum(len(found) for _, found in whole.given)

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
