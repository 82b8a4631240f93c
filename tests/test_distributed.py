import os
import subprocess
import sys
import types
from collections.abc import Callable

import pytest

from hpopt import distributed
from hpopt.core.codec import decode, encode
from hpopt.core.keys import launch_of
from hpopt.core.messages import Start
from hpopt.launchers import LIFE, LOCAL, RANK_VARIABLES, SCHEDULERS, TORCH
from tests.fake_torch import load_torch
from tests.server import ROOT

TORCHRUN = {
    "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "node0", "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "job-7", "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_ERROR_FILE": "/tmp/torchelastic_a/job-7_x/attempt_0/0/error.json",
}  # fmt: skip
SRUN = {
    "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "2", "SLURM_STEP_ID": "0",
}  # fmt: skip
"""What `srun -n 8` tells its sixth task."""
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "1", "PMIX_NAMESPACE": "658440193",
    "SLURM_PROCID": "0", "SLURM_JOB_ID": "2", "SLURM_NTASKS": "2",
}  # fmt: skip
"""What Open MPI's `mpirun -np 2` tells its second rank in a batch script of Slurm: that has a number of its own."""

SetEnvironment = Callable[[dict[str, str]], None]


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> SetEnvironment:
    """Makes these the only variables that a launcher has set; torch.distributed is not loaded."""
    monkeypatch.delitem(sys.modules, "torch.distributed", raising=False)

    def replace(variables: dict[str, str]) -> None:
        for name in {LIFE, *RANK_VARIABLES, *(name for each in SCHEDULERS for name in each.launch)}:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    replace({})
    return replace


@pytest.mark.parametrize(
    ("variables", "rank", "independent"),
    [
        ({}, 0, False),
        ({"RANK": "3"}, 3, False),
        ({"RANK": "0", "SLURM_PROCID": "5"}, 0, False),
        ({"SLURM_PROCID": "0"}, 0, False),
        (SRUN, 5, True),
        (MPIRUN, 1, True),
        ({"OMPI_COMM_WORLD_RANK": "2"}, 2, True),
        ({"PMIX_RANK": "2"}, 2, True),
        ({"PMI_RANK": "2", "PMI_SIZE": "4"}, 2, True),
        ({"MV2_COMM_WORLD_RANK": "2", "MV2_COMM_WORLD_SIZE": "4"}, 2, True),
        ({"PALS_RANKID": "2", "PMI_RANK": "2", "PMI_SIZE": "4"}, 2, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0", "WORLD_SIZE": "4"}, 0, False),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "4"}, 1, False),
        ({"NODE_RANK": "1", "MASTER_ADDR": "node0"}, 1, False),
        ({"LOCAL_RANK": "1"}, 1, True),
        ({**SRUN, "LOCAL_RANK": "0"}, 5, True),
        ({**SRUN, "RANK": "0", "WORLD_SIZE": "1"}, 0, False),
        ({"SLURM_PROCID": "5", "MASTER_ADDR": "node0"}, 5, False),
        ({"SLURM_PROCID": "5", "WORLD_SIZE": "8"}, 5, False),
        ({"SLURM_PROCID": "5", "WORLD_SIZE": "1"}, 5, True),
        ({"RANK": "", "SLURM_PROCID": " 4 "}, 4, True),
        ({"RANK": "many", "OMPI_COMM_WORLD_RANK": "-1"}, 0, False),
    ],
)
def test_rank_comes_from_the_launcher(
    environ: SetEnvironment, variables: dict[str, str], rank: int, *, independent: bool
) -> None:
    """Only rank 0 speaks; the innermost launcher knows it, whose bare number may also be that of an unrelated task."""
    environ(variables)
    assert (distributed.rank(), distributed.is_speaker()) == (rank, rank == 0)
    assert distributed.may_be_independent() is independent


@pytest.mark.parametrize(
    ("variables", "alone"),
    [
        ({}, True),
        (TORCHRUN, False),
        ({"RANK": "0", "WORLD_SIZE": "1"}, True),
        ({"WORLD_SIZE": "4"}, False),
        (SRUN, False),
        (MPIRUN, False),
        ({"PMIX_RANK": "0"}, False),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, True),
        ({**SRUN, "RANK": "0", "WORLD_SIZE": "1"}, True),
    ],
)
def test_a_process_knows_whether_there_are_others(
    environ: SetEnvironment, variables: dict[str, str], *, alone: bool
) -> None:
    """The launcher that gave the rank says how many there are; without such a word there may be others."""
    environ(variables)
    assert distributed.is_alone() is alone


