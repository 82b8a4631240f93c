"""What a study is asked to do: every argument of `create`, as one frozen value."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from hpopt.core.space import Space

ALGORITHMS = ("bayes_opt", "asha")
"""Canonical names of the search algorithms."""

ACQUISITIONS = ("mix", "log_ei", "ucb", "random")
"""What a user can make the search maximize, or "random": no model at all. None leaves the choice to hpopt."""

DEFAULT_KAPPA = (2.576, 1.0, 0)
"""kappa, kappa_decay and kappa_decay_delay of a user who left them alone: then the acquisition is ours to choose."""
GUARDS = ("grace_period", "min_peers", "grace_trials", "lenient_every")
"""The arguments that say what median stopping spares, ..."""
RUNGS = ("min_iterations", "reduction_factor", "num_brackets")
"""... and those that say where asha judges."""

ASHA_DESIGN = 5
"""So many trials of asha are spread over the space before a model is asked: fewer results teach it nothing."""

RESERVED = frozenset(
    {
        "params", "iterations", "trial_id", "attempt", "subset_ratio", "resize_width", "resize_height", "mode",
        "metric", "early_stop", "bracket", "rungs", "dataset_size", "batch_size_name", "checkpoint_dir", "hpopt",
    }
)  # fmt: skip
"""Top-level keys of a config; a hyper-parameter of such a name is reachable through config["params"] only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySpec:
    """The arguments of a study.

    None in `num_trials`, `max_iterations`, `subset_ratio` or `seed` means "derive it" in a new study and "keep what
    the study has" when resuming one.
    """

    full_dataset_size: int
    num_full_iterations: int
    search_space: Space
    search_alg: str = "bayes_opt"
    early_stop: str | None = None
    mode: str = "max"
    metric: str = "mAP"
    num_init_trials: int = 5
    num_trials: int | None = None
    max_iterations: int | None = None
    min_iterations: int | None = None
    reduction_factor: int = 2
    num_brackets: int | None = None
    subset_ratio: float | None = None
    batch_size_name: str | None = None
    image_resize: tuple[int, int] = (0, 0)
    expected_time_ratio: float = 4.0
    non_pure_train_ratio: float = 0.2
    num_workers: int = 1
    kappa: float = 2.576
    kappa_decay: float = 1.0
    kappa_decay_delay: int = 0
    acquisition: str | None = None
    seed: int | None = None
    default_hyper_parameters: tuple[dict[str, Any], ...] = ()
    launch_timeout: float | None = None
    grace_period: float = 0.1
    min_peers: int = 1
    grace_trials: int = 0
    lenient_every: int = 3

    def to_wire(self) -> dict[str, Any]:
        """The spec as plain values."""
        wire = {name: getattr(self, name) for name in _FIELDS}
        wire["search_space"] = self.search_space.to_wire()
        wire["image_resize"] = list(self.image_resize)
        wire["default_hyper_parameters"] = [dict(params) for params in self.default_hyper_parameters]
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """The spec that `to_wire` was called on; fields this version does not know are ignored.

        Raises ValueError or TypeError when a field is missing or not what it should be.
        """
        values = {name: wire[name] for name in _FIELDS if name in wire}
        values["search_space"] = Space.from_wire(values["search_space"])
        width, height = values["image_resize"]
        values["image_resize"] = (width, height)
        values["default_hyper_parameters"] = tuple(dict(params) for params in values["default_hyper_parameters"])
        return cls(**values)

    @property
    def sign(self) -> float:
        """+1 when larger scores are better, -1 when smaller ones are."""
        return 1.0 if self.mode == "max" else -1.0

    @property
    def first_modelled(self) -> float:
        """The first trial whose params may come from a model; infinity if none does."""
        if self.acquisition == "random":
            return math.inf
        initial = self.num_init_trials if self.search_alg == "bayes_opt" else ASHA_DESIGN
        return max(initial, len(self.default_hyper_parameters))

    @property
    def trials(self) -> int:
        """How many trials the study has; the spec is resolved."""
        return _resolved(self.num_trials, "num_trials")

    @property
    def iterations(self) -> int:
        """How many steps a full trial has; the spec is resolved."""
        return _resolved(self.max_iterations, "max_iterations")


_FIELDS = tuple(field.name for field in dataclasses.fields(StudySpec))
DEFAULTS = {field.name: field.default for field in dataclasses.fields(StudySpec)}
"""What an argument is for a user who left it alone; MISSING for one that has to be given."""

LONGEST_SHOWN = 50
"""So many characters of a value are shown: the answer has room for every argument that may not differ."""

_CHANGEABLE = frozenset(
    {
        "num_trials", "num_workers", "kappa", "kappa_decay", "kappa_decay_delay", "acquisition", "expected_time_ratio",
        "launch_timeout",
    }
)  # fmt: skip
_KEPT_WHEN_NONE = (
    "num_trials", "max_iterations", "subset_ratio", "seed", "min_iterations", "num_brackets", "acquisition",
)  # fmt: skip


def inherited(stored: StudySpec, asked: StudySpec) -> StudySpec:
    """The arguments `asked`, with the stored value where None was given for an argument that then keeps it."""
    kept = {name: getattr(stored, name) for name in _KEPT_WHEN_NONE if getattr(asked, name) is None}
    return dataclasses.replace(asked, **kept)


def resumed(stored: StudySpec, asked: StudySpec) -> StudySpec:
    """The spec of a study that goes on with the arguments `asked`; both are resolved.

    Raises ValueError that names every argument which may not differ from the stored one.
    """
    wanted = {name: getattr(asked, name) for name in _FIELDS}
    changes = {name: value for name, value in wanted.items() if getattr(stored, name) != value}
    problems = [_problem(stored, name, value) for name, value in changes.items() if name not in _CHANGEABLE]
    if asked.trials < stored.trials:
        problems.append(f"num_trials was {stored.num_trials} and may only grow, not become {asked.num_trials}")
    if problems:
        remedy = "pass the study's own values, or resume=False (or another save_path) for a new study"
        raise ValueError(f"cannot resume this study: {'; '.join(problems)}: {remedy}")
    return dataclasses.replace(stored, **changes)


def _problem(stored: StudySpec, name: str, value: Any) -> str:
    if name != "search_space":
        return f"{name} was {_short(getattr(stored, name))} and is now {_short(value)}"
    names = [key for key in {**stored.search_space, **value} if stored.search_space.get(key) != value.get(key)]
    return f"search_space differs in {_short(names)[1:-1]}"


def _short(value: Any) -> str:
    """How the value looks, its middle left out if it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN // 2]}...{text[-LONGEST_SHOWN // 2 :]}"


def _resolved(value: int | None, name: str) -> int:
    if value is None:
        raise ValueError(f"{name} is not resolved yet: plan the study first")
    return value
