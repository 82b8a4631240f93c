import logging
import time
from pathlib import Path
from typing import Any

import pytest

import hpopt
from examples.operator.cluster import AlreadyExists, ClusterError, Job, Phase
from examples.operator.loop import Operator
from examples.operator.manifest import Manifest, config_of, load_template, name_of
from tests.conftest import Create, InBackground
from tests.server import ROOT, until
from tests.studies import sample, states, train

TEMPLATE = load_template(ROOT / "examples" / "operator" / "manifests" / "trial.json")


class MemoryCluster:
    """A cluster whose jobs do nothing, and end when a test says so."""

    def __init__(self) -> None:
        """Nothing is there."""
        self.resources: dict[str, Manifest] = {}
        self.phases: dict[str, Phase] = {}
        self.created: list[str] = []
        self.down = False

    def create(self, manifest: Manifest) -> None:
        self._check()
        name = manifest["metadata"]["name"]
        if name in self.resources:
            raise AlreadyExists(name)
        self.resources[name] = manifest
        self.created.append(name)

    def jobs(self, study_uid: str) -> list[Job]:
        self._check()
        found = [config_of(each) for each in self.resources.values() if each["kind"] == "HpoTrial"]
        mine = [config for config in found if config["hpopt"]["uid"] == study_uid]
        return [Job(name_of(each), each, self.phases.get(name_of(each), Phase.ACTIVE), "why") for each in mine]

    def delete(self, name: str) -> None:
        self._check()
        self.resources.pop(name, None)

    def _check(self) -> None:
        if self.down:
            raise ClusterError("the cluster is down")


@pytest.fixture
def cluster() -> MemoryCluster:
    """An empty one."""
    return MemoryCluster()


def operator(hpo: hpopt.HpOpt, cluster: MemoryCluster, **times: float) -> Operator:
    """An operator that has all the time in the world, unless it is said otherwise."""
    return Operator(hpo, cluster, TEMPLATE, **{"poll": 0.05, "stop_after": 600.0, **times})


def launched(hpo: hpopt.HpOpt, its: Operator) -> dict[str, Any]:
    """A sample that has its job."""
    config = sample(hpo)
    its.launch(config)
    return config


def test_the_loop_from_begin_to_end(create: Create, cluster: MemoryCluster, in_background: InBackground) -> None:
    """One job for each trial; the result is left as a ConfigMap, once for each number of trials."""
    hpo = create(operator="jobs")
    its = operator(hpo, cluster)

    def run_jobs() -> None:
        for n in range(hpo.spec.trials):
            until(lambda n=n: len(cluster.created) > n, "the next job")  # type: ignore[misc] # mypy: a lambda's default
            train(config_of(cluster.resources[cluster.created[n]]))
            cluster.phases[cluster.created[n]] = Phase.SUCCEEDED

    in_background(run_jobs)
    best = its.run()
    its.see_off_jobs()
    assert (states(hpo), best) == (["completed"] * 6, hpo.get_best_config())
    assert cluster.created == [f"{hpo.study.replace('_', '-').lower()[:44]}-{hpo.uid}-{n}-1" for n in range(6)]
    assert best is not None
    for _ in range(2):
        its.publish(best)
    assert cluster.created[6:] == [cluster.created[0].removesuffix("0-1") + "best-6"]
    its.clean_up()
    assert [each["kind"] for each in cluster.resources.values()] == ["ConfigMap"]


def test_what_was_handed_out_and_not_launched(create: Create, cluster: MemoryCluster) -> None:
    """The operator, or another one of its name, creates the job; who is late hears that it exists."""
    hpo = create(operator="jobs")
    config = sample(hpo)
    its = operator(hpo, cluster)
    its.look_after_jobs()
    assert cluster.created == [name_of(config)]
    its.launch(config)
    its.look_after_jobs()
    assert cluster.created == [name_of(config)]


def test_a_job_that_failed_before_its_trainer_spoke(create: Create, cluster: MemoryCluster) -> None:
    """Its trial is handed out again, as an attempt with a job of its own; after that it has failed."""
    hpo = create(operator="jobs", num_trials=1)
    its = operator(hpo, cluster)
    for attempt in (1, 2):
        config = launched(hpo, its)
        assert config["attempt"] == attempt
        cluster.phases[name_of(config)] = Phase.FAILED
        its.look_after_jobs()
    assert hpo.get_next_sample() is None
    assert [(trial.state, trial.attempt) for trial in hpo.trials()] == [("failed", 2)]


