"""What the arguments of a study may be. Every refusal names the argument, its value and the remedy."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

from hpopt.core.batch_size import has_sizes
from hpopt.core.space import Space
from hpopt.core.spec import ACQUISITIONS, ALGORITHMS, StudySpec

MAX_TRIALS = 100_000
MAX_ITERATIONS = 1_000_000
MAX_SIDE = 65_536
"""Pixels of an image's width or height."""
LARGEST_INT = 2**53
"""Where a number may be a float, an int may be as large as a float can tell from its neighbours."""

_Check = Callable[[str, Any], None]


def validated(spec: StudySpec) -> StudySpec:
    """The spec, its default hyper-parameters as the search would have made them.

    Raises TypeError or ValueError when an argument is not what it may be.
    """
    for name, check in _CHECKS.items():
        check(name, getattr(spec, name))
    if not isinstance(spec.search_space, Space):
        raise TypeError(f"search_space={spec.search_space!r}: pass a dict of name -> hpopt.search_space(...)")
    defaults = tuple(_default(spec.search_space, each, k) for k, each in enumerate(spec.default_hyper_parameters))
    size = spec.batch_size_name
    if size is not None and size not in spec.search_space:
        known = ", ".join(map(repr, spec.search_space))
        raise ValueError(f"batch_size_name={size!r} is no hyper-parameter of search_space: use one of {known}")
    if size is not None and not has_sizes(spec.search_space[size]):
        none = f"none of the values of {spec.search_space[size]!r} is a number above 0"
        raise ValueError(f"batch_size_name={size!r}: {none}; name the hyper-parameter that is the batch size, or None")
    return dataclasses.replace(spec, default_hyper_parameters=defaults)


def _default(space: Space, params: dict[str, Any], k: int) -> dict[str, Any]:
    try:
        return space.check(params)
    except (TypeError, ValueError) as error:
        raise type(error)(f"default_hyper_parameters[{k}]: {error}") from None


def _fail(name: str, value: Any, remedy: str, error: type[Exception] = ValueError) -> None:
    raise error(f"{name}={value!r}: {remedy}")


def integer(low: int, high: int = 2**31 - 1) -> _Check:
    """An int within [low, high]; bool is none."""

    def check(name: str, value: Any) -> None:
        if type(value) is not int:
            _fail(name, value, f"pass an int, not {type(value).__name__}", TypeError)
        if not low <= value <= high:
            _fail(name, value, f"use a value from {low} to {high}")

    return check


def number(accepts: Callable[[float], bool], remedy: str) -> _Check:
    """A finite int or float that `accepts` is true of; bool is none."""

    def check(name: str, value: Any) -> None:
        if type(value) not in (int, float):
            _fail(name, value, f"pass a number, not {type(value).__name__}", TypeError)
        if type(value) is int and abs(value) > LARGEST_INT:
            _fail(name, value, f"use a number that is at most {LARGEST_INT} in size")
        if not math.isfinite(value) or not accepts(value):
            _fail(name, value, remedy)

    return check


def one_of(options: Iterable[Any]) -> _Check:
    """One of the options, all of them str or None."""
    options = tuple(options)

    def check(name: str, value: Any) -> None:
        if not (value is None or isinstance(value, str)) or value not in options:
            _fail(name, value, f"use one of {', '.join(map(repr, options))}")

    return check


def optional(check: _Check) -> _Check:
    """None, or what `check` accepts."""
    return lambda name, value: None if value is None else check(name, value)


def _image_resize(name: str, value: Any) -> None:
    remedy = f"pass two ints from 0 to {MAX_SIDE}, the width and the height; [0, 0] keeps the size"
    if not isinstance(value, tuple) or len(value) != 2:
        _fail(name, value, remedy)
    if any(type(side) is not int for side in value):
        _fail(name, value, remedy, TypeError)
    if any(not 0 <= side <= MAX_SIDE for side in value):
        _fail(name, value, remedy)


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        _fail(name, value, f"pass a str, not {type(value).__name__}", TypeError)
    if not 0 < len(value) <= 256:
        _fail(name, value, "use 1 to 256 characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        _fail(name, value, "use characters that UTF-8 can encode")


def _defaults(name: str, value: Any) -> None:
    if not isinstance(value, tuple) or any(not isinstance(params, dict) for params in value):
        _fail(name, value, "pass a dict of hyper-parameters, or a list of such dicts", TypeError)


_CHECKS: dict[str, _Check] = {
    "full_dataset_size": integer(0),
    "num_full_iterations": integer(1, MAX_ITERATIONS),
    "search_alg": one_of(ALGORITHMS),
    "early_stop": one_of((None, "median_stop")),
    "mode": one_of(("max", "min")),
    "metric": _text,
    "num_init_trials": integer(1),
    "num_trials": optional(integer(1, MAX_TRIALS)),
    "max_iterations": optional(integer(1, MAX_ITERATIONS)),
    "min_iterations": optional(integer(1, MAX_ITERATIONS)),
    "reduction_factor": integer(2),
    "num_brackets": optional(integer(1)),
    "subset_ratio": optional(number(lambda ratio: ratio > 0, "use a ratio above 0; 1 or more is the full dataset")),
    "batch_size_name": optional(_text),
    "image_resize": _image_resize,
    "expected_time_ratio": number(lambda ratio: ratio > 0, "use a ratio above 0"),
    "non_pure_train_ratio": number(lambda ratio: 0 < ratio < 1, "use a ratio between 0 and 1, both excluded"),
    "num_workers": integer(1, 100_000),
    "kappa": number(lambda kappa: kappa >= 0, "use a value of at least 0"),
    "kappa_decay": number(lambda decay: decay > 0, "use a value above 0; 1 keeps kappa as it is"),
    "kappa_decay_delay": integer(0),
    "acquisition": one_of((None, *ACQUISITIONS)),
    "seed": optional(integer(0, 2**63 - 1)),
    "default_hyper_parameters": _defaults,
    "launch_timeout": optional(number(lambda seconds: seconds > 0, "use seconds above 0, or None for no limit")),
    "grace_period": number(lambda share: 0 <= share <= 1, "use a share of the iterations, from 0 (no grace) to 1"),
    "min_peers": integer(1),
    "grace_trials": integer(0),
    "lenient_every": integer(0),
}
