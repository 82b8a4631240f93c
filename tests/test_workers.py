import contextlib
import functools
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hpopt
import workers
from hpopt.embedded import EmbeddedServer
from tests import trainers
from workers import process
from workers.environment import accelerators, runner_environment
from workers.target import target_of

ROOT = Path(__file__).resolve().parents[1]
DEADLINE = 30.0
pytestmark = pytest.mark.skipif(os.name != "posix", reason="runners need process groups")
Study = Callable[..., hpopt.HpOpt]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a coordinator, for all tests of this file: each has a study of its own there."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("server")) as server:
        yield server.url


@pytest.fixture
def study(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Study]:
    """Makes a study of two steps and, mostly, of two trials, whose score is the hyper-parameter x."""
    with contextlib.ExitStack() as closing:

        def create(name: str = "", **others: Any) -> hpopt.HpOpt:
            spec: dict[str, Any] = {
                "num_trials": 2,
                "max_iterations": 2,
                "subset_ratio": 1.0,
                "metric": "x",
                "num_workers": 2,
                "seed": 0,
            }
            space = {"x": hpopt.search_space("uniform", [0, 1])}
            name = name or re.sub(r"\W+", "-", request.node.name)[:60]
            spec |= {"search_space": space, "save_path": tmp_path, "url": url, "study": name, **others}
            return closing.enter_context(hpopt.create(0, 2, **spec))

        yield create


def states(hpo: hpopt.HpOpt) -> list[str]:
    """The states of all trials."""
    return [row.state for row in hpo.trials()]


def read_log(hpo: hpopt.HpOpt, trial: int, attempt: int = 1) -> str:
    """What a trial printed."""
    assert hpo.save_path is not None
    return (hpo.save_path / "logs" / f"trial-{trial}-{attempt}.log").read_text()


# --- trials that end well


def test_runs_every_trial_once_and_returns_the_best(study: Study) -> None:
    """All trials are trained to their end, two at a time, and the best hyper-parameters come back."""
    hpo = study(num_trials=5)
    best = workers.run(trainers.train, hpo, jobs=2)
    rows = hpo.trials()
    assert [(row.state, row.attempt, row.step) for row in rows] == [("completed", 1, 2)] * 5
    assert best == max((row.params for row in rows), key=lambda params: float(params["x"]))


def test_a_trainer_may_report_from_a_process_of_its_own(study: Study) -> None:
    """What a trainer starts speaks for the same life of the trial."""
    hpo = study()
    workers.run(trainers.train_in_a_child, hpo)
    assert [(row.state, row.attempt, row.step) for row in hpo.trials()] == [("completed", 1, 2)] * 2


def test_keeps_what_trials_print(study: Study, capfd: pytest.CaptureFixture[str]) -> None:
    """Each trial has a log of its own, with the output of what it starts; nothing of it reaches our own output."""
    hpo = study()
    workers.run(trainers.train, hpo)
    for trial in (0, 1):
        said = [f"trial {trial} says so in Python", f"trial {trial} says so in a child"]
        assert read_log(hpo, trial).splitlines() == said
    assert "says so" not in "".join(capfd.readouterr())


