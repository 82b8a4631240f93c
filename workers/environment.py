"""The environment of a runner process: its share of the machine, and nothing of an outer training job."""

import os
from collections.abc import Mapping
from pathlib import Path

from hpopt.launchers import LIFE, RANK_VARIABLES

NVIDIA, AMD, AMD_ROCR, INTEL = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"
"""Which accelerators a process sees, by the maker."""
THREADS = "OMP_NUM_THREADS"

RUNNER = "HPOPT_RUNNER"
"""Says that this process trains for a worker: "1" imports a function, "command" is a command."""
LOG = "HPOPT_LOG"
"""Where the output of the trial goes, "host:path"; hpopt has it named in the results."""
CHECKPOINTS = "HPOPT_CHECKPOINTS"
"""The folder below which `hpopt.checkpoint_dir` makes those of trials."""


def runner_environment(slot: int, jobs: int, url: str, outer: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for the `slot`-th of `jobs` runners of a study at `url`; `outer` is this process's if None."""
    outer = os.environ if outer is None else outer
    inner = {name: value for name, value in outer.items() if name not in RANK_VARIABLES}
    inner |= {RUNNER: "1", "HPOPT_URL": url, "PYTHONPATH": _import_path(outer)}
    inner[LIFE] = os.urandom(8).hex()  # for what a trainer starts in turn: it goes on with its runner's life
    inner.setdefault(THREADS, str(max(1, _cores() // jobs)))
    if jobs > 1:  # a single job keeps them all: it may well train on several
        for variable, devices in accelerators(outer).items():
            inner[variable] = devices[slot % len(devices)]
    return inner


def accelerators(outer: Mapping[str, str], root: Path = Path("/")) -> dict[str, list[str]]:
    """The devices that may be used, as the variable that chooses among them names them.

    What is listed in a variable is believed; NVIDIA's and AMD's devices are counted where nothing is. Intel's are not:
    their drivers show graphics that nobody trains on as well, so ZE_AFFINITY_MASK has to say which are meant.
    """
    amd = AMD_ROCR if AMD_ROCR in outer and AMD not in outer else AMD  # HIP counts what ROCR has left over
    counted = {NVIDIA: _count_nvidia(root), amd: _count_amd(root), INTEL: 0}
    found = {}
    for variable, count in counted.items():
        listed = outer.get(variable)
        devices = [str(number) for number in range(count)] if listed is None else _listed(listed)
        if devices:
            found[variable] = devices
    return found


def _listed(text: str) -> list[str]:
    """What a variable lists; it may say "none" in several ways."""
    names = [name.strip() for name in text.split(",")]
    return names if all(names) and not names[0].startswith(("-", "No")) else []


def _count_nvidia(root: Path) -> int:
    return len(list(root.glob("dev/nvidia[0-9]*")))


def _count_amd(root: Path) -> int:
    """How many of the nodes that the kernel's driver lists are GPUs; the processors have the number 0."""
    nodes = root.glob("sys/class/kfd/kfd/topology/nodes/*/gpu_id")
    return sum(_text(node) not in ("", "0") for node in nodes)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:  # a device that a container may not use
        return ""


def _cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _import_path(outer: Mapping[str, str]) -> str:
    """PYTHONPATH with which a new process finds this very package."""
    root, known = str(Path(__file__).resolve().parents[1]), outer.get("PYTHONPATH", "")
    if Path(root).name in ("site-packages", "dist-packages") or root in known.split(os.pathsep):
        return known
    return os.pathsep.join(filter(None, (root, known)))
