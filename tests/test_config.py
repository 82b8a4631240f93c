import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hpopt
from hpopt import contacts
from tests.conftest import Create
from tests.studies import curve, sample, states

RUNNING, STOP = hpopt.Status.RUNNING, hpopt.Status.STOP


def test_config_travels(create: Create) -> None:
    """A config that was pickled, or written as JSON by a tool that knows no ints, is still the same trial's."""
    hpo = create(num_trials=1)
    config = sample(hpo)
    pickled = pickle.loads(pickle.dumps(config))  # noqa: S301 - our own
    assert pickled == config
    as_floats = {name: float(value) if type(value) is int else value for name, value in config["hpopt"].items()}
    for copy in (pickled, json.loads(json.dumps(config)), {"hpopt": as_floats}):
        assert hpopt.report(copy, 0.5) is RUNNING
    assert len(curve(hpo, 0)) == 3


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        (None, TypeError, "config=None: pass the dict"),
        ([], TypeError, r"config=\[\]: pass the dict"),
        ({}, ValueError, r'config\["hpopt"\] is missing'),
        ({"hpopt": "x"}, ValueError, r'config\["hpopt"\] is missing'),
        ({"trial": None}, ValueError, r'\["trial"\]=None'),
        ({"trial": -1}, ValueError, r'\["trial"\]=-1'),
        ({"trial": True}, ValueError, r'\["trial"\]=True'),
        ({"attempt": 1.5}, ValueError, r'\["attempt"\]=1.5'),
        ({"study": ""}, ValueError, r"""\["study"\]=''"""),
        ({"study": "a b"}, ValueError, "study='a b'"),
        ({"uid": 3}, ValueError, r'\["uid"\]=3'),
        ({"uid": "ü"}, ValueError, r"""\["uid"\]='ü'"""),
        ({"uid": "u" * 65}, ValueError, r'\["uid"\]='),
        ({"trial": 2**31}, ValueError, r'\["trial"\]=2147483648'),
        ({"attempt": 2**64}, ValueError, r'\["attempt"\]='),
        ({"url": 3}, ValueError, r'\["url"\]=3'),
        ({"url": None}, ValueError, "set HPOPT_URL"),
        ({"url": "http://somewhere"}, ValueError, "use redis://"),
    ],
)
def test_config_that_is_none(changed: Any, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with a config is named, at once."""
    monkeypatch.delenv("HPOPT_URL", raising=False)
    identity = {"version": 1, "namespace": "n", "study": "s", "uid": "u", "trial": 0, "attempt": 1, "url": "redis://h"}
    config = changed
    if isinstance(changed, dict) and changed and "hpopt" not in changed:
        config = {"hpopt": {**identity, **changed}}
    with pytest.raises(error, match=words):
        hpopt.report(config, 0.5)


def test_bad_calls_send_nothing(create: Create, tmp_path: Path) -> None:
    """A report without a score, with two, or with a step that is none, is an error, and the trial stays as it was."""
    config = sample(create(save_path=tmp_path))
    for arguments in ({}, {"score": 1, "result": 1}, {"score": None}, {"score": "1"}):
        with pytest.raises(TypeError, match=r"pass (the score once|one number)"):
            hpopt.report(config, **arguments)
    for error, steps in ((ValueError, [0, -1, 2**31]), (TypeError, [1.0, True, "1"])):
        for step in steps:
            with pytest.raises(error, match=r"current_iters=.*: pass an int of at least 1"):
                hpopt.report(config, 0.5, step)  # type: ignore[arg-type]
    assert not contacts.contact(config).started


def test_a_step_may_come_from_an_array(create: Create) -> None:
    """An int of numpy's or of torch's is one."""
    hpo = create(num_trials=1)
    config = sample(hpo)
    for step in (np.int64(2), torch.tensor(3), np.arange(5)[4]):
        hpopt.report(config, 0.5, step)  # type: ignore[arg-type]
    assert [point.step for point in curve(hpo, 0)] == [2, 3, 4]


def test_a_step_beyond_the_last_is_spoken_of(create: Create, caplog: pytest.LogCaptureFixture) -> None:
    """Who counts batches in place of iterations ends every trial with its first report, and should hear why."""
    config = sample(create(num_trials=1, max_iterations=4))
    assert hpopt.report(config, 0.5, 4000) is STOP
    assert hpopt.report(config, 0.5, 8000) is STOP
    assert caplog.text.count("current_iters=4000 ends trial 0, which has 4 iterations") == 1
    assert "8000" not in caplog.text


@pytest.mark.parametrize("changed", [{"trial": 5}, {"attempt": 2}, {"uid": "another"}])
def test_a_config_of_nobody_is_spoken_of(
    create: Create, caplog: pytest.LogCaptureFixture, changed: dict[str, Any]
) -> None:
    """It is answered with STOP, and a line says that nothing was reported."""
    config = sample(create())
    config["hpopt"] |= changed
    assert hpopt.report(config, 0.5) is STOP
    assert "hpopt: nothing is reported for trial" in caplog.text
    assert "was the config passed on as get_next_sample() returned it?" in caplog.text


def test_steps_of_the_users_own(create: Create) -> None:
    """Steps may be given and skipped; one that was reported before changes nothing, and counting goes on from each."""
    hpo = create(num_trials=1, max_iterations=10)
    config = sample(hpo)
    calls = [(0.1, None), (0.3, 3), (0.9, 3), (0.8, 2), (0.9, None), (0.4, None), (1.0, 99)]
    answers = [hpopt.report(config, score, step) for score, step in calls]
    assert answers == [RUNNING] * 6 + [STOP]
    assert [(point.step, point.score) for point in curve(hpo, 0)] == [(1, 0.1), (3, 0.3), (4, 0.4), (10, 1.0)]
    assert hpopt.report(config, 0.5) is STOP
    assert states(hpo) == ["completed"]