def test_torch_beats_the_environment(environ: SetEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    """An initialised torch.distributed knows its rank; a loaded one that is not initialised knows nothing."""
    environ({"SLURM_PROCID": "5"})
    load_torch(monkeypatch, rank=None)
    assert (distributed.rank(), distributed.may_be_independent()) == (5, True)
    load_torch(monkeypatch, rank=0)
    assert (distributed.rank(), distributed.may_be_independent()) == (0, False)
    load_torch(monkeypatch, rank=2)
    assert (distributed.rank(), distributed.may_be_independent()) == (2, False)


def test_torch_that_is_half_imported_is_ignored(environ: SetEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another thread imports torch, its module is there without its functions."""
    environ({"RANK": "1"})
    monkeypatch.setitem(sys.modules, "torch.distributed", types.ModuleType("torch.distributed"))
    assert distributed.rank() == 1


@pytest.mark.usefixtures("environ")
def test_life_of_a_plain_process_is_its_own() -> None:
    """Without a launcher's count a process has one life, which another process does not share."""
    life, restarts = distributed.life()
    assert (life, restarts) == distributed.life()
    assert restarts == -1
    code = "from hpopt.distributed import life; print(life()[0])"
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert other != life
    assert len(other) == len(life) == 16


@pytest.mark.usefixtures("environ")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_goes_on_with_its_parents_life() -> None:
    """A child made by fork, as a DataLoader's worker, is no new life of the trial."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, distributed.life()[0].encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    assert os.read(read, 100).decode() == distributed.life()[0]
    os.close(read)


def test_all_ranks_of_a_torchrun_share_one_life(environ: SetEnvironment) -> None:
    """The life is derived from what every rank of a launch knows, whatever machine it runs on."""
    lives = set()
    for rank in range(4):
        error_file = f"/tmp/torchelastic_{rank // 2}/job-7_y/attempt_0/{rank % 2}/error.json"
        environ({**TORCHRUN, "RANK": str(rank), "LOCAL_RANK": str(rank % 2), "TORCHELASTIC_ERROR_FILE": error_file})
        lives.add(distributed.life())
    assert len(lives) == 1
    assert lives.pop()[1] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"TORCHELASTIC_RESTART_COUNT": "1"},
        {"TORCHELASTIC_RUN_ID": "job-8"},
        {"MASTER_PORT": "29501"},
        {"MASTER_ADDR": "node1"},
    ],
)
def test_restarted_torchrun_is_a_new_life(environ: SetEnvironment, change: dict[str, str]) -> None:
    """A restart counted by the launcher, and another launch, is another life."""
    environ(TORCHRUN)
    life, _ = distributed.life()
    environ({**TORCHRUN, **change})
    assert distributed.life() != (life, 0)
    assert distributed.life()[0] != life
    assert distributed.life()[1] == int(change.get("TORCHELASTIC_RESTART_COUNT", 0))


def test_launch_on_several_machines_is_known_by_slurms_job(environ: SetEnvironment) -> None:
    """A job that Slurm has queued again is another launch, with the same address and torchrun's count at 0 again."""
    slurm = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}
    lives = set()
    for restarted in ({}, {"SLURM_RESTART_COUNT": "1"}):
        for node in ("0", "1"):
            environ(
                {
                    **TORCHRUN,
                    **slurm,
                    **restarted,
                    "SLURM_PROCID": node,
                    "TORCHELASTIC_ERROR_FILE": f"/tmp/{node}/a/b/0/e",
                }
            )
            lives.add(distributed.life())
    assert len(lives) == 2


def test_restarted_pod_is_a_new_life_although_its_address_is_the_same(environ: SetEnvironment) -> None:
    """On one machine the launcher's scratch directory tells two launches apart, and not the ranks of one."""

    def life(launch: str, local_rank: int) -> tuple[str, int]:
        error_file = f"/tmp/torchelastic_{launch}/none_{launch}/attempt_0/{local_rank}/error.json"
        environ({**TORCHRUN, "GROUP_WORLD_SIZE": "1", "TORCHELASTIC_ERROR_FILE": error_file})
        return distributed.life()

    assert life("a", 0) == life("a", 1) != life("b", 0)


def test_restarts_of_one_torchrun_are_of_one_launch(environ: SetEnvironment) -> None:
    """Its restarts are lives of one launch, also inside a runner, whose own life is the first of them."""
    environ(TORCHRUN)
    life, _ = distributed.life()
    environ({**TORCHRUN, "MASTER_PORT": "29501", "TORCHELASTIC_RESTART_COUNT": "1"})
    assert launch_of(distributed.life()[0]) == launch_of(life)
    environ({**TORCHRUN, "HPOPT_LIFE": "runner"})
    assert distributed.life() == ("runner", 0)
    environ({**TORCHRUN, "HPOPT_LIFE": "runner", "TORCHELASTIC_RESTART_COUNT": "1"})
    assert distributed.life() == ("runner:1", 1)


@pytest.mark.parametrize(
    ("launch", "rank", "another"),
    [
        (SRUN, {"SLURM_PROCID": "0"}, {"SLURM_STEP_ID": "1"}),
        (SRUN, {"SLURM_PROCID": "0"}, {"SLURM_RESTART_COUNT": "1"}),
        ({**SRUN, "RANK": "5"}, {"SLURM_PROCID": "0", "RANK": "0"}, {"SLURM_JOB_ID": "3"}),
        (MPIRUN, {"OMPI_COMM_WORLD_RANK": "0", "SLURM_STEP_ID": "0"}, {"PMIX_NAMESPACE": "658440194"}),
        ({"PMIX_RANK": "1", "PMIX_NAMESPACE": "a"}, {"PMIX_RANK": "0"}, {"SLURM_RESTART_COUNT": "1"}),
        ({"PMI_RANK": "1", "PMI_JOBID": "5.0"}, {"PMI_RANK": "0"}, {"PMI_JOBID": "5.1"}),
        ({"PALS_RANKID": "1", "PALS_APID": "a"}, {"PALS_RANKID": "0", "PMI_RANK": "0"}, {"PALS_APID": "b"}),
    ],
)
def test_ranks_of_a_scheduler_know_their_launch(
    environ: SetEnvironment, launch: dict[str, str], rank: dict[str, str], another: dict[str, str]
) -> None:
    """Lives of all ranks of a launch begin the same, and those of no other launch do; each speaker has its own."""
    environ(launch)
    begin, restarts = distributed.job()
    assert begin.endswith(":")
    assert restarts == -1
    assert distributed.life()[0].startswith(begin)
    environ({**launch, **rank})
    assert distributed.job() == (begin, -1)
    environ({**launch, **another})
    assert not distributed.life()[0].startswith(begin)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "node0"},
        {**SRUN, "SLURM_HET_SIZE": "2"},
        {**SRUN, "RANK": "1"},
        {"SLURM_PROCID": "0", "SLURM_JOB_ID": "2"},
        {"PMI_RANK": "1", "PMI_SIZE": "2", "SLURM_PROCID": "1", "SLURM_JOB_ID": "2", "SLURM_STEP_ID": "0"},
    ],
)
def test_some_launches_cannot_be_told_apart(environ: SetEnvironment, variables: dict[str, str]) -> None:
    """What might differ from rank to rank, or is another launcher's, is not taken for the launch."""
    environ(variables)
    assert distributed.job() == ("", -1)
    environ({**variables, "HPOPT_LIFE": "tuesday-2"})
    assert distributed.job() == distributed.life() == ("tuesday-2", -1)


