"""The environment of a runner process: its share of the machine, and nothing of an outer training job."""

import os
from collections.abc import Mapping
from pathlib import Path

from hpopt.distributed import LIFE, RANK_VARIABLES

DEVICES = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"


def runner_environment(slot: int, jobs: int, url: str, outer: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for the `slot`-th of `jobs` runners of a study at `url`; `outer` is this process's if None."""
    outer = os.environ if outer is None else outer
    inner = {name: value for name, value in outer.items() if name not in RANK_VARIABLES}
    inner |= {"HPOPT_RUNNER": "1", "HPOPT_URL": url, "PYTHONPATH": _import_path(outer)}
    inner[LIFE] = os.urandom(8).hex()  # for what a trainer starts in turn: it goes on with its runner's life
    inner.setdefault(THREADS, str(max(1, _cores() // jobs)))
    devices = accelerators(outer)
    if devices and jobs > 1:  # a single job keeps them all: it may well train on several
        inner[DEVICES] = devices[slot % len(devices)]
    return inner


def accelerators(outer: Mapping[str, str], dev: Path = Path("/dev")) -> list[str]:
    """The NVIDIA devices that may be used, as CUDA_VISIBLE_DEVICES names them."""
    listed = outer.get(DEVICES)
    if listed is None:
        return [str(number) for number in range(len(list(dev.glob("nvidia[0-9]*"))))]
    names = [name.strip() for name in listed.split(",")]
    return names if all(names) and not names[0].startswith(("-", "No")) else []


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
