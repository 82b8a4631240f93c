import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import hpopt
from hpopt.core.curve import Point, unpack
from hpopt.core.space import SearchSpace, Space
from hpopt.errors import MissingExtra
from hpopt.plot import KINDS, Kind, StudyRecord, draw, from_folder
from hpopt.plot.__main__ import main
from hpopt.plot.curves import Rung, curves_picture
from hpopt.plot.endings import COMPLETED, EARLY, FAILED, INVALID, STOPPED, UNDER_WAY
from hpopt.plot.parameters import parameters_picture
from hpopt.plot.progress import progress_picture
from hpopt.results import StoppedBy, best, row
from tests.conftest import Create
from tests.server import ROOT
from tests.simulation import Simulation, created
from tests.studies import run_all, train

Shape = tuple[int, int]
PNG = b"\x89PNG\r\n\x1a\n"
SPACE = Space(
    {
        "lr": SearchSpace("loguniform", [1e-5, 1e-1]),
        "size": SearchSpace("qloguniform", [8, 256, 8]),
        "dropout": SearchSpace("uniform", [0.0, 0.6]),
        "layers": SearchSpace("quniform", [1, 4, 1]),
        "optimizer": SearchSpace("choice", ["sgd", "adam", None, "an optimizer with a long name"]),
    }
)


def record(sim: Simulation) -> StudyRecord:
    """The study of a simulation, as it stands."""
    trials = list(sim.study.trials)
    curves = {trial.id: list(unpack(bytes(sim.committed.curves.get(trial.id, b"")))) for trial in trials}
    winner = best(trials, sim.study.spec)
    return StudyRecord("run", sim.study.spec, [row(t) for t in trials], curves, None if winner is None else winner.id)


def trained(*trials: Sequence[float | None], **spec: Any) -> StudyRecord:
    """A study whose trials report these scores one after another, until they are stopped or there are no more."""
    iterations = max(map(len, trials))
    sim = created(num_trials=len(trials), max_iterations=iterations, num_init_trials=1, num_workers=len(trials), **spec)
    for scores in trials:
        to = sim.sample()
        for score in scores:
            sim.now += 10
            if sim.report(to, score) is not hpopt.Status.RUNNING:
                break
    return record(sim)


def drawn(study: StudyRecord, kind: Kind, **how: Any) -> Figure:
    """The picture, rendered: whatever goes wrong in drawing does so here."""
    figure = draw(study, kind, **how)
    figure.canvas.draw()
    return figure


def shapes(study: StudyRecord) -> list[list[Shape]]:
    """For each line its runs: first and last step."""
    return [[(run[0][0], run[-1][0]) for run in line.runs] for line in curves_picture(study).lines]


# --- learning curves


def test_asha_marks_each_stop_at_its_rung_with_the_threshold() -> None:
    """A trial that is not among the best of its rung has a mark there, and the worst score that was kept."""
    asha = {"search_alg": "asha", "min_iterations": 1, "reduction_factor": 2}
    study = trained([0.5] * 4, [0.4] * 4, [0.6] * 4, [0.55, 0.56, 0.57, 0.58], **asha)
    picture = curves_picture(study)
    assert [(mark.trial, mark.ending, mark.step, mark.score, mark.threshold, mark.at) for mark in picture.marks] == [
        (1, STOPPED, 1, 0.4, 0.5, 1),
        (3, STOPPED, 2, 0.56, 0.6, 2),
    ]
    assert picture.rungs == [Rung(1, 4, 1), Rung(2, 3, 1)]
    assert [line.ending for line in picture.lines] == [COMPLETED, STOPPED, COMPLETED, STOPPED]
    assert shapes(study) == [[(1, 4)], [(1, 1)], [(1, 4)], [(1, 2)]]
    assert (picture.best, picture.grace) == (2, 0)


def test_a_report_that_jumps_over_a_rung_is_judged_at_the_rung() -> None:
    """The mark is at the end of the curve, the threshold at the rung before it."""
    sim = created(
        search_alg="asha", num_trials=2, max_iterations=8, min_iterations=2, reduction_factor=2, num_workers=2
    )
    for scores in ((0.5, 0.6, 0.7), (0.1, 0.2, 0.3)):
        to = sim.sample()
        for step, score in zip((1, 3, 8), scores, strict=True):
            sim.report(to, score, step)
    (mark,) = curves_picture(record(sim)).marks
    assert (mark.trial, mark.step, mark.at, mark.threshold) == (1, 3, 2, 0.5)


