"""Checks of single values that callers pass. All raise InvalidArgumentError, naming `field`."""

from __future__ import annotations

import math
import operator
from enum import Enum
from typing import Any, SupportsFloat, SupportsIndex, TypeVar

import numpy as np

from trimtab_client.exceptions import invalid

EnumT = TypeVar("EnumT", bound=Enum)


def integer(
    value: SupportsIndex, field: str, low: float = -math.inf, high: float = math.inf
) -> int:
    """`value` as an int in [low, high]; a bool is none."""
    try:
        number = operator.index(_not_bool(value))
    except TypeError as error:
        raise invalid(field, f"{value!r} is not an integer") from error
    if not low <= number <= high:
        raise invalid(field, f"{number} is not in [{low}, {high}]")
    return number


def real(value: SupportsFloat, field: str) -> float:
    """`value` as a float, which may be infinite, but not NaN; a bool is none."""
    refusal = invalid(field, f"{value!r} is not a real number")
    try:
        # Unlike `float`, `isnan` does not parse strings.
        nan = math.isnan(_not_bool(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise refusal from error
    if nan:
        raise refusal
    return float(value)


def text(value: str, field: str) -> str:
    """`value` as text that can be sent: it contains no half of a surrogate pair."""
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise invalid(field, f"{value!r} is not a string of Unicode") from error
    return value


def one_of(kind: type[EnumT], value: object, field: str) -> EnumT:
    """The member of an enum that `value` is, or whose value it is."""
    if value not in [each.value for each in kind]:
        raise invalid(field, f"{value!r} is not one of {[each.value for each in kind]}")
    return kind(value)


def named(value: object, field: str) -> None:
    """Check that `value` is a name: a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise invalid(field, f"{value!r} is not a name: give a string that is not empty")


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        raise TypeError("a bool is not a number")
    return value
