"""Which process of a training job this is: its rank, whether it speaks for the trial, and which life of it runs.

A training job may have many processes. Only global rank 0 sends; the others read the same answers.
"""

import hashlib
import os
import sys
from pathlib import PurePath
from typing import Any

INDEPENDENT_AFTER = 30.0
"""Seconds without any contact of a rank 0 after which a process that `may_be_independent` speaks for itself."""

SCHEDULER_RANKS = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
"""Ranks given by a scheduler: to the ranks of one job, but just as well to many tasks that are unrelated."""

RANK_VARIABLES = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "NODE_RANK",
    "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE",
    "TORCHELASTIC_ERROR_FILE",
    "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID",
    "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE",
    "OMPI_COMM_WORLD_NODE_RANK", "OMPI_UNIVERSE_SIZE",
)  # fmt: skip
"""What a launcher says of its own processes: not true of what such a process starts in turn."""

# Made once per process: a forked child (of a DataLoader, say) goes on with its parent's life.
_NONCE = os.urandom(8).hex()

LIFE = "HPOPT_LIFE"
"""Environment variable: the life that a runner has begun, for the processes that its trainer starts in turn."""


def rank() -> int:
    """Global rank of this process in its training job; 0 if it is the only one."""
    group = _process_group()
    if group is not None:
        return int(group.get_rank())
    numbers = (_number(name) for name in ("RANK", *SCHEDULER_RANKS))
    return next((number for number in numbers if number is not None), 0)


def is_speaker() -> bool:
    """Whether this process sends for its trial."""
    return rank() == 0


def is_alone() -> bool:
    """Whether this process is its whole training job: no other rank acts on the same answers."""
    group = _process_group()
    if group is not None:
        return int(group.get_world_size()) <= 1
    return all((_number(name) or 1) <= 1 for name in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))


def may_be_independent() -> bool:
    """Whether this is no speaker, but could be a task of its own: `srun` and `mpirun` also number unrelated tasks.

    Real ranks find each other through torch.distributed, or at least have RANK, MASTER_ADDR or a WORLD_SIZE above 1.
    """
    together = _process_group() is not None or _number("RANK") is not None or bool(os.environ.get("MASTER_ADDR"))
    return not together and (_number("WORLD_SIZE") or 1) <= 1 and rank() > 0


def life() -> tuple[str, int]:
    """Which life of its attempt this process belongs to, and its launcher's restart count (-1 without a launcher).

    A process that is started again in the same attempt begins a new life. Under torchrun all ranks have the same one.
    """
    restarts = _number("TORCHELASTIC_RESTART_COUNT")
    begun = os.environ.get(LIFE)
    if begun and not restarts:
        return begun, -1
    if restarts is None:
        return _NONCE, -1
    names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    launch = "\n".join([*(os.environ.get(name, "") for name in names), _launch_directory()])
    return hashlib.sha256(launch.encode(errors="surrogateescape")).hexdigest()[:16], restarts


def refuse_create() -> None:
    """Raise RuntimeError if this is one of many ranks: each would run a study of its own."""
    if is_speaker():
        return
    names = ", ".join(name for name in SCHEDULER_RANKS if name in os.environ)
    alone = f". If this task belongs to no job of several ranks, unset {names}" if may_be_independent() else ""
    raise RuntimeError(
        f"hpopt.create() was called on rank {rank()} of a distributed job, but a study has one operator: call it "
        f"where training jobs are launched, or on rank 0 only, and pass its configs to the other ranks{alone}"
    )


def _process_group() -> Any:
    """torch.distributed, if somebody else has loaded and initialised it."""
    module = sys.modules.get("torch.distributed")
    is_available = getattr(module, "is_available", None)  # not there while torch is still being imported
    is_initialized = getattr(module, "is_initialized", None)
    if is_available is None or is_initialized is None:
        return None
    return module if is_available() and is_initialized() else None


def _number(name: str) -> int | None:
    """The natural number in an environment variable; None if there is none."""
    text = os.environ.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _launch_directory() -> str:
    """The scratch directory of a torchrun on one machine.

    Its name is random, so it tells two launches apart that have the same address, as those of a restarted pod. Each
    machine of several has its own, which would give its ranks another life than the rest.
    """
    if os.environ.get("GROUP_WORLD_SIZE") != "1":
        return ""
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE", "")  # <launch>/attempt_<restarts>/<local rank>/error.json
    return str(PurePath(error_file).parent.parent.parent)
