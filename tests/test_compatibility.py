"""What scripts that were written for the reference rely on, run on a real server."""

import json
import math
import os
import pickle
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import hpopt
from hpopt.client import RESEND
from hpopt.core import keys
from hpopt.embedded import EmbeddedServer
from tests.conftest import Create
from tests.server import DEADLINE, SHORT, until
from tests.studies import SMALL, SPACE, TRAINER, accuracy, curve, run_all, run_python, start_python, states, train

STOP, RUNNING = hpopt.status.STOP, hpopt.status.RUNNING
Config = dict[str, Any]

OPERATOR = """
import json, sys
import hpopt
from tests.studies import SMALL, run_all

with hpopt.create(**SMALL, **json.loads(sys.argv[1])) as hpo:
    for config in run_all(hpo):
        print(config["trial_id"], config["attempt"], json.dumps(config["params"]), flush=True)
"""
TIMED_TRAINER = f"import time, hpopt; started = time.monotonic()\n{TRAINER}\nprint(time.monotonic() - started)"
LAUNCHER = """
import json, multiprocessing, sys
import hpopt
from tests.studies import SMALL, train

context = multiprocessing.get_context(json.loads(sys.argv[2]))
with hpopt.create(**{**SMALL, **json.loads(sys.argv[1])}) as hpo:
    processes = []
    while (config := hpo.get_next_sample(timeout=20)) is not None:
        processes.append(context.Process(target=train, args=(config,)))
        processes[-1].start()
        print(config["trial_id"])
    for process in processes:
        process.join()
    print(*{trial.state for trial in hpo.trials()})
"""
FINALIZER = """
import json, sys
import hpopt

hpopt.finalize_trial(json.loads(sys.argv[1]))
"""


# --- the operator's loop


@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
def test_a_loop_until_none_runs_every_trial(create: Create, search_alg: str) -> None:
    """The sequential loop ends by itself, after exactly num_trials trials."""
    hpo = create(search_alg=search_alg, num_trials=8)
    assert isinstance(hpo, hpopt.HpOpt)
    assert [config["trial_id"] for config in run_all(hpo)] == list(range(8))
    assert hpo.get_next_sample() is None
    assert hpo.get_next_samples() == []
    assert Counter(states(hpo)).keys() <= {"completed", "stopped"}
    assert hpo.get_progress() == 1


def test_the_best_config_is_that_of_the_best_score(create: Create) -> None:
    """get_best_config() is the params alone, of the trial with the best score of all."""
    hpo = create()
    run_all(hpo)
    best = max(hpo.trials(), key=lambda trial: trial.score or 0)
    assert hpo.get_best_config() == hpo.get_best_config(wait=True) == best.params
    assert best.score == accuracy({"params": best.params}, 4)


def test_the_first_five_come_at_once_and_the_sixth_waits(create: Create) -> None:
    """num_init_trials configs are handed out before any score; the next one when those trials have ended."""
    hpo = create()
    first = [hpo.get_next_sample(timeout=DEADLINE) for _ in range(5)]
    configs = [config for config in first if config is not None]
    assert [config["trial_id"] for config in configs] == [0, 1, 2, 3, 4]
    with ThreadPoolExecutor() as operator:
        for config in configs:
            with pytest.raises(TimeoutError, match=r"under way are the trials .*4 \(issued\)"):
                operator.submit(hpo.get_next_sample, timeout=0.1).result()
            train(config)
        sixth = operator.submit(hpo.get_next_sample, timeout=DEADLINE)
        assert (sixth.result() or {})["trial_id"] == 5


def test_a_parallel_operator_keeps_its_workers_busy(create: Create) -> None:
    """get_next_samples() gives the initial trials first, then what the free workers of num_workers can take."""
    hpo = create(num_trials=12, num_workers=3)
    batches, trained = [], []
    with ThreadPoolExecutor(max_workers=5) as pool:
        while configs := hpo.get_next_samples():
            batches.append([config["trial_id"] for config in configs])
            trained += [pool.submit(train, config) for config in configs]
    assert batches[0] == [0, 1, 2, 3, 4]
    assert all(1 <= len(batch) <= 3 for batch in batches[1:])
    assert [trial for batch in batches for trial in batch] == list(range(12))
    assert [each.result()[-1] for each in trained] == [STOP] * 12