def test_the_median_rule_has_a_grace_and_thresholds() -> None:
    """What a stopped trial was worse than is the median of the others' means; nobody is stopped within the grace."""
    good, bad = [1.0] * 10, [3.0] * 10
    study = trained(good, good, good, bad, mode="min", early_stop="median_stop", grace_period=0.3, min_peers=3)
    picture = curves_picture(study)
    (mark,) = picture.marks
    assert (mark.trial, mark.step, mark.at, mark.score, mark.threshold) == (3, 4, 4, 3.0, 1.0)
    assert (picture.grace, picture.rungs, picture.best) == (3, [], 0)


def test_how_trials_end_is_told_apart() -> None:
    """Completed, ended by its trainer, failed and under way each have a colour, and only the ends have a mark."""
    sim = created(num_trials=4, num_workers=4)
    completed, early, failed, running = (sim.sample() for _ in range(4))
    sim.complete(completed)
    for each in (early, failed, running):
        sim.report(each, 0.25)
    sim.finalize(early)
    sim.finalize(failed, crashed=True)
    picture = curves_picture(record(sim))
    assert [line.ending for line in picture.lines] == [COMPLETED, EARLY, FAILED, UNDER_WAY]
    assert [(mark.trial, mark.ending, mark.threshold) for mark in picture.marks] == [
        (1, EARLY, None),
        (2, FAILED, None),
    ]
    labels = [text.get_text() for text in drawn(record(sim), "curves").legends[0].get_texts()]
    assert labels == ["completed (1)", "under way (1)", "failed (1)", "ended by its trainer (1)", "best: trial 0, 0.5"]


def test_curves_break_where_scores_are_not_finite() -> None:
    """Steps without a finite score are gaps; a mark stands at the height of the last score there is."""
    study = trained([0.1, 0.2, None, 0.4, None, 0.5, None, None, None, 0.9], [0.3] * 10)
    assert shapes(study)[0] == [(1, 2), (4, 4), (6, 6)]
    (mark,) = curves_picture(study).marks
    assert (mark.ending, mark.step, mark.score, mark.threshold) == (INVALID, 9, 0.5, None)
    assert curves_picture(study).notes == ["gaps: 5 steps without a finite score"]
    drawn(study, "curves")


@pytest.mark.parametrize("rule", [{"search_alg": "asha"}, {"early_stop": "median_stop", "grace_period": 0.1}])
def test_a_mark_stands_where_the_trial_was_stopped(rule: Any) -> None:
    """Also when there is no finite score at that step: at the height of the last one."""
    study = trained([5.0] * 9, [1.0, None, None], **rule)
    (mark,) = curves_picture(study).marks
    stop = study.rows[1].stopped_by
    assert stop is not None
    assert (mark.trial, mark.ending, mark.step, mark.score) == (1, STOPPED, stop.step, 1.0)


def test_another_attempt_begins_another_piece() -> None:
    """A trial that was handed out again has both attempts on its line."""
    sim = created(num_trials=1, num_workers=1)
    first = sim.sample()
    sim.report(first, 0.1)
    sim.report(first, 0.2)
    sim.release(first)
    sim.complete(sim.sample())
    assert shapes(record(sim)) == [[(1, 2), (1, 4)]]


def test_scores_with_other_params_do_not_count() -> None:
    """What a trial scored before its batch size was made smaller is not drawn."""
    space = Space({"bs": SearchSpace("quniform", [8, 64, 8])})
    sim = created(num_trials=1, search_space=space, batch_size_name="bs", default_hyper_parameters=({"bs": 64},))
    first = sim.sample()
    sim.report(first, 0.9)
    sim.out_of_memory(first)
    sim.complete(sim.sample())
    study = record(sim)
    assert [(line.trial, line.runs[0][0]) for line in curves_picture(study).lines] == [(0, (1, 0.5))]
    assert study.rows[0].first_attempt == 2


def test_trials_without_a_score_are_noted() -> None:
    """They have no line, and the picture says that they are missing."""
    sim = created(num_trials=3, num_workers=3)
    sim.complete(sim.sample())
    sim.sample()
    sim.sample()
    for picture in (curves_picture(record(sim)), progress_picture(record(sim)), parameters_picture(record(sim))):
        assert picture.notes == ["not drawn: 2 trials without a score"]


