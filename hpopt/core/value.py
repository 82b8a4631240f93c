"""What a hyper-parameter may be: numbers and JSON values, checked once, where the user hands them in."""

import json
import math
import reprlib
from collections.abc import Hashable
from numbers import Integral, Real
from typing import Any

MAX_INT = 2**53
"""Integers beyond it do not survive JSON tools that read every number as a float."""
_MAX_DEPTH = 32
_SCALARS = frozenset({str, int, float, bool, type(None)})


def number(value: Any) -> int | float:
    """The value as a finite Python int or float; numpy scalars and 0-d tensors are numbers too, bool is none.

    Raises TypeError for what is no number, ValueError for NaN, an infinity, or an int beyond 2**53.
    """
    if type(value) is not float and type(value) is not int:
        value = _python_number(_unwrapped(value))
    if isinstance(value, int):
        return _safe(value)
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is not finite; pass a finite number")
    return float(value)


def numbers(values: list[Any], layout: tuple[str, ...]) -> list[int | float]:
    """The range of a numeric hyper-parameter, in the order of `layout`, of which "base" may be left out.

    Raises TypeError or ValueError that says which number is wrong, and how to mend it.
    """
    if not len(layout) - ("base" in layout) <= len(values) <= len(layout):
        wanted = ", ".join(layout) + " (the base may be left out)" * ("base" in layout)
        raise ValueError(f"{len(values)} items in the range; pass {wanted}")
    plain = [_field(field, value) for field, value in zip(layout, values, strict=False)]
    given = dict(zip(layout, plain, strict=False))
    lo, hi = plain[:2]
    if lo > hi:
        raise ValueError(f"lo {lo!r} is above hi {hi!r}; swap them")
    if "base" in layout and lo <= 0:
        raise ValueError(f"lo {lo!r} has no logarithm; use a lo above 0, or the type without log")
    if given.get("q", 1) <= 0:
        raise ValueError(f"q {given['q']!r} is no step; use a q above 0")
    if given.get("base", 10) <= 1:
        raise ValueError(f"base {given['base']!r} is no base of a logarithm here; use one above 1")
    return plain


def json_value(value: Any, depth: int = 0) -> Any:
    """A deep copy of the value, made of JSON's own types: tuples become lists, numpy scalars become numbers.

    Raises TypeError for anything that JSON has no finite value for, ValueError for an int beyond 2**53, text that is
    no valid Unicode, or nesting deeper than 32.
    """
    value = _unwrapped(value)
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested deeper than {_MAX_DEPTH}; pass a name and map it in your trainer")
    match value:
        case None | bool():
            return value
        case str():
            return text(value)
        case int():
            return _safe(int(value))
        case float() if math.isfinite(value):
            return float(value)
        case list() | tuple():
            return [json_value(item, depth + 1) for item in value]
        case dict() if all(isinstance(key, str) for key in value):
            return {text(key): json_value(item, depth + 1) for key, item in value.items()}
    raise TypeError(
        f"{reprlib.repr(value)} is no finite JSON value with string keys; pass a name and map it in your trainer"
    )


def text(value: str) -> str:
    """The value as a plain str; ValueError if UTF-8 cannot encode it (a lone surrogate)."""
    plain = str.__str__(value)
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{reprlib.repr(plain)} is no valid Unicode; pass text that UTF-8 can encode") from None
    return plain


def identity(value: Any) -> Hashable:
    """A key that is equal for equal JSON values of equal types only: 1, 1.0, True and "1" have four different ones.

    Raises what `json_value` raises.
    """
    if type(value) not in _SCALARS:
        value = json_value(value)
    if type(value) in (list, dict):
        return list, json.dumps(value, sort_keys=True)
    return type(value), value


def _python_number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{reprlib.repr(value)} is a {type(value).__name__}; pass a number")
    if isinstance(value, Integral):
        return int(value)
    try:
        return float(value)
    except OverflowError:  # a Fraction can be too large
        return math.inf


def _field(name: str, value: Any) -> int | float:
    try:
        return number(value)
    except (TypeError, ValueError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{name} {error}") from None


def _safe(value: int) -> int:
    if abs(value) > MAX_INT:
        raise ValueError(f"{value} is beyond 2**53, where JSON tools lose digits; pass a float or a name")
    return value


def _unwrapped(value: Any) -> Any:
    """What a 0-d array (a numpy scalar, a tensor) holds; anything else as it is."""
    if type(value) in _SCALARS or getattr(value, "shape", None) != () or not hasattr(value, "item"):
        return value
    return value.item()