# --- the config


COMMON = {
    "lr", "bs", "params", "iterations", "trial_id", "attempt", "subset_ratio", "resize_width", "resize_height", "mode",
    "metric", "dataset_size", "batch_size_name", "hpopt",
}  # fmt: skip


@pytest.mark.parametrize(
    ("search_alg", "own"), [("bayes_opt", {"early_stop": None}), ("asha", {"bracket": 0, "rungs": [1, 2, 4]})]
)
def test_a_config_has_the_documented_keys(create: Create, search_alg: str, own: Config) -> None:
    """A config holds what the reference's trainers read, and who it is for; nothing of the server but its address."""
    hpo = create(search_alg=search_alg, image_resize=[64, 32], batch_size_name="bs", mode="min", metric="loss")
    config = hpo.get_next_sample() or {}
    expected = {
        "iterations": 4, "trial_id": 0, "attempt": 1, "subset_ratio": 1.0, "resize_width": 64, "resize_height": 32,
        "mode": "min", "metric": "loss", "dataset_size": 1000, "batch_size_name": "bs", **own, **config["params"],
    }  # fmt: skip
    assert config.keys() == COMMON | own.keys()
    assert {name: config[name] for name in expected} == expected
    assert list(config["params"]) == ["lr", "bs"]
    assert config["hpopt"].keys() == {"version", "namespace", "study", "uid", "trial", "attempt", "url", "token"}


@pytest.mark.parametrize(("spared", "rules"), [(2, [None, None, "median_stop"]), (0, ["median_stop"] * 3)])
def test_the_config_names_the_rule_that_may_stop_it(create: Create, spared: int, rules: list[str | None]) -> None:
    """config["early_stop"] is None for the first grace_trials, then what create() was given."""
    hpo = create(early_stop="median_stop", num_init_trials=2, num_trials=3, grace_trials=spared)
    assert [config["early_stop"] for config in run_all(hpo)] == rules


@pytest.mark.parametrize("as_float", [False, True])
def test_a_config_survives_json_into_another_process(create: Create, as_float: bool) -> None:
    """A trainer elsewhere needs nothing but the config's JSON, even from a tool that writes 3 as 3.0."""
    hpo = create(num_trials=1)
    config = hpo.get_next_sample() or {}
    assert type(config) is dict
    assert json.loads(json.dumps(config)) == pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own
    assert run_python(TRAINER, with_floats(config) if as_float else config) == ["RUNNING", "RUNNING", "RUNNING", "STOP"]
    assert [(point.step, point.score) for point in curve(hpo, 0)] == [(1, 0), (2, 1), (3, 2), (4, 3)]
    assert hpo.get_next_sample() is None


def with_floats(value: Any) -> Any:
    """A JSON value with every int as a float."""
    if isinstance(value, dict):
        return {name: with_floats(each) for name, each in value.items()}
    return float(value) if type(value) is int else value


def test_choices_may_be_strings_under_bayes_opt(create: Create) -> None:
    """Options of every JSON type go through the model, and come back as they are."""
    options = ["sgd", "adam", "1", 1, True, None, [1, 2], {"beta": 0.9}]
    hpo = create(search_space={**SPACE, "optimizer": hpopt.search_space("choice", options)}, num_trials=12)
    chosen = [config["optimizer"] for config in run_all(hpo, lambda config, _: float(config["optimizer"] == "adam"))]
    assert all(any(each == option and type(each) is type(option) for option in options) for each in chosen)
    assert (hpo.get_best_config() or {})["optimizer"] == "adam"
    assert chosen[5:].count("adam") > 2  # the model has understood