@pytest.mark.parametrize("text", ["two words", "a:b", "x" * 41])
def test_a_bad_life_is_refused(environ: SetEnvironment, text: str) -> None:
    """HPOPT_LIFE becomes part of key names."""
    environ({"HPOPT_LIFE": text})
    with pytest.raises(ValueError, match=r"^HPOPT_LIFE='.*': use 1 to 40 of the characters"):
        distributed.life()


@pytest.mark.parametrize(
    ("done", "most", "left"), [("0", "1", True), ("1", "1", False), ("0", "0", False), ("", "3", False)]
)
def test_a_launcher_says_whether_it_starts_again(environ: SetEnvironment, done: str, most: str, *, left: bool) -> None:
    """A torchrun tells its ranks how often it has started them again, and how often it will."""
    environ({"TORCHELASTIC_RESTART_COUNT": done, "TORCHELASTIC_MAX_RESTARTS": most})
    assert distributed.restarts_left() is left


@pytest.mark.parametrize(
    "variables", [{}, TORCHRUN, SRUN, {"TORCHELASTIC_RESTART_COUNT": "2"}, {**TORCHRUN, "HPOPT_LIFE": "x" * 40}]
)
def test_life_can_be_sent(environ: SetEnvironment, variables: dict[str, str]) -> None:
    """A life becomes part of key names: the protocol accepts it."""
    environ(variables)
    start = Start("u", 0, 1, *distributed.life())
    assert decode(encode(start), Start) == start


def test_create_is_refused_on_other_ranks(environ: SetEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator is one process: create raises on rank > 0 and says what to do."""
    distributed.refuse_create()
    environ({"RANK": "2", "WORLD_SIZE": "4"})
    with pytest.raises(RuntimeError, match=r"rank 2 .* on rank 0 only") as error:
        distributed.refuse_create()
    assert "set RANK=0" not in str(error.value)
    environ({"SLURM_PROCID": "3"})
    with pytest.raises(RuntimeError, match=r"rank 3 .* set RANK=0 and WORLD_SIZE=1 in its environment$"):
        distributed.refuse_create()
    load_torch(monkeypatch, rank=0)
    distributed.refuse_create()


def test_everything_that_is_read_is_stripped_by_runners() -> None:
    """What decides about rank and life does not leak from an outer launcher into a trial."""
    read = {name for each in (TORCH, *SCHEDULERS) for name in (each.rank, each.size)}
    assert {"MASTER_ADDR", "TORCHELASTIC_MAX_RESTARTS", *LOCAL, *TORCHRUN, *read} <= set(RANK_VARIABLES)


def test_torch_is_not_imported() -> None:
    """Knowing one's rank costs no import of torch."""
    code = "import sys; from hpopt import distributed as d; d.rank(); d.life(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_variable_is_documented() -> None:
    """Users look up in docs/distributed.md what their launcher has to say."""
    text = (ROOT / "docs" / "distributed.md").read_text()
    names = {name for each in (TORCH, *SCHEDULERS) for name in (each.rank, each.size, *each.launch)}
    assert {name for name in {*names, *LOCAL, LIFE} if f"`{name}`" not in text} == set()
