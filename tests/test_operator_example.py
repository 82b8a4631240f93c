import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hpopt
from examples.operator import __main__ as program
from examples.operator.cluster import Phase
from examples.operator.directory_cluster import DirectoryCluster
from examples.operator.manifest import load_template
from hpopt.embedded import EmbeddedServer
from tests.server import ROOT, Program, until
from tests.studies import SPACE

EXAMPLE = ROOT / "examples" / "operator"
TRAINER = """
import json, sys, time
import hpopt

config = json.loads(sys.argv[1])
trial, attempt = config["trial_id"], config["attempt"]
with open("started", "a") as file:
    file.write(f"{trial} {attempt}\\n")
if (trial, attempt) == (1, 1):
    sys.exit("no such dataset")
for step in range(config["iterations"]):
    if hpopt.report(config, trial + step) == hpopt.status.STOP:
        break
    if trial == 2 and step == 1:
        sys.exit("half-way")
if trial == 3:
    time.sleep(600)  # it does not end though its attempt is over
"""
STUDY: dict[str, Any] = {
    "full_dataset_size": 1000, "num_full_iterations": 10, "num_trials": 7, "max_iterations": 4, "num_init_trials": 3,
    "num_workers": 3, "subset_ratio": 1.0, "seed": 1,
    "search_space": {name: {"type": space.type, "range": list(space.range)} for name, space in SPACE.items()},
}  # fmt: skip
OPTIONS = ("--study", "study.json", "--template", "trial.json", "--directory", "cluster")
QUICK = (*OPTIONS, "--poll", "0.2", "--stop-after", "1")


class Site:
    """A folder with the operator's files and its cluster, whose controller runs."""

    def __init__(self, folder: Path, url: str) -> None:
        """`url`: of the server."""
        self.folder, self.url = folder, url
        self.study = folder.name[:60]
        template = json.loads((EXAMPLE / "manifests" / "trial.json").read_text())
        template["spec"]["command"] = ["python", "-c", TRAINER, "$(HPO_CONFIG)"]
        (folder / "trial.json").write_text(json.dumps(template))
        (folder / "study.json").write_text(json.dumps({**STUDY, "study": self.study}))
        self.cluster = DirectoryCluster(folder / "cluster", load_template(folder / "trial.json"))
        self._programs: list[Program] = []
        self.controller = self.start("examples.operator.controller", "cluster", "--jobs", "3")

    def start(self, module: str, *arguments: str) -> Program:
        """One of our programs, in this folder."""
        environment = {"HPOPT_URL": self.url, "PYTHONPATH": str(ROOT)}
        command = ["env", f"--chdir={self.folder}", sys.executable, "-m", module, *arguments]
        self._programs.append(Program(command, environment=environment))
        return self._programs[-1]

    @property
    def started(self) -> list[tuple[int, ...]]:
        """The trial and attempt of every process that was started, sorted."""
        return sorted(tuple(map(int, line.split())) for line in (self.folder / "started").read_text().splitlines())

    def close(self) -> None:
        """End everything that still runs."""
        for operator in self._programs[1:]:
            if operator.returncode is None:
                os.killpg(operator.pid, signal.SIGKILL)  # also what it has forked
            operator.wait()
        for path in self.cluster.jobs_folder.glob("*.json"):
            path.unlink()
        try:
            until(lambda: not list(self.cluster.jobs_folder.glob("*.log")), "all processes have ended")
        finally:
            self.controller.kill()


@pytest.fixture
def site(tmp_path: Path, embedded: EmbeddedServer) -> Iterator[Site]:
    """A site whose study has yet to begin."""
    its = Site(tmp_path, embedded.url)
    yield its
    its.close()


