"""The reference's two examples, with their typos corrected: the operator's loop, and the trainer that it launches.

Corrected are an unclosed brace, a name that was used before it was assigned, a platform that was not defined, the
spelling of early_stop, iterating over an int, and two required arguments that were missing.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

import hpopt
from hpopt.embedded import EmbeddedServer
from tests.conftest import Create
from tests.server import DEADLINE, ROOT
from tests.studies import SPACE, curve

FULL_TRAINSET = TensorDataset(torch.arange(1000.0))

TRAINER = """
import json, sys
import hpopt
import torch
from torch.utils.data import TensorDataset

def my_model(x, a, b):
    return a * (x ** 0.5) + b

def my_trainer(config):
    # config (dict): A dict of hyperparameters.
    trainset = hpopt.createHpoDataset(TensorDataset(torch.arange(1000.0)), config)

    for iteration_num in range(config["iterations"]):
        accuracy_score = my_model(iteration_num, config["lr"], config["bs"])
        if hpopt.report(config=config, score=accuracy_score) == hpopt.status.STOP:
            break

for line in sys.stdin:
    my_trainer(json.loads(line))
"""
OPERATOR = """
import json, sys
import hpopt

class IMPP:
    create_training_crd = staticmethod(lambda config: print(json.dumps(config), flush=True))
    update_hyparopt_crd = staticmethod(lambda config: open("best.json", "w").write(json.dumps(config)))

# HyParOpt operator
hp_configs = {"lr": hpopt.search_space("loguniform", [0.0001, 0.1]),
              "bs": hpopt.search_space("qloguniform", [8, 256, 4])}

# Run 12 trial, stop when trial has reached 10 iterations
my_hpo = hpopt.create(full_dataset_size=1000,
                      num_full_iterations=10,
                      save_path="hpo",
                      search_alg="bayes_opt",
                      search_space=hp_configs,
                      early_stop="median_stop",
                      num_init_trials=5,
                      num_trials=12,
                      max_iterations=10,
                      resume=True)

while True:
    config = my_hpo.get_next_sample()

    if config is None:
        break

    # Request a training job with new config
    IMPP.create_training_crd(config)

IMPP.update_hyparopt_crd(my_hpo.get_best_config(wait=True))
"""


def my_model(x: int, a: float, b: float) -> float:
    """The reference's."""
    return float(a * (x**0.5) + b)


@pytest.mark.parametrize("argument", ["score", "result"])
def test_the_examples_in_one_process(tmp_path: Path, argument: str) -> None:
    """An operator that trains each config itself runs 12 trials of up to 10 iterations and gets the best one."""

    def my_trainer(config: dict[str, Any]) -> int:
        trainset = hpopt.createHpoDataset(FULL_TRAINSET, config)
        for iteration_num in range(config["iterations"]):
            accuracy_score = my_model(iteration_num, config["lr"], config["bs"])
            spelled: dict[str, Any] = {argument: accuracy_score}
            if hpopt.report(config=config, **spelled) == hpopt.status.STOP:
                break
        return len(trainset)

    hp_configs = {
        "lr": hpopt.search_space("loguniform", [0.0001, 0.1]),
        "bs": hpopt.search_space("qloguniform", [8, 256, 4]),
    }
    my_hpo = hpopt.create(
        full_dataset_size=1000, num_full_iterations=10, save_path=tmp_path, search_alg="bayes_opt",
        search_space=hp_configs, early_stop="median_stop", num_init_trials=5, num_trials=12, max_iterations=10,
        resume=True,
    )  # fmt: skip
    sizes = []
    while True:
        config = my_hpo.get_next_sample()
        if config is None:
            break
        sizes.append(my_trainer(config))
    best = my_hpo.get_best_config(wait=True)
    trials = my_hpo.trials()
    my_hpo.close()
    assert sizes == [1000 * my_hpo.spec.subset_ratio] * 12  # type: ignore[operator] # it is resolved
    assert [trial.id for trial in trials] == list(range(12))
    assert {trial.step for trial in trials} <= set(range(2, 11))
    assert max(trial.score for trial in trials if trial.score) == my_model(9, best["lr"], best["bs"])  # type: ignore[index]


