import pytest

import hpopt
from hpopt import client, contacts, distributed, outage
from hpopt.launchers import RANK_VARIABLES
from tests.conftest import Create
from tests.studies import curve, sample, start_python, states, train

RUNNING = hpopt.Status.RUNNING
REPORT = "import hpopt, json, sys; print(hpopt.report(json.loads(sys.argv[1]), 1).name, flush=True)"


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No launcher has said anything yet, and nobody is waited for long."""
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(client, "ASK_WHO_IS_THERE", 0.1)
    monkeypatch.setattr(outage, "BLOCK", 0.1)
    monkeypatch.setattr(distributed, "INDEPENDENT_AFTER", 0.5)
    return monkeypatch


def test_unrelated_task_speaks_for_itself(create: Create, environ: pytest.MonkeyPatch) -> None:
    """A task that a scheduler has numbered, and that hears of no rank 0, is one of its own: it reports, and beats."""
    environ.setenv("SLURM_PROCID", "3")
    hpo = create_as_rank_0(create, environ)
    config = sample(hpo)
    assert train(config, lambda _, step: step)[-1] is hpopt.Status.STOP
    assert [point.score for point in curve(hpo, 0)] == [1, 2, 3, 4]
    assert contacts.contact(config).role.speaks


def test_rank_waits_for_rank_0(create: Create, environ: pytest.MonkeyPatch) -> None:
    """A rank of a training job never speaks: what it hears of rank 0 is its answer, and without one it fails."""
    hpo = create_as_rank_0(create, environ)
    config = sample(hpo)
    environ.setenv("RANK", "1")
    environ.setenv("WORLD_SIZE", "2")
    environ.setenv(outage.DEADLINE, "1")
    with pytest.raises(hpopt.HpoptUnavailable, match=r"no answer within 1 s \(HPOPT_REPORT_DEADLINE=1 s\)"):
        hpopt.report(config, 0.5)
    assert states(hpo) == ["issued"]
    environ.delenv(outage.DEADLINE)
    first = start_python(REPORT, config, environment={"RANK": "0"})
    assert hpopt.report(config, 0.5) is RUNNING
    assert first.wait() == 0
    assert first.lines == ["RUNNING"]
    assert [point.score for point in curve(hpo, 0)] == [1]


def create_as_rank_0(create: Create, environ: pytest.MonkeyPatch) -> hpopt.HpOpt:
    """A study, which only rank 0 may create."""
    with environ.context() as patch:
        patch.delenv("SLURM_PROCID", raising=False)
        return create(num_trials=1)
