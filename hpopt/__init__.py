"""hpopt: hyper-parameter optimization for training fleets."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hpopt.core.space import SearchSpace
from hpopt.core.space import SearchSpace as search_space  # noqa: N813 - the reference's name
from hpopt.errors import (
    EmbeddedError,
    HpoptError,
    HpoptUnavailable,
    MissingExtra,
    NoCoordinator,
    SavePathInUse,
    StudyError,
    StudyExists,
    StudyPaused,
    StudyReplaced,
    UnknownStudy,
    VersionSkew,
)
from hpopt.memory import is_out_of_memory
from hpopt.removed import replacement
from hpopt.status import Status
from hpopt.status import Status as status  # noqa: N813 - the reference's name
from hpopt.trainer import finalize_trial, report, reportOOM, trial

if TYPE_CHECKING:
    from hpopt.api import create, join
    from hpopt.checkpoint import checkpoint_dir
    from hpopt.dataset import createHpoDataset
    from hpopt.hpo import HpOpt
    from hpopt.results import TrialRow

__all__ = [
    "EmbeddedError",
    "HpOpt",
    "HpoptError",
    "HpoptUnavailable",
    "MissingExtra",
    "NoCoordinator",
    "SavePathInUse",
    "SearchSpace",
    "Status",
    "StudyError",
    "StudyExists",
    "StudyPaused",
    "StudyReplaced",
    "TrialRow",
    "UnknownStudy",
    "VersionSkew",
    "checkpoint_dir",
    "create",
    "createHpoDataset",
    "finalize_trial",
    "is_out_of_memory",
    "join",
    "report",
    "reportOOM",
    "search_space",
    "status",
    "trial",
]


_LOADED_ON_USE = {
    "create": "hpopt.api",
    "join": "hpopt.api",
    "HpOpt": "hpopt.hpo",
    "TrialRow": "hpopt.results",
    "checkpoint_dir": "hpopt.checkpoint",
    "createHpoDataset": "hpopt.dataset",
}
"""What a trainer that only reports need not load."""


def __getattr__(name: str) -> Any:
    """What is loaded on first use, and what the original had under another name."""
    if name == "__version__":
        from importlib.metadata import version

        return version("hpopt")
    if name not in _LOADED_ON_USE:
        raise AttributeError(f"module 'hpopt' has no attribute {name!r}{replacement(name)}")
    value = globals()[name] = getattr(import_module(_LOADED_ON_USE[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
