import os
import subprocess
import sys
import types
from collections.abc import Callable

import pytest

from hpopt import distributed
from hpopt.core.messages import Start, decode, encode

TORCHRUN = {
    "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "node0", "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "job-7", "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_ERROR_FILE": "/tmp/torchelastic_a/job-7_x/attempt_0/0/error.json",
}  # fmt: skip

SetEnvironment = Callable[[dict[str, str]], None]


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> SetEnvironment:
    """Makes these the only variables that a launcher has set; torch.distributed is not loaded."""
    monkeypatch.delitem(sys.modules, "torch.distributed", raising=False)

    def replace(variables: dict[str, str]) -> None:
        for name in distributed.RANK_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    replace({})
    return replace


def load_torch(monkeypatch: pytest.MonkeyPatch, *, rank: int | None) -> None:
    """Stand in for a torch.distributed that is loaded, and initialised with this rank unless None."""
    module = types.ModuleType("torch.distributed")
    functions = {
        "is_available": lambda: True,
        "is_initialized": lambda: rank is not None,
        "get_rank": lambda: rank,
    }
    module.__dict__.update(functions)
    monkeypatch.setitem(sys.modules, "torch.distributed", module)


@pytest.mark.parametrize(
    ("variables", "rank", "independent"),
    [
        ({}, 0, False),
        ({"RANK": "3"}, 3, False),
        ({"RANK": "0", "SLURM_PROCID": "5"}, 0, False),
        ({"SLURM_PROCID": "0"}, 0, False),
        ({"SLURM_PROCID": "5"}, 5, True),
        ({"OMPI_COMM_WORLD_RANK": "2"}, 2, True),
        ({"SLURM_PROCID": "1", "OMPI_COMM_WORLD_RANK": "2"}, 1, True),
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
    """Only rank 0 speaks; a bare scheduler's number may also be that of an unrelated task."""
    environ(variables)
    assert (distributed.rank(), distributed.is_speaker()) == (rank, rank == 0)
    assert distributed.may_be_independent() is independent


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


def test_restarted_pod_is_a_new_life_although_its_address_is_the_same(environ: SetEnvironment) -> None:
    """On one machine the launcher's scratch directory tells two launches apart, and not the ranks of one."""

    def life(launch: str, local_rank: int) -> tuple[str, int]:
        error_file = f"/tmp/torchelastic_{launch}/none_{launch}/attempt_0/{local_rank}/error.json"
        environ({**TORCHRUN, "GROUP_WORLD_SIZE": "1", "TORCHELASTIC_ERROR_FILE": error_file})
        return distributed.life()

    assert life("a", 0) == life("a", 1) != life("b", 0)


@pytest.mark.parametrize("variables", [{}, TORCHRUN, {"TORCHELASTIC_RESTART_COUNT": "2"}])
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
    assert "unset" not in str(error.value)
    environ({"SLURM_PROCID": "3"})
    with pytest.raises(RuntimeError, match=r"rank 3 .* unset SLURM_PROCID$"):
        distributed.refuse_create()
    load_torch(monkeypatch, rank=0)
    distributed.refuse_create()


def test_everything_that_is_read_is_stripped_by_runners() -> None:
    """What decides about rank and life does not leak from an outer launcher into a trial."""
    read = {"RANK", "WORLD_SIZE", "MASTER_ADDR", *distributed.SCHEDULER_RANKS, *TORCHRUN}
    assert read <= set(distributed.RANK_VARIABLES)


def test_torch_is_not_imported() -> None:
    """Knowing one's rank costs no import of torch."""
    code = "import sys; from hpopt import distributed as d; d.rank(); d.life(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