def test_long_curves_are_thinned() -> None:
    """Beyond what a picture can show, curves lose points, but neither their first nor their last."""
    study = trained([0.5] * 4)
    points = [Point(1, step, step / 10) for step in range(1, 300_002)]
    ((run,),) = [line.runs for line in curves_picture(replace(study, curves={0: points})).lines]
    assert (len(run) <= 200_001, run[0], run[-1]) == (True, (1, 0.1), (300_001, 30_000.1))


# --- progress


def test_progress_follows_the_best_trial() -> None:
    """Trials stand in the order they ended, with the time since the first; the stairs are the best one's score."""
    study = trained([0.5] * 2, [0.4] * 2, [0.7] * 2, [0.6] * 2)
    picture = progress_picture(study)
    assert [(dot.trial, dot.seconds, dot.order) for dot in picture.dots] == [
        (0, 20, 1),
        (1, 40, 2),
        (2, 60, 3),
        (3, 80, 4),
    ]
    assert [score for _, _, score in picture.stairs] == [0.5, 0.5, 0.7, 0.7]
    assert (picture.best, picture.unit) == (2, (1.0, "seconds"))


def test_progress_counts_rungs_before_scores() -> None:
    """With asha the stairs may step down: who got further is better, as in get_best_config."""
    asha = {"search_alg": "asha", "min_iterations": 1, "reduction_factor": 2}
    picture = progress_picture(trained([0.5, 0.6], [0.9], **asha))
    assert [dot.best for dot in picture.dots] == [0, 0]
    sim = created(num_trials=2, max_iterations=4, num_workers=2, **asha)
    first, second = sim.sample(), sim.sample()
    sim.report(first, 0.9)
    sim.finalize(first)
    for score in (0.95, 0.6, 0.6, 0.6):
        sim.report(second, score)
    assert [dot.best for dot in progress_picture(record(sim)).dots] == [0, 1]


def test_progress_names_who_would_have_been_named() -> None:
    """Once enough trials have come to a rung they are compared there: the line ends at the star."""
    asha = {"search_alg": "asha", "min_iterations": 1, "reduction_factor": 2, "max_iterations": 4, "num_trials": 30}
    sim = created(num_workers=30, **asha)
    samples = [sim.sample() for _ in range(10)]
    for score in (0.5, 0.5, 0.5, 0.5):
        sim.report(samples[0], score)
    for to in samples[1:]:
        sim.report(to, 0.9)
        sim.finalize(to)
    study = record(sim)
    picture = progress_picture(study)
    assert picture.dots[-1].best == study.best == 1


@pytest.mark.parametrize(
    ("seconds", "unit"), [(100, "seconds"), (600, "minutes"), (3 * 3600, "hours"), (5 * 86_400, "days")]
)
def test_times_have_a_unit_that_suits_them(seconds: float, unit: str) -> None:
    """From seconds to days."""
    study = trained([0.5])
    rows = [replace(each, ended_at=each.issued_at + seconds) for each in study.rows]
    assert progress_picture(replace(study, rows=rows)).unit[1] == unit


# --- hyper-parameters


@pytest.mark.parametrize(
    ("space", "low", "high"),
    [
        (SearchSpace("qloguniform", [1e-9, 257, 4]), 4, 256),
        (SearchSpace("quniform", [-0.5, 0.95, 0.25]), -0.5, 0.75),
        (SearchSpace("loguniform", [1e-9, 1]), 1e-9, 1),
    ],
)
def test_axes_end_where_the_values_do(space: SearchSpace, low: float, high: float) -> None:
    """Of a grid only the values that it has."""
    study = trained([0.1] * 2, [0.2] * 2, search_space=Space({"x": space}))
    (panel,) = parameters_picture(study).panels
    assert (panel.low, panel.high) == (low, high)


def test_parameters_have_the_axis_of_their_space() -> None:
    """Logarithmic where the space is, options at 0, 1, 2, ... and every scored trial on each."""
    study = trained(*([0.1 * n] * 2 for n in range(1, 7)), search_space=SPACE)
    panels = {panel.name: panel for panel in parameters_picture(study).panels}
    assert [(name, panel.log) for name, panel in panels.items()] == [
        ("lr", True), ("size", True), ("dropout", False), ("layers", False), ("optimizer", False),
    ]  # fmt: skip
    assert panels["optimizer"].options == ["sgd", "adam", "None", "an optimizer …"]
    assert (panels["size"].low, panels["size"].high) == (8, 256)
    for name, panel in panels.items():
        assert [value.trial for value in panel.values] == list(range(6))
        assert [value.score for value in panel.values] == [row.score for row in study.rows]
        if not panel.options:
            assert [value.x for value in panel.values] == [row.params[name] for row in study.rows]
    places = [SPACE["optimizer"].index_of(row.params["optimizer"]) for row in study.rows]
    assert [round(value.x) for value in panels["optimizer"].values] == places


