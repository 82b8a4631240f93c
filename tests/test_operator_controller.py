import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from examples.operator import controller as local
from examples.operator.cluster import Phase
from examples.operator.controller import Controller
from examples.operator.directory_cluster import DirectoryCluster
from examples.operator.manifest import filled, name_of
from tests.server import until
from tests.test_operator_clusters import TRIAL, UID, config


def begun(folder: Path) -> list[str]:
    """Trial and attempt of the jobs that were started."""
    return sorted(path.stem[-3:] for path in folder.glob("*.log"))


def with_command(command: str) -> dict[str, Any]:
    """The template, for a shell."""
    return {**TRIAL, "spec": {**TRIAL["spec"], "command": ["sh", "-c", command]}}


def test_the_controller_runs_each_job_once(tmp_path: Path) -> None:
    """So many at a time, in their order, with the config; what they say and how they end can be read."""
    cluster = DirectoryCluster(tmp_path, TRIAL)
    os.mkfifo(tmp_path / "go")
    first = f"echo \"$HPO_CONFIG\" '$(HPO_CONFIG)'; read line <{tmp_path}/go"
    for trial, command in enumerate([first, "exit 5", "kill -9 $PPID; echo late"]):
        cluster.create(filled(with_command(command), config(trial)))
    earlier, later = (Controller(cluster.jobs_folder, 1) for _ in range(2))
    for controller in (earlier, earlier, later):
        controller.look()
        assert begun(cluster.jobs_folder) == ["0-1"]
    assert [job.phase for job in cluster.jobs(UID)] == [Phase.ACTIVE] * 3
    (tmp_path / "go").write_text("\n")

    def ended() -> bool:
        later.look()
        return all(job.phase is not Phase.ACTIVE for job in cluster.jobs(UID))

    until(ended, "all jobs have ended")
    jobs = cluster.jobs(UID)
    assert [job.phase for job in jobs] == [Phase.SUCCEEDED, Phase.FAILED, Phase.FAILED]
    assert re.search(r"exit status 5; .*-1-1\.log tells more", jobs[1].reason)
    assert re.search(r"its process was killed; .*-2-1\.log may tell more", jobs[2].reason)
    text = json.dumps(config(0))
    assert (cluster.jobs_folder / f"{jobs[0].name}.log").read_text() == f"{text} {text}\n"
    until(lambda: not earlier.children() and not later.children(), "all children were waited for")


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_the_controller_ends_what_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str) -> None:
    """Also if it does not want to, and if another controller has started it."""
    monkeypatch.setattr(local, "KILL_AFTER", 0.1)
    cluster = DirectoryCluster(tmp_path, TRIAL)
    cluster.create(filled(with_command(f"{trap}echo ready; sleep 600"), config()))
    earlier, later = (Controller(cluster.jobs_folder, 1) for _ in range(2))
    earlier.look()
    log = cluster.jobs_folder / f"{name_of(config())}.log"
    until(lambda: log.read_text() == "ready\n", "it runs")
    cluster.delete(name_of(config()))

    def gone() -> bool:
        later.look()
        return list(cluster.jobs_folder.iterdir()) == []

    until(gone, "nothing is left of it")
    until(lambda: not earlier.children(), "all children were waited for")


@pytest.mark.parametrize("command", [None, [], "train.py", [1]])
def test_a_resource_that_cannot_be_run(tmp_path: Path, command: Any) -> None:
    """It has failed, and its log says why."""
    cluster = DirectoryCluster(tmp_path, TRIAL)
    cluster.create(filled({**TRIAL, "spec": {**TRIAL["spec"], "command": command}}, config()))
    Controller(cluster.jobs_folder, 1).look()
    (job,) = cluster.jobs(UID)
    assert (job.phase, job.reason.partition(";")[0]) == (Phase.FAILED, "exit status 78")
    assert "give the program and its arguments" in (cluster.jobs_folder / f"{job.name}.log").read_text()
