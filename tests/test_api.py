"""The public API: its names, and what create() takes and refuses."""

import inspect
import math
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpopt
from hpopt.core.spec import DEFAULTS
from hpopt.embedded import EmbeddedServer
from tests.conftest import Create
from tests.studies import SMALL, SPACE, run_all, train

Config = dict[str, Any]

EXPORTED = {
    "EmbeddedError", "HpOpt", "HpoptError", "HpoptUnavailable", "MissingExtra", "NoCoordinator", "SavePathInUse",
    "SearchSpace", "Status", "StudyError", "StudyExists", "StudyPaused", "StudyReplaced", "TrialRow", "UnknownStudy",
    "VersionSkew", "checkpoint_dir", "create", "createHpoDataset", "finalize_trial", "is_out_of_memory", "join",
    "report", "reportOOM", "search_space", "status", "trial",
}  # fmt: skip
REMOVED = [
    "createDummyOpt", "get_current_status", "get_previous_status", "get_status_path", "get_trial_path",
    "get_best_score", "get_best_score_with_num_imgs", "load_json", "smbo", "asha", "hyperband",
]  # fmt: skip


# --- names


def test_exported_names() -> None:
    """These names are public, and no others."""
    assert set(hpopt.__all__) == EXPORTED
    assert set(dir(hpopt)) > EXPORTED
    assert all(getattr(hpopt, name) is not None for name in EXPORTED)
    assert hpopt.search_space is hpopt.SearchSpace


@pytest.mark.parametrize("name", REMOVED)
def test_names_of_the_original_say_what_to_use_instead(name: str) -> None:
    """A name that the original had, and we have not, is missing with advice."""
    with pytest.raises(AttributeError, match=rf"has no attribute '{name}': use .*(HpOpt|hpopt|json|csv)"):
        getattr(hpopt, name)


def test_any_other_name_is_just_missing() -> None:
    """For a name that nobody had there is no advice."""
    with pytest.raises(AttributeError, match=r"module 'hpopt' has no attribute 'nonsense'$"):
        _ = hpopt.nonsense


