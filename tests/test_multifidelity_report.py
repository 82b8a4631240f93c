"""benchmarks/multifidelity: stored runs, and the tables and pictures made of them."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.multifidelity import confirm, report
from benchmarks.multifidelity import run as runner
from benchmarks.multifidelity.fleet import Timing
from benchmarks.multifidelity.peers.registry import version
from benchmarks.multifidelity.references import STORED
from benchmarks.multifidelity.report import Results, Steps, catch_up, efforts, leads, savings, speeds
from benchmarks.multifidelity.results import Key, done
from benchmarks.multifidelity.run import Settings
from benchmarks.multifidelity.simulate import simulate
from benchmarks.search import report as search_report
from benchmarks.search.references import references
from benchmarks.search.report import ranks, ratios, regrets

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the bootstrap: these intervals are either of no width or of no interest."""
    monkeypatch.setattr(search_report, "RESAMPLES", 50)


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

    def test_every_version_is_named(self, tmp_path: Path) -> None:
        """Of runs of several versions all are told, not the one that was read last."""
        runs = [stored("a", "crossing-1", seed, []) | {"version": text} for seed, text in enumerate(["2", "1", "2"])]
        write(tmp_path, runs)
        assert Results(tmp_path, ["a"], ["crossing-1"], 8, 10.0).versions == {"a": "1 and 2"}

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

    def test_picture(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Curves are drawn into a file, one panel for each number of workers; a peer has one colour in all of them."""
        pytest.importorskip("matplotlib")
        from matplotlib.figure import Figure

        from benchmarks.multifidelity.curves import curves

        for peer in ("a", "b"):
            write(tmp_path, [stored(peer, "crossing-1", 0, [[0.1, 0.9, 1], [5.0, 0.1, 500]])])
        write(tmp_path, [stored("b", "crossing-1", 0, [[0.1, 0.9, 1]]) | {"workers": 64}])
        drawn: list[Figure] = []
        save = Figure.savefig

        def saved(self: Figure, *to: Any, **options: Any) -> None:
            drawn.append(self)
            save(self, *to, **options)

        monkeypatch.setattr(Figure, "savefig", saved)
        few, many = (Results(tmp_path, ["a", "b"], ["crossing-1"], workers, 10.0) for workers in (8, 64))
        curves({8: few, 64: many}, "a", tmp_path / "curves.png")
        assert (tmp_path / "curves.png").stat().st_size > 5_000
        colours = [[line.get_color() for line in axes.get_lines()] for axes in drawn[0].axes]
        assert colours == [["C0", "C1"], ["C1"]]
        assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["a", "b"]


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


class TestConfirm:
    def test_runs_that_come_out_the_same_are_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """After a change of the code that changes no decision; another result leaves all of its kind as they are."""
        peer, this = "hpopt-asha-random", version("hpopt-asha-random")
        runs = [simulate(peer, "crossing-1", seed=seed, workers=2, horizon=1.0) for seed in range(2)]
        alone = simulate(peer, "crossing-1", seed=0, workers=1, horizon=1.0)
        alone["incumbents"][0][0] += 0.1  # it was another one then
        write(tmp_path, [each | {"version": "old"} for each in (*runs, alone)])
        monkeypatch.setattr(sys, "argv", ["confirm", f"--peers={peer}", f"--results={tmp_path}", "--horizon=0.5"])
        with pytest.raises(SystemExit):
            confirm.main()
        said = capsys.readouterr().out
        assert f"{peer}, 2 workers, old: of 2 runs made again, the same" in said
        assert f"{peer}, 1 workers, old: of 1 runs made again, differ: crossing-1 seed 0" in said
        assert "2 runs are of this version now" in said
        stored = [json.loads(line) for line in (tmp_path / f"{peer}.jsonl").read_text().splitlines()]
        assert [each["version"] for each in stored] == [this, this, "old"]
        assert stored[:2] == runs

    def test_some_of_many(self) -> None:
        """From all tasks and seeds, not the first ones."""
        keys: dict[Key, dict[str, Any]] = {Key("a", f"t{i}", 0, 8): {} for i in range(9)}
        assert [key.task for key in confirm.some(keys, 3)] == ["t0", "t3", "t6"]
        assert len(confirm.some(keys, 20)) == 9
