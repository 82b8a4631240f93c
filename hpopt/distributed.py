"""Which process of a training job this is: its rank, whether it speaks for the trial, and which life of it runs.

A training job may have many processes. Only global rank 0 sends; the others read the same answers.
"""

import hashlib
import os
import re
import sys
from pathlib import PurePath
from typing import Any

from hpopt.launchers import LIFE, LOCAL, SCHEDULERS, TORCH, launch, number, scheduler

INDEPENDENT_AFTER = 30.0
"""Seconds without any contact of a rank 0 after which a process that `may_be_independent` speaks for itself."""

_LIFE = re.compile(r"[A-Za-z0-9_.-]{1,40}")

# Made once per process: a forked child (of a DataLoader, say) goes on with its parent's life.
_NONCE = os.urandom(8).hex()


def rank() -> int:
    """Global rank of this process in its training job; 0 if it is the only one.

    torch.distributed knows, once it is initialised. Before that it is what the launcher says, the innermost of several.
    """
    known = group_rank()
    if known is None:
        known = number(TORCH.rank)
    if known is None:
        known = next((found for each in SCHEDULERS if (found := number(each.rank)) is not None), None)
    if known is None:
        known = max(number(name) or 0 for name in LOCAL)
    return known


def group_rank() -> int | None:
    """The rank in torch.distributed's process group; None if there is no group (yet, or any more)."""
    group = _process_group()
    return None if group is None else int(group.get_rank())


def is_speaker() -> bool:
    """Whether this process sends for its trial."""
    return rank() == 0


def is_alone() -> bool:
    """Whether this process is its whole training job: no other rank acts on the same answers."""
    group = _process_group()
    if group is not None:
        return int(group.get_world_size()) <= 1
    if (number(TORCH.size) or 1) > 1:
        return False
    found = None if number(TORCH.rank) is not None else scheduler()
    return found is None or number(found.size) == 1


def may_be_independent() -> bool:
    """Whether this is no speaker, but could be a task of its own: `srun` and `mpirun` also number unrelated tasks.

    Real ranks find each other through torch.distributed, or at least have RANK, MASTER_ADDR or a WORLD_SIZE above 1.
    """
    together = _process_group() is not None or number(TORCH.rank) is not None or bool(os.environ.get("MASTER_ADDR"))
    return not together and (number(TORCH.size) or 1) <= 1 and rank() > 0


def restarts_left() -> bool:
    """Whether the launcher starts all ranks again when one of them fails."""
    done, most = number("TORCHELASTIC_RESTART_COUNT"), number("TORCHELASTIC_MAX_RESTARTS")
    return done is not None and most is not None and done < most


def job() -> tuple[str, int]:
    """What the lives of this training job begin with, and its launcher's restart count (-1 without a launcher's).

    A life is a name for what was started at once, and goes or falls together: "launch", or "launch:which of it". The
    text is "" if nothing tells this launch from another. Raises ValueError for a bad HPOPT_LIFE.
    """
    begun = os.environ.get(LIFE, "")
    if begun and not _LIFE.fullmatch(begun):
        raise ValueError(f"{LIFE}={begun!r}: use 1 to 40 of the characters A-Z a-z 0-9 _ . -")
    restarts = number("TORCHELASTIC_RESTART_COUNT")
    if restarts is None:
        common = launch()
        return begun or (f"{_hash(*common)}:" if common else ""), -1
    if begun:
        return (f"{begun}:{restarts}" if restarts else begun), restarts
    run, address, port = (os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT"))
    return f"{_hash(run, *_elastic_launch())}:{_hash(address, port, str(restarts))}", restarts


def life() -> tuple[str, int]:
    """Which life of its attempt this process speaks for, and its launcher's restart count (-1 without a launcher's).

    A process that is started again in the same attempt begins a new life.
    """
    begin, restarts = job()
    return (f"{begin}{_NONCE}" if not begin or begin.endswith(":") else begin), restarts


def refuse_create() -> None:
    """Raise RuntimeError if this is one of many ranks: each would run a study of its own."""
    if is_speaker():
        return
    alone = ""
    if may_be_independent():
        alone = ". If this task belongs to no job of several ranks, set RANK=0 and WORLD_SIZE=1 in its environment"
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


def _elastic_launch() -> list[str]:
    """What tells two launches of torchrun apart that have the same address, as those of a restarted pod.

    On one machine it is torchrun's scratch directory, whose name is random. Each machine of several has its own, which
    would give its ranks another life than the rest; there it is the job of Slurm, if there is one.
    """
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        error_file = os.environ.get("TORCHELASTIC_ERROR_FILE", "")  # <launch>/attempt_<restarts>/<rank>/error.json
        return [str(PurePath(error_file).parent.parent.parent)]
    if "SLURM_HET_SIZE" in os.environ:  # the parts of such a job differ in their job's id
        return []
    return [os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT")]


def _hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode(errors="surrogateescape")).hexdigest()[:16]
