import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.search import run as runner
from benchmarks.search.peers.peer import Peer
from benchmarks.search.peers.registry import PEERS, version
from benchmarks.search.problems import problem, problems
from benchmarks.search.references import Reference
from benchmarks.search.report import Results, bootstrap, costs, informed, pending, ranks, ratios, regret, regrets
from benchmarks.search.results import Key, done
from benchmarks.search.simulate import simulate


def stored(peer: str, seed: int, truths: list[float], name: str = "branin") -> dict[str, Any]:
    """A run whose scores are its truths."""
    head = {"peer": peer, "version": "1", "problem": name, "seed": seed, "workers": 1, "trials": len(truths)}
    return head | {"scores": truths, "truths": truths, "cpu": [0.5] * len(truths)}


def write(folder: Path, runs: list[dict[str, Any]]) -> None:
    """Append the runs as the runner does."""
    for each in runs:
        with (folder / f"{each['peer']}.jsonl").open("a") as file:
            file.write(json.dumps(each) + "\n")


def test_regret_is_that_of_the_best_score() -> None:
    """Noise may make a worse trial the incumbent; a truth above the best known one is no negative regret."""
    run = {"scores": [1.0, 5.0, 4.0, 9.0], "truths": [2.0, 1.0, 4.0, 11.0]}
    assert regret(run, Reference(10.0, 0.0, "", {})).tolist() == pytest.approx([0.8, 0.9, 0.9, 0.0])


def test_what_is_stored_is_not_run_again(tmp_path: Path) -> None:
    """Runs are resumed: only what is missing, or has fewer trials than asked for, is left to do, seed after seed."""
    write(tmp_path, [stored("a", 0, [1.0] * 20), stored("b", 0, [1.0] * 10)])
    settings = runner.Settings(20, tmp_path, {})
    assert done(tmp_path, 20) == {Key("a", "branin", 0, 1): "1"}
    left = list(runner.missing(["a", "b"], ["branin"], 2, [1], settings))
    assert left == [Key("b", "branin", 0, 1), Key("a", "branin", 1, 1), Key("b", "branin", 1, 1)]


def test_runs_of_another_sampler_are_run_again(tmp_path: Path) -> None:
    """A stored run of hpopt counts while the sampler is the one that made it."""
    write(tmp_path, [stored("hpopt", seed, [1.0] * 20) for seed in range(2)])
    write(tmp_path, [stored("hpopt", 0, [1.0] * 20) | {"version": version("hpopt")}])
    settings = runner.Settings(20, tmp_path, {})
    assert list(runner.missing(["hpopt"], ["branin"], 2, [1], settings)) == [Key("hpopt", "branin", 1, 1)]


def test_a_line_that_is_no_run_is_named(tmp_path: Path) -> None:
    """Half a line, as a full disk may leave one, is refused with its place."""
    write(tmp_path, [stored("a", 0, [1.0])])
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"peer": "a", "prob\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2 is no run"):
        done(tmp_path, 1)


def test_tables(tmp_path: Path) -> None:
    """Means, ratios and ranks are taken over the runs that all peers have; the rest is left out."""
    worse, better = [-20.0] * 10, [-20.0] * 5 + [-0.397887] * 5
    write(tmp_path, [stored("a", seed, better) for seed in range(3)] + [stored("b", seed, worse) for seed in range(2)])
    results = Results(tmp_path, ["a", "b", "absent"], ["branin"], 1, 10)
    assert results.peers == ["a", "b"]
    assert results.common(["a", "b"]) == [("branin", 0), ("branin", 1)]
    assert [row[0] for row in regrets(results, [5, 10])] == ["a 1", "b 1"]
    assert ratios(results, "a", [5, 10]) == [["b", "1 x 2", "1.00 [1.00, 1.00]", "0.00 [0.00, 0.00]"]]
    assert [row[1:] for row in ranks(results, [5, 10])] == [
        ["1.50 [1.50, 1.50]", "1.00 [1.00, 1.00]"],
        ["1.50 [1.50, 1.50]", "2.00 [2.00, 2.00]"],
    ]
    assert costs(results, [10]) == [["a", "0.5"], ["b", "0.5"]]