# --- drawing


LARGE: dict[str, dict[str, Any]] = {
    "asha": {"search_alg": "asha", "reduction_factor": 3, "num_brackets": 2},
    "median": {"early_stop": "median_stop"},
}


@cache
def large(rule: str) -> StudyRecord:
    """500 trials that end in every way, with gaps and outliers: 100 of a simulation, five times over."""

    def training(to: Any) -> Any:
        noise = random.Random(to.trial)
        for step in range(1, 28):
            if noise.random() < 0.01:
                raise RuntimeError
            score = 1 / step + noise.random() + (1e12 if noise.random() < 0.001 else 0)
            yield None if noise.random() < 0.01 else score

    sim = created(num_trials=100, max_iterations=27, search_space=SPACE, mode="min", num_workers=8, **LARGE[rule])
    sim.run(training)
    study = record(sim)
    rows = [replace(each, id=each.id + 100 * copy) for copy in range(5) for each in study.rows]
    return replace(study, rows=rows, curves={each.id: (study.curves or {})[each.id % 100] for each in rows})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", LARGE)
def test_large_studies_are_drawn(kind: Kind, rule: str, tmp_path: Path) -> None:
    """500 trials make a picture of a modest size."""
    path = tmp_path / "picture.png"
    draw(large(rule), kind, path)
    assert path.read_bytes().startswith(PNG)
    assert path.stat().st_size < 1_000_000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "scores",
    [[[0.5]], [[0.0, 0.0]], [[-1e308, 1e308]], [[1e-300, 1.0, 1e300]], [[None, 0.5]], [[5e-324, 1.0]] * 3,
     [[1e308]] * 12 + [[-1e308]]],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["min", "max"])
def test_odd_studies_are_drawn(kind: Kind, scores: list[list[float | None]], mode: str) -> None:
    """One trial, one step, equal and extreme scores: a picture all the same."""
    drawn(trained(*scores, mode=mode), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_shown_as_they_are(kind: Kind) -> None:
    """A dollar sign begins no formula, and a name may be of one value."""
    space = Space({"$x_1$ \\frac": SearchSpace("uniform", [1, 1]), "y": SearchSpace("choice", ["$a$", "_b", "$"])})
    study = trained([0.5, 0.6], metric="$loss$", search_space=space)
    drawn(replace(study, name="$study$"), kind)


def test_a_picture_leaves_pyplot_alone() -> None:
    """Figures are not pyplot's: they need no display, and are gone when nobody holds them."""
    code = "import sys; from tests.test_plot import *; drawn(trained([1]), 'curves'); print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "matplotlib.figure" in answer.stdout.split()
    assert "matplotlib.pyplot" not in answer.stdout.split()


def test_the_best_trial_is_black_and_on_top() -> None:
    """Among all lines the best trial's is drawn last, in black."""
    figure = drawn(trained([0.5] * 4, [0.9] * 4, [0.7] * 4), "curves")
    top: Any = max(reversed(figure.axes[0].collections), key=lambda each: each.get_zorder())
    assert top.get_edgecolor()[0].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(("kind", "suffix"), [("curves", ".svg"), ("progress", ".pdf"), ("parameters", ".png")])
def test_the_name_of_the_file_says_the_format(kind: Kind, suffix: str, tmp_path: Path) -> None:
    """Whatever matplotlib can write."""
    path = tmp_path / f"picture{suffix}"
    draw(trained([0.5, 0.6]), kind, path)
    assert path.stat().st_size > 1000


# --- errors


def test_a_study_without_scores_is_refused() -> None:
    """There is nothing to draw, and the error says of what."""
    sim = created(num_trials=3, num_workers=3)
    for trials in ("0 trials", "1 trial,"):
        for kind in KINDS:
            with pytest.raises(ValueError, match=f"study 'run' has nothing to draw yet: {trials}"):
                draw(record(sim), kind)
        sim.sample()


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    """An unknown kind, format or folder is answered with what there is."""
    study = trained([0.5])
    with pytest.raises(ValueError, match="kind='curve': use one of curves, progress, parameters"):
        draw(study, "curve")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"path='picture': end it in one of .*\.png"):
        draw(study, "curves", "picture")
    with pytest.raises(ValueError, match=r"the folder '.*none' does not exist: make it"):
        draw(study, "curves", tmp_path / "none" / "picture.png")