# --- what create() refuses


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A save_path for which no server may be started, and which may not be made."""
    monkeypatch.delenv("HPOPT_URL", raising=False)
    monkeypatch.setattr(EmbeddedServer, "start", lambda *_, **__: pytest.fail("a server was started"))
    yield tmp_path / "none"
    assert not (tmp_path / "none").exists()


BAD = [
    ("full_dataset_size", -1, ValueError), ("full_dataset_size", "1000", TypeError),
    ("full_dataset_size", True, TypeError), ("full_dataset_size", 1e3, TypeError),
    ("num_full_iterations", 0, ValueError), ("num_full_iterations", None, TypeError),
    ("search_space", {}, ValueError), ("search_space", None, TypeError), ("search_space", {"lr": [0, 1]}, TypeError),
    ("search_space", {1: SPACE["lr"]}, TypeError), ("search_space", {"": SPACE["lr"]}, ValueError),
    ("search_alg", "random", ValueError), ("search_alg", None, ValueError), ("early_stop", "asha", ValueError),
    ("mode", "avg", ValueError), ("mode", None, ValueError),
    ("num_init_trials", 0, ValueError), ("num_init_trials", 5.0, TypeError),
    ("num_trials", 0, ValueError), ("num_trials", "12", TypeError),
    ("max_iterations", 0, ValueError), ("max_iterations", 2.5, TypeError),
    ("min_iterations", 0, ValueError), ("reduction_factor", 1, ValueError), ("reduction_factor", 2.0, TypeError),
    ("num_brackets", 0, ValueError),
    ("subset_ratio", 0, ValueError), ("subset_ratio", -0.5, ValueError), ("subset_ratio", math.nan, ValueError),
    ("subset_ratio", True, TypeError), ("subset_ratio", "half", TypeError),
    ("batch_size_name", "size", ValueError), ("batch_size_name", 3, TypeError),
    ("image_resize", 64, TypeError), ("image_resize", [64], ValueError), ("image_resize", [-1, 64], ValueError),
    ("image_resize", "big", TypeError), ("image_resize", [1.5, 2], TypeError),
    ("metric", None, TypeError), ("metric", "", ValueError),
    ("resume", 1, TypeError), ("overwrite", "yes", TypeError),
    ("expected_time_ratio", 0, ValueError), ("expected_time_ratio", math.inf, ValueError),
    ("non_pure_train_ratio", 0, ValueError), ("non_pure_train_ratio", 1, ValueError),
    ("num_workers", 0, ValueError), ("num_workers", None, TypeError),
    ("kappa", -1, ValueError), ("kappa", True, TypeError), ("kappa_decay", 0, ValueError),
    ("kappa_decay_delay", -1, ValueError), ("kappa_decay_delay", 0.5, TypeError),
    ("acquisition", "ei", ValueError), ("acquisition", 1, ValueError),
    ("seed", -1, ValueError), ("seed", "1", TypeError),
    ("save_path", None, TypeError), ("save_path", 5, TypeError), ("save_path", "", ValueError),
    ("save_path", __file__, ValueError), ("save_path", __file__ + "/below", ValueError),
    ("save_path", "x" * 300, ValueError), ("save_path", "a\0b", ValueError),
    ("launch_timeout", 0, ValueError), ("launch_timeout", "10", TypeError),
    ("default_hyper_parameters", 5, TypeError), ("default_hyper_parameters", "best", TypeError),
    ("default_hyper_parameters", {"lr": 0.01}, ValueError), ("default_hyper_parameters", [1], TypeError),
    ("default_hyper_parameters", {"lr": 1.0, "bs": 8}, ValueError),
    ("namespace", "a/b", ValueError), ("namespace", "", ValueError), ("study", "", ValueError),
    ("study", "x" * 65, ValueError), ("study", "a{b}", ValueError),
    ("url", "http://localhost", ValueError), ("url", "redis://localhost/3", ValueError), ("url", 6379, TypeError),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "error"), BAD)
def test_bad_arguments_start_nothing(nothing_starts: Path, name: str, value: Any, error: type[Exception]) -> None:
    """An argument that makes no sense is refused by its name and value, before anything is started or written."""
    with pytest.raises(error) as caught:
        hpopt.create(**{**SMALL, "save_path": nothing_starts, name: value})
    parts = {"search_space": "search space|search_space|lr|name", "default_hyper_parameters": "lr|hyper_parameters"}
    caught.match(parts.get(name, name))


def test_arguments_that_no_message_can_hold_start_nothing(nothing_starts: Path) -> None:
    """What is too much is named, with its size."""
    names = {f"p{i}": hpopt.search_space("choice", [f"{j:050}" for j in range(300)]) for i in range(5)}
    with pytest.raises(ValueError, match=r"take \d+ bytes, 57344 are allowed, and search_space alone takes \d+: pass"):
        hpopt.create(**{**SMALL, "save_path": nothing_starts, "search_space": names})
    many = [{"lr": 0.01, "bs": 8 * (i % 32 + 1)} for i in range(5_000)]
    with pytest.raises(ValueError, match="and default_hyper_parameters alone takes"):
        hpopt.create(**{**SMALL, "save_path": nothing_starts, "default_hyper_parameters": many})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("num_trail", "did you mean num_trials"),
        ("resum", "did you mean resume"),
        ("early_stopping", "did you mean early_stop"),
        ("use_epoch", r"has no argument 'use_epoch'"),
        ("unknown", r"has no argument 'unknown'$"),
    ],
)
def test_unknown_arguments_are_refused(nothing_starts: Path, name: str, message: str) -> None:
    """A misspelled argument is never ignored: it is refused, with what was probably meant."""
    with pytest.raises(TypeError, match=message):
        hpopt.create(**{**SMALL, "save_path": nothing_starts, name: 1})


def test_the_required_arguments_are_those_of_the_reference(nothing_starts: Path) -> None:
    """Without the size of the dataset and the length of the full training there is no study."""
    with pytest.raises(TypeError, match="'full_dataset_size', 'num_full_iterations', and 'search_space'"):
        hpopt.create(save_path=nothing_starts)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "4"}, "on rank 2 of a distributed job"),
        ({"HPOPT_RUNNER": "1"}, '__name__ == "__main__"'),
    ],
)
def test_create_is_for_the_operator_alone(
    nothing_starts: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    """On a rank above 0, and in a runner's import of the script, create() says where it belongs."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match=message):
        hpopt.create(**SMALL, save_path=nothing_starts)