def test_table_of_pending_trials(tmp_path: Path) -> None:
    """Runs with several numbers of pending trials are compared with the first of these."""
    for workers, truth in ((1, -20.0), (8, -10.0)):
        write(tmp_path, [stored("a", seed, [truth] * 10) | {"workers": workers} for seed in range(2)])
    rows = pending({count: Results(tmp_path, ["a"], ["branin"], count, 10) for count in (1, 8)}, "a", [10])
    assert [row[0] for row in rows] == ["1", "8"]
    assert rows[0][1].endswith(", 1.00 [1.00, 1.00]")
    ratio = (-0.397887 + 10.0) / (-0.397887 + 20.0)
    assert rows[1][1].endswith(f", {ratio:.2f} [{ratio:.2f}, {ratio:.2f}]")


def test_table_of_results_known(tmp_path: Path) -> None:
    """With 8 pending after 10 trials it is compared with one at a time after 3, which had as many results to go by."""
    write(tmp_path, [stored("a", 0, [-40.0, -30.0, -20.0, *[-5.0] * 7])])
    write(tmp_path, [stored("a", 0, [-10.0] * 10) | {"workers": workers} for workers in (8, 16)])
    by_workers = {count: Results(tmp_path, ["a"], ["branin"], count, 10) for count in (1, 8, 16)}
    ratio = (-0.397887 + 10.0) / (-0.397887 + 20.0)
    expected = [["8", f"{ratio:.2f} [{ratio:.2f}, {ratio:.2f}]"], ["16", ""]]
    assert informed(by_workers, "a", [10]) == expected


def test_no_regret_is_no_error(tmp_path: Path) -> None:
    """Two peers without regret are equal; one without is infinitely better than one with."""
    perfect, fair = [-0.39788] * 10, [-10.0] * 10
    write(tmp_path, [stored("a", 0, perfect), stored("b", 0, perfect), stored("c", 0, fair)])
    results = Results(tmp_path, ["a", "b", "c"], ["branin"], 1, 10)
    assert [row[2] for row in ratios(results, "a", [10])] == ["1.00 [1.00, 1.00]", "0.00 [0.00, 0.00]"]
    assert [row[2] for row in ratios(results, "c", [10])] == ["inf [inf, inf]"] * 2


def test_intervals_draw_problems_and_seeds() -> None:
    """The interval covers the mean, narrows with the number of problems, and is the same every time."""
    values = np.random.default_rng(0).normal(1.0, 1.0, 400)
    keys = [(f"p{i // 4}", i % 4) for i in range(400)]
    low, high = bootstrap(keys, lambda i: float(values[i].mean()))
    few_low, few_high = bootstrap(keys[:40], lambda i: float(values[i].mean()))
    assert low < values.mean() < high
    assert high - low < 0.5 * (few_high - few_low)
    assert (low, high) == bootstrap(keys, lambda i: float(values[i].mean()))


def test_names_of_problems() -> None:
    """A half, all, or a list."""
    assert runner.select("report") == [each.name for each in problems("report")]
    assert len(runner.select("all")) == len(problems())
    assert runner.select("branin,trees8") == ["branin", "trees8"]
    assert runner.select("seen,report,ackley5") == [each.name for half in ("seen", "report") for each in problems(half)]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_run_keeps_its_number_of_trials_pending(workers: int) -> None:
    """The peer is asked until so many trials are pending, then told of the oldest; all trials are told in the end."""
    waiting: list[int] = []

    class Counting:
        asked = told = 0

        def ask(self) -> dict[str, Any]:
            self.asked += 1
            waiting.append(self.asked - self.told)
            return {"x": 0.1 * self.asked, "y": 1.0}

        def tell(self, params: dict[str, Any], score: float) -> None:
            self.told += 1
            assert params["x"] == pytest.approx(0.1 * self.told)
            assert np.isfinite(score)

    peer: Peer = Counting()
    run = simulate(peer, problem("branin"), seed=0, trials=9, workers=workers)
    assert {len(values) for values in run.values()} == {9}
    assert waiting == [*range(1, workers), *[workers] * (10 - workers)]


def test_noise_is_that_of_the_trial() -> None:
    """Two peers meet the same noise, whatever they ask for."""
    runs = [simulate(PEERS["random"](problem("branin").space, s, 5), problem("branin"), seed=3, trials=5, workers=1)
            for s in (0, 1)]  # fmt: skip
    noise = [np.subtract(run["scores"], run["truths"]) for run in runs]
    assert noise[0] == pytest.approx(noise[1], abs=1e-4)
    assert runs[0]["truths"] != runs[1]["truths"]
    assert version("hpopt").startswith(f"{version('random')}+")
    assert version("hpopt") == version("hpopt-symlog")