def test_without_curves_the_other_pictures_remain() -> None:
    """Results files of before curves.csv still have scores."""
    study = replace(trained([0.5]), curves=None)
    with pytest.raises(ValueError, match=r"study 'run' has no curves\.csv beside its results\.json"):
        draw(study, "curves")
    drawn(study, "progress")
    drawn(study, "parameters")


def test_a_folder_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    """The error says what is wrong with it."""
    for folder, problem in ((tmp_path / "none", "does not exist"), (tmp_path, r"has no results\.json")):
        with pytest.raises(ValueError, match=f"{problem}: pass the save_path of a study that has begun"):
            from_folder(folder)
    path = tmp_path / "results.json"
    for text, problem in (("{", "is no JSON"), ('{"study": 1}', "is not what this version of hpopt writes: TypeError")):
        path.write_text(text)
        with pytest.raises(ValueError, match=problem):
            from_folder(tmp_path)


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an optional dependency."""
    for name in [
        name for name in sys.modules if name.startswith(("matplotlib", "hpopt.plot.canvas", "hpopt.plot.draw"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"pictures need matplotlib: pip install 'hpopt\[plot\]'"):
        draw(trained([0.5]))


# --- whole studies


def stopped_study(create: Create, **changes: Any) -> hpopt.HpOpt:
    """A study on a real server in which asha has stopped a trial, and which has ended."""
    hpo = create(search_alg="asha", min_iterations=1, reduction_factor=2, num_trials=3, num_workers=1, **changes)
    run_all(hpo, lambda config, step: step - 10 * config["trial_id"])
    return hpo


def test_a_study_is_drawn_from_its_files(create: Create, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """results.json and curves.csv hold what the study itself does; the command draws every kind from them."""
    hpo = stopped_study(create)
    live = hpo.record()
    assert isinstance(hpo.plot("progress", tmp_path / "own.png"), Figure)
    hpo.close()
    stored = from_folder(tmp_path)
    assert stored == replace(live, name=stored.name, rows=list(live.rows))
    assert stored.rows[1].stopped_by == StoppedBy("asha", 1, -9.0, 1.0)
    for kind in KINDS:
        out = tmp_path / f"{kind}.png"
        assert main([str(tmp_path), "--kind", kind, "--out", str(out)]) == 0
        assert capsys.readouterr().out == f"{out}\n"
        assert out.read_bytes().startswith(PNG)
    assert (tmp_path / "own.png").read_bytes().startswith(PNG)


def test_stops_are_separate_values_in_the_files(create: Create, tmp_path: Path) -> None:
    """Which rule, at which step, against which threshold: fields of results.json and columns of trials.csv."""
    stopped_study(create).close()
    trials = json.loads((tmp_path / "results.json").read_text())["trials"]
    assert [trial["stopped_by"] for trial in trials][:2] == [
        None, {"rule": "asha", "step": 1, "score": -9.0, "threshold": 1.0},
    ]  # fmt: skip
    head, first, second, _ = (line.split(",") for line in (tmp_path / "trials.csv").read_text().splitlines())
    columns = [head.index(f"stopped_by.{name}") for name in ("rule", "step", "score", "threshold")]
    assert [first[column] for column in columns] == [""] * 4
    assert [second[column] for column in columns] == ["asha", "1", "-9.0", "1.0"]


def test_a_study_on_a_server_is_drawn_by_its_name(
    create: Create, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With HPOPT_URL the command needs no files, also while trials are under way."""
    hpo = create(num_trials=3, num_workers=3)
    train(hpo.get_next_sample() or {})
    hpopt.report(hpo.get_next_sample() or {}, 0.5)
    monkeypatch.setenv("HPOPT_URL", hpo.url)
    out = tmp_path / "live.svg"
    assert main(["--study", hpo.study, "--out", str(out)]) == 0
    assert "under way (1)" in out.read_text()
    assert Counter(each.state for each in hpo.trials()) == {"completed": 1, "running": 1}


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and a status, no traceback; a folder and a study exclude one another."""
    assert main([str(tmp_path)]) == 1
    assert "has no results.json: pass the save_path" in capsys.readouterr().err
    for arguments in ([], [str(tmp_path), "--study", "run"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "name the folder of a study's results, or a study on a server with --study" in capsys.readouterr().err
    assert main(["--study", "run"]) == 1
    assert "url=None: pass the server's URL, or set HPOPT_URL" in capsys.readouterr().err