def test_shows_lines_and_the_table(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there is a line for each trial, and the table at the end."""
    workers.run(trainers.train, study())
    lines = capsys.readouterr().out.splitlines()
    assert sum("completed after 2 of 2 steps" in line for line in lines) == 2
    assert lines[-3].split() == ["trial", "state", "x", "steps", "x", "why"]
    assert [line.split()[1] for line in lines[-2:]] == ["completed", "completed"]


def test_shows_nothing_without_progress(study: Study, capfd: pytest.CaptureFixture[str]) -> None:
    """progress=False is silent."""
    workers.run(trainers.train, study(), progress=False)
    assert capfd.readouterr() == ("", "")


def test_goes_on_with_a_study(study: Study) -> None:
    """A study that was run is run further when it grows."""
    workers.run(trainers.train, study("grows"))
    more = study("grows", num_trials=3, resume=True)
    workers.run(trainers.train, more)
    assert states(more) == ["completed"] * 3


# --- trials that do not


def test_exception_fails_the_trial(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    """An exception is in the log and on the screen; the trial is tried once more, the others are trained."""
    hpo = study(num_trials=3)
    workers.run(trainers.fail_second, hpo, jobs=2)
    assert states(hpo) == ["completed", "failed", "completed"]
    assert hpo.trials()[1].attempt == 2
    log = read_log(hpo, 1)
    assert "about to fail" in log
    assert 'raise ValueError("this is the error")' in log
    assert "runner.py" not in log
    out = capsys.readouterr().out
    assert "trial 1 (attempt 1) failed: ValueError: this is the error" in out
    assert "trial-1-2.log" in out


def test_crash_after_a_score_keeps_the_score(study: Study) -> None:
    """A trial that crashes late is not trained again; its best score stays."""
    hpo = study()
    best = workers.run(trainers.fail_after_a_score, hpo)
    assert [(row.state, row.attempt) for row in hpo.trials()] == [("failed", 1)] * 2
    assert best is not None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("exit", "ended with exit status 3"),
        ("sys-exit", "SystemExit: not today"),
        ("killed", "was killed by SIGKILL"),
        ("segfault", "was killed by SIGSEGV"),
    ],
)
def test_process_that_dies_is_replaced(name: str, said: str, study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    """However a trainer's process ends, the trial is tried again in a new one, and the user is told."""
    hpo = study(name)
    workers.run(trainers.end_process, hpo)
    assert [(row.state, row.attempt) for row in hpo.trials()] == [("completed", 2), ("completed", 1)]
    assert read_log(hpo, 0).startswith("last words")
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (trainers.run_out_of_memory, "MemoryError: a batch of 64"),
        (trainers.report_out_of_memory, "its trainer said so"),
    ],
    ids=["raised", "reported"],
)
def test_out_of_memory_makes_the_batch_smaller(
    train: Callable[[dict[str, Any]], None], said: str, study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trial that runs out of memory is tried again with a smaller batch, in a new process."""
    space = {"x": hpopt.search_space("uniform", [0, 1]), "batch": hpopt.search_space("choice", [8, 64])}
    first = [{"x": 0.5, "batch": 64}, {"x": 0.6, "batch": 8}]
    hpo = study(search_space=space, batch_size_name="batch", default_hyper_parameters=first)
    workers.run(train, hpo)
    rows = hpo.trials()
    assert [(row.state, row.attempt, row.params["batch"]) for row in rows] == [("completed", 2, 8), ("completed", 1, 8)]
    assert f"trial 0 (attempt 1) out of memory: {said}" in capsys.readouterr().out
    assert re.findall(r"pid \d+", read_log(hpo, 0)) != re.findall(r"pid \d+", read_log(hpo, 0, 2))


def test_process_that_the_kernel_has_killed_ran_out_of_memory(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL alone may mean anything; if the kernel has counted one more process, memory was the reason."""
    counts = itertools.count()
    monkeypatch.setattr(process, "kernel_kills", lambda: next(counts))
    hpo = study("killed", batch_size_name="x", num_trials=1, default_hyper_parameters={"x": 0.5})
    workers.run(trainers.end_process, hpo)
    assert [(row.state, row.attempt, row.too_large) for row in hpo.trials()] == [("completed", 2, (0.5,))]
    assert "trial 0 (attempt 1) out of memory: its process was killed by the system" in capsys.readouterr().out


def test_trial_that_never_reports_is_failed(study: Study) -> None:
    """A training function that returns without a report does not block the study."""
    hpo = study()
    workers.run(trainers.report_nothing, hpo)
    assert states(hpo) == ["failed", "completed"]
    assert "without any score" in hpo.trials()[0].reason


def test_failing_trials_pause_the_study(study: Study) -> None:
    """When trial after trial fails, run raises what the study says, and where the log is."""
    hpo = study(num_trials=6)
    with pytest.raises(hpopt.StudyPaused, match=r"trials in a row failed .*: \S+trial-\d-2\.log$"):
        workers.run(trainers.fail_always, hpo, jobs=2)


def test_import_error_costs_no_trial(study: Study, tmp_path: Path) -> None:
    """A module that cannot be imported is reported with its traceback before any trial is handed out."""
    (tmp_path / "broken.py").write_text("import json\n1 / 0\n")
    hpo = study()
    with pytest.raises(RuntimeError, match=r"(?s)cannot be imported.*broken\.py.*ZeroDivisionError") as caught:
        workers.run(f"{tmp_path}/broken.py:train", hpo, jobs=2)
    assert str(caught.value).count("File ") == 1  # what leads to the user's file is left out
    assert hpo.trials() == []


# --- what can be run, and how much of it


def nested() -> Callable[[dict[str, Any]], None]:
    """A function that only exists while this process runs."""

    def train(config: dict[str, Any]) -> None:
        del config

    return train


class Trainer:
    """Something with a method."""

    def train(self, config: dict[str, Any]) -> None:
        """Nothing."""

    @staticmethod
    def train_well(config: dict[str, Any]) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("train", "error", "match"),
    [
        (lambda _: None, ValueError, "lambda or a nested function: write a function at the top level"),
        (nested(), ValueError, "nested function"),
        (Trainer().train, TypeError, "bound method"),
        (functools.partial(trainers.train), TypeError, "partial"),
        (3, TypeError, "int"),
        ("trainers", ValueError, "file.py:function"),
        ("nowhere.py:train", ValueError, "there is no file"),
    ],
)
def test_function_that_cannot_be_imported_is_refused(train: Any, error: type[Exception], match: str) -> None:
    """What another process could not find is refused, with the remedy."""
    with pytest.raises(error, match=match):
        target_of(train)


