"""What a user calls a score, made into a float."""

import logging
import math
import numbers
from decimal import Decimal
from typing import Any

EXACT = 2**53
"""Integers beyond this are rounded by a float."""

log = logging.getLogger("hpopt")


def to_score(value: Any) -> float | None:
    """The score as a finite float; None, with a warning, for NaN and the infinities: they count as an invalid step.

    Takes int, float, Decimal, Fraction and numpy or torch values of one element. Raises TypeError for anything else.
    """
    if type(value) is float and math.isfinite(value):
        return value
    number = _scalar(value)
    if isinstance(number, bool) or not isinstance(number, numbers.Real | Decimal):
        raise TypeError(f"score={_shown(value)}: pass one number, not {type(value).__name__}")
    try:
        score = float(number)
    except (OverflowError, ValueError):  # too large for a float; a signaling NaN
        score = math.nan
    if not math.isfinite(score):
        log.warning("hpopt: a score is not a finite number (%s): this iteration counts as one without a score", score)
        return None
    if abs(score) >= EXACT and score != number:
        log.warning("hpopt: the score %s is kept as %r", _shown(number), score)
    return score


def _scalar(value: Any) -> Any:
    """The one element of a numpy or torch value, as a plain Python number; neither library is imported."""
    if isinstance(value, numbers.Number | Decimal | str | bytes) and not hasattr(value, "dtype"):
        return value
    item = getattr(value, "item", None)
    if item is None:
        return value
    try:
        return item()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"score={_shown(value)}: pass one number, not {type(value).__name__} ({error})") from None


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 64 else f"{text[:61]}..."