# --- what create() takes


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"search_alg": "baye_opt"}, {"search_alg": "bayes_opt"}),
        ({"search_alg": "smbo"}, {"search_alg": "bayes_opt"}),
        ({"search_alg": "asha", "early_stop": "median_stop"}, {"search_alg": "asha", "early_stop": None}),
        ({"num_init_trials": 50}, {"num_trials": 6}),
        ({"subset_ratio": 2.5}, {"subset_ratio": 1.0}),
        ({"subset_ratio": 0.1}, {"subset_ratio": 0.5}),
        ({"full_dataset_size": 0, "subset_ratio": None}, {"subset_ratio": 1.0}),
        ({"image_resize": [np.int64(64), 32]}, {"image_resize": (64, 32)}),
        ({"num_trials": np.int32(3), "kappa": np.float64(1.5)}, {"num_trials": 3, "kappa": 1.5}),
        ({"search_space": {"n": hpopt.search_space("choice", [1, 2, 3])}}, {"num_trials": 3}),
        ({"num_trials": None, "max_iterations": None}, {"subset_ratio": 1.0}),
    ],
)
def test_arguments_are_resolved(create: Create, given: Config, stored: Config) -> None:
    """What was left open is derived, what was given stays unless it is impossible."""
    spec = create(**given).spec
    assert {name: getattr(spec, name) for name in stored} == stored
    assert all(type(value) is type(getattr(spec, name)) for name, value in stored.items())
    assert spec.trials >= 1
    assert 1 <= spec.iterations <= 10


def test_notices_are_logged(create: Create, caplog: pytest.LogCaptureFixture) -> None:
    """The user hears of every value that is not the one given, and of every one that was derived."""
    create(search_space={"n": hpopt.search_space("choice", [1, 2])}, subset_ratio=None)
    create(study="other", search_alg="asha", early_stop="median_stop", subset_ratio=0.1)
    for text in ("num_trials=6 becomes 2", "derived", "early_stop='median_stop' is ignored", "becomes 0.5"):
        assert text in caplog.text


def test_reserved_names_are_reached_through_params(create: Create, caplog: pytest.LogCaptureFixture) -> None:
    """A hyper-parameter named like a key of the config does not hide that key, and create() says so."""
    hpo = create(search_space={**SPACE, "iterations": hpopt.search_space("choice", ["a"])})
    config = hpo.get_next_sample() or {}
    assert (config["iterations"], config["params"]["iterations"]) == (4, "a")
    assert """'iterations' is reachable as config["params"]['iterations'] only""" in caplog.text


def test_default_hyper_parameters_come_first(create: Create) -> None:
    """The configurations that the user believes in are tried first, and count."""
    defaults = [{"bs": 64, "lr": 0.01}, {"lr": 0.001, "bs": 8}]
    hpo = create(default_hyper_parameters=defaults, num_trials=3)
    assert [config["params"] for config in run_all(hpo)][:2] == defaults


