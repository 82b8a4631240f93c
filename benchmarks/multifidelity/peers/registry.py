"""Every tuner by its name; a peer's packages are imported when it is made, and not before."""

import hashlib
import importlib
import importlib.metadata
from pathlib import Path

from benchmarks.multifidelity.fleet import INSTANT, Timing
from benchmarks.multifidelity.loop import Tuner
from benchmarks.multifidelity.peers.native import ARGUMENTS, Random, coordinated
from benchmarks.multifidelity.peers.peer import Prompt
from benchmarks.multifidelity.task import Task
from benchmarks.search.peers.peer import silence
from benchmarks.search.peers.registry import version as search_version

_ROOT = Path(__file__).parents[3]
_ADAPTERS = {
    "optuna-tpe": ("optuna_pruners", "optuna"),
    "optuna-tpe-hyperband": ("optuna_pruners", "optuna"),
    "optuna-tpe-sha": ("optuna_pruners", "optuna"),
    "optuna-tpe-median": ("optuna_pruners", "optuna"),
    "optuna-random-sha": ("optuna_pruners", "optuna"),
    "syne-asha": ("syne_tune_asha", "syne-tune"),
    "syne-asha-bore": ("syne_tune_asha", "syne-tune"),
    "syne-asha-cqr": ("syne_tune_asha", "syne-tune"),
    "syne-bohb": ("syne_tune_asha", "syne-tune"),
}
"""The module of the adapter, whose `make` is given the name, and the package on PyPI that the peer comes with."""
PEERS = (*ARGUMENTS, "random", *_ADAPTERS)


def tuner(peer: str, task: Task, seed: int, workers: int, timing: Timing = INSTANT) -> Tuner:
    """The peer of this name, for one run. ValueError for another; `timing` is for hpopt alone."""
    if peer in ARGUMENTS:
        return coordinated(peer, task, seed, workers, timing)
    if timing != INSTANT:
        raise ValueError(f"timing={timing}: {peer} takes no time in a simulation, only hpopt does")
    if peer == "random":
        return Prompt(Random(task, seed), task.epochs)
    if peer not in _ADAPTERS:
        raise ValueError(f"{peer!r} is none of {', '.join(PEERS)}")
    with silence():
        module = importlib.import_module(f"benchmarks.multifidelity.peers.{_ADAPTERS[peer][0]}")
        return Prompt(module.make(peer, task, seed), task.epochs)


def timing_of(peer: str, timing: Timing) -> Timing:
    """The timing that runs of this peer have when it is asked for: of hpopt's suggestions alone it is said."""
    return timing if peer in ARGUMENTS else INSTANT


def distribution(peer: str) -> str | None:
    """The package on PyPI that a peer comes with; None for those that are always there."""
    return _ADAPTERS[peer][1] if peer in _ADAPTERS else None


def version(peer: str) -> str:
    """The version of the peer's package; for hpopt its own, and a fingerprint of what decides. ValueError if none."""
    if peer not in PEERS:
        raise ValueError(f"{peer!r} is none of {', '.join(PEERS)}")
    package = distribution(peer)
    if package is not None:
        return importlib.metadata.version(package)
    own = search_version("random")
    return own if peer == "random" else f"{own}+{_fingerprint()}"


def _fingerprint() -> str:
    """Eight digits that change when a file of the core or of the samplers does: their runs are not to be mixed."""
    digest = hashlib.sha256()
    for folder in ("core", "samplers"):
        for path in sorted((_ROOT / "hpopt" / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