def test_rungs_are_computed_in_integers(create: Create, caplog: pytest.LogCaptureFixture) -> None:
    """From 1 to 243 by 3 there are 6 rungs, not the 5 of a rounded logarithm, and 6 brackets are accepted."""
    asha = {"search_alg": "asha", "max_iterations": 243, "min_iterations": 1, "reduction_factor": 3}
    assert (create(**asha, study="one").get_next_sample() or {})["rungs"] == [1, 3, 9, 27, 81, 243]
    hpo = create(**asha, num_brackets=6, num_trials=40, num_workers=40)
    configs = hpo.get_next_samples()
    assert hpo.spec.num_brackets == 6
    assert "num_brackets" not in caplog.text
    assert {tuple(config["rungs"]) for config in configs} > {(1, 3, 9, 27, 81, 243)}
    assert all(config["rungs"] == [1, 3, 9, 27, 81, 243][config["bracket"] :] for config in configs)


# --- resume


def test_image_resize_may_be_a_tuple_when_resuming(create: Create) -> None:
    """A study goes on whether its image size was, and is, written as a tuple or as a list."""
    for number, size in enumerate([(64, 32), [64, 32], (64, 32)]):
        with create(image_resize=size, resume=number > 0) as hpo:
            config = hpo.get_next_sample() or {}
            assert (config["trial_id"], config["resize_width"], config["resize_height"]) == (number, 64, 32)
            train(config)


def test_a_study_that_shrank_its_batches_is_resumed_with_the_space_it_was_created_with(create: Create) -> None:
    """Running out of memory narrows what is tried, not the search space that the user has to give again."""
    arguments: Config = {"batch_size_name": "bs", "default_hyper_parameters": {"lr": 0.01, "bs": 128}, "num_trials": 9}
    with create(**arguments) as hpo:
        config = hpo.get_next_sample() or {}
        hpopt.reportOOM(config)
        again = hpo.get_next_sample() or {}
        assert (again["trial_id"], again["attempt"], again["lr"]) == (0, 2, 0.01)
        assert again["bs"] < 128
    with create(**arguments, resume=True) as hpo:
        assert hpo.get_next_sample() == again  # it was handed out, but never started
        train(again)
        configs = run_all(hpo)
        assert len(configs) == 8
        assert all(config["bs"] < 128 for config in configs)


def test_a_finished_study_is_resumed_with_nothing_left_to_do(create: Create) -> None:
    """After the last trial, resume=True gives its results again, and a larger num_trials goes on."""
    with create() as hpo:
        run_all(hpo)
        trials, best = hpo.trials(), hpo.get_best_config()
    with create(resume=True) as hpo:
        assert hpo.get_next_sample() is None
        assert (hpo.trials(), hpo.get_best_config(wait=True), hpo.get_progress()) == (trials, best, 1)
    with create(resume=True, num_trials=7) as hpo:
        assert [config["trial_id"] for config in run_all(hpo)] == [6]


def test_a_resumed_study_still_minimizes(create: Create) -> None:
    """With mode="min", what was learned before the resumption leads to better trials after it."""

    def loss(config: Config, step: int) -> float:
        return abs(math.log10(config["lr"]) + 2) + 1 / step

    with create(mode="min", num_trials=6) as hpo:
        run_all(hpo, loss)
    with create(mode="min", num_trials=14, resume=True) as hpo:
        assert [config["trial_id"] for config in run_all(hpo, loss)] == list(range(6, 14))
        scores = [trial.score or 0 for trial in hpo.trials()]
        assert min(scores[6:]) < min(scores[:6])
        assert sorted(scores[6:])[4] < sorted(scores[:6])[3]  # the medians
        assert hpo.get_best_config() == hpo.trials()[scores.index(min(scores))].params


# --- how trials end


def test_running_out_of_memory_in_the_last_trial_is_retried(create: Create) -> None:
    """The last trial is handed out again with a smaller batch before the loop hears None."""
    large = [{"lr": lr, "bs": 128} for lr in (0.01, 0.02)]  # of the smallest batch nothing smaller can be tried
    hpo = create(num_trials=2, batch_size_name="bs", default_hyper_parameters=large)
    train(hpo.get_next_sample() or {})
    last = hpo.get_next_sample() or {}
    hpopt.report(last, 0.5)
    hpopt.reportOOM(last)
    again = hpo.get_next_sample(timeout=DEADLINE) or {}
    assert (again["trial_id"], again["attempt"]) == (1, 2)
    assert again["bs"] < last["bs"]
    assert hpopt.report(last, 0.9) == STOP  # that attempt is over
    assert train(again)[-1] == STOP
    assert hpo.get_next_sample() is None
    assert [trial.score for trial in hpo.trials()][1] == accuracy(again, 4)