def test_function_is_named() -> None:
    """Functions, and static methods, are named so that another process can import them."""
    assert target_of(trainers.train) == "tests.trainers:train"
    assert target_of(Trainer.train_well) == f"{__name__}:Trainer.train_well"


def test_the_study_is_an_hpopt() -> None:
    """Anything else is refused by name."""
    with pytest.raises(TypeError, match="hpo=None: pass what"):
        workers.run(trainers.train, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("jobs", "error"), [(0, ValueError), (1.0, TypeError), (True, TypeError)])
def test_number_of_jobs_is_checked(jobs: Any, error: type[Exception], study: Study) -> None:
    """It is a positive int."""
    with pytest.raises(error, match="jobs="):
        workers.run(trainers.train, study(), jobs=jobs)


def test_more_jobs_than_workers_is_said(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    """More jobs than num_workers work, but the user is told which value to change."""
    hpo = study(num_workers=1)
    workers.run(trainers.train, hpo, jobs=2)
    assert states(hpo) == ["completed"] * 2
    assert "jobs=2, but num_workers=1" in caplog.text
    assert "Pass num_workers=2 to hpopt.create()" in caplog.text


def test_runner_environment_drops_the_outer_job() -> None:
    """A runner is no rank of the job it was started in, and has its share of the cores."""
    outer = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "host", "SLURM_PROCID": "3", "HOME": "/home/me"}
    inner = runner_environment(0, 10_000, "redis://host", outer)
    assert inner["HOME"] == "/home/me"
    assert inner["HPOPT_URL"] == "redis://host"
    assert inner["OMP_NUM_THREADS"] == "1"
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "SLURM_PROCID"} & inner.keys()


