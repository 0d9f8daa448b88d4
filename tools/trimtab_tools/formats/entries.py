"""Finds the first wrong entry of loads and placements, for errors that name its position."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_client.exceptions import invalid

_INT64 = np.iinfo(np.int64)


class Fault(NamedTuple):
    """A wrong entry of nested lists: its indices, and what is wrong with it."""

    where: tuple[int, ...]
    complaint: str


def first_fault(value: Any) -> Fault | None:
    """The first entry that is no number, or list of another length than the first one beside it.

    None if there is none in nested lists, or if the value is no list.
    """
    sizes: list[int] = []
    inner: Any = value
    while isinstance(inner, list):
        sizes.append(len(inner))
        inner = inner[0] if inner else None
    return _fault(value, (), sizes) if sizes else None


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def position(name: str, where: Sequence[int]) -> str:
    """Such as "load[0, 3]"."""
    return f"{name.removeprefix('the ')}[{', '.join(map(str, where))}]"


def require_amounts(load: npt.NDArray[Any], path: Path, before: Sequence[int] = ()) -> None:
    """Check that all entries of a load are finite and not negative.

    Args:
        load: [L, E], or a trace [T, L, E].
        path: of its file.
        before: indices that come before those in `load`: the window, if it is part of a trace.

    Raises:
        InvalidArgumentError: an entry is not; the error names the position of the first one.
    """
    right = (load >= 0) & (load < np.inf)
    if not right.all():
        index = np.unravel_index(int(right.argmin()), load.shape)
        value = load[index]
        complaint = "is negative" if -np.inf < value < 0 else "is not finite"
        where = [*before, *(int(each) for each in index)]
        raise invalid(str(path), f"{position('load', where)}: {value} {complaint}")


def require_integers(phy2log: npt.NDArray[Any], path: Path) -> None:
    """Check that all entries of a placement are integers.

    Raises:
        InvalidArgumentError: an entry is not; the error names the position of the first one.
    """
    if phy2log.dtype.kind in "iu":
        return
    # If all are whole numbers, such as 1.0, it is the type that is wrong.
    whole = phy2log == np.floor(phy2log)
    index = np.unravel_index(int(whole.argmin()), phy2log.shape)
    where = position("phy2log", [int(each) for each in index])
    raise invalid(str(path), f"{where}: {phy2log[index]} is not an integer")


def _fault(value: Any, where: tuple[int, ...], sizes: Sequence[int]) -> Fault | None:
    if not sizes:
        complaint = _no_number(value)
        return None if complaint is None else Fault(where, complaint)
    if not isinstance(value, list):
        return Fault(where, f"{_shown(value)} is not a list of {sizes[0]}")
    if len(value) != sizes[0]:
        first = f"the first one beside it has {sizes[0]}"
        return Fault(where, f"has {len(value)} entries, but {first}")
    faults = (_fault(each, (*where, index), sizes[1:]) for index, each in enumerate(value))
    return next((fault for fault in faults if fault is not None), None)


def _no_number(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{_shown(value)} is not a number"
    beyond = isinstance(value, int) and not _INT64.min <= value <= _INT64.max
    return f"{value} is beyond int64" if beyond else None


def _shown(value: Any) -> str:
    """A value as JSON has it."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