def test_the_examples_in_two_processes(tmp_path: Path) -> None:
    """An operator that hands each config, as JSON, to a trainer in a process of its own comes to the same end."""
    environment = {name: value for name, value in os.environ.items() if name != "HPOPT_URL"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    shared: dict[str, Any] = {"cwd": tmp_path, "env": environment}
    with (
        subprocess.Popen([sys.executable, "-c", OPERATOR], stdout=subprocess.PIPE, **shared) as operator,
        subprocess.Popen([sys.executable, "-c", TRAINER], stdin=operator.stdout, **shared) as trainer,
    ):
        assert (operator.wait(2 * DEADLINE), trainer.wait(DEADLINE)) == (0, 0)
    results = json.loads((tmp_path / "hpo" / "results.json").read_text())
    best = json.loads((tmp_path / "best.json").read_text())
    assert [trial["id"] for trial in results["trials"]] == list(range(12))
    assert {trial["state"] for trial in results["trials"]} <= {"completed", "stopped"}
    assert results["best_config"] == best
    assert max(trial["score"] for trial in results["trials"]) == my_model(9, best["lr"], best["bs"])


def test_the_examples_that_are_shipped(embedded: EmbeddedServer, tmp_path: Path) -> None:
    """examples/operator_loop.py launches examples/trainer.py for each config, on the server of the environment."""
    environment = {**os.environ, "HPOPT_URL": embedded.url, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / "operator_loop.py"), "--study", tmp_path.name, "--trials", "6"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=2 * DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trial ") == 6
    assert "best: {'lr': " in done.stdout


# --- its other spellings


def test_ealry_stop_is_early_stop_with_a_warning(create: Create) -> None:
    """The example's spelling does what was meant, and says how it is spelled."""
    with pytest.warns(DeprecationWarning, match="ealry_stop is spelled early_stop") as caught:
        hpo = create(ealry_stop="median_stop")
    assert hpo.spec.early_stop == "median_stop"
    assert [warning.filename for warning in caught] == [create.__code__.co_filename]
    with pytest.raises(TypeError, match="pass early_stop only"):
        create(ealry_stop="median_stop", early_stop="median_stop")


def test_a_warning_made_an_error_starts_nothing(create: Create, tmp_path: Path) -> None:
    """Who turns warnings into errors gets the error before anything is made."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning):
            create(ealry_stop="median_stop", save_path=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_result_is_another_name_for_score(create: Create) -> None:
    """report() takes the score by position, as score= or as result=, but once."""
    config = create().get_next_sample() or {}
    assert hpopt.report(config, 0.1) == hpopt.status.RUNNING
    assert hpopt.report(config=config, score=0.2) == hpopt.status.RUNNING
    assert hpopt.report(config=config, result=0.3) == hpopt.status.RUNNING
    with pytest.raises(TypeError, match="pass the score once"):
        hpopt.report(config)
    with pytest.raises(TypeError, match="pass the score once"):
        hpopt.report(config, score=0.4, result=0.4)
    assert hpopt.report(config, 0.4, 4) == hpopt.status.STOP


def test_statuses_are_those_of_the_original() -> None:
    """hpopt.status and hpopt.Status are one enum, whose members are ints."""
    assert hpopt.status is hpopt.Status
    assert {each.name: int(each) for each in hpopt.status} == {
        "UNKNOWN": -1, "READY": 0, "RUNNING": 1, "STOP": 2, "CUDAOOM": 3, "NORESULT": 4, "PARTIALRESULT": 5,
        "COMPLETERESULT": 6,
    }  # fmt: skip
    assert all(isinstance(each, int) for each in hpopt.status)


def test_current_iters_says_which_iteration_it_was(create: Create) -> None:
    """A trainer that does not report every iteration gives its number; an earlier one again changes nothing."""
    hpo = create()
    config = hpo.get_next_sample() or {}
    assert hpopt.report(config, 0.3, current_iters=2) == hpopt.status.RUNNING
    assert hpopt.report(config, 0.9, current_iters=1) == hpopt.status.RUNNING
    assert hpopt.report(config, 0.4, current_iters=4) == hpopt.status.STOP
    assert [(point.step, point.score) for point in curve(hpo, 0)] == [(2, 0.3), (4, 0.4)]


def test_positional_arguments_have_the_order_of_the_reference(create: Create, tmp_path: Path) -> None:
    """create(full_dataset_size, num_full_iterations, search_space, save_path, search_alg, early_stop, mode, ...)."""
    names = [
        "full_dataset_size", "num_full_iterations", "search_space", "save_path", "search_alg", "early_stop", "mode",
        "num_init_trials", "num_trials", "max_iterations", "min_iterations", "reduction_factor", "num_brackets",
        "subset_ratio", "batch_size_name", "image_resize", "metric", "resume", "expected_time_ratio",
        "non_pure_train_ratio", "num_workers", "kappa", "kappa_decay", "kappa_decay_delay",
    ]  # fmt: skip
    code = hpopt.create.__code__
    assert list(code.co_varnames[: code.co_argcount]) == names
    assert hpopt.create.__defaults__ == (
        "hpo", "bayes_opt", None, "max", 5, None, None, None, 2, None, None, None, (0, 0), "mAP", False, 4, 0.2, 1,
        2.576, 1, 0,
    )  # fmt: skip
    assert create(search_space=SPACE, save_path=str(tmp_path / "as str")).save_path == tmp_path / "as str"