def test_finalizing_before_the_first_report_gives_the_trial_once_more(create: Create) -> None:
    """A trial that ended without a score wakes the waiting operator; its second failure is the last."""
    hpo = create(num_trials=1, num_init_trials=1)
    config = hpo.get_next_sample() or {}
    with ThreadPoolExecutor() as operator:
        waiting = operator.submit(hpo.get_next_sample)
        hpopt.finalize_trial(config)
        again = waiting.result(DEADLINE) or {}
        assert (again["trial_id"], again["attempt"], again["params"]) == (0, 2, config["params"])
        waiting = operator.submit(hpo.get_next_sample)
        hpopt.finalize_trial(again)
        assert waiting.result(DEADLINE) is None
    assert states(hpo) == ["failed"]
    assert hpo.get_best_config(wait=True) is None


def test_scores_that_are_not_finite_are_never_best(create: Create) -> None:
    """NaN and the infinities count as iterations, not as scores; three in a row stop the trial."""
    hpo = create(num_trials=3)
    scores = iter([[math.nan, 0.25, math.inf, 0.125], [math.nan, -math.inf, math.nan], [0.5, 0.25, 0.125, 0.0]])
    answers = []
    while (config := hpo.get_next_sample()) is not None:
        answers.append([hpopt.report(config, score) for score in next(scores)])
    assert answers == [[RUNNING] * 3 + [STOP], [RUNNING] * 2 + [STOP], [RUNNING] * 3 + [STOP]]
    assert [trial.score for trial in hpo.trials()] == [0.25, None, 0.5]
    assert states(hpo) == ["completed", "stopped", "completed"]
    assert hpo.get_best_config() == hpo.trials()[2].params


@pytest.mark.parametrize("how", ["finalized elsewhere", "study replaced"])
def test_a_trainer_hears_of_its_end_at_the_next_report(create: Create, how: str) -> None:
    """What ends a trial between two reports is answered at the next one, whose score no longer counts."""
    hpo = create(num_trials=2)
    config = hpo.get_next_sample() or {}
    assert hpopt.report(config, 0.5) == RUNNING
    if how == "finalized elsewhere":
        run_python(FINALIZER, config)
    else:
        hpo = create(num_trials=2, overwrite=True)
    assert hpopt.report(config, 0.9) == hpopt.report(config, 0.95) == STOP
    assert [trial.score for trial in hpo.trials()] == ([0.5] if how == "finalized elsewhere" else [])
    assert len(run_all(hpo)) == (1 if how == "finalized elsewhere" else 2)


# --- many processes


def test_four_ranks_are_one_trainer(create: Create) -> None:
    """Of a distributed training only rank 0 speaks, and every rank hears the same answer at the same epoch."""
    hpo = create(num_trials=1)
    config = hpo.get_next_sample() or {}
    ranks = [
        start_python(TRAINER, {**config, "trial_id": rank}, environment={"RANK": str(rank), "WORLD_SIZE": "4"})
        for rank in range(4)
    ]
    assert [rank.wait() for rank in ranks] == [0] * 4, ranks[0].output
    assert {tuple(rank.lines) for rank in ranks} == {("RUNNING", "RUNNING", "RUNNING", "STOP")}
    assert [point.score for point in curve(hpo, 0)] == [0, 1, 2, 3]