def test_default_hyper_parameters_are_tried_once_each(create: Create, caplog: pytest.LogCaptureFixture) -> None:
    """One that is given twice takes no other's place, and the user hears of it, as of those there is no room for."""
    first, second = {"lr": 0.01, "bs": 64}, {"lr": 0.001, "bs": 8}
    arguments: Config = {"default_hyper_parameters": [first, first, second], "num_trials": 2}
    with create(**arguments) as hpo:
        assert [config["params"] for config in run_all(hpo)] == [first, second]
    assert "default_hyper_parameters: each is tried once; 1 repeated another" in caplog.text
    with create(**arguments, resume=True) as again:
        assert again.get_progress() == 1
    create(**arguments | {"num_trials": 1}, overwrite=True)
    assert "default_hyper_parameters: 1 of 2 are tried, as num_trials says" in caplog.text


def test_a_study_with_results_is_not_replaced_in_silence(create: Create, caplog: pytest.LogCaptureFixture) -> None:
    """Who forgot resume=True hears what is gone; who did not is not told of it again."""
    said = "this replaces a study of the same name, with 8 ended trials: resume=True would have gone on with it"
    run_all(create(num_trials=8))
    assert "this replaces" not in caplog.text
    create(num_trials=8)
    assert caplog.text.count(said) == 1
    create(num_trials=8, resume=True)
    assert caplog.text.count(said) == 1


def test_defaults_stand_for_one_thing() -> None:
    """An argument that is left out is the same for create, where it is documented, as for the study."""
    arguments = inspect.signature(hpopt.create).parameters
    others = {"default_hyper_parameters": ()}  # None there
    known = {name: others.get(name, argument.default) for name, argument in arguments.items() if name in DEFAULTS}
    given = [name for name, default in DEFAULTS.items() if default is MISSING]
    assert {name: default for name, default in known.items() if name not in given} == {
        name: default for name, default in DEFAULTS.items() if name not in given
    }
    assert all(known[name] is inspect.Parameter.empty for name in given)


def test_results_of_an_earlier_study_are_removed(create: Create, tmp_path: Path) -> None:
    """A new study begins without the files of another one: should it be killed at once, they would pass for its own."""
    with create(save_path=tmp_path) as hpo:
        run_all(hpo)
    files = [tmp_path / name for name in ("results.json", "trials.csv", "curves.csv")]
    assert all(file.exists() for file in files)
    with create(save_path=tmp_path, resume=True):
        assert all(file.exists() for file in files)
    create(save_path=tmp_path, mode="min", overwrite=True)
    assert not any(file.exists() for file in files)


def test_the_same_seed_gives_the_same_study(create: Create) -> None:
    """With one worker, seed and scores decide everything."""
    studies = {"a": 7, "b": 7, "c": 8}
    a, b, c = ([config["params"] for config in run_all(create(study=n, seed=seed))] for n, seed in studies.items())
    assert a == b != c


def test_callers_keep_their_arguments(create: Create) -> None:
    """Nothing that was passed is changed, and nothing is shared: one space may serve two studies."""
    numbers, defaults, size = [8, 256, 8], {"lr": 0.01, "bs": 8}, [64, 32]
    space = {"lr": SPACE["lr"], "bs": hpopt.search_space("quniform", numbers)}
    config = create(search_space=space, default_hyper_parameters=defaults, image_resize=size).get_next_sample() or {}
    config["params"].clear()
    numbers.append(1)
    create(study="second", search_space=space, default_hyper_parameters=defaults, image_resize=size)
    assert (space["bs"].range, list(space), defaults, size) == ([8, 256, 8], ["lr", "bs"], defaults, [64, 32])


# --- names of studies, and whose they are


