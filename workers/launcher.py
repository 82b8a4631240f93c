"""Runs the trials of a study in processes on this machine."""

import contextlib
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hpopt
from workers.checkpoints import KEEP
from workers.crew import Crew
from workers.environment import CHECKPOINTS
from workers.link import GRACE
from workers.process import Launch
from workers.progress import show
from workers.settings import Settings
from workers.target import Train, target_of

log = logging.getLogger("hpopt")


def run(
    train: Train | str,
    hpo: hpopt.HpOpt,
    jobs: int = 1,
    *,
    progress: bool = True,
    checkpoints: str | os.PathLike[str] | None = None,
    keep_checkpoints: str = "all",
    grace: float | None = None,
) -> dict[str, Any] | None:
    """Run a study to its end: `train(config)` for every sample, `jobs` at a time, each in a process of its own.

    A process trains one trial after the other; after a crash or when memory ran out, a new one takes its place. What
    trials print goes to `<save_path>/logs`. With several jobs, each sees one of this machine's accelerators, and its
    share of the cores in OMP_NUM_THREADS. An interruption (Ctrl-C, SIGTERM) gives the running trials back to the study.

    Args:
        train: A function at the top level of a module or script, or its name as "file.py:function" or
            "module:function". Processes import it: a script's own code belongs under `if __name__ == "__main__":`.
        hpo: The study, as `hpopt.create` or `hpopt.join` returned it.
        jobs: How many trials to train at once.
        progress: Show how the study goes: a live table in a terminal, lines elsewhere.
        checkpoints: Folder below which `hpopt.checkpoint_dir(config)` makes one for each trial that asks for it;
            None is that of HPOPT_CHECKPOINTS, or else `<save_path>/checkpoints`.
        keep_checkpoints: "all"; "best": when trials have ended, remove those that cannot be the best any more; "none":
            remove those of all trials that have ended.
        grace: Seconds that a training has to end after an interruption; 10 if None.

    Returns:
        The best hyper-parameters; None if no trial has a score.

    Raises:
        TypeError, ValueError: `train` cannot be imported by another process, or another argument is not what it may be.
        RuntimeError: Importing it there failed.
        StudyPaused: Trials keep failing before their first report.
    """
    if not isinstance(hpo, hpopt.HpOpt):
        raise TypeError(f"hpo={hpo!r}: pass what hpopt.create(...) or hpopt.join(...) returned")
    target = target_of(train)
    function = None if target or isinstance(train, str) else train
    launch = Launch(target or "", function, grace=GRACE if grace is None else checked_grace(grace))
    folder = checkpoint_root(hpo, checkpoints)
    settings = Settings(jobs, log_folder(hpo), checkpoints=folder, keep_checkpoints=_kept(keep_checkpoints))
    return work(hpo, launch, settings, progress=progress)


def work(hpo: hpopt.HpOpt, launch: Launch, settings: Settings, *, progress: bool) -> dict[str, Any] | None:
    """Run the study as `settings` say. Returns and raises what `run` does."""
    _check_jobs(settings.jobs, hpo)
    with _signals_as_exit(), show(hpo, progress, joined=hpo.save_path is None) as voice:
        crew = Crew(hpo, launch, settings, voice, voice.mention)
        voice.trained = crew.trained
        crew.work()
    return hpo.get_best_config()


def log_folder(hpo: hpopt.HpOpt) -> Path:
    """Where the output of trials goes; a session that only joined a study has no folder of its own."""
    return (Path("hpo_logs", hpo.study) if hpo.save_path is None else Path(hpo.save_path, "logs")).absolute()


def checkpoint_root(hpo: hpopt.HpOpt, given: str | os.PathLike[str] | None) -> str:
    """The folder for checkpoints, as it was given, or as the environment has it, or in save_path; "" for none."""
    root = os.environ.get(CHECKPOINTS, "") if given is None else os.fspath(given)
    if not root and hpo.save_path is not None:
        root = str(Path(hpo.save_path, "checkpoints"))
    return str(Path(root).absolute()) if root else ""


def checked_grace(grace: Any) -> float:
    """Seconds, as a finite number that is not negative. Raises TypeError or ValueError."""
    if isinstance(grace, bool) or not isinstance(grace, (int, float)):
        raise TypeError(f"grace={grace!r}: pass a number of seconds")
    if not 0 <= grace < math.inf:
        raise ValueError(f"grace={grace!r}: pass a number of seconds, 0 or more")
    return float(grace)


def _kept(keep: str) -> str:
    if keep not in KEEP:
        raise ValueError(f"keep_checkpoints={keep!r}: pass {', '.join(map(repr, KEEP))}")
    return keep


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