def check_end(site: Site) -> None:
    """Every trial has ended, and every attempt of it had one job, and one process."""
    with hpopt.join(site.study, site.url) as hpo:
        trials, jobs = hpo.trials(), site.cluster.jobs(hpo.uid)
        uid = hpo.uid
    attempts = [(trial.id, attempt) for trial in trials for attempt in range(1, trial.attempt + 1)]
    assert [trial.id for trial in trials] == list(range(7))
    assert site.started == attempts
    assert {job.phase for job in jobs} == {Phase.SUCCEEDED, Phase.FAILED}
    gone = (3, trials[3].attempt)  # deleted, as it did not end by itself
    assert sorted((job.config["trial_id"], job.config["attempt"]) for job in jobs) == [a for a in attempts if a != gone]
    assert [trial.state for trial in trials if trial.id != 2] == ["completed"] * 6
    assert (trials[2].state, trials[2].step, trials[1].attempt) == ("failed", 2, 2)
    best = json.loads(next((site.folder / "cluster" / "configmap").glob(f"*{uid}-best-7.json")).read_text())
    assert json.loads(best["data"]["best.json"]) == trials[6].params


def test_an_operator_may_be_killed_at_any_line(site: Site) -> None:
    """However often: every attempt of every trial gets one job, and the study comes to its end."""
    operators = site.start("tests.killed_operator", *QUICK)
    assert operators.wait(80) == 0, operators.output
    check_end(site)
    places = {tuple(line.split()[1:]) for line in operators.lines if line.startswith("killed ")}
    functions = {function for _, function, _ in places}
    assert functions >= {"run", "launch", "create", "look_after_jobs", "_finalize", "_stop", "publish", "see_off_jobs"}
    assert len(places) > 100


def test_two_operators_at_once(site: Site) -> None:
    """They stand in for one another: one is killed, the other does all that is left, and nothing twice."""
    both = [site.start("examples.operator", *QUICK) for _ in range(2)]
    both[0].wait_for("created")
    both[0].kill()
    assert both[1].wait(60) == 0, both[1].output
    check_end(site)
    assert "best: {'lr': " in both[1].output


def test_an_operator_that_is_interrupted_says_how_to_go_on(site: Site) -> None:
    """Ctrl-C ends the operator, and no job."""
    (site.folder / "study.json").write_text(json.dumps({**STUDY, "study": site.study, "num_trials": 3}))
    operator = site.start("examples.operator", *QUICK)
    operator.wait_for("created")
    operator.signal(signal.SIGINT)
    assert operator.wait() == 130
    assert operator.lines[-1] == "jobs go on; start this again to go on with the study"
    assert site.start("examples.operator", *QUICK, "--clean-up").wait(60) == 0
    until(lambda: not list(site.cluster.jobs_folder.iterdir()), "nothing is left of the jobs")


# --- what is wrong with its files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with good files in it; there is no server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPOPT_URL", "redis://127.0.0.1:1")
    (tmp_path / "study.json").write_text(json.dumps({**STUDY, "study": "s"}))
    (tmp_path / "trial.json").write_bytes((EXAMPLE / "manifests" / "trial.json").read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("trial.json", '{"kind": "Job"}', "apiVersion=None"),
        ("trial.json", "{", r"trial\.json: Expecting property name"),
        ("trial.json", "[]", "it holds a list, not one mapping"),
        ("trial.json", '{"apiVersion": "v1", "kind": "Pod"}', "it carries no config"),
        ("trial.json", '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}', "leave name and generateName"),
        ("study.json", '{"study": "s"}', "give it a study, a name, and a search_space"),
        ("study.json", '{"study": "s", "search_space": {}, "resume": true}', "leave out resume"),
        ("study.json", '{"study": "s", "search_space": {"lr": {"tipe": "uniform"}}}', "each entry has a type"),
        ("study.json", '{"study": "s", "search_space": {"lr": [0, 1]}}', "each entry has a type and a range"),
    ],
)  # fmt: skip
def test_wrong_files_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str], file: str, content: str, what: str
) -> None:
    """With what is wrong in them, in one line, and before anything is made."""
    (folder / file).write_text(content)
    assert program.main([*OPTIONS]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith(file)
    assert re.search(what, message)
    assert sorted(path.name for path in folder.iterdir()) == ["study.json", "trial.json"]


@pytest.mark.usefixtures("folder")
def test_it_needs_a_server_that_outlives_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The embedded server would end with the operator."""
    monkeypatch.delenv("HPOPT_URL")
    assert program.main([*OPTIONS]) == 1
    assert "HPOPT_URL is not set" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Is named as well."""
    assert program.main(["--study", "none.json", *OPTIONS[2:]]) == 1
    assert "none.json" in capsys.readouterr().err