@pytest.mark.parametrize(("phase", "state"), [(Phase.FAILED, "failed"), (Phase.SUCCEEDED, "stopped")])
def test_a_job_that_ends_half_way(create: Create, cluster: MemoryCluster, phase: Phase, state: str) -> None:
    """Its trial keeps its score."""
    hpo = create(operator="jobs")
    its = operator(hpo, cluster)
    config = launched(hpo, its)
    hpopt.report(config, 0.5)
    cluster.phases[name_of(config)] = phase
    its.look_after_jobs()
    (trial,) = hpo.trials()
    assert (trial.state, trial.score) == (state, 0.5)


def test_a_job_that_has_ended_well(create: Create, cluster: MemoryCluster) -> None:
    """Nothing is done about it, and it stays: its name is taken for good."""
    hpo = create(operator="jobs")
    its = operator(hpo, cluster, stop_after=0.0)
    config = launched(hpo, its)
    train(config)
    cluster.phases[name_of(config)] = Phase.SUCCEEDED
    its.look_after_jobs()
    assert states(hpo) == ["completed"]
    with pytest.raises(AlreadyExists):
        cluster.create(cluster.resources[name_of(config)])


def test_a_job_that_somebody_deleted(create: Create, cluster: MemoryCluster) -> None:
    """If its trainer was at work, the trial is handed out again; if not, the job is created again."""
    hpo = create(operator="jobs", num_trials=2)
    its = operator(hpo, cluster)
    first, second = launched(hpo, its), launched(hpo, its)
    hpopt.report(first, 0.5)
    its.look_after_jobs()
    cluster.resources.clear()
    its.look_after_jobs()
    assert list(cluster.resources) == [name_of(second)]
    again = sample(hpo)
    assert (again["trial_id"], again["attempt"]) == (0, 2)
    assert hpo.trials()[0].score == 0.5


def test_a_trial_that_others_train_has_no_job(create: Create, cluster: MemoryCluster) -> None:
    """That an operator does not find one means nothing: it may be a runner's, or never have been seen."""
    hpo = create(operator="jobs")
    beside = hpopt.join(hpo.study, hpo.url)
    theirs, mine = sample(beside), sample(hpo)
    hpopt.report(mine, 0.5)
    its = operator(hpo, cluster)
    its.look_after_jobs()
    assert cluster.created == []
    assert states(hpo) == ["issued", "running"]
    train(theirs)
    beside.close()


def test_a_job_whose_attempt_is_over(create: Create, cluster: MemoryCluster, caplog: pytest.LogCaptureFixture) -> None:
    """It may end by itself; if it does not, it is deleted, and no other job is."""
    caplog.set_level(logging.INFO)
    hpo = create(operator="jobs")
    its = operator(hpo, cluster)
    stopped, released, going = (launched(hpo, its) for _ in range(3))
    train(stopped)
    hpopt.trial(released).release()
    again = launched(hpo, its)
    assert again["attempt"] == 2
    its.look_after_jobs()
    assert len(cluster.resources) == 4
    its.stop_after = 0.0
    cluster.down = True
    its.look_after_jobs()
    assert "the cluster is down; trying again" in caplog.text
    cluster.down = False
    its.look_after_jobs()
    assert sorted(cluster.resources) == sorted(map(name_of, (going, again)))


def test_the_operator_does_not_leave_jobs_behind(
    create: Create, cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When every trial has ended it waits for the jobs, and deletes those that go on."""
    looks = iter([time.sleep] * 100)  # not for ever
    monkeypatch.setattr(time, "sleep", lambda seconds: next(looks)(seconds))  # noqa: PLW0108 - one for each call
    hpo = create(operator="jobs", num_trials=2)
    its = operator(hpo, cluster, stop_after=0.3)
    ends, hangs = launched(hpo, its), launched(hpo, its)
    for config in (ends, hangs):
        train(config)
    cluster.phases[name_of(ends)] = Phase.SUCCEEDED
    its.see_off_jobs()
    assert list(cluster.resources) == [name_of(ends)]


def test_a_cluster_that_is_down(create: Create, cluster: MemoryCluster, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is lost: the job is created when it can be."""
    hpo = create(operator="jobs")
    its = operator(hpo, cluster)
    cluster.down = True
    config = launched(hpo, its)
    its.look_after_jobs()
    assert [record.getMessage() for record in caplog.records] == [
        "trial 0, attempt 1: the cluster is down; trying again",
        "the jobs cannot be listed: the cluster is down; trying again",
    ]
    cluster.down = False
    its.look_after_jobs()
    assert cluster.created == [name_of(config)]


def test_names_do_not_depend_on_where(tmp_path: Path, create: Create) -> None:
    """A study that takes another's name has other jobs; the same sample has the same."""
    hpo = create(operator="jobs")
    config = sample(hpo)
    with create(operator="jobs", resume=True) as again:
        assert [name_of(each) for each in again.get_open_samples()] == [name_of(config)]
    with create(operator="jobs", overwrite=True, save_path=tmp_path / "new") as new:
        assert name_of(sample(new)) != name_of(config)
