"""Launchers of jobs with many processes, and the environment variables by which these learn which of them they are."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Launcher:
    """One launcher's variables."""

    rank: str
    size: str
    launch: tuple[str, ...] = ()
    """Together the same in all processes of a launch, and in no other launch. () if the launcher says no such thing."""
    others: tuple[str, ...] = ()
    """What else it says of each single process."""


TORCH = Launcher(
    "RANK", "WORLD_SIZE",
    others=(
        "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "NODE_RANK",
        "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
        "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RUN_ID",
        "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_ERROR_FILE",
    ),
)  # fmt: skip
"""torchrun, `accelerate launch`, DeepSpeed, and everybody who sets what torch.distributed reads."""

SCHEDULERS = (
    # Open MPI
    Launcher(
        "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("PMIX_NAMESPACE",),
        ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_NODE_RANK",
         "OMPI_UNIVERSE_SIZE", "OMPI_MCA_ess_base_jobid", "OMPI_MCA_ess_base_vpid", "PMIX_NAMESPACE", "PMIX_ID"),
    ),
    # MVAPICH2
    Launcher(
        "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE",
        others=("MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
    ),
    # HPE Cray, PALS; its identifier is made of the job's and the step's where Slurm has started it
    Launcher(
        "PALS_RANKID", "PMI_SIZE", ("PALS_APID", "SLURM_RESTART_COUNT"),
        ("PALS_LOCAL_RANKID", "PALS_NODEID", "PALS_LOCAL_SIZE"),
    ),
    # PMIx, which prterun and srun --mpi=pmix speak
    Launcher("PMIX_RANK", "SLURM_STEP_NUM_TASKS", ("PMIX_NAMESPACE", "SLURM_RESTART_COUNT")),
    # MPICH, Intel MPI, MVAPICH 3 and srun --mpi=pmi2
    Launcher(
        "PMI_RANK", "PMI_SIZE", ("PMI_JOBID", "SLURM_RESTART_COUNT"),
        ("PMI_LOCAL_RANK", "PMI_LOCAL_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ),
    # Slurm: a job that is queued again has the same steps once more
    Launcher(
        "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_STEP_ID", "SLURM_JOB_ID", "SLURM_RESTART_COUNT"),
        ("SLURM_LOCALID", "SLURM_NODEID"),
    ),
)  # fmt: skip
"""They number the ranks of one job, but just as well many tasks that are unrelated.

The innermost first: `mpirun` in a Slurm job leaves SLURM_PROCID, which is not its own, the same for all ranks.
"""

LOCAL = ("LOCAL_RANK", "NODE_RANK")
"""All that Lightning's own launcher says: both are 0, or not there, in the first process only."""

RANK_VARIABLES = tuple(
    dict.fromkeys(name for each in (TORCH, *SCHEDULERS) for name in (each.rank, each.size, *each.others))
)
"""What a launcher says of its own processes: not true of what such a process starts in turn."""

LIFE = "HPOPT_LIFE"
"""A text that all processes of a training job share, and no other launch of it has. A runner sets it for what its
trainer starts in turn; a user may, for a launcher that tells no launch from another."""


def number(name: str) -> int | None:
    """The natural number in an environment variable; None if there is none."""
    text = os.environ.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def launch() -> list[str]:
    """What all processes of this launch have in common, and those of no other; [] if the launcher does not say."""
    found = scheduler()
    if found is None or "SLURM_HET_SIZE" in os.environ:  # the parts of a heterogeneous job differ in their job's id
        return []
    values = [os.environ.get(name, "") for name in found.launch]
    return values if values and values[0] else []


def scheduler() -> Launcher | None:
    """Whose number this process has, RANK aside: the innermost of those that numbered it, if RANK does not differ."""
    rank = number(TORCH.rank)
    found = next((each for each in SCHEDULERS if number(each.rank) is not None), None)
    return found if found is not None and rank in (None, number(found.rank)) else None