def test_a_rank_that_is_behind_is_not_kept_waiting(create: Create) -> None:
    """What rank 0 was answered long ago answers a slower rank at once, each epoch by itself."""
    config = create(num_trials=1).get_next_sample() or {}
    train(config)
    *answers, seconds = run_python(TIMED_TRAINER, config, environment={"RANK": "1"})
    assert answers == ["RUNNING", "RUNNING", "RUNNING", "STOP"]
    assert float(seconds) < RESEND


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_trainers_may_be_processes_of_multiprocessing(embedded: EmbeddedServer, tmp_path: Path, method: str) -> None:
    """An operator that starts a process for each config, in whatever way, gets every trial trained to its end."""
    study = {"url": embedded.url, "study": tmp_path.name, "save_path": str(tmp_path), "num_workers": 2}
    assert run_python(LAUNCHER, study, method) == ["0", "1", "2", "3", "4", "5", "completed"]


def in_one_session(arguments: Config) -> list[list[str]]:
    """Two threads with one session; what each was handed."""
    with hpopt.create(**SMALL, **arguments) as hpo, ThreadPoolExecutor() as pool:
        return [told(configs) for configs in pool.map(run_all, [hpo, hpo])]


def in_two_sessions(arguments: Config) -> list[list[str]]:
    """Two operators in this process; what each was handed."""
    one, two = (hpopt.create(**SMALL, **arguments) for _ in range(2))
    with one, two, ThreadPoolExecutor() as pool:
        return [told(configs) for configs in pool.map(run_all, [one, two])]


def told(configs: list[Config]) -> list[str]:
    """What the operators in other processes say of their configs."""
    return [f"{each['trial_id']} {each['attempt']} {json.dumps(each['params'])}" for each in configs]


def in_processes(arguments: Config) -> list[list[str]]:
    """Two operators that start at the same time; what each was handed."""
    programs = [start_python(OPERATOR, arguments) for _ in range(2)]
    assert [program.wait() for program in programs] == [0, 0], programs[0].output + programs[1].output
    return [program.lines for program in programs]


@pytest.mark.parametrize("how", [in_one_session, in_two_sessions, in_processes])
def test_two_operators_share_one_study(
    embedded: EmbeddedServer, tmp_path: Path, how: Callable[[Config], list[list[str]]]
) -> None:
    """Together they run exactly num_trials trials, none of them twice and no two the same."""
    study = {"url": embedded.url, "study": tmp_path.name, "save_path": str(tmp_path)}
    one, two = how({**study, "resume": True, "num_workers": 2})
    ids, attempts, params = zip(*(line.split(maxsplit=2) for line in one + two), strict=True)
    assert sorted(map(int, ids)) == list(range(6))
    assert set(attempts) == {"1"}
    assert len(set(params)) == 6


def test_killing_the_coordinator_loses_nothing(tmp_path: Path) -> None:
    """The study goes on after every kill -9, with every acknowledged score, the right trials and no trial twice."""
    handed, answered = [], []
    with (
        EmbeddedServer.start(tmp_path, extra_args=SHORT) as server,
        hpopt.create(**SMALL, save_path=tmp_path, url=server.url) as hpo,
    ):
        while (config := hpo.get_next_sample()) is not None:
            handed.append(config["trial_id"])
            for step in range(1, 5):
                if (len(handed), step) in [(1, 1), (3, 2), (6, 4)]:
                    kill_coordinator(hpo)
                answered.append((config["trial_id"], step, accuracy(config, step)))
                assert hpopt.report(config, answered[-1][2]) == (STOP if step == 4 else RUNNING)
        assert handed == list(range(6))
        stored = [(trial, point.step, point.score) for trial in range(6) for point in curve(hpo, trial)]
        assert stored == answered
        assert hpo.get_best_config() == max(hpo.trials(), key=lambda trial: trial.score or 0).params


def kill_coordinator(hpo: hpopt.HpOpt) -> None:
    """Kill, with -9, the coordinator that has said last that it is alive."""
    client = hpo._server.client
    until(lambda: client.get("GET", keys.COORDINATORS) is not None, "a coordinator is alive")
    owner, _, _ = client.get("GET", keys.COORDINATORS).decode().partition(" ")
    client.get("DEL", keys.COORDINATORS)
    os.kill(int(owner.split("-")[-2]), signal.SIGKILL)