def test_runner_environment_keeps_the_users_threads() -> None:
    """OMP_NUM_THREADS is the user's if it is set."""
    assert runner_environment(0, 2, "", {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"


def test_each_job_has_one_accelerator() -> None:
    """Jobs share the devices that are there; a single job keeps them all."""
    outer = {"CUDA_VISIBLE_DEVICES": "2, MIG-5"}
    shares = [runner_environment(slot, 3, "", outer)["CUDA_VISIBLE_DEVICES"] for slot in range(3)]
    assert shares == ["2", "MIG-5", "2"]
    assert runner_environment(0, 1, "", outer)["CUDA_VISIBLE_DEVICES"] == "2, MIG-5"


@pytest.mark.parametrize(("listed", "found"), [("", []), ("-1", []), ("NoDevFiles", []), ("0,1", ["0", "1"])])
def test_listed_accelerators(listed: str, found: list[str], tmp_path: Path) -> None:
    """CUDA_VISIBLE_DEVICES says which there are; it may say none."""
    add_files(tmp_path, "dev/nvidia0")
    assert accelerators({"CUDA_VISIBLE_DEVICES": listed}, tmp_path).get("CUDA_VISIBLE_DEVICES", []) == found


def test_unlisted_accelerators_are_counted(tmp_path: Path) -> None:
    """Device files are numbered by the machine, devices by CUDA: only how many there are is the same."""
    add_files(tmp_path, "dev/nvidia3", "dev/nvidia7", "dev/nvidiactl", "dev/nvidia-uvm")
    assert accelerators({}, tmp_path) == {"CUDA_VISIBLE_DEVICES": ["0", "1"]}


def test_accelerators_of_other_makers(tmp_path: Path) -> None:
    """AMD's are counted, processors among their driver's nodes aside, or listed by ROCm; Intel's have to be listed."""
    nodes = {"0": "0", "1": "51203", "2": "18437"}
    for node, number in nodes.items():
        add_files(tmp_path, f"sys/class/kfd/kfd/topology/nodes/{node}/gpu_id", text=f"{number}\n")
    assert accelerators({}, tmp_path) == {"HIP_VISIBLE_DEVICES": ["0", "1"]}
    assert accelerators({"ROCR_VISIBLE_DEVICES": "4,5"}, tmp_path) == {"ROCR_VISIBLE_DEVICES": ["4", "5"]}
    both = {"ROCR_VISIBLE_DEVICES": "4,5", "HIP_VISIBLE_DEVICES": "1"}
    assert accelerators(both, tmp_path) == {"HIP_VISIBLE_DEVICES": ["1"]}
    assert accelerators({"ZE_AFFINITY_MASK": "0.0,0.1"}, tmp_path / "no")["ZE_AFFINITY_MASK"] == ["0.0", "0.1"]


def add_files(root: Path, *names: str, text: str = "") -> None:
    """Files of a machine with accelerators."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


# --- scripts

SCRIPT = """
import multiprocessing, os, sys
import hpopt, workers
from tests import trainers

NAMES = []

def square(x):
    return x * x

def train(config):
    assert os.environ["HPOPT_RUNNER"] == "1"
    assert sys.argv[1:] == ["an", "argument"] and __name__ != "__main__"
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # finds `square` in this very script
        assert pool.map(square, [3]) == [9]
    trainers.train(config)

def study(**others):
    return hpopt.create(0, 2, {"x": hpopt.search_space("uniform", [0, 1])}, save_path="out", num_trials=2,
                        max_iterations=2, subset_ratio=1.0, num_workers=2, study=os.environ["STUDY"], **others)
"""


class Script:
    """A user's script in a process of its own, with the studies of the shared server."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.name = re.sub(r"\W", "-", folder.name)
        self.waiters = folder / "waiters"
        self.waiters.mkdir()
        environment = {"HPOPT_URL": url, "PYTHONPATH": str(ROOT), "STUDY": self.name}
        self.environment = {**os.environ, **environment, trainers.WAITED_IN: str(self.waiters)}
        self.process: subprocess.Popen[str] | None = None

    def start(self, *command: str, text: str | None = None) -> subprocess.Popen[str]:
        """Start Python with a command line, and perhaps with a text as its standard input."""
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        if text is not None and self.process.stdin is not None:
            self.process.stdin.write(text)
            self.process.stdin.close()
            self.process.stdin = None
        return self.process

    def run(self, lines: str) -> subprocess.Popen[str]:
        """Start the script with these lines at its end."""
        (self.folder / "script.py").write_text(SCRIPT + lines)
        return self.start("script.py", "an", "argument")

    def waiting(self, count: int) -> list[int]:
        """The processes of trainers that wait, and their children, once there are so many."""
        assert self.process is not None
        deadline = time.monotonic() + DEADLINE
        while len(list(self.waiters.iterdir())) < count:
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"nobody waits: {self.process.communicate()[0]}")
            time.sleep(0.02)
        return [int(path.name) for path in self.waiters.iterdir()]

    def end(self) -> tuple[int, str]:
        """Its exit status and its output, when it has ended."""
        assert self.process is not None
        out, _ = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out

    def rows(self) -> list[hpopt.TrialRow]:
        """The trials of its study."""
        with hpopt.join(self.name, url=self.environment["HPOPT_URL"]) as hpo:
            return hpo.trials()


@pytest.fixture
def script(tmp_path: Path, url: str) -> Iterator[Script]:
    """A script that is not left running."""
    its = Script(tmp_path, url)
    yield its
    if its.process is not None:
        with its.process:
            its.process.kill()


def gone(pids: list[int]) -> bool:
    """Whether these processes end before long."""
    deadline = time.monotonic() + DEADLINE
    while any(_is_there(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _is_there(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    if state.parent.parent.exists() and sys.platform == "linux":
        try:
            return state.read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_function_in_the_script_itself(script: Script) -> None:
    """The script is imported in the runner, with its arguments; what it defines can be found by further processes."""
    script.run('if __name__ == "__main__":\n    print(workers.run(train, study(), jobs=2))\n')
    code, out = script.end()
    assert code == 0, out
    assert [row.state for row in script.rows()] == ["completed"] * 2


def test_script_without_a_guard_is_told_the_remedy(script: Script) -> None:
    """A script whose own code would run in the runner as well gets an error that says what to write."""
    script.run("workers.run(train, study())\n")
    code, out = script.end()
    assert code == 1
    assert 'put it under if __name__ == "__main__"' in out
    assert script.rows() == []


@pytest.mark.skipif(sys.platform != "linux", reason="interactive functions are forked on Linux only")
def test_function_of_an_interactive_session(script: Script) -> None:
    """Where there is no file to import, as in a notebook, the process is forked."""
    lines = 'def train(config):\n    print("forked", __name__)\n    trainers.train(config)\n'
    run = "try:\n    print(workers.run(train, study(), jobs=2))\nfinally:\n    print('once')\n"
    script.start("-W", "ignore::DeprecationWarning", "-", text=f"{SCRIPT}{lines}{run}")
    code, out = script.end()
    assert code == 0, out
    assert [row.state for row in script.rows()] == ["completed"] * 2
    assert out.count("once") == 1
    assert (script.folder / "out/logs/trial-1-1.log").read_text().startswith("forked __main__\ntrial 1 says so")


@pytest.mark.parametrize(
    ("number", "status", "trainer"),
    [
        (signal.SIGINT, -signal.SIGINT, "wait"),
        (signal.SIGINT, -signal.SIGINT, "swallow"),
        (signal.SIGTERM, 128 + signal.SIGTERM, "wait"),
    ],
)
def test_interruption_gives_trials_back(number: int, status: int, trainer: str, script: Script) -> None:
    """Ctrl-C or SIGTERM ends everything and leaves the trials for another time, even if a trainer swallows it."""
    process = script.run(f'if __name__ == "__main__":\n    workers.run(trainers.{trainer}, study(), jobs=2)\n')
    pids = script.waiting(4)
    os.killpg(process.pid, number)
    code, out = script.end()
    assert code == status, out
    assert gone(pids)
    assert [(row.state, row.reason) for row in script.rows()] == [("waiting", "released by its trainer")] * 2


def test_deaf_trainer_is_killed_and_its_trial_given_back(script: Script) -> None:
    """A trainer that ignores the interruption is killed, with what it has started; the trial is released for it."""
    lines = "    workers.launcher.GRACE = 0.2\n    workers.run(trainers.wait_stubbornly, study())\n"
    process = script.run(f'if __name__ == "__main__":\n{lines}')
    pids = script.waiting(2)
    os.kill(process.pid, signal.SIGINT)
    code, out = script.end()
    assert code == -signal.SIGINT, out
    assert gone(pids)
    assert [row.state for row in script.rows()] == ["waiting"]


def test_second_interruption_does_not_wait(script: Script) -> None:
    """Whoever presses Ctrl-C again gets the terminal back at once; still nothing is left running."""
    lines = "    workers.launcher.GRACE = 1000\n    workers.run(trainers.wait_stubbornly, study())\n"
    process = script.run(f'if __name__ == "__main__":\n{lines}')
    pids = script.waiting(2)
    while process.poll() is None:  # the second one counts once the first was handled
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert gone(pids)


def test_runners_do_not_outlive_the_launcher(script: Script) -> None:
    """When the launcher is killed its runners end by themselves, and give their trials back."""
    process = script.run('if __name__ == "__main__":\n    workers.run(trainers.wait, study(), jobs=2)\n')
    pids = script.waiting(4)
    process.kill()
    assert gone(pids)
    assert [row.state for row in script.rows()] == ["waiting"] * 2


def test_runner_that_is_terminated_is_replaced(script: Script) -> None:
    """SIGTERM to one runner gives its trial back, and another one takes it."""
    script.run('if __name__ == "__main__":\n    workers.run(trainers.wait, study(num_init_trials=1))\n')
    pids = script.waiting(2)
    trainer = next(pid for pid in pids if os.getpgid(pid) == pid)
    os.kill(trainer, signal.SIGTERM)
    again = [pid for pid in script.waiting(4) if pid not in pids]
    assert gone(pids)
    assert not gone_now(again)


def gone_now(pids: list[int]) -> bool:
    """Whether any of these processes has ended."""
    return not all(_is_there(pid) for pid in pids)


def test_command_line_trains_a_study_of_a_shared_server(study: Study, script: Script) -> None:
    """`python -m workers file.py:function --study NAME` needs nothing but the server's URL."""
    hpo = study(script.name)
    (script.folder / "job.py").write_text("from tests.trainers import train\n")
    script.start("-m", "workers", "job.py:train", "--study", script.name, "--jobs", "2")
    code, out = script.end()
    assert code == 0, out
    assert states(hpo) == ["completed"] * 2
    assert (script.folder / "hpo_logs" / script.name / "trial-0-1.log").exists()


def test_command_line_says_what_is_wrong(script: Script) -> None:
    """An unknown study is one line, not a traceback."""
    script.start("-m", "workers", "tests.trainers:train", "--study", "unheard-of")
    code, out = script.end()
    assert code == 1
    assert re.fullmatch(r"hpopt-worker: there is no study 'default/unheard-of' .*\n", out)
