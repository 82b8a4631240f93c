"""Every peer by its name; a peer's packages are imported when it is made, and not before."""

import hashlib
import importlib
import importlib.metadata
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.search.peers.native import Hpopt, RandomSearch
from benchmarks.search.peers.peer import Adapted, Peer, silence
from benchmarks.search.peers.variants import VARIANTS, Variant
from hpopt.core.search_space import SearchSpace

_ROOT = Path(__file__).parents[3]
_ADAPTERS = {
    "optuna-tpe": ("optuna_samplers", "Tpe"),
    "optuna-gp": ("optuna_samplers", "Gp"),
    "ax": ("ax_client", "Ax"),
    "smac": ("smac_facade", "Smac"),
    "bayesopt": ("bayes_opt_gp", "BayesOpt"),
    "hebo": ("hebo_optimizer", "Hebo"),
}
DISTRIBUTIONS = {
    "optuna-tpe": "optuna",
    "optuna-gp": "optuna",
    "ax": "ax-platform",
    "smac": "smac",
    "bayesopt": "bayesian-optimization",
    "hebo": "HEBO",
}
"""The package on PyPI that a peer comes with; none for the peers that are always there."""


def _adapted(peer: str, spaces: dict[str, SearchSpace], seed: int, trials: int) -> Peer:
    module, name = _ADAPTERS[peer]
    with silence():
        adapter = getattr(importlib.import_module(f"benchmarks.search.peers.{module}"), name)
        return Adapted(adapter(spaces, seed, trials), spaces)


PEERS: dict[str, Callable[[dict[str, SearchSpace], int, int], Peer]] = {
    "random": RandomSearch,
    "hpopt": Hpopt,
    **{name: partial(_adapted, name) for name in _ADAPTERS},
}
"""Each makes a Peer of (search spaces by name, seed, number of trials to come)."""
ABLATIONS: dict[str, Callable[[dict[str, SearchSpace], int, int], Peer]] = {
    f"hpopt-{name}": partial(Variant, name) for name in VARIANTS
}
"""The same for hpopt with one part changed; each for a process of its own."""


def version(peer: str) -> str:
    """The version of the peer's package; for hpopt its own, and a fingerprint of its sampler. KeyError if none."""
    if peer in DISTRIBUTIONS:
        return importlib.metadata.version(DISTRIBUTIONS[peer])
    if peer not in PEERS and peer not in ABLATIONS:
        raise KeyError(f"{peer!r} is none of {', '.join([*PEERS, *ABLATIONS])}")
    return _own_version() if peer == "random" else f"{_own_version()}+{_fingerprint()}"


def _own_version() -> str:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    return str(project["project"]["version"])


def _fingerprint() -> str:
    """Eight digits that change when a file of the sampler does: runs of two samplers are not to be mixed."""
    digest = hashlib.sha256()
    for path in sorted((_ROOT / "hpopt" / "samplers").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
