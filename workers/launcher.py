"""Runs the trials of a study in processes on this machine."""

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hpopt
from workers.environment import runner_environment
from workers.link import CRASHED, DIED, FINISHED, GRACE, RELEASED
from workers.process import Ending, Launch, Runner, tail
from workers.progress import show
from workers.target import Train, target_of

_ASK = 1.0
"""Seconds after which a thread that waits for a sample looks whether it is still wanted."""
_AFTER_KILL = 2.0
"""Seconds to give the trials of killed processes back."""

log = logging.getLogger("hpopt")


def run(train: Train | str, hpo: hpopt.HpOpt, jobs: int = 1, *, progress: bool = True) -> dict[str, Any] | None:
    """Run a study to its end: `train(config)` for every sample, `jobs` at a time, each in a process of its own.

    A process trains one trial after the other; after a crash or when memory ran out, a new one takes its place. What
    trials print goes to `<save_path>/logs`. With several jobs, each sees one of this machine's NVIDIA devices, and its
    share of the cores in OMP_NUM_THREADS. An interruption (Ctrl-C, SIGTERM) gives the running trials back to the study.

    Args:
        train: A function at the top level of a module or script, or its name as "file.py:function" or
            "module:function". Processes import it: a script's own code belongs under `if __name__ == "__main__":`.
        hpo: The study, as `hpopt.create` or `hpopt.join` returned it.
        jobs: How many trials to train at once.
        progress: Show how the study goes: a live table in a terminal, lines elsewhere.

    Returns:
        The best hyper-parameters; None if no trial has a score.

    Raises:
        TypeError, ValueError: `train` cannot be imported by another process, or `jobs` is no positive number.
        RuntimeError: Importing it there failed.
        StudyPaused: Trials keep failing before their first report.
    """
    target = target_of(train)
    _check_jobs(jobs, hpo)
    launch = Launch(target or "", None if target or isinstance(train, str) else train)
    with _signals_as_exit(), show(hpo, progress) as say:
        Crew(hpo, launch, jobs, say).work()
    return hpo.get_best_config()


