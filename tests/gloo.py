"""Trainings of four ranks with a real process group: `python -P -m tests.gloo WHAT FOLDER`.

The folder has `jobs.json`, a list of [what, config]. Every rank writes what it was answered to a journal of its own
there. Ranks are forked, as torch takes seconds to import; torch.distributed's own agent, where it is the launcher,
forks them as well.
"""

# ruff: noqa: T201 - ranks tell the test what they wait for

import json
import math
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import hpopt
from hpopt import client, contacts, heartbeat
from tests.journal import Journal, read

Config = dict[str, Any]
Job = tuple[str, Config]
RANKS = 4
PATIENCE = 60.0
"""Seconds for which a rank waits for something that a test awaits as well."""
HIGH = 100.0
"""A score that stops no trial; each rank adds a little of its own, and only that of rank 0 is to be counted."""


class Rank:
    """One of the four."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder = folder
        self.rank = rank
        self.journal = Journal(folder / f"rank{rank}")
        self.calls = Counter[int]()

    def join(self, name: str) -> None:
        """Begin the process group of this name."""
        file = f"file://{self.folder}/{name}.group"
        dist.init_process_group("gloo", init_method=file, rank=self.rank, world_size=RANKS)

    def together(self) -> None:
        """What training does at every step: who has stopped alone leaves the others waiting here."""
        total = torch.ones(1)
        dist.all_reduce(total)
        assert total.item() == RANKS

    def report(self, config: Config, score: float, step: int | None = None, **note: Any) -> bool:
        """Report, each rank a score of its own; True: stop."""
        status = hpopt.report(config, score + self.rank / 10, step)
        return self.note(config, status, step=contacts.contact(config).step, **note)

    def note(self, config: Config, status: hpopt.Status, **note: Any) -> bool:
        """Write the answer down; True: stop."""
        trial = config["trial_id"]
        self.calls[trial] += 1
        self.journal.write(trial=trial, status=status.name, **note)
        return status == hpopt.status.STOP

    def wait_for_the_others(self) -> None:
        """Wait until each rank has written down as much as this one: a launcher ends them in the middle of a call."""
        journals = [self.folder / f"rank{number}" for number in range(RANKS)]
        count = len(read([journals[self.rank]]))
        self.wait_for(lambda: all(len(read([path])) >= count for path in journals), f"{count} entries of each rank")

    def wait_for(self, check: Callable[[], bool], what: str) -> None:
        """Wait for something that others do."""
        end = time.monotonic() + PATIENCE
        while not check():
            assert time.monotonic() < end, what
            time.sleep(0.01)


# --- what the ranks do for one config


def stop(rank: Rank, config: Config, score: Callable[[int], float]) -> None:
    """Train until it is enough."""
    for step in range(1, config["iterations"] + 1):
        rank.together()
        if rank.report(config, score(step)):
            return


def complete(rank: Rank, config: Config) -> None:
    """All iterations, with scores that rise."""
    stop(rank, config, float)


def low(rank: Rank, config: Config) -> None:
    """A score that is enough for some steps, the more the later the trial, until the median is above it."""
    stop(rank, config, lambda _: 1 + config["trial_id"] / 12)


def invalid(rank: Rank, config: Config) -> None:
    """Scores that are none, from a step on that depends on the trial."""
    stop(rank, config, lambda step: math.nan if step > 1 + config["trial_id"] % 5 else HIGH)


def finalized(rank: Rank, config: Config) -> None:
    """At a step that depends on the trial rank 0 asks the test to end it, and trains on, but not to the end."""
    for step in range(1, config["iterations"] + 1):
        if rank.rank == 0 and step == 2 + config["trial_id"] % 6:
            print(f"finalize {config['trial_id']}", flush=True)
        if rank.rank == 0 and step == config["iterations"]:
            done = rank.folder / f"finalized{config['trial_id']}"
            rank.wait_for(done.exists, f"the end of trial {config['trial_id']}")
        rank.together()
        if rank.report(config, HIGH):
            return


def some_steps(rank: Rank, config: Config) -> None:
    """Every third step is reported, by its number."""
    for step in (3, 6, 9):
        rank.together()
        if rank.report(config, HIGH, step):
            return


def at_their_pace(rank: Rank, config: Config) -> None:
    """Rank 0 is six steps ahead, then done, before the others report anything: of its answers only the last is kept."""
    for steps in (range(6), range(6, config["iterations"])):
        for turn in (rank.rank == 0, rank.rank in (1, 2), rank.rank == 3):
            for _ in steps if turn else ():
                rank.report(config, HIGH)
            dist.barrier()


def rank_0_alone(rank: Rank, config: Config) -> None:
    """Only rank 0 reports, and tells the others."""
    for step in range(1, config["iterations"] + 1):
        answer = torch.zeros(1)
        if rank.rank == 0:
            answer[0] = hpopt.report(config, HIGH if step < 5 else math.nan)
        dist.broadcast(answer, 0)
        if rank.note(config, hpopt.Status(int(answer.item()))):
            return


def late(rank: Rank, config: Config) -> None:
    """Rank 3 reports when the last verdict of the trial, which was stopped at step 6, has expired."""
    if rank.rank == 3:
        dist.barrier()
        it = contacts.contact(config)
        rank.wait_for(lambda: not it.client.get("EXISTS", it._stream), "the verdict's end")
    for step in range(1, config["iterations"] + 1):
        if rank.report(config, HIGH if step < 4 else math.nan):
            break
    if rank.rank != 3:
        dist.barrier()


def out_of_memory(rank: Rank, config: Config) -> None:
    """Rank 3 runs out of memory at the second step; the others hear of it when they report that."""
    for step in range(1, config["iterations"] + 1):
        rank.together()
        if rank.rank == 3 and step == 2:
            hpopt.reportOOM(config)
        dist.barrier()
        if rank.report(config, HIGH):
            return


def before_the_group(rank: Rank, config: Config) -> None:
    """Some steps are reported before there is a process group: the environment knows the rank."""
    for step in range(1, config["iterations"] + 1):
        if step == 3:
            rank.join("all")
        if rank.report(config, HIGH):
            return


def after_the_group(rank: Rank, config: Config) -> None:
    """Some are reported when the group, which alone knew the rank, is gone."""
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        del os.environ[name]
    for step in range(1, config["iterations"] + 1):
        if step == 3:
            dist.destroy_process_group()
        if rank.report(config, HIGH):
            return


JOBS = {
    each.__name__: each
    for each in (
        before_the_group, complete, low, invalid, finalized, some_steps, at_their_pace, rank_0_alone, late,
        out_of_memory, after_the_group,
    )
}  # fmt: skip


def train_all(rank: Rank) -> None:
    """One config after the other."""
    client.RESEND = 0.2  # an answer that has expired is asked for again, soon
    for what, config in jobs(rank.folder):
        JOBS[what](rank, config)


# --- ranks that are killed


def rank_0_killed(rank: Rank, config: Config) -> None:
    """Rank 0 is gone while the others wait for what it reports."""
    for step in range(1, config["iterations"] + 1):
        rank.together()
        if rank.rank == 0 and step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if rank.report(config, step):
            return


def rank_3_killed(rank: Rank, config: Config) -> None:
    """Rank 3 is gone in the middle of the training: gloo tells the others."""
    with hpopt.trial(config):
        for step in range(1, config["iterations"] + 1):
            if rank.rank == 3 and step == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            rank.together()
            if rank.report(config, step):
                return


def killed(folder: Path) -> int:
    """Two jobs of four ranks each without a launcher that would start them again, and meanwhile one that has such."""
    heartbeat.interval_for = often
    children = []
    *alone, (what, config) = jobs(folder)
    for job in alone:
        (folder / job[0]).mkdir()
        children += [forked(train_killed, folder / job[0], rank, job) for rank in range(RANKS)]
    (folder / what).mkdir()
    launched(train_restarted, folder / what, config, restarts=2)
    print("exit", *(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), flush=True)
    return 0


def train_killed(rank: Rank, job: Job) -> None:
    """One rank."""
    what, config = job
    rank.join("group")
    {"rank_0_killed": rank_0_killed, "rank_3_killed": rank_3_killed}[what](rank, config)


def often(url: str) -> float:
    """Seconds between two beats: who is silent is soon missed."""
    del url
    return 0.2


def in_a_worker() -> int:
    """A command of hpopt-worker: rank 3 is killed, and when all are started again, memory runs out on it."""
    return launched(train_with_oom, Path.cwd(), json.loads(os.environ["HPOPT_CONFIG"]), restarts=2)


def train_restarted(folder: Path, config: Config) -> None:
    """One rank; all of them are started again when rank 3 is killed, then when rank 0 is."""
    rank, count = Rank(folder, int(os.environ["RANK"])), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    dist.init_process_group("gloo")
    while True:
        rank.together()
        if (count, rank.rank, rank.calls[0]) == (1, 0, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if rank.report(config, HIGH, count=count):
            break
        if (count, rank.rank, rank.calls[0]) == (0, 3, 3):
            rank.wait_for_the_others()
            os.kill(os.getpid(), signal.SIGKILL)
    dist.destroy_process_group()


def train_with_oom(folder: Path, config: Config) -> None:
    """One rank. In the first attempt rank 3 is killed after two steps, and later ends with an out-of-memory error."""
    rank, count = Rank(folder, int(os.environ["RANK"])), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    dist.init_process_group("gloo")
    while True:
        rank.together()
        if rank.report(config, HIGH, count=count, attempt=config["attempt"], bs=config["bs"]):
            break
        match (config["attempt"], rank.rank, count, rank.calls[0]):
            case (1, 3, 0, 2):
                rank.wait_for_the_others()
                os.kill(os.getpid(), signal.SIGKILL)
            case (1, 3, 1, 1):
                rank.wait_for_the_others()
                hpopt.reportOOM(config)
                raise MemoryError(f"a batch of {config['bs']}")
    dist.destroy_process_group()


# --- launchers


def jobs(folder: Path) -> list[Job]:
    """What is to be done."""
    found: list[Job] = json.loads((folder / "jobs.json").read_text())
    return found


def launched(work: Callable[..., None], *arguments: Any, restarts: int) -> int:
    """Have four ranks started, watched and started again by what torchrun is made of; 1 if they failed in the end."""
    settings = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=RANKS, max_restarts=restarts, start_method="fork",
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id="tests", monitor_interval=0.05,
    )  # fmt: skip
    try:
        elastic_launch(settings, work)(*arguments)
    except ChildFailedError:
        traceback.print_exc()
        return 1
    return 0


def forked(work: Callable[..., None], folder: Path, rank: int, *arguments: Any) -> int:
    """One rank, in a process of its own; its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1"}
        work(Rank(folder, rank), *arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)


def hundred(folder: Path) -> int:
    """Four ranks for all jobs."""
    children = [forked(train_all, folder, rank) for rank in range(RANKS)]
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, *rest = sys.argv[1:]
    sys.exit(globals()[what](*map(Path, rest)))
