"""Checks of single values that callers hand in, all refused in the same words."""

from __future__ import annotations

import math
import operator
from typing import Any, SupportsFloat, SupportsIndex

import numpy as np

from trimtab_client.exceptions import invalid


def integer(
    value: SupportsIndex, field: str, low: float = -math.inf, high: float = math.inf
) -> int:
    """`value` as an int.

    Raises:
        InvalidArgumentError: it is no integer (a bool is none), or outside [low, high].
    """
    try:
        number = operator.index(_no_bool(value))
    except TypeError as error:
        raise invalid(field, f"{value!r} is not an integer") from error
    if not low <= number <= high:
        raise invalid(field, f"{number} is not in [{low}, {high}]")
    return number


def real(value: SupportsFloat, field: str) -> float:
    """`value` as a float, which may be infinite.

    Raises:
        InvalidArgumentError: it is no real number (a bool is none), NaN, or beyond float64.
    """
    refusal = invalid(field, f"{value!r} is not a real number")
    try:
        # Unlike `float`, `isnan` does not parse strings.
        nan = math.isnan(_no_bool(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise refusal from error
    if nan:
        raise refusal
    return float(value)


def text(value: str, field: str) -> str:
    """`value` as text that can be sent.

    Raises:
        InvalidArgumentError: it is no string, or holds half of a surrogate pair.
    """
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise invalid(field, f"{value!r} is not a string of Unicode") from error
    return value


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        raise TypeError("a bool is not a number")
    return value