def test_a_shared_study_needs_a_name(create: Create, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a shared server the default save_path names no study; study= does, or the last part of save_path."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="save_path='hpo' names no study on a shared server: pass study="):
        create(study=None, save_path="hpo")
    assert create(study=None, save_path=tmp_path / "hpo").study == "hpo"
    for path in ("runs/my study (2)", "runs/" + "x" * 65, "/"):
        with pytest.raises(
            ValueError, match=r"names no study on a shared server, where .* is no name: pass study= with"
        ):
            create(study=None, save_path=path)
    assert create(study=None, save_path="runs/gone/../of_its-own.name").study == "of_its-own.name"
    assert create(study="of.its-own_name", save_path="hpo").study == "of.its-own_name"


def test_namespaces_separate_studies(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies of the same name in two namespaces have nothing to do with each other."""
    hpo = create(namespace="team-a")
    run_all(hpo)
    monkeypatch.setenv("HPOPT_NAMESPACE", "team-b")
    other = create()
    assert (hpo.namespace, other.namespace, hpo.study) == ("team-a", "team-b", other.study)
    assert other.trials() == []


def test_an_unfinished_study_is_not_replaced_by_accident(create: Create) -> None:
    """On a shared server resume=False needs overwrite=True, until the study has finished."""
    first = create()
    train(first.get_next_sample() or {})
    with pytest.raises(hpopt.StudyExists, match=r"exists: .*1 of 6 trials.* resume=True .* overwrite=True"):
        create()
    second = create(overwrite=True)
    assert second.trials() == []
    with pytest.raises(hpopt.StudyReplaced):
        first.get_next_sample()
    with pytest.raises(hpopt.UnknownStudy):
        first.trials()
    run_all(second)
    assert create().trials() == []


def test_resuming_with_other_arguments_names_each_of_them(create: Create) -> None:
    """What may not change is refused, all of it in one message; what may change is taken."""
    hpo = create(default_hyper_parameters={"lr": 0.01, "bs": 8})
    other = {**SPACE, "bs": hpopt.search_space("choice", [8, 16])}
    changes: Config = {
        "search_space": other, "mode": "min", "metric": "loss", "early_stop": "median_stop", "max_iterations": 5,
        "image_resize": [8, 8], "full_dataset_size": 999, "num_full_iterations": 11, "num_trials": 4, "seed": 2,
        "batch_size_name": "bs", "num_init_trials": 4,
    }  # fmt: skip
    with pytest.raises(ValueError, match="cannot resume this study") as caught:
        create(resume=True, **changes)
    assert [name for name in (*changes, "default_hyper_parameters") if name not in str(caught.value)] == []
    assert "search_space differs in 'bs'" in str(caught.value)
    assert "'max' and is now 'min'" in str(caught.value)
    with pytest.raises(ValueError, match="search_alg"):
        create(resume=True, search_alg="asha")
    more = {"num_trials": 8, "num_workers": 2, "kappa": 1.0, "kappa_decay": 0.9, "expected_time_ratio": 8}
    same = create(resume=True, default_hyper_parameters={"lr": 0.01, "bs": 8}, seed=None, **more)
    assert (same.uid, same.spec.trials, same.num_workers, same.spec.seed) == (hpo.uid, 8, 2, 1)
    assert len(run_all(same)) == 8


def test_long_values_that_differ_are_shown_in_part(create: Create) -> None:
    """The answer has room for what cannot be resumed, however long it is."""
    defaults = [{"lr": 0.0001 * i, "bs": 8} for i in range(1, 200)]
    create(default_hyper_parameters=defaults, metric="m" * 200)
    with pytest.raises(ValueError, match=r"metric was 'm+\.\.\.m+' and is now 'n+\.\.\.n+'") as caught:
        create(resume=True, default_hyper_parameters=defaults[1:], metric="n" * 200)
    assert "default_hyper_parameters was ({'lr': 0.0001" in str(caught.value)


def test_resuming_what_is_not_there_begins_it(create: Create) -> None:
    """resume=True may stand in a script from the beginning."""
    assert len(run_all(create(resume=True))) == 6


def test_joining_an_existing_study(create: Create, embedded: EmbeddedServer) -> None:
    """join() is a further session with a study that somebody else created."""
    hpo = create(num_trials=2)
    with hpopt.join(hpo.study, url=embedded.url) as other:
        assert (other.uid, other.spec, other.save_path) == (hpo.uid, hpo.spec, None)
        assert len(run_all(other)) == 2
        assert other.trials() == hpo.trials()
    with pytest.raises(hpopt.UnknownStudy, match="there is no study 'default/nowhere'"):
        hpopt.join("nowhere", url=embedded.url)
