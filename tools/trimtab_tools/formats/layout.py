"""What a layout is: how a load or a placement lies in the content of a file.

Legend for all shapes: T windows, L layers, E logical experts, R slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from trimtab_client.exceptions import InvalidArgumentError, invalid
from trimtab_client.placement import Placement
from trimtab_tools.formats.entries import first_fault, is_number, position

Array = npt.NDArray[Any]


class SavedPlacement(NamedTuple):
    """What is written of a placement; each format takes what it has a place for.

    Attributes:
        placement: the placement.
        document: the JSON document of Trimtab's own .json files, which has the placement too.
        arrays: what Trimtab's own .npz files have beside the placement.
        first_layer: number of its first layer in the model, for formats that name layers.
    """

    placement: Placement
    document: str
    arrays: Mapping[str, Any]
    first_layer: int = 0


class Layout(Protocol):
    """The names under which a load and a placement are found in a file, and their shapes."""

    def load(self, content: Any, path: Path, key: str | None) -> Array:
        """The load [L, E], or loads [T, L, E] in their order of time."""

    def placement(self, content: Any, path: Path) -> Array:
        """`phy2log` [L, R]."""

    def content(self, saved: SavedPlacement, path: Path) -> Any:
        """What a file of this layout says of a placement."""


def has(content: Any, *names: str) -> bool:
    """Whether content is a mapping that has one of these names."""
    return isinstance(content, Mapping) and any(name in content for name in names)


class NoSuchArrayError(InvalidArgumentError):
    """The file has no array or column of the name by which its format finds a load."""


def entry(content: Any, name: str, path: Path) -> Any:
    """What content has under a name.

    Raises:
        InvalidArgumentError: it has no such name; the error says which names it has.
    """
    if not isinstance(content, Mapping):
        raise invalid(str(path), f"has no names, such as {name!r}")
    if name not in content:
        raise invalid(str(path), _missing(content, name))
    return content[name]


def chosen(content: Mapping[str, Any], key: str, path: Path) -> Array:
    """The array under a name that the user may choose.

    Raises:
        NoSuchArrayError: there is none; the error says which names there are.
        InvalidArgumentError: see `array`.
    """
    if key not in content:
        raise NoSuchArrayError(f"{path}: {_missing(content, key)}")
    return array(content[key], path, key)


def array(value: Any, path: Path, name: str) -> Array:
    """A value as an array.

    Raises:
        InvalidArgumentError: its rows differ in length, or an entry is not a number. The error
            names the position of the first one, if there is one.
    """
    try:
        numbers = np.asarray(value)
    except ValueError as error:
        raise _refusal(value, path, name, f"is not an array: {error}") from error
    if numbers.dtype.kind not in "iuf":
        raise _refusal(value, path, name, "is not an array of numbers")
    return numbers


def _refusal(value: Any, path: Path, name: str, otherwise: str) -> InvalidArgumentError:
    fault = first_fault(_cells(value) if isinstance(value, np.ndarray) else value)
    if fault is None:
        return invalid(str(path), f"{name} {otherwise}")
    where, complaint = fault
    return invalid(str(path), f"{position(name, where)}: {complaint}")


def _cells(value: Array) -> Any:
    """The entries of an array. In a column of text, those that are numbers are not the fault."""
    if value.dtype.kind != "U" or value.ndim != 1:
        return value.tolist()
    return [0 if is_number(cell) else cell for cell in value.tolist()]


def require_distinct(names: Sequence[str], path: Path) -> None:
    """Raise InvalidArgumentError if two columns have one name."""
    for name, number in Counter(names).items():
        if number > 1:
            raise invalid(str(path), f"has {number} columns {name!r}")


def unnamed(value: Any, key: str | None, path: Path, name: str) -> Array:
    """The one array of a file without names.

    Raises:
        InvalidArgumentError: a name is asked for; or see `array`.
    """
    if key is not None:
        raise invalid(str(path), f"has one array, without names: it has no {key!r}")
    return array(value, path, name)


def _missing(content: Mapping[str, Any], name: str) -> str:
    return f"holds no {name!r}, but {', '.join(map(str, content)) or 'nothing'}"


def refuse_load(path: Path, format_name: str) -> NoReturn:
    """Raise InvalidArgumentError: files of this format hold no loads."""
    raise invalid(str(path), f"is of the format {format_name}, which holds placements, not loads")
