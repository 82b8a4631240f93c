"""How messages are written, defined once.

A message on the wire is a msgpack list [version, tag, field, field, ...]. A reader ignores fields beyond those it
knows and takes the default of those that are missing, so that a message of the next or the previous version can be
read. Length is checked before decoding, types after.
"""

import dataclasses
import math
import re
import types
import typing
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgpack

from hpopt.core.messages import (
    Ask,
    Close,
    Create,
    Created,
    Finalize,
    Nothing,
    OutOfMemory,
    Query,
    Refusal,
    Release,
    Report,
    Sample,
    Start,
    Verdict,
    Withdraw,
)
from hpopt.core.spec import StudySpec
from hpopt.core.validation import validated

VERSION = 1
"""Raised when a message changes in a way that the previous release cannot read."""
OLDEST = 1
"""The oldest version this release still reads."""
MAX_BYTES = 64 * 1024
"""Longest message that is decoded at all."""


class DecodeError(ValueError):
    """The bytes are not a message of this protocol; the text says why, in one sentence."""


class WrongVersionError(DecodeError):
    """The message is of a version this release cannot read."""


# Position in this table is the tag on the wire: append only.
_TYPES: tuple[type, ...] = (
    Create, Ask, Query, Start, Report, OutOfMemory, Finalize, Release, Close,
    Verdict, Created, Sample, Nothing, Refusal, Withdraw,
)  # fmt: skip
_TAGS = {cls: tag for tag, cls in enumerate(_TYPES)}
_FIELDS = {cls: tuple(field.name for field in dataclasses.fields(cls)) for cls in _TYPES}
_DEFAULTS = {cls: [f.default for f in dataclasses.fields(cls)] for cls in _TYPES}
_HAS_SPEC = {cls: fields.index("spec") for cls, fields in _FIELDS.items() if "spec" in fields}


def encode(message: Any) -> bytes:
    """The message as bytes."""
    cls = type(message)
    values = [getattr(message, name) for name in _FIELDS[cls]]
    if cls in _HAS_SPEC:
        values[_HAS_SPEC[cls]] = message.spec.to_wire()
    packed: bytes = msgpack.packb([VERSION, _TAGS[cls], *values])
    return packed


def decode(data: bytes, *expected: type) -> Any:
    """The message in `data`; raises DecodeError unless it is one of the `expected` types."""
    if len(data) > MAX_BYTES:
        raise DecodeError(f"the message has {len(data)} bytes, {MAX_BYTES} are allowed")
    version, tag, values = _envelope(data)
    if not OLDEST <= version <= VERSION + 1:
        raise WrongVersionError(f"the message is of protocol {version}, this side reads {OLDEST} to {VERSION + 1}")
    if not 0 <= tag < len(_TYPES):
        raise DecodeError(f"there is no message of type {tag}")
    cls = _TYPES[tag]
    if expected and cls not in expected:
        raise DecodeError(f"a {cls.__name__} is not expected here")
    return _build(cls, values)


def _envelope(data: bytes) -> tuple[int, int, list[Any]]:
    try:
        wire = msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise DecodeError(f"the message is not msgpack: {type(error).__name__}") from None
    if not (isinstance(wire, list) and len(wire) >= 2 and type(wire[0]) is int and type(wire[1]) is int):
        raise DecodeError("the message does not begin with a version and a type")
    return wire[0], wire[1], wire[2:]


def _build(cls: type, values: list[Any]) -> Any:
    checks = _CHECKS[cls]
    values = values[: len(checks)]
    for default in _DEFAULTS[cls][len(values) :]:
        if default is dataclasses.MISSING:
            raise DecodeError(f"a {cls.__name__} has more than {len(values)} fields")
        values.append(default)
    for i, check in enumerate(checks):
        try:
            values[i] = check(values[i])
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            raise DecodeError(f"{cls.__name__}.{_FIELDS[cls][i]}: {str(error)[:200]}") from None
    return cls(*values)


# --- one check per field, made once from the annotations

NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
LARGEST = 2**31 - 1


def _plain(*allowed: type) -> typing.Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) not in allowed:
            raise TypeError(f"{type(value).__name__} instead of {' or '.join(cls.__name__ for cls in allowed)}")
        return value

    return check


def _finite(value: Any) -> float:
    number = float(_plain(float, int)(value))
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _text(value: Any) -> str:
    text: str = _plain(str)(value)
    if len(text) > 4096:
        raise ValueError("longer than 4096 characters")
    return text


def _name(value: Any) -> str:
    if not NAME.fullmatch(_text(value)):
        raise ValueError("use 1 to 64 of the characters A-Z a-z 0-9 _ . : -")
    return str(value)


def _life(value: Any) -> str:
    return _name(value) if value else _text(value)


def _natural(value: Any) -> int:
    number: int = _plain(int)(value)
    if not -1 <= number <= LARGEST:
        raise ValueError("outside -1 .. 2**31 - 1")
    return number


def _mode(value: Any) -> str:
    if value not in ("next", "now", "end"):
        raise ValueError("use next, now or end")
    return str(value)


def _tuple_of(*checks: typing.Callable[[Any], Any]) -> typing.Callable[[Any], Any]:
    def check(value: Any) -> tuple[Any, ...]:
        items = _plain(list, tuple)(value)
        if len(items) != len(checks):
            raise ValueError(f"{len(items)} items instead of {len(checks)}")
        return tuple(each(item) for each, item in zip(checks, items, strict=True))

    return check


def _many(each: typing.Callable[[Any], Any]) -> typing.Callable[[Any], Any]:
    return lambda value: tuple(each(item) for item in _plain(list, tuple)(value))


def _optional(check: typing.Callable[[Any], Any]) -> typing.Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


_LEAVES: dict[Any, typing.Callable[[Any], Any]] = {
    str: _text,
    int: _natural,
    float: _finite,
    bool: _plain(bool),
    StudySpec: lambda value: validated(StudySpec.from_wire(_plain(dict)(value))),
}


def _check_for(hint: Any) -> typing.Callable[[Any], Any]:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _optional(_check_for(next(arg for arg in args if arg is not type(None))))
    if origin is tuple:
        return _many(_check_for(args[0])) if args[-1] is ... else _tuple_of(*map(_check_for, args))
    if origin is dict:
        return _plain(dict)
    return _LEAVES[hint]


def _field_checks(cls: type) -> list[typing.Callable[[Any], Any]]:
    hints = get_type_hints(cls)
    by_name = {"uid": _name, "session": _name, "life": _life, "mode": _mode}
    return [by_name.get(name) or _check_for(hints[name]) for name in _FIELDS[cls]]


_CHECKS = {cls: _field_checks(cls) for cls in _TYPES}
