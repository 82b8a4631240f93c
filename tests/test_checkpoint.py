import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hpopt
from workers.checkpoints import candidates

CONFIG: dict[str, Any] = {
    "params": {"lr": 0.5, "batch": 64, "sizes": [8, 16]},
    "hpopt": {"version": 1, "namespace": "team", "study": "s", "uid": "u1", "trial": 3, "attempt": 1, "url": None},
}


def other(**identity: Any) -> dict[str, Any]:
    """The config of another attempt, trial or study."""
    return {**CONFIG, "hpopt": {**CONFIG["hpopt"], **identity}}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is configured; not there yet."""
    monkeypatch.setenv("HPOPT_CHECKPOINTS", str(tmp_path / "checkpoints"))
    return tmp_path / "checkpoints"


def test_a_later_attempt_finds_the_same_folder(root: Path) -> None:
    """The folder is made, is below the configured one, and belongs to the trial, not to its attempt."""
    folder = hpopt.checkpoint_dir(CONFIG)
    assert folder.is_dir()
    assert folder.is_relative_to(root / "team" / "s" / "u1")
    assert hpopt.checkpoint_dir(other(attempt=2)) == folder


def test_folders_that_cannot_be_made(root: Path) -> None:
    """The error says what names the place: the variable, or the config."""
    root.touch()
    with pytest.raises(NotADirectoryError, match=r"HPOPT_CHECKPOINTS='.*' has to name a place where folders can be"):
        hpopt.checkpoint_dir(CONFIG)
    with pytest.raises(NotADirectoryError, match=r"config\['checkpoint_dir'\] has to name a place"):
        hpopt.checkpoint_dir({**CONFIG, "checkpoint_dir": str(root / "mine")})


def test_other_trials_and_studies_have_other_folders() -> None:
    """Trials, teams, studies, and studies that took the name of another one do not meet."""
    configs = [CONFIG, other(trial=4), other(namespace="b"), other(study="t"), other(uid="u2")]
    assert len({hpopt.checkpoint_dir(each) for each in configs}) == len(configs)


def test_other_hyper_parameters_have_another_folder() -> None:
    """After memory ran out the batch is smaller, and a checkpoint of the larger one is not to be gone on from."""
    smaller = {**CONFIG, "params": {**CONFIG["params"], "batch": 32}}
    assert hpopt.checkpoint_dir(smaller) != hpopt.checkpoint_dir(CONFIG)


def test_a_carrier_may_rewrite_numbers() -> None:
    """The order of keys, and 64 written as 64.0, make no difference."""
    text = json.dumps({**CONFIG, "params": {"sizes": (8.0, 16), "batch": 64.0, "lr": 0.5}})
    assert hpopt.checkpoint_dir(json.loads(text)) == hpopt.checkpoint_dir(CONFIG)


def test_the_config_may_name_the_folder(tmp_path: Path) -> None:
    """An operator that keeps its own folders puts the trial's into the config."""
    assert hpopt.checkpoint_dir({**CONFIG, "checkpoint_dir": str(tmp_path / "mine")}) == tmp_path / "mine"
    assert (tmp_path / "mine").is_dir()


def test_without_a_folder_the_error_names_the_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to some place that nobody asked for."""
    monkeypatch.delenv("HPOPT_CHECKPOINTS")
    with pytest.raises(ValueError, match=r"hpopt-worker with --checkpoints DIR, .* set HPOPT_CHECKPOINTS=DIR"):
        hpopt.checkpoint_dir(CONFIG)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({}, r'config\["hpopt"\] is missing'),
        ({**CONFIG, "params": None}, r'config\["params"\]=None'),
        ({**CONFIG, "checkpoint_dir": 3}, r"config\['checkpoint_dir'\]=3"),
    ],
)
def test_a_bad_config_is_refused(config: dict[str, Any], match: str) -> None:
    """The error names the key."""
    with pytest.raises(ValueError, match=match):
        hpopt.checkpoint_dir(config)


# --- which of them a worker may remove


@pytest.mark.parametrize(("sign", "expected"), [(1.0, {1, 2}), (-1.0, {0, 2})])
def test_candidates_are_those_that_may_yet_be_best(sign: float, expected: set[int]) -> None:
    """A trial with a better score keeps its checkpoints, and so does one that came further."""
    rows: Any = [SimpleNamespace(id=i, score=score, step=step) for i, (score, step) in enumerate(
        [(0.1, 4), (0.9, 4), (0.5, 9), (None, 9)])]  # fmt: skip
    assert candidates(rows, sign) == expected