class Crew:
    """One thread for each job: it asks for a sample, has it trained in its runner process, and asks again."""

    def __init__(self, hpo: hpopt.HpOpt, launch: Launch, jobs: int, say: Callable[[str], None]) -> None:
        """Nothing is started yet; `say` shows a text to the user."""
        self._hpo, self._launch, self._jobs, self._say = hpo, launch, jobs, say
        self._logs = log_folder(hpo)
        self._asking = threading.Lock()
        self._changing = threading.Lock()
        self._runners: dict[int, Runner] = {}
        self._stopping = threading.Event()
        self._over = threading.Event()
        self._working = jobs
        self._error: BaseException | None = None
        self._last_failure: Path | None = None

    def work(self) -> None:
        """Train until there is nothing more to train; nothing is left running, however this ends."""
        self._logs.mkdir(parents=True, exist_ok=True)
        threads = [
            threading.Thread(target=self._job, args=(slot,), name=f"hpopt-job-{slot}", daemon=True)
            for slot in range(self._jobs)
        ]
        try:
            for thread in threads:
                thread.start()
            self._over.wait()
        finally:
            if not self._finished():
                self._end(threads)
        if self._error is not None:
            raise self._error

    # --- one job

    def _job(self, slot: int) -> None:
        runner: Runner | None = None
        try:
            runner = self._new_runner(slot)
            runner.wait_ready()  # before a sample is asked for: what cannot be imported costs no trial
            while (config := self._next()) is not None:
                if not runner.alive():
                    runner = self._renewed(runner, slot)
                if self._train(runner, config).how != FINISHED and not self._stopping.is_set():
                    runner = self._renewed(runner, slot)
        except BaseException as error:  # noqa: BLE001 - raised again by work()
            self._fail(error)
        finally:
            if runner is not None:
                runner.close()
            self._leave()

    def _next(self) -> dict[str, Any] | None:
        """A sample; None when the study has ended, or nobody wants one any more."""
        while not self._stopping.is_set():
            with self._asking, contextlib.suppress(TimeoutError):
                return self._hpo.get_next_sample(timeout=_ASK)
        return None

    def _train(self, runner: Runner, config: dict[str, Any]) -> Ending:
        path = self._logs / f"trial-{config['trial_id']}-{config['attempt']}.log"
        if self._stopping.is_set():
            hpopt.trial(config).release()
            return Ending(RELEASED)
        try:
            ending = runner.train(config, path)
        except BaseException:
            hpopt.trial(config).release()
            raise
        self._settle(config, ending, path)
        return ending

    def _settle(self, config: dict[str, Any], ending: Ending, path: Path) -> None:
        """Tell the study what the runner could not tell any more, and the user what went wrong."""
        if self._stopping.is_set():
            if ending.how == DIED:
                hpopt.trial(config).release()
        elif ending.how in (DIED, CRASHED):
            hpopt.finalize_trial(config, crashed=True)
        if ending.how == FINISHED or self._stopping.is_set():
            return
        name = f"trial {config['trial_id']} (attempt {config['attempt']})"
        if ending.how in (DIED, CRASHED):
            self._last_failure = path
            self._say(f"{name} failed: {ending.detail}{tail(path)}\n    log: {path}")
        else:
            self._say(f"{name} {ending.how}: {ending.detail}")

    def _new_runner(self, slot: int) -> Runner:
        environment = runner_environment(slot, self._jobs, self._hpo.url)
        runner = Runner(self._launch, environment, self._logs / f"runner-{slot}.log")
        with self._changing:
            self._runners[slot] = runner
        return runner

    def _renewed(self, runner: Runner, slot: int) -> Runner:
        runner.close()  # waited for: what it held of an accelerator's memory is free then
        return self._new_runner(slot)

    # --- the end

    def _fail(self, error: BaseException) -> None:
        """Keep the first error. What is being trained may go on if the study is just paused, else it is interrupted."""
        with self._changing:
            self._error = self._error or self._explained(error)
        if not isinstance(error, hpopt.StudyPaused):
            self._stopping.set()
            self._over.set()

    def _explained(self, error: BaseException) -> BaseException:
        if not isinstance(error, hpopt.StudyPaused) or self._last_failure is None:
            return error
        explained = hpopt.StudyPaused(f"{error}. The log of the last failure: {self._last_failure}")
        explained.__cause__ = error
        return explained

    def _leave(self) -> None:
        with self._changing:
            self._working -= 1
        if self._finished():
            self._over.set()

    def _finished(self) -> bool:
        return self._working == 0

    def _end(self, threads: list[threading.Thread]) -> None:
        """Have the running trials given back, then end what is left; another Ctrl-C ends it at once."""
        self._stopping.set()
        try:
            self._each(Runner.interrupt)
            _join(threads, GRACE)
        finally:
            self._each(Runner.kill)
            _join(threads, _AFTER_KILL)

    def _each(self, action: Callable[[Runner], None]) -> None:
        with self._changing:
            runners = list(self._runners.values())
        for runner in runners:
            action(runner)


def log_folder(hpo: hpopt.HpOpt) -> Path:
    """Where the output of trials goes; a session that only joined a study has no folder of its own."""
    return Path("hpo_logs", hpo.study) if hpo.save_path is None else Path(hpo.save_path, "logs")


def _check_jobs(jobs: int, hpo: hpopt.HpOpt) -> None:
    if type(jobs) is not int:
        raise TypeError(f"jobs={jobs!r}: pass how many trials to train at once, an int")
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: pass at least 1")
    if jobs > hpo.num_workers:
        log.warning(
            "hpopt: jobs=%d, but num_workers=%d: the study hands out no more than %d trials at a time (after its first "
            "num_init_trials). Pass num_workers=%d to hpopt.create() to use all jobs",
            jobs, hpo.num_workers, hpo.num_workers, jobs,
        )  # fmt: skip


def _join(threads: list[threading.Thread], seconds: float) -> None:
    """Wait until the threads have ended, so many seconds at most."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        if thread.is_alive():
            thread.join(max(0.0, deadline - time.monotonic()))


@contextlib.contextmanager
def _signals_as_exit() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this process in good order, as Ctrl-C does, unless it has its own plans for them."""
    mine: list[signal.Signals] = []
    if threading.current_thread() is threading.main_thread():
        mine = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for each in mine:
        signal.signal(each, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        for each in mine:
            signal.signal(each, signal.SIG_DFL)
