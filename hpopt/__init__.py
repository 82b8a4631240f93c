"""hpopt: hyper-parameter optimization for training fleets."""

from typing import TYPE_CHECKING, Any

from hpopt.api import create, join
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
from hpopt.hpo import HpOpt
from hpopt.removed import replacement
from hpopt.results import TrialRow
from hpopt.status import Status
from hpopt.status import Status as status  # noqa: N813 - the reference's name
from hpopt.trainer import finalize_trial, report, reportOOM, trial

if TYPE_CHECKING:
    from hpopt.dataset import createHpoDataset

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
    "create",
    "createHpoDataset",
    "finalize_trial",
    "join",
    "report",
    "reportOOM",
    "search_space",
    "status",
    "trial",
]


def __getattr__(name: str) -> Any:
    """What is loaded on first use, and what the original had under another name."""
    if name == "createHpoDataset":
        from hpopt.dataset import createHpoDataset

        return createHpoDataset
    if name == "__version__":
        from importlib.metadata import version

        return version("hpopt")
    raise AttributeError(f"module 'hpopt' has no attribute {name!r}{replacement(name)}")
